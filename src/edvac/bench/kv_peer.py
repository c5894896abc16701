"""What llama.cpp predicts of a text with each of its types of keys and values.

Its server is asked token by token, so that every prediction attends to stored keys and values.
It tells the most likely tokens only: one that it does not name is taken to be as likely as the last
that it does, which flatters it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from edvac.bench.arms import llamacpp_arm
from edvac.bench.kv import TOP, Score, truncated

TYPES = ("f16", "q8_0", "q4_0")  # the first is its reference
BITS = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5}  # of a number
_NAMED = 1000  # tokens that are told

Likely = dict[int, float]  # log-probabilities by token


@dataclass(frozen=True, slots=True)
class Peer:
    """llama.cpp's server, as it is started for a model."""

    python: str
    model: Path
    threads: int

    async def predictions(self, kind: str, window: list[int]) -> list[Likely]:
        """What may follow each token of the window, with keys and values of this type."""
        name = f"llama.cpp {kind}"
        async with llamacpp_arm(name, self.python, self.model, self.threads, 1, kv=kind) as arm:
            return [await arm.likely(window[: at + 1], _NAMED) for at in range(len(window))]


def compare(reference: list[Likely], other: list[Likely], window: list[int], into: Score) -> None:
    """Add a window's tokens to a score, of which only the truncated divergence can be known."""
    for at, (true, found) in enumerate(zip(reference, other, strict=True)):
        top = sorted(true, key=lambda token: -true[token])[:TOP]
        least = min(found.values())
        ours = torch.tensor([[true[token] for token in top]])
        theirs = torch.tensor([[found.get(token, least) for token in top]])
        into.truncated += truncated(ours, theirs).tolist()
        into.agreed.append(top[0] == max(found, key=lambda token: found[token]))
        if at + 1 < len(window):
            into.surprise.append(-found.get(window[at + 1], least))
