"""Which models are away, and the steps that wait for them.

A step that nobody answered has not failed: it is held back until a model answers again. The model
of the run and the one that is escalated to are two, and only one of them may be away.
"""

from __future__ import annotations

from edvac.control.step import Failure, Outcome, Result, Step


class Absence:
    """
    Args:
        patience_s: how long after its last answer a model is taken to be restarting.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._heard: dict[bool, float] = {}  # when each answered last, by `Step.escalated`
        self._away: dict[bool, Failure] = {}
        self._held: list[Step] = []

    @property
    def why(self) -> Failure | None:
        """How it was seen that a model is away for which steps wait; None where none do."""
        return self._away[self._held[0].escalated] if self._held else None

    def meets(self, step: Step) -> bool:
        """Would the step meet a model that is away?"""
        return step.call.signature.device == "llm" and step.escalated in self._away

    def patient(self, step: Step, now: float) -> bool:
        """Has the step's model answered a moment ago? Then it is probably being restarted."""
        heard = self._heard.get(step.escalated)
        return heard is not None and now - heard < self._patience_s

    def hold(self, step: Step, failure: Failure | None = None) -> bool:
        """Keep a ready step; True where it is news that its model is away."""
        new = step.escalated not in self._away
        if failure is not None:
            self._away[step.escalated] = failure
        self._held.append(step)
        return new

    def listen(self, step: Step, outcome: Outcome, now: float) -> list[Step]:
        """Take note of a model step's outcome; returns the steps that need wait no longer."""
        there = not outcome.reused if isinstance(outcome, Result) else outcome.answered
        if not there:
            return []
        self._heard[step.escalated] = now
        self._away.pop(step.escalated, None)
        free = [one for one in self._held if one.escalated == step.escalated]
        self._held = [one for one in self._held if one.escalated != step.escalated]
        return free
