"""Sparse linear models of outcomes that are each yes or no: few of many earlier events decide.

One routine for two users: `predictor` fits the conditions of programs, `bench` the branches of
processors. Samples lie across bits of whole numbers, so that one correlation of thousands of them
is a handful of machine operations and nothing but Python is needed.

The models are L1-regularised least squares, found by coordinate descent along a path of penalties
(Friedman, Hastie, Tibshirani 2010), in place of the L1 logistic regression of the seed (Sparse
Branch Correlations); the penalty is chosen on the later part of the samples, which the fit has not
seen. A linear model cannot see that one outcome is the exclusive or of two others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PENALTIES = 12  # along the path, each _STEP times the one before
_STEP = 0.7
_SWEEPS = 30
_CLOSE = 1e-4  # a sweep that moves no weight by more ends the descent
HELD_OUT = 0.4  # the share of samples, the latest, that choose the penalty


@dataclass(frozen=True, slots=True)
class Column:
    """One feature over all samples: bit i says of sample i whether it is `known`, and whether it
    is +1 (`positive`); an unknown one counts as 0."""

    known: int
    positive: int

    def first(self, count: int) -> Column:
        """Only the first `count` samples."""
        mask = (1 << count) - 1
        return Column(self.known & mask, self.positive & mask)

    def at(self, sample: int) -> int:
        if not self.known >> sample & 1:
            return 0
        return 1 if self.positive >> sample & 1 else -1


@dataclass(frozen=True, slots=True)
class Model:
    """`bias` plus the weighted features; its sign is the outcome.

    Attributes:
        weights: by index of the feature.
        hits, held: right ones among the samples that chose the penalty, and how many those are.
    """

    bias: float
    weights: dict[int, float]
    hits: int = 0
    held: int = 0

    def score(self, values: Sequence[int]) -> float:
        """Of one sample: features by index, each -1, 0 or 1."""
        return self.bias + sum(weight * values[at] for at, weight in self.weights.items())


def fit(columns: Sequence[Column], outcomes: int, count: int, *, most: int = 8) -> Model:
    """The model with at most `most` features that is right most often on the latest samples.

    Args:
        columns: the features, each over `count` samples in order of time.
        outcomes: bit i is the outcome of sample i.
    """
    early = count - int(count * HELD_OUT)
    later = range(early, count)
    mask = (1 << early) - 1
    path = _Descent([one.first(early) for one in columns], outcomes & mask, early)
    best = path.bias_only()
    best = _judged(best, columns, outcomes, later)
    for _ in range(PENALTIES):
        model = path.next(most)
        if model is None:
            break
        judged = _judged(model, columns, outcomes, later)
        if judged.hits > best.hits:
            best = judged
    if not best.weights:
        whole = _Descent([], outcomes, count).bias_only()
        return Model(whole.bias, {}, best.hits, best.held)
    refit = _Descent([columns[at] for at in best.weights], outcomes, count).unpenalised()
    weights = {at: refit.weights.get(n, 0.0) for n, at in enumerate(best.weights)}
    return Model(refit.bias, weights, best.hits, best.held)


def _judged(model: Model, columns: Sequence[Column], outcomes: int, samples: range) -> Model:
    used = [(columns[at], weight) for at, weight in model.weights.items()]
    hits = 0
    for sample in samples:
        score = model.bias + sum(weight * column.at(sample) for column, weight in used)
        hits += (score >= 0) is bool(outcomes >> sample & 1)
    return Model(model.bias, model.weights, hits, len(samples))


class _Descent:
    """Coordinate descent on (1/2n) |y - b - Xw|^2 + penalty |w|_1, from sums over samples alone."""

    def __init__(self, columns: Sequence[Column], outcomes: int, count: int) -> None:
        self._columns = columns
        self._count = max(count, 1)
        everywhere = Column((1 << count) - 1, outcomes)
        self._mean = self._product(everywhere, Column(everywhere.known, everywhere.known))
        ones = Column(everywhere.known, everywhere.known)
        self._sums = [self._product(one, ones) for one in columns]
        self._with_outcome = [self._product(one, everywhere) for one in columns]
        self._squares = [one.known.bit_count() / self._count for one in columns]
        self._grams: dict[int, list[float]] = {}
        self._weights: dict[int, float] = {}
        self._bias = self._mean
        self._penalty = max(
            (abs(c - self._mean * s) for c, s in zip(self._with_outcome, self._sums, strict=True)),
            default=0.0,
        )

    def _product(self, left: Column, right: Column) -> float:
        """The mean product of two features over the samples."""
        both = left.known & right.known
        unlike = (both & (left.positive ^ right.positive)).bit_count()
        return (both.bit_count() - 2 * unlike) / self._count

    def bias_only(self) -> Model:
        return Model(self._mean, {})

    def next(self, most: int) -> Model | None:
        """The model at the next smaller penalty; None when it has too many features, or none can
        have any."""
        self._penalty *= _STEP
        if self._penalty < _CLOSE:
            return None
        self._descend(range(len(self._columns)))
        found = {at: weight for at, weight in self._weights.items() if weight}
        return Model(self._bias, found) if len(found) <= most else None

    def unpenalised(self) -> Model:
        """Least squares over all features: their weights, no longer shrunk."""
        self._penalty = 0.0
        self._descend(range(len(self._columns)))
        return Model(self._bias, dict(self._weights))

    def _descend(self, features: range) -> None:
        for _ in range(_SWEEPS):
            if self._sweep(features) <= _CLOSE:
                return
            for _ in range(_SWEEPS):
                if self._sweep(list(self._weights)) <= _CLOSE:
                    break

    def _sweep(self, features: Sequence[int]) -> float:
        """Each weight once, and the bias; the largest change."""
        largest = 0.0
        for at in features:
            if not self._squares[at]:
                continue
            old = self._weights.get(at, 0.0)
            pull = self._with_outcome[at] - self._bias * self._sums[at] + old * self._squares[at]
            for other, weight in self._weights.items():
                if weight:
                    pull -= weight * self._gram(other)[at]
            new = max(abs(pull) - self._penalty, 0.0) / self._squares[at]
            new = new if pull > 0 else -new
            if new != old:
                self._weights[at] = new
                largest = max(largest, abs(new - old))
        drift = sum(weight * self._sums[at] for at, weight in self._weights.items())
        self._bias = self._mean - drift
        return largest

    def _gram(self, at: int) -> list[float]:
        """Products of one feature with every other."""
        found = self._grams.get(at)
        if found is None:
            mine = self._columns[at]
            found = self._grams[at] = [self._product(mine, one) for one in self._columns]
        return found
