"""Steps that travel, where the executor looks for a processor and a sandbox: both ask workers, and
do it here where there is none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from pathlib import Path

from edvac.core import event
from edvac.core.errors import InternalError
from edvac.core.seams import Clock
from edvac.device.carried import Carry, Laid, Made, carry_out
from edvac.machine.fleet import wire
from edvac.machine.fleet.errands import Errands, Fleet
from edvac.machine.ledger import Ledger
from edvac.processor import Answer, Processor, Request
from edvac.processor.passing import Passing
from edvac.processor.port import OnText
from edvac.store import Lease

AT_ONCE = 256  # steps of a kind that one run has out; workers take what they can
MOST = 48 * 2**20  # bytes of a call's directory that travel; a larger one stays
MODEL_S = 1800.0  # that one model call may take; waiting for a worker does not count
DEVICES = frozenset({"llm", "python", "shell"})  # whose steps have a time limit of their own


class Cannot(Exception):
    """This cannot travel."""


class TravellingProcessor(Passing):
    """A processor whose calls workers make that have the same model. Raises what it does."""

    def __init__(self, inner: Processor, errands: Errands, here: int) -> None:
        super().__init__(inner)
        self._errands = errands
        self._here = asyncio.Semaphore(max(1, here))

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        if not request.slot:  # whether it answers at all is asked here
            return await self._inner.complete(request, on_text)
        model = self._inner.identity
        try:
            payload = wire.encode(wire.ModelStep(request, model))
        except UnicodeEncodeError:  # half of a surrogate pair
            return await self._done_here(request, on_text)
        needs = wire.needs_model(model)
        outcome = await self._errands.send(request.run, request.slot, payload, needs)
        match outcome:
            case None:
                return await self._done_here(request, on_text)
            case wire.Answered():
                for endpoint in outcome.endpoints:
                    self.contacts.note(endpoint)
                if on_text is not None:
                    on_text(outcome.answer.text, outcome.answer.completion_tokens)
                return outcome.answer
            case wire.Error():
                raise wire.raised(outcome)
        raise _another(request.slot)

    async def _done_here(self, request: Request, on_text: OnText | None) -> Answer:
        async with self._here, asyncio.timeout(MODEL_S):
            return await self._inner.complete(request, on_text)


class TravellingSandbox:
    """Carries calls out where workers are; `carry` is for `Processes`."""

    def __init__(self, errands: Errands, run: str, here: int) -> None:
        self._errands = errands
        self._run = run
        self._here = asyncio.Semaphore(max(1, here))

    async def carry(self, laid: Laid) -> Made:
        try:
            payload = await asyncio.to_thread(_packed, laid)
        except Cannot:
            return await self._done_here(laid)
        needs = wire.needs_sandbox(laid.op)
        outcome = await self._errands.send(self._run, laid.slot, payload, needs)
        match outcome:
            case None:
                return await self._done_here(laid)
            case wire.Carried():
                return outcome.made()
            case wire.Error():
                raise wire.raised(outcome)
        raise _another(laid.slot)

    async def _done_here(self, laid: Laid) -> Made:
        async with self._here:
            return await carry_out(laid)


class Travelling:
    """How the steps of one drive of a run travel; with no fleet nothing does."""

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


def _another(slot: str) -> InternalError:
    return InternalError("outcome_foreign", f"step {slot!r} was answered as one of another kind")


def _packed(laid: Laid) -> bytes:
    """
    Raises:
        Cannot: it is too large, or a name or a value has no bytes of its own.
    """
    left = [MOST]
    try:
        step = wire.sandbox_step(laid, _held(laid.work, left), _held(laid.control, left))
        return wire.encode(step)
    except UnicodeEncodeError as problem:
        raise Cannot from problem


def _held(root: Path, left: list[int]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            left[0] -= path.stat().st_size
            if left[0] < 0:
                raise Cannot
            found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found
