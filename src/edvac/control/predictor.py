"""Which way an undecided condition will go, judged by conditions decided before it.

History is in the program's order, whatever order conditions became known in: those of this run
that stand before, then those of earlier runs of the same program. A feature is how a condition
went the last, the last but one or the last but two times, or the outcome so many conditions back;
one that is not known yet says nothing. `sparse.fit` finds the few that matter. Where little is
known, it is the share of earlier outcomes that counts, and where nothing is, what the text
suggests.

Guessing reads some numbers; a model is fitted anew only when there is half as much again to learn
from. Knows nothing of steps.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from edvac.control.sparse import Column, Model, fit

Order: TypeAlias = tuple[int, ...]
Feature: TypeAlias = tuple[str, int]  # of a condition and how many times ago; "" is any condition
Decided: TypeAlias = tuple[str, bool]

AGES = 3  # outcomes of one condition
BACK = 16  # outcomes of any
FEWEST = 6  # outcomes of a condition from which a model is fitted
LONGEST = 4096  # decided conditions that are remembered
SAMPLES = 512  # outcomes of one condition that are learnt from
RECORD = 32  # latest guesses about a condition that count for how far it is trusted


@dataclass(frozen=True, slots=True)
class Guess:
    taken: bool
    confidence: float  # how likely it is right


@dataclass(slots=True)
class _Learnt:
    """What is known of one condition."""

    model: Model | None = None
    features: tuple[Feature, ...] = ()
    seen: int = 0  # outcomes when it was fitted
    right: deque[bool] = field(default_factory=lambda: deque(maxlen=RECORD))


class Predictor:
    """One run's guesses.

    Args:
        past: how conditions went in earlier runs, the oldest first.
    """

    def __init__(self, past: Sequence[Decided] = ()) -> None:
        self._past = list(past)
        self._orders: list[Order] = []
        self._events: list[tuple[str, int]] = []  # in the program's order; 0 is undecided
        self._learnt: defaultdict[str, _Learnt] = defaultdict(_Learnt)
        self._guesses: dict[Order, bool] = {}
        self._taken = Counter(site for site, taken in self._past if taken)
        self._times = Counter(site for site, _ in self._past)

    def met(self, site: str, order: Order) -> None:
        """A condition was reached that is not known yet."""
        self._enter(site, order, 0)

    def decided(self, site: str, order: Order, taken: bool) -> None:
        self._times[site] += 1
        self._taken[site] += taken
        guessed = self._guesses.pop(order, None)
        if guessed is not None:
            self._learnt[site].right.append(guessed is taken)
        self._enter(site, order, 1 if taken else -1)

    def _enter(self, site: str, order: Order, outcome: int) -> None:
        at = bisect.bisect_left(self._orders, order)
        if at < len(self._orders) and self._orders[at] == order:
            self._events[at] = (site, outcome)
        else:
            self._orders.insert(at, order)
            self._events.insert(at, (site, outcome))

    def guess(self, site: str, order: Order, likely: float) -> Guess:
        """Which way the condition at `order` will go; `likely` is what its text suggests."""
        return self._from_history(site, order) or self._from_share(site, likely)

    def expect(self, order: Order, taken: bool) -> None:
        """Something was done on a guess: remember whether it turns out right."""
        self._guesses[order] = taken

    def _from_share(self, site: str, likely: float) -> Guess:
        share = (self._taken[site] + 2 * likely) / (self._times[site] + 2)
        return Guess(share >= 0.5, max(share, 1 - share))

    def _from_history(self, site: str, order: Order) -> Guess | None:
        learnt = self._learnt[site]
        if self._times[site] >= max(FEWEST, learnt.seen * 3 // 2):
            self._fit(site, learnt)
        if learnt.model is None or not learnt.model.weights:
            return None
        values = self._values(order)
        row = [values.get(feature, 0) for feature in learnt.features]
        score = learnt.model.score(row)
        unknown = sum(abs(w) for at, w in learnt.model.weights.items() if not row[at])
        if unknown >= abs(score):
            return None  # what is not known yet could turn it
        hits, held = learnt.model.hits + sum(learnt.right), learnt.model.held + len(learnt.right)
        return Guess(score >= 0, (hits + 1) / (held + 2))

    def _values(self, order: Order) -> dict[Feature, int]:
        """The features as they stand before `order`."""
        window = _Window()
        end = bisect.bisect_left(self._orders, order)
        reach = 4 * BACK * AGES
        own = self._events[max(0, end - reach) : end]
        short = reach - len(own)
        past = self._past[-short:] if short > 0 else []
        for site, taken in past:
            window.add(site, 1 if taken else -1)
        for site, outcome in own:
            window.add(site, outcome)
        return dict(window.features())

    def _fit(self, site: str, learnt: _Learnt) -> None:
        learnt.seen = self._times[site]
        rows: deque[tuple[dict[Feature, int], bool]] = deque(maxlen=SAMPLES)
        window = _Window()
        for other, taken in self.trail():
            if other == site:
                rows.append((dict(window.features()), taken))
            window.add(other, 1 if taken else -1)
        learnt.features = tuple(sorted({feature for row, _ in rows for feature in row}))
        columns = [_column(feature, rows) for feature in learnt.features]
        outcomes = sum(1 << at for at, (_, taken) in enumerate(rows) if taken)
        learnt.model = fit(columns, outcomes, len(rows))
        learnt.right.clear()

    def trail(self) -> list[Decided]:
        """How conditions went, the latest last: what the next run of the program begins with."""
        own = [(site, outcome > 0) for site, outcome in self._events if outcome]
        return [*self._past, *own][-LONGEST:]


class _Window:
    """The latest outcomes at one place of a history."""

    def __init__(self) -> None:
        self._of: dict[str, deque[int]] = {}
        self._all: deque[int] = deque(maxlen=BACK)

    def add(self, site: str, outcome: int) -> None:
        self._of.setdefault(site, deque(maxlen=AGES)).appendleft(outcome)
        self._all.appendleft(outcome)

    def features(self) -> Iterator[tuple[Feature, int]]:
        for site, outcomes in self._of.items():
            for age, outcome in enumerate(outcomes):
                yield (site, age), outcome
        for age, outcome in enumerate(self._all):
            yield ("", age), outcome


def _column(feature: Feature, rows: Iterable[tuple[dict[Feature, int], bool]]) -> Column:
    known = positive = 0
    for at, (row, _) in enumerate(rows):
        value = row.get(feature, 0)
        known |= bool(value) << at
        positive |= (value > 0) << at
    return Column(known, positive)
