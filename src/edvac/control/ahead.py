"""Run ahead of undecided conditions: steps that only read are executed on the side that a condition
will probably take, and their results held back.

A *look* evaluates that side in names of its own (`program.beyond`). What it would do next becomes
an execution under the key of slot and operands. When the condition is known, the run itself
reaches the same steps; one whose operands are those of an execution takes over its result, or
waits for it, and is otherwise as if it had been executed then: labels, journal and events come
from the run. What nobody takes over is thrown away.

Nothing leaves the machine this way: only devices that the run names are used, for effects that
read or compute, where the guard allows the step without asking and no unfinished line could still
write what it reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from edvac.control.access import unfit, whole_access
from edvac.control.paging import pages
from edvac.control.predictor import Predictor
from edvac.control.step import (
    Intent,
    Outcome,
    Result,
    Step,
    Usage,
    answer_kind,
    operand_digest,
)
from edvac.core.label import Label, combine
from edvac.core.result import result_of
from edvac.core.signature import Access, Effect
from edvac.core.value import (
    Cell,
    Failed,
    Value,
    completed,
    first_failure,
    open_cells,
    total_label,
)
from edvac.guard import Allow, Policy
from edvac.program import StepCall
from edvac.program.host import Beyond, Branch, Condition, Order

NOTE = "executed ahead, while it was not yet known that it would be needed"
LOOKS = 8  # at the same time
OPEN = 32  # undecided conditions, the first, that are considered
DEPTH = 4  # conditions that one look may guess
STEPS = 64  # of one look
_BAR = 0.5  # how sure a guess has to be while half of the places are free
_BUSY_BAR = 0.8  # and where none is


def key_of(slot: str, digest: str) -> str:
    """Names an execution ahead: of this step, with these operands."""
    return f"{slot}~{digest}"


@dataclass(slots=True, eq=False)
class _Execution:
    """One step that is being executed ahead, or was."""

    call: StepCall
    guards: dict[str, bool]  # by key of the conditions guessed for it
    result: Result | None = None
    failed: bool = False
    step: Step | None = None  # that took it over while it was running


class _Look:
    """The host of an evaluation beyond a condition."""

    def __init__(self, ahead: RunAhead, guards: dict[str, bool]) -> None:
        self._ahead = ahead
        self.guards = guards
        self.waiting: list[tuple[StepCall, dict[str, bool]]] = []
        self.taken = 0  # steps so far
        self.begun = False  # has anything been executed for it?
        self.beyond: Beyond | None = None

    def step(self, call: StepCall) -> Cell:
        self.taken += 1
        if self.taken <= STEPS:
            self.waiting.append((call, dict(self.guards)))
        return Cell(call.slot)

    def open_region(self, order: Order, access: Access) -> int:
        del order, access
        return 0

    def close_region(self, token: int) -> None:
        del token

    def passed(self, order: Order, access: Access, decider: Label) -> None:
        del order, access, decider

    def handled(self, failed: Failed) -> None:
        del failed

    def undecided(self, branch: Branch) -> bool | None:
        if len(self.guards) >= DEPTH:
            return None
        guess = self._ahead.guess(branch)
        if guess is not None:
            self.guards[branch.condition.key] = guess
        return guess

    def decided(self, condition: Condition, taken: bool | None) -> None:
        if self.guards.get(condition.key, taken) is not taken:
            self.waiting.clear()
            self.taken = STEPS


@dataclass(slots=True)
class Room:
    """Places of a device that nothing of the run itself takes or waits for."""

    free: int
    of: int

    @property
    def bar(self) -> float:
        busy = 1 - self.free / self.of if self.of else 1.0
        return _BAR + (_BUSY_BAR - _BAR) * max(0.0, 2 * busy - 1)


@dataclass(slots=True)
class Surroundings:
    """What running ahead sees of the control unit."""

    steps: Mapping[str, Step]
    room: Callable[[str], Room]
    hazard: Callable[[Access], bool]  # could an unfinished line still write that?


@dataclass(slots=True)
class RunAhead:
    """All looks of one run.

    Attributes:
        devices: that may be used ahead; none switches it off.
        used, wasted: steps taken over and thrown away; `waste` tokens of the latter.
    """

    predictor: Predictor
    policy: Policy
    devices: frozenset[str]
    around: Surroundings
    used: int = 0
    wasted: int = 0
    waste: Usage = field(default_factory=Usage)
    _aborts: list[str] = field(default_factory=list)
    _open: dict[str, Branch] = field(default_factory=dict)
    _asked: dict[str, tuple[int, float]] = field(default_factory=dict)  # what it depended on then
    _decisions: int = 0
    _looks: dict[str, _Look] = field(default_factory=dict)
    _executions: dict[str, _Execution] = field(default_factory=dict)
    _flying: dict[str, StepCall] = field(default_factory=dict)  # not come back, by key
    _running: Counter[str] = field(default_factory=Counter)  # by device

    # -- conditions

    def met(self, branch: Branch) -> None:
        self.predictor.met(branch.condition.site, branch.condition.order)
        self._open[branch.condition.key] = branch

    def decided(self, condition: Condition, taken: bool | None) -> None:
        """What was done for the other side is thrown away; for both, where it has failed."""
        if taken is not None:
            self.predictor.decided(condition.site, condition.order, taken)
        self._decisions += 1
        key = condition.key
        self._open.pop(key, None)
        self._asked.pop(key, None)
        self._looks.pop(key, None)
        for name, execution in list(self._executions.items()):
            if execution.guards.pop(key, taken) is not taken:
                self._discard(name, execution)

    def guess(self, branch: Branch) -> bool | None:
        """The side that is likely enough for the places that are free."""
        condition = branch.condition
        made = self.predictor.guess(condition.site, condition.order, branch.likely)
        return made.taken if made.confidence >= self.around.room("llm").bar else None

    # -- executions

    def advance(self) -> list[Intent]:
        """What to execute ahead now."""
        if not self.devices or not (self._open or self._looks):
            return []
        if all(self._free(device) <= 0 for device in self.devices):
            return []
        for key in list(islice(self._open, OPEN)):
            look = self._looks.get(key)
            if (look is None and len(self._looks) < LOOKS) or (look and not look.begun):
                self._look(key, self._open[key])
        found: list[Intent] = []
        for look in list(self._looks.values()):
            found += self._advance(look)
        return found

    def _free(self, device: str) -> int:
        return self.around.room(device).free - self._running[device]

    def _look(self, key: str, branch: Branch) -> None:
        standing = self._decisions, self.around.room("llm").bar
        if self._asked.get(key) == standing:
            return
        self._asked[key] = standing
        side, old = self.guess(branch), self._looks.get(key)
        if old is not None and old.guards.get(key) is side:
            return
        self._looks.pop(key, None)  # what was decided since says otherwise
        if side is not None:
            self.predictor.expect(branch.condition.order, side)
            look = self._looks[key] = _Look(self, {key: side})
            look.beyond = branch.beyond(side, look)

    def _advance(self, look: _Look) -> list[Intent]:
        assert look.beyond is not None
        found: list[Intent] = []
        moved = True
        while moved:
            moved = False
            look.beyond.settle()
            waiting, look.waiting = look.waiting, []
            for call, guards in waiting:
                if any(open_cells(operand) for operand in call.args.values()):
                    look.waiting.append((call, guards))
                    continue
                outcome = self._meet(call, guards, found)
                look.begun = look.begun or bool(found) or isinstance(outcome, Result)
                if isinstance(outcome, Result):
                    values = {name: completed(one) for name, one in call.args.items()}
                    given = combine([total_label(one) for one in values.values()])
                    kind = answer_kind(call, values)
                    made = result_of(outcome.value, kind, given, call.branch)
                    look.beyond.resolve(call.slot, made)
                    moved = True
                elif outcome:
                    look.waiting.append((call, guards))
        return found

    def _meet(self, call: StepCall, guards: dict[str, bool], found: list[Intent]) -> Result | bool:
        """The result of this step if it is there; else whether it may still come."""
        values = {name: completed(operand) for name, operand in call.args.items()}
        if not self._harmless(call, values):
            return False
        digest = operand_digest(values)
        key = key_of(call.slot, digest)
        known = self._executions.get(key)
        if known is not None:
            return known.result or not known.failed
        own = self.around.steps.get(call.slot)
        if own is not None and own.digest == digest:
            return False  # the run does it itself
        access = whole_access(call, values)
        busy = self._free(call.signature.device) <= 0 or key in self._flying
        if busy or self.around.hazard(access):
            return True
        self._executions[key] = _Execution(call, guards)
        self._flying[key] = call
        self._running[call.signature.device] += 1
        timeout = call.time_limit
        found.append(Intent(call, values, access, digest, timeout_s=timeout, key=key))
        return True

    def _harmless(self, call: StepCall, values: dict[str, Value]) -> bool:
        signature = call.signature
        reads = signature.effect in (Effect.PURE, Effect.READ) and not signature.person
        if not reads or signature.limit or signature.journal:
            return False
        if signature.device not in self.devices:
            return False
        if pages(values) or any(first_failure(value) is not None for value in values.values()):
            return False
        return unfit(call, values) is None and isinstance(self.policy(call, values), Allow)

    # -- what becomes of them

    def finished(self, key: str, outcome: Outcome) -> str:
        """An execution came back: the slot of the step that has taken it over, or the key itself
        where it is no execution of this kind, or nothing."""
        call = self._flying.pop(key, None)
        if call is None:
            return key
        self._running[call.signature.device] -= 1
        execution = self._executions.get(key)
        if execution is None:
            self._count(outcome.usage)
            return ""
        if execution.step is not None:
            del self._executions[key]
            return execution.step.slot
        if isinstance(outcome, Result):
            execution.result = outcome
        else:
            execution.failed = True
            self._count(outcome.usage)
        return ""

    def claim(self, step: Step) -> Result | bool:
        """Take over what was done for `step`: its result, or True if that is still to come."""
        key = key_of(step.slot, step.digest)
        execution = self._executions.get(key)
        if execution is None or execution.failed or step.attempt:
            return False
        self.used += 1
        if execution.result is None:
            execution.step = step
            execution.guards = {}
            return True
        del self._executions[key]
        return execution.result

    def take_aborts(self) -> list[str]:
        """Executions that are to be stopped, each told once."""
        aborts, self._aborts = self._aborts, []
        return aborts

    def close(self) -> None:
        """Nothing more is taken over."""
        for key, execution in list(self._executions.items()):
            self._discard(key, execution)

    def _discard(self, key: str, execution: _Execution) -> None:
        del self._executions[key]
        if execution.result is not None:
            self._count(execution.result.usage)
        elif not execution.failed:
            self._aborts.append(key)

    def _count(self, usage: Usage) -> None:
        self.wasted += 1
        self.waste = self.waste + usage
