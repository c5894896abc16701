"""A step that is a program of its own: it runs as a child of the run, with a journal of its own.

The child is a run named after its parent and the step, driven by the same control unit. Killed and
resumed, it goes on where it was. Only one value and its label reach the parent; the rest is there
for people (`edvac show RUN.STEP`). Knows nothing of what such a program does.
"""

from __future__ import annotations

import abc
import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edvac.control import ControlUnit, Intent, Limits, Outcome, Record, Result
from edvac.control.worker import Brief
from edvac.core.errors import UsageError
from edvac.core.label import Label
from edvac.core.seams import Clock
from edvac.core.signature import Catalogue
from edvac.core.value import Value, plain
from edvac.guard import Verdict
from edvac.machine.driver import LEASE_S, Driver, Execute, Front
from edvac.machine.entry import Entry
from edvac.machine.guarding import Guard
from edvac.machine.history import read_history
from edvac.machine.ledger import encode
from edvac.machine.replay import replayed
from edvac.processor import Processor
from edvac.program import Evaluator, Fuel, Program, StepCall
from edvac.store import Lease, RunInfo, Store

if TYPE_CHECKING:
    from edvac.machine.executor import Executor
    from edvac.machine.ledger import Ledger

DoWork = Callable[[Intent], Awaitable[Outcome]]
NAMED = 12  # characters of a step's slot in the name of its child


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a child has of the run that it works for.

    Attributes:
        executor: for a child of this name, a worker's brief, and who does its own children.
        policy: of the run; what it may not do its workers may not do either.
        goal: of the worker that the program itself has; empty outside of one.
        ahead: the effects that its answer will be part of.
    """

    run: str
    date: dt.date
    seed: int
    owner: Callable[[], str]
    ledger: Ledger
    clock: Clock
    catalogue: Catalogue
    at_once: Mapping[str, int]
    processor: Processor
    executor: Callable[[str, Brief | None, DoWork | None], Executor]
    policy: Guard
    depth: int = 0  # how many workers stand around
    goal: str = ""
    ahead: tuple[str, ...] = ()


class Child(abc.ABC):
    """One child. Who derives from it says what grows, what may be done, and what comes of it."""

    kind = "child"
    growing = False
    brief: Brief | None = None

    def __init__(
        self,
        around: Surroundings,
        intent: Intent,
        program: Program,
        params: dict[str, Value],
        *,
        suffix: str = "",
    ) -> None:
        self.around = around
        self.intent = intent
        self.program = program
        self.params = params
        self.name = f"{around.run}.{intent.slot[:NAMED]}{suffix}"

    def policy(self, call: StepCall, values: dict[str, Value]) -> Verdict:
        return self.around.policy(call, values)

    def grow(self, unit: ControlUnit) -> tuple[Program, bool, Label] | None:
        """What the program has become, whether that is all, and what decided it."""
        return None

    def below(self) -> DoWork | None:
        """Who does the steps of this child that are programs themselves."""
        return None

    def limits(self) -> Limits:
        return Limits(at_once=dict(self.around.at_once))

    def through(self, execute: Execute) -> Execute:
        """What carries out its steps."""
        return execute

    async def checked(self, outcome: Outcome) -> Outcome:
        """The outcome as the step may have it."""
        return outcome

    def told(self) -> dict[str, Any]:
        """What its last record says beside how it ended."""
        return {}

    @abc.abstractmethod
    def outcome(self, unit: ControlUnit, state: str) -> Outcome:
        """What comes of it for the step, once it has ended or was stopped."""

    async def run(self) -> Outcome:
        """To its end.

        Raises:
            LeaseError, StoreError: its journal could not be written.
        """
        ledger, wall = self.around.ledger, self.around.clock.wall()
        lease = await ledger.call(lambda store: self._opened(store, wall))
        try:
            history = await ledger.call(lambda store: read_history(store, self.name))
            unit = self._unit(history.entries)
            executor = self.around.executor(self.name, self.brief, self.below())
            front = Front(self.around.clock, lambda _: None)
            driver = Driver(
                unit,
                ledger,
                lease,
                self.through(executor.execute),
                front,
                grows=lambda: self.grow(unit),
            )
            state = await driver.run()
            outcome = self.outcome(unit, state)
            if state in ("done", "partial"):
                outcome = await self.checked(outcome)
                closed = Record("closed", "", {"state": state} | unit.standing() | self.told())
                await ledger.commit(lease, [closed])
                ended: Any = "done" if isinstance(outcome, Result) else "failed"
                counts, now = unit.standing(), self.around.clock.wall()
                await ledger.call(
                    lambda store: store.set_state(lease, ended, closed=now, counts=counts)
                )
            return outcome
        finally:
            await asyncio.shield(ledger.call(lambda store: store.release(lease)))

    def _opened(self, store: Store, wall: float) -> Lease:
        around, intent = self.around, self.intent
        try:
            store.run(self.name)
        except UsageError:
            title = f"{self.kind} of {intent.call.address}"
            info = RunInfo(self.name, wall, program=self.program.digest, title=title)
            store.create_run(info)
        lease = store.acquire(self.name, around.owner(), LEASE_S, wall)
        if store.run(self.name).last_seq == 0:
            opened = {
                "task": str(plain(self.params["goal"])),
                "roots": {},
                "output": "",
                "settings": {},
                "date": around.date.isoformat(),
                "seed": around.seed,
                "parent": around.run,
                "slot": intent.slot,
                "growing": self.growing,
                "name": "",
            }
            records = [
                Record("opened", "", opened),
                Record("program", "", {"text": self.program.text}),
            ]
            store.append(lease, [encode(store, record) for record in records])
        else:
            store.set_state(lease, "open")
        return lease

    def _unit(self, entries: list[Entry]) -> ControlUnit:
        program, params = self.program, self.params
        return ControlUnit(
            lambda host: Evaluator(program, host, params, self.around.date, Fuel()),
            replayed(entries),
            self.limits(),
            self.policy,
            growing=self.growing,
            alone=True,
        )
