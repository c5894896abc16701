"""Chooses the next token from one row of logits.

The choice depends only on the row, the request's settings and (seed, position): never on what
else was in the batch. It knows neither text nor grammar; forbidden tokens arrive as minus
infinity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from edvac.engine.protocol import Token

MOST_ALTERNATIVES: Final = 100  # that are reported of one token


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
    share = _uniform(sampling.seed, position)
    keep = min(sampling.top_k, len(logits)) if sampling.top_k > 0 else len(logits)
    best, tokens = torch.topk(logits, keep if sampling.top_k > 0 else min(keep, _LIKELY))
    weights = torch.exp((best.double() - best[0].double()) / sampling.temperature)
    mass = float(weights.sum())
    if len(best) < keep:
        rest = (logits.double() - best[0].double()) / sampling.temperature
        mass = float(torch.exp(rest).sum())
    found = _pick(weights / mass, share, sampling, whole=len(best) == keep)
    if found is None:
        best, tokens = torch.topk(logits, keep)
        found = _pick(torch.softmax(best.double() / sampling.temperature, 0), share, sampling)
        assert found is not None
    return int(tokens[found])


def add_bias(logits: torch.Tensor, bias: dict[int, float]) -> torch.Tensor:
    """Logits with something added to some of them; minus infinity forbids a token."""
    found = logits.clone()
    found[torch.tensor(list(bias))] += torch.tensor(list(bias.values()), dtype=logits.dtype)
    return found


def report(
    tokens: list[int], logits: torch.Tensor, spelled: Callable[[int], bytes], most: int
) -> list[Token]:
    """What is told of tokens that were chosen.

    Args:
        logits: the row that the first one was chosen from.
        spelled: the bytes of a token.
        most: alternatives to name; below 0, no probabilities are told either.
    """
    if most < 0:
        return [Token(token, spelled(token)) for token in tokens]
    chances = torch.log_softmax(logits.float(), 0)
    best, ids = torch.topk(chances, min(most, len(chances)))
    likely = zip(ids.tolist(), best.tolist(), strict=True)
    top = [(token, spelled(token), chance) for token, chance in likely]
    return [Token(token, spelled(token), float(chances[token]), top) for token in tokens]


_LIKELY = 256  # the next token is nearly always among these; sorting a vocabulary costs far more


def _pick(
    chances: torch.Tensor, share: float, sampling: Sampling, *, whole: bool = True
) -> int | None:
    """Which of the chances (highest first) a share in [0, 1) of the allowed ones falls on.

    Args:
        whole: these are all there are; if not, None says that the rest would decide.
    """
    before = chances.cumsum(0) - chances
    allowed = (before < sampling.top_p) & (chances >= sampling.min_p * chances[0])
    allowed[0] = True
    total = torch.where(allowed, chances, 0.0).cumsum(0)
    mass = float(total[-1])
    if not whole and bool(allowed[-1]):
        if sampling.top_p < 1.0 or sampling.min_p > 0.0 or share >= mass:
            return None
        mass = 1.0
    point = torch.tensor(share * mass, dtype=total.dtype)
    index = min(int(torch.searchsorted(total, point, right=True)), len(total) - 1)
    while index and not bool(allowed[index]):
        index -= 1  # rounding at the very end of the scale
    return index


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
