"""Guesses an answer's next tokens from what its own prompt and text said before.

Programs repeat their examples and extracts repeat their document, so the tokens that followed the
same few tokens last time are a cheap draft. Checking a draft costs rows of a step; how many rows
are worth it follows from how often drafts held so far and from what rows cost. It knows token ids
and chances, neither logits nor the scheduler.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, Protocol

MOST: Final = 15  # tokens of one draft
_RECENT: Final = 24  # places looked at for one run of tokens
_CONTEXT: Final = 16  # tokens before a place that are compared
_TRIED: Final = 4  # places whose continuation the grammar is asked about
_SIZES: Final = (3, 2)  # lengths of the runs that are looked up

# How likely one more drafted token holds, by how many tokens before the draft agreed.
_AGREED: Final = (2, 3, 5, 8, 12)
_PRIOR: Final = (0.4, 0.5, 0.65, 0.75, 0.85)
_MARGIN: Final = 1.05  # a draft must promise this much, or its rows only make heat
_OWN_RATE, _SHARED_RATE = 0.08, 0.02  # how fast an answer's and the engine's experience move


@dataclass(frozen=True, slots=True)
class Costs:
    """Time of a step by rows of answers, one row being 1; linear between the numbers that were
    measured, and beyond. Only the ratios matter, and they are alike for models of 0.5B and more."""

    rows: tuple[int, ...]
    times: tuple[float, ...]

    def of(self, rows: int) -> float:
        at = bisect_left(self.rows, rows)
        if at == 0:
            return self.times[0]
        at = min(at, len(self.rows) - 1)
        low, high = self.rows[at - 1], self.rows[at]
        share = (rows - low) / (high - low)
        return self.times[at - 1] + share * (self.times[at] - self.times[at - 1])


# Measured with Qwen2.5-Coder-1.5B on two cores (docs/benchmarks/linear.md).
TENSORS: Final = Costs((1, 2, 3, 5, 8, 16, 32), (1.0, 1.1, 1.2, 1.3, 1.55, 1.95, 3.0))
KERNELS: Final = Costs(
    (1, 2, 4, 6, 8, 12, 16, 24, 32), (1.0, 1.06, 1.17, 1.34, 1.55, 1.93, 2.4, 3.3, 4.2)
)


class Checker(Protocol):
    """A grammar's say: how many leading tokens could come next."""

    def legal(self, tokens: list[int]) -> int: ...


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens that may come next, and how many tokens before them agreed with their source."""

    tokens: list[int]
    agreed: int


class Experience:
    """How often drafts held, by length of agreement."""

    def __init__(self, chances: tuple[float, ...] = _PRIOR, parent: Experience | None = None):
        self._chances = list(chances)
        self._parent = parent
        self._rate = _SHARED_RATE if parent is None else _OWN_RATE

    def child(self) -> Experience:
        """One answer's own, which begins where all answers before it have come to."""
        return Experience(tuple(self._chances), self)

    def chance(self, agreed: int) -> float:
        return self._chances[_class(agreed)]

    def learn(self, agreed: int, held: int, failed: bool) -> None:
        """`held` tokens were right, and the one after them was wrong if it `failed`."""
        at, rate = _class(agreed), self._rate
        for _ in range(held):
            self._chances[at] += rate * (1.0 - self._chances[at])
        if failed:
            self._chances[at] -= rate * self._chances[at]
        if self._parent is not None:
            self._parent.learn(agreed, held, failed)


def _class(agreed: int) -> int:
    return max(0, sum(agreed >= one for one in _AGREED) - 1)


@dataclass(slots=True)
class Memory:
    """Where each short run of tokens ended in one sequence."""

    experience: Experience
    _ends: dict[tuple[int, ...], list[int]] = field(default_factory=dict)
    _seen: int = 0

    def guess(self, tokens: list[int], most: int, checker: Checker | None) -> Guess | None:
        """The best continuation, as far as the grammar lets it go."""
        self._index(tokens)
        for agreed, place in self._places(tokens)[:_TRIED]:
            draft = tokens[place : place + most]
            if checker is not None:
                draft = draft[: checker.legal(draft)]
            if draft:
                return Guess(draft, agreed)
        return None

    def _index(self, tokens: list[int]) -> None:
        # The run that ends the sequence has no continuation yet and is left for the next call.
        for end in range(max(self._seen, 2), len(tokens)):
            for size in _SIZES:
                if end >= size:
                    self._ends.setdefault(tuple(tokens[end - size : end]), []).append(end)
        self._seen = max(self._seen, len(tokens))

    def _places(self, tokens: list[int]) -> list[tuple[int, int]]:
        """(agreement, position): longest agreement first, then the most recent."""
        for size in _SIZES:
            ends = self._ends.get(tuple(tokens[-size:]))
            if ends:
                found = {(_agreement(tokens, end, size), end) for end in ends[-_RECENT:]}
                return sorted(found, reverse=True)
        return []


def _agreement(tokens: list[int], end: int, known: int) -> int:
    """How many tokens before `end` equal those at the end of the sequence."""
    last = len(tokens)
    most = min(_CONTEXT, end)
    while known < most and tokens[end - known - 1] == tokens[last - known - 1]:
        known += 1
    return known


def worthwhile(guess: int, chance: float, rows: int, gained: float, costs: Costs) -> int:
    """How many of `guess` tokens to check, in a step of `rows` rows that yields `gained` tokens."""
    best, best_rate = 0, _MARGIN * gained / costs.of(rows)
    expected, run = gained, 1.0
    for count in range(1, guess + 1):
        run *= chance
        expected += run
        rate = expected / costs.of(rows + count)
        if rate > best_rate:
            best, best_rate = count, rate
    return best
