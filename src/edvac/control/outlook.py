"""What others may look at in a control unit: what it waits for, what failed, what is spent.

Changes nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edvac.control.absence import Absence
from edvac.control.ahead import RunAhead
from edvac.control.budget import over, used_tokens
from edvac.control.journal import Deadline, Replay
from edvac.control.predictor import Decided
from edvac.control.step import Failure, Limits, Step, StepState, Usage
from edvac.core.value import Value
from edvac.program import Evaluator
from edvac.program.host import Unreached


@dataclass(frozen=True, slots=True)
class Parked:
    """What a run waits for, told by who drives it: so many signals, and a time by the wall clock
    (UTC seconds; 0 for none), the earliest of several."""

    signals: int = 0
    due: int = 0


class Outlook:
    """The read-only side of `ControlUnit`.

    Attributes:
        parked: what a driver waits for.
        bits: that outsiders have chosen in what the policy accepted; told by the policy.
    """

    parked: Parked = Parked()
    bits: float = 0.0
    _replay: Replay
    steps: dict[str, Step]
    usage: Usage
    reused: int
    replayed: int
    _evaluator: Evaluator
    _limits: Limits
    _issued: dict[str, Step]
    _held: set[str]
    _asking: set[str]
    _unpaid: list[str]
    _absence: Absence
    _ahead: RunAhead
    _later: list[str]
    _timers: list[tuple[float, str]]
    _unhandled: dict[str, Step]
    _drafted: bool
    _alone: bool
    _now: float
    _began: float

    @property
    def _growing(self) -> bool:
        """May there be lines below that have not been looked at?"""
        return self._drafted or self._evaluator.unmet > 0

    @property
    def _due(self) -> float | None:
        """When there is something to do, whatever happens meanwhile."""
        timer = self._timers[0][0] if self._timers else None
        return self._now if self._evaluator.unmet else timer

    @property
    def seconds(self) -> float:
        """How long the run has been driven, earlier drives included."""
        return self._limits.before + self._now - self._began

    @property
    def awaited(self) -> frozenset[str]:
        """What keeps the run from going on, when only the outside does: ``approval`` of a held
        step, an ``answer`` to a question of the program, a ``signal``, a ``time``, a larger
        ``budget``, a look at the ``sample``, or at the ``actions`` of a run that only reads, a
        ``processor`` that is away."""
        issued = [step.call.signature for step in self._issued.values()]
        asked = [one for one in issued if one.person]
        parked = {one.awaits for one in issued}
        written = self._growing and not self._alone  # by somebody who may go on
        moving = any(not (one.person or one.awaits) for one in issued)
        if written or moving or self._timers:
            return frozenset()
        away = self._absence.why is not None
        found = {
            "answer": asked,
            "signal": "signal" in parked,
            "time": "time" in parked,
            "approval": self._held,
            "budget": self._unpaid,
            "processor": away,
            # With the processor away there is nothing to look at yet.
            "actions" if self._limits.read_only else "sample": self._later and not away,
        }
        return frozenset(name for name, waits in found.items() if waits)

    @property
    def deadlines(self) -> Mapping[str, Deadline]:
        """Until when steps wait that began to in an earlier drive."""
        return self._replay.deadlines

    def question(self, slot: str) -> Step | None:
        """The step, if a question about it is open now: its own, or one of the guard."""
        if slot in self._held:
            return self.steps[slot]
        step = self._issued.get(slot)
        return step if step is not None and step.call.signature.person else None

    def is_held(self, slot: str) -> bool:
        return slot in self._held

    @property
    def actions(self) -> list[Step]:
        """What a run that only reads would do next, in the program's order."""
        found = [self.steps[slot] for slot in self._later]
        return sorted((step for step in found if step.acts), key=lambda step: step.order)

    @property
    def questions(self) -> int:
        """How many questions are open, or would be if the run were not stopping."""
        return len(self._asking)

    @property
    def spent(self) -> str:
        """Which budget holds back a step, as a clause; empty where none does."""
        return self._over(self.steps[self._unpaid[0]]) if self._unpaid else ""

    @property
    def away(self) -> Failure | None:
        """Why the processor is taken to be away, where that holds back a step."""
        return self._absence.why

    def failures(self) -> list[Step]:
        """Steps that failed or were blocked, and that no attempt() or ok() accepted, in order. The
        cause of a blocked one is listed even where it was accepted somewhere else."""
        found = dict(self._unhandled)
        for step in self._unhandled.values():
            cause = self.steps.get(step.failure.slot) if step.failure else None
            if cause is not None:
                found[cause.slot] = cause
        return sorted(found.values(), key=lambda step: step.order)

    @property
    def handled_count(self) -> int:
        """Steps that failed or were blocked and whose failure the program accepted."""
        bad = [s for s in self.steps.values() if s.state in (StepState.FAILED, StepState.BLOCKED)]
        return sum(step.slot not in self._unhandled for step in bad)

    def standing(self) -> dict[str, int]:
        """How the run stands, in whole numbers: what a list of runs shows. `nano` is money, in
        billionths of the currency; `cached` tokens are part of `prompt`."""
        states = Counter(step.state for step in self.steps.values())
        return {
            "finished": states[StepState.DONE],
            "failed": states[StepState.FAILED],
            "blocked": states[StepState.BLOCKED],
            "reused": self.reused,
            "replayed": self.replayed,
            "handled": self.handled_count,
            "unreached": len(self.unreached),
            "questions": self.questions,
            "spent": int(bool(self._unpaid)),
            "away": int(self._absence.why is not None),
            "signals": self.parked.signals,
            "due": self.parked.due,
            "bits": math.ceil(self.bits),
            "ahead": self._ahead.used,
            "wasted": self._ahead.wasted,
            "wasted_tokens": used_tokens(self._ahead.waste),
            "prompt": self.usage.prompt,
            "cached": self.usage.cached,
            "completion": self.usage.completion,
            "nano": int(self.usage.cost * 10**9),
        }

    def bound(self, name: str) -> Value | None:
        """What a name of the program holds; None while that is not known."""
        return self._evaluator.bound(name)

    @property
    def conditions(self) -> list[Decided]:
        """How the program's conditions went, earlier runs included; empty where it has none."""
        return self._ahead.predictor.trail()

    @property
    def unreached(self) -> tuple[Unreached, ...]:
        """Calls that were never made because what decides them failed."""
        return self._evaluator.unreached

    def _over(self, step: Step) -> str:
        model = step.call.signature.device == "llm"
        return over(self._limits, self.usage, self.seconds, model=model)
