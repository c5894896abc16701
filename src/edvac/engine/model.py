"""The decoder itself: Qwen2, Qwen3, Llama and SmolLM2 are one network with three switches.

It maps a flat batch of token rows, each with its place in a sequence, to logits for the rows that
sample. Attention and KV memory are `edvac.engine.attention`'s; where weights come from, and which
request a row belongs to, is unknown here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from edvac.engine.attention import CPU, AttentionPlan, KeyBias, Norms, rotation
from edvac.engine.linear import Norm, Product, Rows
from edvac.engine.weights import ModelConfig


@dataclass(slots=True)
class Layer:
    """One block's weights; `key_bias` is what the plan adds to keys, since `qkv` does not."""

    attention_norm: Norm
    feed_norm: Norm
    qkv: Product
    out: Product
    gate_up: Product
    down: Product
    head_norms: Norms
    key_bias: torch.Tensor | None = None


class Embedding(Protocol):
    def __call__(self, which: list[int], /) -> torch.Tensor: ...


@dataclass(slots=True)
class Decoder:
    """A whole model, ready to run."""

    config: ModelConfig
    embedding: Embedding
    layers: list[Layer]
    final_norm: Norm
    head: Product
    frequencies: torch.Tensor

    def forward(self, tokens: list[int], plan: AttentionPlan, sampled: list[int]) -> torch.Tensor:
        """Logits of the rows listed in `sampled`, in main memory; the plan keeps keys and
        values of all rows."""
        config, answering = self.config, plan.answering
        x = self.embedding(tokens).to(plan.device)
        turns = rotation(plan.positions, self.frequencies)
        for number, layer in enumerate(self.layers):
            qkv = layer.qkv(Rows(x, answering, layer.attention_norm))
            mixed = plan.mix(number, qkv, turns, layer.head_norms)
            if number == len(self.layers) - 1:
                # Beyond the last keys and values only sampling rows matter.
                if not sampled:
                    return torch.empty(0, config.vocabulary)
                picked = torch.tensor(sampled, dtype=torch.long, device=plan.device)
                mixed, x = mixed[picked], x[picked]
                answering = sum(row < answering for row in sampled)
            x = x + layer.out(Rows(mixed, answering))
            gate_up = layer.gate_up(Rows(x, answering, layer.feed_norm))
            x = x + layer.down(Rows(gate_up, answering, gated=True))
        # What follows a prompt is the first of an answer's rows.
        return self.head(Rows(x, len(x), self.final_norm)).to(CPU)

    def key_bias(self, positions: int) -> KeyBias | None:
        """What has to be added to keys of so many positions; None where products add it."""
        found = [layer.key_bias for layer in self.layers]
        if all(one is None for one in found):
            return None
        return KeyBias.up_to(positions, found, self.frequencies)


def frequencies(config: ModelConfig, factors: torch.Tensor | None) -> torch.Tensor:
    """Rotary frequencies; `factors` stretch them as Llama 3.1 does."""
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    found = 1.0 / config.rope_base**steps
    return found if factors is None else found / factors.double()
