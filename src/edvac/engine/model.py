"""The decoder itself: Qwen2, Qwen3, Llama and SmolLM2 are one network with three switches.

It maps a flat batch of token rows, each with its place in a sequence, to logits for the rows that
sample. Attention and KV memory are `edvac.engine.attention`'s; where weights come from, and which
request a row belongs to, is unknown here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from edvac.engine.attention import CPU, Arena, AttentionPlan
from edvac.engine.linear import Product, Rows
from edvac.engine.weights import ModelConfig


@dataclass(slots=True)
class Layer:
    """One block's weights."""

    attention_norm: torch.Tensor
    feed_norm: torch.Tensor
    qkv: Product
    out: Product
    gate_up: Product
    down: Product
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None


class Embedding(Protocol):
    def __call__(self, which: list[int], /) -> torch.Tensor: ...


@dataclass(slots=True)
class Decoder:
    """A whole model, ready to run."""

    config: ModelConfig
    embedding: Embedding
    layers: list[Layer]
    final_norm: torch.Tensor
    head: Product
    frequencies: torch.Tensor

    def forward(
        self, tokens: list[int], plan: AttentionPlan, arena: Arena, sampled: list[int]
    ) -> torch.Tensor:
        """Logits of the rows listed in `sampled`, in main memory; keys and values of all rows go
        into the arena."""
        config = self.config
        x = self.embedding(tokens).to(arena.device)
        rotation = _rotation(plan.positions, self.frequencies)
        query_width = config.heads * config.head_dim
        key_width = config.kv_heads * config.head_dim
        for number, layer in enumerate(self.layers):
            normed = Rows(_norm(x, layer.attention_norm, config.norm_epsilon))
            query, key, value = layer.qkv(normed).split([query_width, key_width, key_width], dim=1)
            query = query.reshape(len(x), config.heads, config.head_dim)
            key = key.reshape(len(x), config.kv_heads, config.head_dim)
            value = value.reshape(len(x), config.kv_heads, config.head_dim)
            if layer.query_norm is not None and layer.key_norm is not None:
                query = _norm(query, layer.query_norm, config.norm_epsilon)
                key = _norm(key, layer.key_norm, config.norm_epsilon)
            query, key = _rotate(query, rotation), _rotate(key, rotation)
            arena.write(number, plan, key, value)
            mixed = plan.attend(number, arena, query)
            if number == len(self.layers) - 1:
                # Beyond the last keys and values only sampling rows matter.
                picked = torch.tensor(sampled, dtype=torch.long, device=arena.device)
                mixed, x = mixed[picked], x[picked]
                if not sampled:
                    return torch.empty(0, config.vocabulary)
            x = x + layer.out(Rows(mixed))
            gate_up = layer.gate_up(Rows(_norm(x, layer.feed_norm, config.norm_epsilon)))
            gate, up = gate_up.split(config.feed_forward, dim=1)
            x = x + layer.down(Rows(F.silu(gate).mul_(up)))
        return self.head(Rows(_norm(x, self.final_norm, config.norm_epsilon))).to(CPU)


def frequencies(config: ModelConfig, factors: torch.Tensor | None) -> torch.Tensor:
    """Rotary frequencies; `factors` stretch them as Llama 3.1 does."""
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    found = 1.0 / config.rope_base**steps
    return found if factors is None else found / factors.double()


def _rotation(positions: torch.Tensor, rates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    angles = positions.double()[:, None] * rates
    return angles.cos().float()[:, None, :], angles.sin().float()[:, None, :]


def _rotate(x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def _norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return F.rms_norm(x, weight.shape, weight, epsilon)
