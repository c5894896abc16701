"""How the steps of one drive travel; with no fleet nothing does."""

from __future__ import annotations

import os
from collections.abc import Collection

from edvac.core import event
from edvac.core.seams import Clock
from edvac.device.carried import Carry
from edvac.machine.fleet.errands import Errands, Fleet
from edvac.machine.fleet.travel import (
    AT_ONCE,
    DEVICES,
    TravellingProcessor,
    TravellingSandbox,
)
from edvac.machine.ledger import Ledger
from edvac.processor import Processor
from edvac.store import Lease


class Travelling:
    """Of one drive of one run."""

    def __init__(self, fleet: Fleet | None, ledger: Ledger, clock: Clock, emit: event.Emit) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._clock = clock
        self._emit = emit
        self._at_once = 0
        self._errands: Errands | None = None

    @property
    def limited(self) -> frozenset[str]:
        """Devices whose steps wait in a queue, so that their time begins later."""
        return DEVICES if self._fleet is not None else frozenset()

    def at_once(self, given: int) -> dict[str, int]:
        """Steps that may be out, by device; `given` is what a user has asked of the model."""
        self._at_once = given
        if self._fleet is None:
            return {}
        return {"llm": given or AT_ONCE, "python": AT_ONCE, "shell": AT_ONCE}

    async def begin(self, lease: Lease, journalled: Collection[str]) -> Carry:
        """With what an earlier owner left in the queue; how sandboxed calls are carried out."""
        assert self._fleet is not None
        made = Errands(self._fleet, self._ledger, lease, self._clock, self._emit)
        await made.begin(journalled)
        self._errands = made
        return TravellingSandbox(made, lease.run, os.cpu_count() or 1).carry

    def processor(self, inner: Processor) -> Processor:
        assert self._errands is not None
        return TravellingProcessor(inner, self._errands, self._at_once or inner.concurrency)

    async def end(self) -> None:
        """The run has stopped in good order."""
        if self._errands is not None:
            await self._errands.end()

    async def close(self) -> None:
        if self._errands is not None:
            await self._errands.close()
