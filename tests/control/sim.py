"""The control unit on a virtual clock: steps end in random order, fail at random, and the process
dies at random; an oracle executes the same program one step after another.

Whether a step fails for good is decided by what it is, so that oracle and simulation agree; whether
it first fails for a while, and how long it takes, by chance.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from edvac.control import ControlUnit, Failure, Intent, Limits, Outcome, Record, Replay, Result
from edvac.control.access import exact_access
from edvac.control.step import Usage, WrittenFile
from edvac.core.label import PROGRAM, Label
from edvac.core.schema import ANY, STR, ListOf
from edvac.core.signature import (
    Access,
    Catalogue,
    Effect,
    Param,
    Role,
    Signature,
    address_param,
)
from edvac.core.value import (
    Cell,
    Failed,
    Operand,
    Scalar,
    Value,
    completed,
    first_failure,
    lift,
    open_cells,
    plain,
    settle,
)
from edvac.machine.entry import Entry
from edvac.machine.history import History
from edvac.program import Evaluator, Fuel, Program, StepCall, parse
from edvac.program.host import Branch, Condition

DATA = Param("data", ANY, default=None, variadic=True)
WORDS = Param("goal", STR, role=Role.INSTRUCTION)
OPTIONS = Param("options", ListOf(STR), role=Role.INSTRUCTION)
CATALOGUE = Catalogue.of(
    [
        Signature("files.list", (address_param(),), ListOf(STR), Effect.READ, "", ("path",)),
        Signature("files.read", (address_param(),), STR, Effect.READ, "", ("path",)),
        Signature(
            "files.write",
            (address_param(), Param("text", STR)),
            STR,
            Effect.WRITE,
            "",
            writes=("path",),
        ),
        Signature(
            "files.copy",
            (address_param("source"), address_param("target")),
            STR,
            Effect.WRITE,
            "",
            ("source",),
            ("target",),
        ),
        Signature("llm.write", (WORDS, DATA), STR, Effect.PURE, ""),
        Signature("llm.choose", (WORDS, OPTIONS, DATA), STR, Effect.PURE, ""),
        Signature("net.get", (Param("url", STR),), STR, Effect.PURE, "", limit=2),
        Signature("mail.send", (Param("to", STR), Param("text", STR)), STR, Effect.EXTERNAL, ""),
    ]
)
LIMITS = Limits(
    at_once={"llm": 4, "files": 3},
    default_at_once=5,
    attempts=3,
    backoff_s=0.5,
    escalate=True,
    ahead=frozenset({"llm", "files", "net", "mail"}),
)
START = {"f0": "zero", "f1": "one", "f2": "two"}
TODAY = dt.date(2026, 3, 4)
Worlds = dict[str, str]


def parsed(text: str) -> Program:
    return parse(text, CATALOGUE)


def fate(call: StepCall, operands: dict[str, Value], seed: int) -> float:
    """A number in [0, 1) that belongs to this call with these operands."""
    shown = f"{seed} {call.op} {sorted((k, repr(plain(v))) for k, v in operands.items())}"
    return int.from_bytes(hashlib.blake2b(shown.encode(), digest_size=4).digest(), "big") / 2**32


def never_fits(call: StepCall, operands: dict[str, Value], seed: int) -> bool:
    return call.op == "llm.choose" and 0.3 < fate(call, operands, seed + 1) < 0.4


def fitting(call: StepCall, operands: dict[str, Value]) -> bool:
    """Are the operands that have to be texts texts?"""
    texts = [param.name for param in call.signature.params if param.type == STR]
    return all(isinstance(plain(operands[name]), str) for name in texts)


def perform(call: StepCall, operands: dict[str, Value], files: Worlds, seed: int) -> Outcome:
    """What a step does, without any chance in it."""
    here = fate(call, operands, seed)
    if never_fits(call, operands, seed):
        return Failure("misfit", "no model can", repair=True)
    if here < 0.08:
        return Failure("broken", f"{call.op} does not work")
    given = {name: plain(value) for name, value in operands.items()}
    made: list[WrittenFile] = []
    value: Any = f"{call.op[0]}{int(here * 1000)}"
    match call.op:
        case "files.list":
            value = sorted(path for path in files if fnmatch.fnmatchcase(path, given["path"]))
        case "files.read":
            value = files.get(given["path"], "")
        case "files.write":
            value = given["path"]
            made.append(WrittenFile(value, given["text"].encode(), PROGRAM))
        case "files.copy":
            value = given["target"]
            made.append(WrittenFile(value, files.get(given["source"], "").encode(), PROGRAM))
        case "llm.choose":
            value = given["options"][int(here * 100) % 2]
    return Result(lift(value, PROGRAM), usage=Usage(3, 1, 2), files=tuple(made))


# -- the oracle ---------------------------------------------------------------------------------


@dataclass
class Ended:
    """What may be compared: names, files, mails in order, and how each step ended."""

    names: dict[str, Any]
    files: Worlds
    mails: list[str]
    steps: dict[str, str]
    state: str


class Sequential:
    """A host that executes each step where the program reaches it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.files = dict(START)
        self.mails: list[str] = []
        self.ended: dict[str, str] = {}
        self.causes: dict[str, Failed] = {}
        self.unhandled: set[str] = set()

    def step(self, call: StepCall) -> Cell:
        cell = Cell(call.slot)
        operands = {name: completed(operand) for name, operand in call.args.items()}
        cell.resolve(self._outcome(call, operands))
        return cell

    def _outcome(self, call: StepCall, operands: dict[str, Value]) -> Value:
        failed = next(filter(None, map(first_failure, operands.values())), None)
        if failed is None and call.signature.effect is Effect.EXTERNAL and self.unhandled:
            failed = Failed(call.slot, "earlier_failed", "", PROGRAM)
        if failed is not None:
            return self._bad(call, "blocked", failed)
        if not fitting(call, operands):
            return self._bad(call, "failed", Failed(call.slot, "operand_misfit", "", PROGRAM))
        outcome = perform(call, operands, self.files, self._seed)
        if isinstance(outcome, Failure):
            return self._bad(call, "failed", Failed(call.slot, outcome.code, outcome.what, PROGRAM))
        if call.op == "mail.send":
            self.mails.append(call.slot)
        for written in outcome.files:
            self.files[written.path] = (written.content or b"").decode()
        self.ended[call.slot] = "done"
        return outcome.value

    def _bad(self, call: StepCall, state: str, failed: Failed) -> Failed:
        self.ended[call.slot] = state
        self.causes[call.slot] = failed
        self.unhandled.add(call.slot)
        return failed

    def open_region(self, order: tuple[int, ...], access: Access) -> int:
        return 0

    def close_region(self, token: int) -> None:
        return

    def passed(self, order: tuple[int, ...], access: Access, decider: Label) -> None:
        return

    def undecided(self, branch: Branch) -> None:
        raise AssertionError("a step that is answered at once leaves nothing undecided")

    def decided(self, condition: Condition, taken: bool | None) -> None:
        return

    def handled(self, failed: Failed) -> None:
        self.unhandled.discard(failed.slot)
        at = failed.origin
        while at is not None and at in self.ended:
            self.unhandled.discard(at)
            at = self.causes[at].origin if self.ended[at] == "blocked" else None


def sequentially(program: Program, seed: int) -> Ended:
    host = Sequential(seed)
    evaluator = Evaluator(program, host, {}, TODAY, Fuel())
    evaluator.start()
    assert evaluator.finished
    state = "partial" if host.unhandled or evaluator.unreached else "done"
    return Ended(shown(evaluator), host.files, host.mails, host.ended, state)


def shown(evaluator: Evaluator) -> dict[str, Any]:
    return {name: _shown(operand) for name, operand in evaluator.bindings().items()}


def _shown(operand: Operand) -> Any:
    value = completed(settle(operand))
    failed = first_failure(value)
    return f"failed {failed.code}" if failed is not None else plain(value)


# -- the simulation -----------------------------------------------------------------------------


class Crash(Exception):
    """The process died here."""


@dataclass
class World:
    """What outlives a process: the journal, and what was done outside."""

    records: list[Record] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    executed: Counter[str] = field(default_factory=Counter)
    escalated: set[str] = field(default_factory=set)
    lives: int = 0
    ahead: int = 0  # executions ahead of a condition; those taken over
    taken_over: int = 0

    @property
    def files(self) -> Worlds:
        found = dict(START)
        for record in self.records:
            for written in record.files:
                found[written.path] = (written.content or b"").decode()
        return found

    def replay(self) -> Replay:
        entries = [
            Entry(seq, record.kind, record.slot, dict(record.body), record.value)
            for seq, record in enumerate(self.records)
        ]
        return History(entries=entries).replay()


@dataclass
class Running:
    intent: Intent
    files: Worlds


Policy = Callable[[StepCall, dict[str, Value]], Any]


class Simulation:
    """One life of the process that drives a run."""

    def __init__(
        self, program: Program, world: World, seed: int, chance: random.Random, **options: Any
    ) -> None:
        self.world = world
        self._seed = seed
        self._chance = chance
        self._limits: Limits = options.get("limits", LIMITS)
        self._crash_at: int = options.get("crash_at", 10**9)
        self._cancel_at: int = options.get("cancel_at", 10**9)
        self._now = 0.0
        self._ends: list[tuple[float, int, str]] = []
        self._count = 0
        self._running: dict[str, Running] = {}
        self._started: list[Intent] = []
        self._begun = 0
        self._stopped: list[tuple[str, Outcome]] = []  # aborted, and not told of yet
        self._failed_at: dict[str, tuple[float, float]] = {}
        self._away: set[str] = set()  # steps that met a processor that was away
        self._durable = world.replay()
        self._evaluators: list[Evaluator] = []
        world.lives += 1
        met = 1 + seed % 4  # statements at a time, in long programs hundreds
        limits = replace(LIMITS, met=met)
        self.unit = ControlUnit(lambda host: self._evaluator(program, host), self._durable, limits)
        if self._limits is not LIMITS:
            self.unit._limits = replace(self._limits, met=met)

    def _evaluator(self, program: Program, host: ControlUnit) -> Evaluator:
        self._evaluators.append(Evaluator(program, host, {}, TODAY, Fuel()))
        return self._evaluators[0]

    def run(self) -> str:
        """To the end of the run, of the process (`Crash`), or to a cancel."""
        try:
            return self._live()
        finally:
            self.world.taken_over += self.unit.standing()["ahead"]

    def _live(self) -> str:
        work = self.unit.start(self._now)
        while True:
            self._act(work)
            if work.closed:
                assert not self._of_the_run(), "something still runs"
                return str(work.closed)
            if "budget" in self.unit.awaited:
                return "spent"
            if "processor" in self.unit.awaited:
                return "unserved"
            work = self._next(work)

    def _next(self, work: Any) -> Any:
        self._count += 1
        if self._count == self._cancel_at:
            return self._cancel()
        if self._stopped:
            stopped, self._stopped = self._stopped, []
            return self.unit.finished(stopped, self._now)
        if work.questions:
            question = work.questions[0]
            self.world.asked[question.slot] += 1
            for other in work.questions[1:]:
                self.world.asked[other.slot] += 1
                self._act(self.unit.answer(other.slot, True, self._now))
            return self.unit.answer(question.slot, True, self._now)
        if self._ends and (work.wake_at is None or self._ends[0][0] <= work.wake_at):
            return self._finish()
        assert work.wake_at is not None, "nothing runs, nothing is timed, and it is not over"
        self._now = max(self._now, work.wake_at)
        return self.unit.tick(self._now)

    def _cancel(self) -> Any:
        work = self.unit.cancel(self._now)
        assert set(work.aborts) >= set(self._of_the_run())
        outcomes = [(name, Failure("aborted", "")) for name in self._running]
        self._running.clear()
        self._ends.clear()
        self._act(work)
        return self.unit.finished(outcomes, self._now) if outcomes else work

    def _of_the_run(self) -> list[str]:
        """What runs and is not ahead of it."""
        taken = {step.key for step in self.unit._issued.values()}
        return [name for name, one in self._running.items() if not one.intent.key or name in taken]

    def _finish(self) -> Any:
        """One or several executions end together."""
        done = [heapq.heappop(self._ends)]
        while self._ends and self._chance.random() < 0.3:
            done.append(heapq.heappop(self._ends))
        self._now = max(self._now, done[-1][0])
        outcomes = []
        for _, _, name in done:
            counts = name in self._of_the_run()
            running = self._running.pop(name, None)
            if running is not None:
                outcomes.append((name, self._outcome(running)))
                if not counts:  # nobody waits for what has failed ahead of the run
                    self._failed_at.pop(running.intent.slot, None)
        return self.unit.finished(outcomes, self._now)

    def _outcome(self, running: Running) -> Outcome:
        intent = running.intent
        here = fate(intent.call, intent.operands, self._seed + 1)
        if _of(intent.call) == "llm" and self.world.lives < 5 and self._chance.random() < 0.08:
            self._away.add(intent.slot)
            return Failure("away", "it answers nobody", retry=True, away=True)
        if here < 0.2 and intent.attempt < 3 and self._chance.random() < 0.7:
            again = 0.5 * 2 ** (intent.attempt - 1)
            self._failed_at[intent.slot] = (self._now, again)
            return Failure("away", "try again", retry=True)
        if 0.2 < here < 0.3 and intent.attempt == 1:
            self._failed_at[intent.slot] = (self._now, 0.0)
            return Failure("misfit", "does not fit", repair=True)
        if 0.3 < here < 0.6 and intent.call.op == "llm.choose" and not intent.escalated:
            self._failed_at[intent.slot] = (self._now, 0.0)
            return Failure("misfit", "never fits", repair=True)
        if 0.5 < here < 0.6 and intent.attempt < 3 and self._chance.random() < 0.5:
            self._failed_at[intent.slot] = (self._now, 7.0)
            return Failure("busy", "come back in 7 s", retry=True, wait_s=7.0)
        outcome = perform(intent.call, intent.operands, running.files, self._seed)
        if intent.call.op == "mail.send" and isinstance(outcome, Result):
            self.world.mails.append(intent.slot)
        return outcome

    def _act(self, work: Any) -> None:
        if work.records and self._dies():
            if self._chance.random() < 0.5:
                self.world.records += work.records
            raise Crash
        self.world.records += work.records
        if not self.unit._stopping:
            self._abort(work.aborts)
        for intent in work.intents:
            self._check(intent)
            if intent.key:
                self.world.ahead += 1
            else:
                self._started.append(intent)
                self.world.executed[intent.slot] += 1
            assert intent.name not in self._running
            self._running[intent.name] = Running(intent, self.world.files)
            end = self._now + self._chance.choice([0.0, 0.1, 1.0, 5.0]) * self._chance.random()
            self._begun += 1
            heapq.heappush(self._ends, (end, self._begun, intent.name))

    def _abort(self, names: list[str]) -> None:
        """Some stop at once, others have ended before they hear of it."""
        for name in names:
            assert self._running[name].intent.key, "a step of the run was aborted"
            if self._chance.random() < 0.5:
                del self._running[name]
                self._stopped.append((name, Failure("aborted", "")))

    def _dies(self) -> bool:
        self._crash_at -= 1
        return self._crash_at <= 0

    # -- what must hold whenever a step is issued ---------------------------------------------

    def _check_ahead(self, intent: Intent) -> None:
        call = intent.call
        assert call.signature.effect in (Effect.PURE, Effect.READ)
        assert not any(conflict(one.intent, intent) for one in self._running.values())
        own = self.unit.steps.get(call.slot)
        assert own is None or own.digest != intent.digest, "the run does it itself"
        device = [r for r in self._running.values() if r.intent.call.signature.device == _of(call)]
        assert len(device) < self._limits.at_once.get(_of(call), self._limits.default_at_once)

    def _check(self, intent: Intent) -> None:
        call = intent.call
        if intent.key:
            self._check_ahead(intent)
            return
        assert not self.unit._stopping, "a step was issued after a cancel"
        assert not any(open_cells(operand) for operand in call.args.values())
        assert fitting(call, intent.operands), f"{call.address} is of a wrong type"
        assert call.slot not in self._durable.outcomes, f"{call.address} ran again"
        most = self._limits.attempts + self._limits.repairs + 1
        assert intent.attempt <= most or call.slot in self._away
        turn = [r for r in self.world.records if r.slot == call.slot and r.body.get("escalated")]
        assert intent.escalated is bool(turn), f"{call.address} was asked of the wrong model"
        assert len(turn) <= 1, f"{call.address} was given to the escalate model twice"
        self.world.escalated.update({call.slot} if turn else ())
        if call.slot in self._failed_at and intent.attempt > 1:
            when, wait = self._failed_at[call.slot]
            assert self._now >= when + wait, f"{call.address} was tried again too soon"
        self._check_limits(call)
        self._check_order(intent)

    def _check_limits(self, call: StepCall) -> None:
        own = [self._running[name].intent.call for name in self._of_the_run()]
        device = [one for one in own if one.signature.device == _of(call)]
        limit = self._limits.at_once.get(_of(call), self._limits.default_at_once)
        assert len(device) < limit, f"more than {limit} of {_of(call)} at once"
        same = [one for one in device if one.op == call.op]
        assert not call.signature.limit or len(same) < call.signature.limit

    def _check_order(self, intent: Intent) -> None:
        for name in self._of_the_run():
            running = self._running[name].intent
            assert not conflict(running, intent), (
                f"{intent.call.address} overlaps {running.call.address}"
            )
        for before in self._started:
            later = before.call.order > intent.call.order and before.slot != intent.slot
            assert not (later and conflict(before, intent)), (
                f"{before.call.address} went before {intent.call.address}"
            )
        if intent.call.signature.effect is Effect.EXTERNAL:
            earlier = [s for s in self.unit.steps.values() if s.order < intent.call.order]
            assert all(step.state.ended for step in earlier), "an external effect went ahead"
            unhandled = self.unit._unhandled.values()
            assert not [s for s in unhandled if s.order < intent.call.order]
            assert self.unit._open.earliest() == intent.call.order, "a branch is undecided"

    def ended(self, state: str) -> Ended:
        steps = {slot: step.state.value for slot, step in self.unit.steps.items()}
        mails = list(dict.fromkeys(self.world.mails))
        return Ended(shown(self._evaluators[0]), self.world.files, mails, steps, state)


def _of(call: StepCall) -> str:
    return call.signature.device


def conflict(left: Intent, right: Intent) -> bool:
    """The plain rule: two steps on one path of which one writes, or two external effects."""
    a, b = (exact_access(i.call.signature, i.operands) for i in (left, right))
    if a.external and b.external:
        return True
    return any(
        fnmatch.fnmatchcase(path, glob) or fnmatch.fnmatchcase(glob, path)
        for ours, theirs in ((a.writes, b.reads), (a.reads, b.writes), (a.writes, b.writes))
        for path in ours
        for glob in theirs
    )


def scalar(text: str) -> Value:
    return Scalar(text, PROGRAM)
