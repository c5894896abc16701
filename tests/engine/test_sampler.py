"""Sampling: the same token as sorting the whole vocabulary would give, whatever the settings."""

from __future__ import annotations

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edvac.engine.sampler import Sampling, _uniform, choose


def naive(logits: list[float], sampling: Sampling, share: float) -> int:
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    if sampling.top_k:
        order = order[: sampling.top_k]
    powers = [
        2.718281828459045 ** ((logits[t] - logits[order[0]]) / sampling.temperature) for t in order
    ]
    chances = [power / sum(powers) for power in powers]
    kept, before = [], 0.0
    for token, chance in zip(order, chances, strict=True):
        if not kept or (before < sampling.top_p and chance >= sampling.min_p * chances[0]):
            kept.append((token, chance))
        before += chance
    point = share * sum(chance for _, chance in kept)
    for token, chance in kept:
        point -= chance
        if point < 0:
            return token
    return kept[-1][0]


SETTINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.2, 1.0, 3.0]),
    top_k=st.sampled_from([0, 0, 1, 40, 300, 5000]),
    top_p=st.sampled_from([1.0, 0.5, 0.99]),
    min_p=st.sampled_from([0.0, 0.0, 0.1]),
    seed=st.integers(0, 2**31),
)


@settings(max_examples=150, deadline=None)
@given(
    SETTINGS,
    st.integers(0, 10**6),
    st.sampled_from([3, 200, 700]),
    st.floats(0.05, 6.0),
    st.booleans(),
)
@example(Sampling(1.0, seed=3), 1, 3000, 0.05, False)  # the likeliest 256 are not enough
@example(Sampling(1.0, seed=5), 1, 3000, 0.05, False)
@example(Sampling(1.0, seed=8), 1, 3000, 0.05, False)
@example(Sampling(1.0, top_p=0.99, seed=5), 1, 3000, 0.05, False)
def test_a_sample_is_what_sorting_everything_gives(
    sampling: Sampling, seed: int, size: int, spread: float, ruled: bool
) -> None:
    source = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, generator=source, dtype=torch.float64) * spread
    if ruled:  # a grammar forbids most
        logits[torch.rand(size, generator=source) < 0.8] = -torch.inf
        logits[seed % size] = 1.0
    wanted = naive(logits.tolist(), sampling, _uniform(sampling.seed, 7))
    assert choose(logits, sampling, 7, []) == wanted
