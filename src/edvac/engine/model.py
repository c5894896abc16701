"""The decoder itself: all families are one network with a few switches (`edvac.engine.config`).

It maps a flat batch of token rows, each with its place in a sequence, to logits for the rows that
sample. Attention and KV memory are `edvac.engine.attention`'s; where weights come from, and which
request a row belongs to, is unknown here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from edvac.engine.adapters import HEAD, Adapted, adapt
from edvac.engine.attention import CPU, AttentionPlan, KeyBias, Norms, capped, rotation
from edvac.engine.config import ModelConfig
from edvac.engine.linear import Norm, Product, Rows
from edvac.engine.weights import rates


@dataclass(slots=True)
class Layer:
    """One block's weights; `key_bias` is what the plan adds to keys, since `qkv` does not; the last
    two normalise what it adds, where a family does that."""

    attention_norm: Norm
    feed_norm: Norm
    qkv: Product
    out: Product
    gate_up: Product
    down: Product
    head_norms: Norms
    key_bias: torch.Tensor | None = None
    attention_after: Norm | None = None
    feed_after: Norm | None = None


class Embedding(Protocol):
    def __call__(self, which: list[int], /) -> torch.Tensor: ...


@dataclass(slots=True)
class Decoder:
    """A whole model, ready to run; `window_frequencies` are those of windowed layers, where these
    have their own."""

    config: ModelConfig
    embedding: Embedding
    layers: list[Layer]
    final_norm: Norm
    head: Product
    frequencies: torch.Tensor
    window_frequencies: torch.Tensor | None

    def forward(
        self,
        tokens: list[int],
        plan: AttentionPlan,
        sampled: list[int],
        adapted: Sequence[Adapted] = (),
    ) -> torch.Tensor:
        """Logits of the rows listed in `sampled`, in main memory; the plan keeps keys and
        values of all rows, and `adapted` says which of them want which adapter."""
        config, answering = self.config, plan.answering
        x = self.embedding(tokens).to(plan.device) * config.embedding_scale
        everywhere = windowed = rotation(plan.positions, self.frequencies)
        if self.window_frequencies is not None:
            windowed = rotation(plan.positions, self.window_frequencies)
        for number, layer in enumerate(self.layers):
            normed = Rows(x, answering, layer.attention_norm)
            qkv = adapt(layer.qkv(normed), adapted, number, "qkv", normed)
            turns = windowed if config.window_of(number) else everywhere
            mixed = plan.mix(number, qkv, turns, layer.head_norms)
            if number == len(self.layers) - 1:
                # Beyond the last keys and values only sampling rows matter.
                if not sampled:
                    return torch.empty(0, config.vocabulary)
                picked = torch.tensor(sampled, dtype=torch.long, device=plan.device)
                mixed, x = mixed[picked], x[picked]
                answering = sum(row < answering for row in sampled)
                adapted = [one.among(sampled) for one in adapted]
            rows = Rows(mixed, answering)
            out = adapt(layer.out(rows), adapted, number, "out", rows)
            x = x + _normed(out, layer.attention_after)
            rows = Rows(x, answering, layer.feed_norm)
            gate_up = adapt(layer.gate_up(rows), adapted, number, "gate_up", rows)
            rows = Rows(gate_up, answering, gated=True, gelu=config.gelu)
            down = adapt(layer.down(rows), adapted, number, "down", rows)
            x = x + _normed(down, layer.feed_after)
        # What follows a prompt is the first of an answer's rows.
        rows = Rows(x, len(x), self.final_norm)
        logits = adapt(self.head(rows), adapted, len(self.layers), HEAD, rows).to(CPU)
        return capped(logits, config.logit_cap)

    def key_bias(self, positions: int) -> KeyBias | None:
        """What has to be added to keys of so many positions; None where products add it."""
        found = [layer.key_bias for layer in self.layers]
        if all(one is None for one in found):
            return None
        return KeyBias.up_to(positions, found, self.frequencies)


def _normed(values: torch.Tensor, norm: Norm | None) -> torch.Tensor:
    return values if norm is None else norm(values)


def frequencies(config: ModelConfig, factors: torch.Tensor | None) -> torch.Tensor:
    """Rotary frequencies of layers that see everything, (head_dim / 2), float64; `factors` stretch
    them as Llama 3.1 does."""
    found = rates(config.rope_base, config.head_dim) / config.rope_divisor
    return found if factors is None else found / factors.double()


def window_frequencies(config: ModelConfig) -> torch.Tensor | None:
    """Those of windowed layers; None where they are the others'."""
    base = config.window_rope_base
    return rates(base, config.head_dim) if base and any(config.windowed) else None
