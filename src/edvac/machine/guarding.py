"""The policy of one run: its rules, and how often each has let a call through.

Counts what the unit itself knows of its steps, those of earlier drives included, so that nothing
that is killed and resumed gets more calls than another run. Knows nothing of what the rules say.
"""

from __future__ import annotations

from collections.abc import Mapping

from edvac.control import ControlUnit, Step, StepState
from edvac.core.value import Value
from edvac.guard import Rule, Rules, Verdict, decide
from edvac.program import StepCall

BEGUN = (StepState.ISSUED, StepState.RETRYING, StepState.DONE)


class Guard:
    """A policy for `ControlUnit`."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._steps: Mapping[str, Step] = {}

    def watching(self, unit: ControlUnit) -> ControlUnit:
        """The unit, whose calls are counted from now on."""
        self._steps = unit.steps
        return unit

    def __call__(self, call: StepCall, operands: dict[str, Value]) -> Verdict:
        return decide(call, operands, self.rules, lambda rule: self._used(rule, call.slot))

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
