"""External effects in the program's order (design 2): one is issued when every earlier line has
finished, or has failed and that was handled. A wait for a time begins then too, and an event
is set, whatever failed.

Knows nothing of what the effects are.
"""

from __future__ import annotations

from collections.abc import Mapping

from edvac.control.scoreboard import OpenOrders, Order
from edvac.control.step import Step
from edvac.core.value import Failed


class ExternalOrder:
    """Steps that wait for everything earlier.

    Args:
        open_orders: places of the program that are unfinished.
        unhandled: steps that failed or were blocked and that nothing has accepted.
        steps: all of them, by slot.
    """

    def __init__(
        self, open_orders: OpenOrders, unhandled: Mapping[str, Step], steps: Mapping[str, Step]
    ) -> None:
        self._open = open_orders
        self._unhandled = unhandled
        self._steps = steps
        self._waiting: list[Step] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, step: Step) -> None:
        self._waiting.append(step)

    def due(self) -> list[Step]:
        """Those whose turn has come; they wait no longer."""
        due: list[Step] = []
        waiting, self._waiting = self._waiting, []
        for step in waiting:
            failed = step.external and self._earlier_failure(step.order)
            later = self._open.earliest() < step.order or failed
            (self._waiting if later else due).append(step)
        return due

    def give_up(self) -> tuple[Step, Failed] | None:
        """The first step, if it waits for a failure, and what that makes of it. Asked when nothing
        moves any more: until then a later attempt() may still accept the failure, so that whether
        the step runs does not depend on which of the two comes first."""
        step = min(self._waiting, key=lambda step: step.order)
        failed = self._earlier_failure(step.order)
        if failed is None:
            return None
        self._waiting.remove(step)
        return step, self._withheld(step, failed)

    def _earlier_failure(self, order: Order) -> Failed | None:
        earlier = [step for step in self._unhandled.values() if step.order < order]
        return min(earlier, key=lambda step: step.order).failure if earlier else None

    def _withheld(self, step: Step, failed: Failed) -> Failed:
        """A failure of its own: who accepts it has not accepted the one that it is due to."""
        cause = self._steps.get(failed.slot)
        name = cause.call.address if cause else "a line"
        what = f"not done, because {name} failed before it and nothing handles that"
        label = step.operand_label.steer(step.call.branch).steer(failed.label)
        return Failed(step.slot, "earlier_failed", what, label)
