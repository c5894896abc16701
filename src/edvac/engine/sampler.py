"""Chooses the next token from one row of logits.

The choice depends only on the row, the request's settings and (seed, position): never on what
else was in the batch. It knows neither text nor grammar; forbidden tokens arrive as minus
infinity.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature 0 is greedy; `top_k` 0, `top_p` 1, `min_p` 0 and penalty 1 are off."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0


def choose(logits: torch.Tensor, sampling: Sampling, position: int, seen: list[int]) -> int:
    """The next token; `position` is the index it will have, `seen` the tokens before it."""
    if sampling.repetition_penalty != 1.0 and seen:
        logits = _penalise(logits, sampling.repetition_penalty, seen)
    if sampling.temperature <= 0.0:
        return int(logits.argmax())
    keep = sampling.top_k if sampling.top_k > 0 else len(logits)
    best, tokens = torch.topk(logits, min(keep, len(logits)))
    chances = torch.softmax(best.double() / sampling.temperature, dim=0)
    floor = sampling.min_p * chances[0]
    before = chances.cumsum(0) - chances
    allowed = (before < sampling.top_p) & (chances >= floor)
    allowed[0] = True
    total = torch.where(allowed, chances, 0.0).cumsum(0)
    point = _uniform(sampling.seed, position) * float(total[-1])
    index = int(torch.searchsorted(total, torch.tensor(point, dtype=total.dtype), right=True))
    while index and not bool(allowed[min(index, len(total) - 1)]):
        index -= 1  # rounding at the very end of the scale
    return int(tokens[min(index, len(tokens) - 1)])


def _uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that every machine derives alike."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def _penalise(logits: torch.Tensor, penalty: float, seen: list[int]) -> torch.Tensor:
    index = torch.tensor(sorted(set(seen)))
    found = logits.clone()
    picked = found[index]
    found[index] = torch.where(picked > 0, picked / penalty, picked * penalty)
    return found
