"""Guesses an answer's next tokens from what its own prompt and text said before, and what earlier
answers of its program said.

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
_BETWEEN: Final = -1  # stands between two answers; no token
_MOST_KEPT: Final = 32_768  # tokens of one program's answers
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
    (1, 2, 4, 6, 8, 12, 16, 24, 32), (1.0, 1.05, 1.12, 1.28, 1.58, 2.1, 2.7, 4.1, 5.2)
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


class _Places:
    """Where each short run of tokens ended in a sequence that grows."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], list[int]] = {}
        self._seen = 0

    def note(self, tokens: list[int]) -> None:
        # The run that ends the sequence has no continuation yet and is left for the next call.
        for end in range(max(self._seen, 2), len(tokens)):
            for size in _SIZES:
                if end >= size and tokens[end] != _BETWEEN:
                    self._ends.setdefault(tuple(tokens[end - size : end]), []).append(end)
        self._seen = max(self._seen, len(tokens))

    def after(self, last: list[int], tokens: list[int]) -> list[tuple[int, int]]:
        """(agreement, position) of what ended as `last` does: the longest agreement first, then the
        most recent. A suffix tree would find the same; the last places of a run are enough."""
        for size in _SIZES:
            ends = self._ends.get(tuple(last[-size:]))
            if ends:
                found = {(_agreement(last, tokens, end, size), end) for end in ends[-_RECENT:]}
                return sorted(found, reverse=True)
        return []


class Corpus:
    """What answers of one program said before; its later answers often say it again."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.places = _Places()

    def add(self, tokens: list[int]) -> None:
        """One more answer; of very many the older half is forgotten."""
        self.tokens += [*tokens, _BETWEEN]
        if len(self.tokens) > _MOST_KEPT:
            self.tokens = self.tokens[-_MOST_KEPT // 2 :]
            self.places = _Places()
        self.places.note(self.tokens)


@dataclass(slots=True)
class Memory:
    """What one sequence said so far, and what its program's earlier answers said."""

    experience: Experience
    corpus: Corpus | None = None
    _places: _Places = field(default_factory=_Places)

    def guess(self, tokens: list[int], most: int, checker: Checker | None) -> Guess | None:
        """The best continuation, as far as the grammar lets it go."""
        self._places.note(tokens)
        found = [(agreed, 1, place) for agreed, place in self._places.after(tokens, tokens)]
        if self.corpus is not None:
            earlier = self.corpus.places.after(tokens, self.corpus.tokens)
            found += [(agreed, 0, place) for agreed, place in earlier]
        found.sort(reverse=True)  # of equal agreement, what it said itself
        for agreed, own, place in found[:_TRIED]:
            source = tokens if own or self.corpus is None else self.corpus.tokens
            draft = source[place : place + most]
            draft = draft[: draft.index(_BETWEEN)] if _BETWEEN in draft else draft
            if checker is not None:
                draft = draft[: checker.legal(draft)]
            if draft:
                return Guess(draft, agreed)
        return None


def _agreement(last: list[int], tokens: list[int], end: int, known: int) -> int:
    """How many tokens before `end` equal those at the end of `last`."""
    size = len(last)
    most = min(_CONTEXT, end, size)
    while known < most and tokens[end - known - 1] == last[size - known - 1]:
        known += 1
    return known


def worthwhile(
    guess: int, chance: float, rows: int, gained: float, costs: Costs, *, each: float = 0.0
) -> int:
    """How many of `guess` tokens to check, in a step of `rows` rows that yields `gained` tokens.

    Args:
        each: what it costs to have one guessed, in steps of one row.
    """
    best, best_rate = 0, _MARGIN * gained / costs.of(rows)
    expected, run = gained, 1.0
    for count in range(1, guess + 1):
        run *= chance
        expected += run
        rate = expected / (costs.of(rows + count) + each * count)
        if rate > best_rate:
            best, best_rate = count, rate
    return best
