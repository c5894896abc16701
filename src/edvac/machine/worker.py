"""`llm.do`: a worker runs as a child of the run, with a journal of its own, and returns one value.

The child is a run named after its parent and the step. It is driven by the same control unit; its
lines are written by `control.worker` from what the model asked for. Killed and resumed, it goes on
where it was, since the lines follow from turns that are in its journal. Only the value and its
label reach the parent; the rest is there for people (`edvac show RUN.STEP`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edvac.control import ControlUnit, Failure, Intent, Limits, Outcome, Record, Result
from edvac.control import worker as writing
from edvac.control.access import exact_access, unforeseen
from edvac.core.errors import ModelOutputError, OperandError, PolicyError, UsageError
from edvac.core.label import Label
from edvac.core.seams import Clock
from edvac.core.signature import Access, Catalogue
from edvac.core.value import Failed, Instance, Sequence, Value, plain, total_label
from edvac.guard import Deny, Verdict, decide
from edvac.machine.driver import LEASE_S, Driver, Front
from edvac.machine.entry import Entry
from edvac.machine.history import read_history
from edvac.machine.ledger import encode
from edvac.machine.replay import replayed
from edvac.processor import Processor
from edvac.program import Evaluator, Fuel, Program, StepCall, parse
from edvac.store import Lease, RunInfo, Store

if TYPE_CHECKING:
    from edvac.machine.executor import Executor
    from edvac.machine.ledger import Ledger

DoWork = Callable[[Intent], Awaitable[Outcome]]
NAMED = 12  # characters of a step's slot in the name of its worker


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker has of the run that it works for.

    Attributes:
        executor: for a child of this name and this brief.
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
    executor: Callable[[str, writing.Brief], Executor]


class Workers:
    """Does the `llm.do` steps of one run."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    async def do(self, intent: Intent) -> Outcome:
        """One worker, to its answer.

        Raises:
            OperandError: it is to have functions that there are not, or that it may not have.
            LeaseError, StoreError: its journal could not be written.
        """
        around = self._around
        names, budget = (plain(intent.operands[name]) for name in ("functions", "budget"))
        if budget < 0:
            raise OperandError("budget_negative", f"a worker cannot use {budget} tokens")
        brief = writing.brief_of(
            names, around.catalogue, intent.call.result, around.processor.context_tokens
        )
        known = [*around.catalogue.signatures.values(), *writing.SIGNATURES]
        child = _Child(around, intent, brief, Catalogue.of(known))
        return await child.run()


class _Child:
    def __init__(
        self, around: Surroundings, intent: Intent, brief: writing.Brief, catalogue: Catalogue
    ) -> None:
        self._around = around
        self._intent = intent
        self._brief = brief
        self._catalogue = catalogue
        self.name = f"{around.run}.{intent.slot[:NAMED]}"
        self._growth = writing.Growth(brief)
        self._program = parse(brief.text, catalogue)
        self._failure: Failure | None = None
        self._answer: Value | None = None
        self._over = False

    async def run(self) -> Outcome:
        ledger, wall = self._around.ledger, self._around.clock.wall()
        lease = await ledger.call(lambda store: self._opened(store, wall))
        try:
            history = await ledger.call(lambda store: read_history(store, self.name))
            unit = self._unit(history.entries)
            executor = self._around.executor(self.name, self._brief)
            front = Front(self._around.clock, lambda _: None)
            driver = Driver(
                unit, ledger, lease, executor.execute, front, grows=lambda: self._grow(unit)
            )
            state = await driver.run()
            outcome = self._outcome(unit, state)
            if state in ("done", "partial"):
                closed = Record("closed", "", {"state": state} | unit.standing())
                await ledger.commit(lease, [closed])
                ended: Any = "done" if isinstance(outcome, Result) else "failed"
                counts, now = unit.standing(), self._around.clock.wall()
                await ledger.call(
                    lambda store: store.set_state(lease, ended, closed=now, counts=counts)
                )
            return outcome
        finally:
            await asyncio.shield(ledger.call(lambda store: store.release(lease)))

    def _opened(self, store: Store, wall: float) -> Lease:
        around, intent = self._around, self._intent
        try:
            store.run(self.name)
        except UsageError:
            title = f"worker of {intent.call.address}"
            info = RunInfo(self.name, wall, program=self._program.digest, title=title)
            store.create_run(info)
        lease = store.acquire(self.name, around.owner(), LEASE_S, wall)
        if store.run(self.name).last_seq == 0:
            opened = {
                "task": str(plain(intent.operands["goal"])),
                "roots": {},
                "output": "",
                "settings": {},
                "date": around.date.isoformat(),
                "seed": around.seed,
                "parent": around.run,
                "slot": intent.slot,
                "growing": True,
                "name": "",
            }
            records = [
                Record("opened", "", opened),
                Record("program", "", {"text": self._program.text}),
            ]
            store.append(lease, [encode(store, record) for record in records])
        else:
            store.set_state(lease, "open")
        return lease

    def _unit(self, entries: list[Entry]) -> ControlUnit:
        operands = self._intent.operands
        params = {"goal": operands["goal"], "data": operands["data"]}
        budget = plain(operands["budget"])
        limits = Limits(tokens=budget, at_once=dict(self._around.at_once))
        return ControlUnit(
            lambda host: Evaluator(self._program, host, params, self._around.date, Fuel()),
            replayed(entries),
            limits,
            self._policy,
            growing=True,
            alone=True,
        )

    def _policy(self, call: StepCall, values: dict[str, Value]) -> Verdict:
        """The guard's, and no path but those that the step is to read."""
        allowed = Access(tuple(plain(self._intent.operands["reads"])))
        stray = unforeseen(allowed, exact_access(call.signature, values))
        if stray is None:
            return decide(call, values)
        what = f"{stray!r} is not among the paths that this worker may read"
        return Deny(PolicyError("worker_outside", what, f"It may read {allowed.reads}."))

    def _grow(self, unit: ControlUnit) -> tuple[Program, bool, Label] | None:
        """The lines that follow from the last turn, once that is known."""
        if self._over:
            return None
        number = self._growth.turns
        turn = unit.bound(f"turn{number}")
        if turn is None:
            return None
        label = total_label(turn)
        if isinstance(turn, Failed):
            self._failure = Failure(turn.code, turn.what, seen=turn.label)
            return self._end(label)
        assert isinstance(turn, Instance)
        seen = unit.bound(f"seen{number - 1}")
        size = len(str(plain(seen))) if isinstance(seen, Sequence) else 0
        try:
            more = self._growth.after(turn, size)
        except ModelOutputError as problem:
            self._failure = replace(Failure.of(problem), repair=False, seen=label)
            return self._end(label)
        if more is None:
            answer = turn.fields["answer"]
            self._answer = answer.fields["value"]
            return self._end(label)
        self._program = parse(self._program.text + more, self._catalogue)
        return self._program, False, label

    def _end(self, label: Label) -> tuple[Program, bool, Label]:
        self._over = True
        return self._program, True, label

    def _outcome(self, unit: ControlUnit, state: str) -> Outcome:
        usage = unit.usage
        turns = self._growth.turns
        if self._answer is not None and state in ("done", "partial"):
            note = f"a worker took {turns} turns: edvac show {self.name}"
            return Result(self._answer, usage=usage, notes=(note,))
        if self._failure is not None:
            return replace(self._failure, usage=usage)
        if unit.spent:
            what = f"its worker has no answer, and {unit.spent}"
            fix = "Give it a larger budget, or a smaller goal."
            return Failure("worker_budget", what, "", fix, usage=usage)
        away = unit.away
        if away is not None:
            return replace(away, usage=usage)
        return Failure("worker_stopped", f"its worker was stopped ({state})", usage=usage)
