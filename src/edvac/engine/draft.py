"""A small model that guesses what a large one will say (speculative decoding with a draft model).

It has the same vocabulary, a memory of its own, and rows that stand for the large model's rows. It
is asked only where looking up found nothing, and begins with an answer only once that has taken
as long as reading its prompt costs: an answer that is short is never worth it. It is wrong or
right; what is taken is decided by the large model alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from edvac.engine.attention import AttentionPlan, Span
from edvac.engine.job import Job
from edvac.engine.kv.pages import PagedArena
from edvac.engine.model import Decoder
from edvac.engine.sequences import common_prefix
from edvac.engine.speculation import Experience

MOST: Final = 6  # tokens of one draft
ANSWERS: Final = 2  # of the large model at a time; with more of them its steps are full anyway
_READ: Final = 256  # tokens that it reads at a time
_NARROW: Final = 32  # rows that are computed as answers' are
_RATE: Final = 0.1  # how fast measured times move
_CURIOUS: Final = 50
_AGREED: Final = 0  # the class of experience that its guesses are of


@dataclass(slots=True)
class DraftModel:
    """
    Attributes:
        step_seconds: of one guess; `token_seconds` of reading one token. Zero until measured.
    """

    decoder: Decoder
    arena: PagedArena
    plan: Callable[[list[Span], int], AttentionPlan]
    experience: Experience = field(default_factory=lambda: Experience((0.6,)))
    step_seconds: float = 0.0
    token_seconds: float = 0.0
    _asked: int = 0
    _held: dict[int, list[int]] = field(default_factory=dict)  # tokens of each row

    @property
    def chance(self) -> float:
        return self.experience.chance(_AGREED)

    def curious(self) -> bool:
        """Now and then it is asked although it would not pay: its chances may have changed."""
        self._asked += 1
        return self._asked % _CURIOUS == 0

    def missing(self, job: Job) -> int:
        """Tokens of the job that it has not read."""
        return len(job.tokens) - self._known(job)

    def _known(self, job: Job) -> int:
        held = self._held.get(job.slot, [])
        return min(common_prefix(held, job.tokens), len(job.tokens) - 1)

    def draft(self, job: Job, count: int) -> list[int]:
        """Its next `count` tokens; none while it has more to read than it reads at a time."""
        known = self._known(job)
        pending = job.tokens[known : known + _READ]
        whole = known + len(pending) == len(job.tokens)
        tokens = job.tokens[: known + len(pending)]
        found: list[int] = []
        while True:
            token = self._step(job.slot, known, pending)
            known += len(pending)
            if not whole:
                break
            found.append(token)
            if len(found) == count:
                break
            pending = [token]
            tokens.append(token)
        self._held[job.slot] = tokens
        return found

    def _step(self, slot: int, start: int, tokens: list[int]) -> int:
        began = time.perf_counter()
        self.arena.touch(slot, start + len(tokens))
        narrow = len(tokens) <= _NARROW
        plan = self.plan([Span(slot, start, len(tokens))], len(tokens) if narrow else 0)
        logits = self.decoder.forward(tokens, plan, [len(tokens) - 1])
        seconds = time.perf_counter() - began
        if len(tokens) == 1:
            self.step_seconds = _moved(self.step_seconds, seconds)
        elif not narrow:
            self.token_seconds = _moved(self.token_seconds, seconds / len(tokens))
        return int(logits[0].argmax())

    def forget(self, slot: int) -> None:
        """The row is another sequence's from now on."""
        self._held.pop(slot, None)
        self.arena.clear(slot)


def _moved(before: float, seconds: float) -> float:
    return before + _RATE * (seconds - before) if before else seconds


def same_vocabulary(one: list[bytes], other: list[bytes]) -> bool:
    """Do the tokens of two models mean the same? One may have unused rows at its end."""
    least = min(len(one), len(other))
    return least > 0 and one[:least] == other[:least]
