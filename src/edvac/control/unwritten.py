"""What could have been written and was not: whoever decided that is in what a later step reads.

A name that only the way not taken assigns carries the decision (rule 2 of the isolation notes,
1.3); a file is such a name. That an arm, a loop or a write that failed was passed by is not in the
file, so it is kept here, by the patterns that the program's text announces.

Knows nothing of why something was not written.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable

from edvac.control.access import claimed_access
from edvac.control.step import Step
from edvac.core.label import PUBLIC, UNBOUNDED, Label, combine
from edvac.core.signature import Access, overlap
from edvac.core.value import total_label

Order = tuple[int, ...]
MANY = 64  # principals of one label; more are called by one name, which nobody trusts
OTHERS = "others:many"
_OWN = frozenset({"program"})


class _Deciders:
    """Who passed by one pattern, in program order, with the label of all before each place."""

    def __init__(self) -> None:
        self._orders: list[Order] = []
        self._labels: list[Label] = []
        self._all: list[Label] = []  # of everything up to each place

    def add(self, order: Order, label: Label) -> None:
        at = bisect.bisect_right(self._orders, order)
        self._orders.insert(at, order)
        self._labels.insert(at, label)
        del self._all[at:]
        for one in self._labels[at:]:
            self._all.append(_few((self._all[-1] if self._all else PUBLIC).steer(one)))

    def before(self, order: Order) -> Label:
        at = bisect.bisect_left(self._orders, order)
        return self._all[at - 1] if at else PUBLIC


class Unwritten:
    """Who passed by which paths in one run."""

    def __init__(self) -> None:
        self._by_pattern: dict[str, _Deciders] = {}

    def passed(self, order: Order, access: Access, decider: Label) -> None:
        """Steps with this access are not reached at `order`, as `decider` decided."""
        self._add(order, claimed_access(access).writes, decider)

    def addressed(self, step: Step) -> None:
        """The step's operands are known: who gave it this address gave it no other."""
        call = step.call
        if call.signature.writes:
            named = (step.values.get(name) for name in call.signature.writes)
            who = combine([total_label(value) for value in named if value is not None])
            self.passed(step.order, call.static, who)

    def failed(self, step: Step, why: Label) -> None:
        """The step has ended without writing."""
        if step.access.writes:
            self._add(step.order, step.access.writes, why)
        elif step.call.signature.writes:
            self.passed(step.order, step.call.static, why)

    def decided(self, step: Step) -> Label:
        """Who decided that the step is done, and what it does not find where it reads."""
        return step.call.branch.steer(self._behind(step.order, step.access.reads))

    def _add(self, order: Order, patterns: Iterable[str], decider: Label) -> None:
        if decider.integrity <= _OWN and decider.readers is None:
            return
        for pattern in dict.fromkeys(patterns):
            self._by_pattern.setdefault(pattern, _Deciders()).add(order, decider)

    def _behind(self, order: Order, reads: Iterable[str]) -> Label:
        found = PUBLIC
        for path in dict.fromkeys(reads) if self._by_pattern else ():
            for pattern, deciders in self._by_pattern.items():
                if overlap(pattern, path):
                    found = _few(found.steer(deciders.before(order)))
        return found


def _few(label: Label) -> Label:
    if len(label.steered) <= MANY:
        return label
    return Label.of((), [OTHERS], label.readers, UNBOUNDED)
