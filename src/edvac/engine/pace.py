"""What steps take and what a lost prefix costs, learnt from the steps themselves.

Answers' rows and prompts' rows are timed apart, because a step of the one costs little more for
a few rows more and a step of the other is as long as its rows. It knows numbers of rows and
seconds, nothing else.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

_BUCKETS: Final = (1, 2, 4, 8, 16, 32)  # rows of answers that are timed together
_RATE: Final = 0.2  # how fast what is known moves
_FEW: Final = 8  # rows of prompts below which a step says nothing about them


class Pace:
    """Seconds of steps, by what is in them; zero where nothing is known yet."""

    def __init__(self) -> None:
        self._answers = [0.0] * len(_BUCKETS)
        self._prompt = 0.0  # a row

    def note(self, answers: int, prompts: int, seconds: float) -> None:
        """A step with so many rows took so long."""
        if prompts == 0:
            at = _bucket(answers)
            self._answers[at] = _moved(self._answers[at], seconds)
        elif prompts >= _FEW:
            alone = max(0.0, seconds - self.answering(answers))
            self._prompt = _moved(self._prompt, alone / prompts)

    def answering(self, rows: int) -> float:
        """A step of answers alone; what was timed with the most similar number of rows."""
        if rows == 0:
            return 0.0
        at = _bucket(rows)
        known = [one for one, seconds in enumerate(self._answers) if seconds]
        return self._answers[min(known, key=lambda one: abs(one - at))] if known else 0.0

    def reading(self, tokens: int) -> float:
        """Computing so many tokens of a prompt."""
        return self._prompt * tokens

    def rows_within(self, seconds: float) -> int | None:
        """How many rows of prompts such a time is enough for; None where nothing is known."""
        return int(max(0.0, seconds) / self._prompt) if self._prompt else None


def _bucket(rows: int) -> int:
    return min(bisect_left(_BUCKETS, rows), len(_BUCKETS) - 1)


def _moved(before: float, seconds: float) -> float:
    return before + _RATE * (seconds - before) if before else seconds
