"""The policy of one run: its rules, how often each has let a call through, and how many bits of
outsiders it has accepted.

Counts what the unit itself knows of its steps, those of earlier drives included, so that nothing
that is killed and resumed gets more calls than another run. Knows nothing of what the rules say.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from edvac.control import ControlUnit, Step, StepState
from edvac.core.value import Value
from edvac.guard import Allow, Rule, Rules, Verdict, decide
from edvac.program import StepCall

BEGUN = (StepState.ISSUED, StepState.RETRYING, StepState.DONE)


class Guard:
    """A policy for `ControlUnit`."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._unit: ControlUnit | None = None
        self._steps: Mapping[str, Step] = {}
        self._accepted: dict[str, float] = {}  # by slot and operands

    def watching(self, unit: ControlUnit, accepted: Mapping[str, float]) -> ControlUnit:
        """The unit, whose calls are counted from now on; `accepted` are the bits in its journal."""
        self._unit, self._steps, self._accepted = unit, unit.steps, dict(accepted)
        unit.bits = sum(accepted.values())
        return unit

    def __call__(self, call: StepCall, operands: dict[str, Value]) -> Verdict:
        step = self._steps.get(call.slot)
        key = f"{call.slot} {step.digest}" if step is not None and step.digest else ""
        before = self._accepted.get(key, 0.0)
        spent = self._unit.bits - before if self._unit is not None else 0.0
        used = partial(self._used, slot=call.slot)
        verdict = decide(call, operands, self.rules, used, spent)
        # What is looked at ahead is no step yet, or one whose operands are not known.
        if self._unit is not None and key and isinstance(verdict, Allow) and verdict.bits:
            self._accepted[key] = verdict.bits
            self._unit.bits = spent + verdict.bits
        return verdict

    def _used(self, rule: Rule, slot: str) -> int:
        """Calls that count: a failed one too, where it was begun, for nobody knows what it did."""
        return sum(
            step.slot != slot and rule.covers(step.call.signature) and _begun(step)
            for step in self._steps.values()
        )


def _begun(step: Step) -> bool:
    if step.state is StepState.FAILED and step.failure is not None:
        return not step.failure.code.startswith(("policy_", "denied_"))
    return step.approved or step.state in BEGUN
