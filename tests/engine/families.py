"""Every family as a tiny random model, and a decoder of a few plain lines as their oracle.

A family is written down twice on purpose: as the keys of a GGUF file, which the engine reads, and
as the numbers that the oracle computes with.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .tiny import (
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    LAYERS,
    WIDTH,
    key,
    metadata,
    number,
    real,
    tensors,
    text,
    write_model,
)

TOKENS = [5, 99, 3, 250, 261, 7, 7, 64, 12, 200, 31, 8, 90, 90, 17, 4, 133, 256, 258, 41]


@dataclass(frozen=True)
class Family:
    """One model: its GGUF architecture and what its oracle does."""

    architecture: str
    keys: list[bytes] = field(default_factory=list)
    head_dim: int = HEAD_DIM
    windows: tuple[int, ...] = (0,) * LAYERS
    bases: tuple[float, ...] = (10_000.0,) * LAYERS
    divisors: tuple[float, ...] = (1.0,) * LAYERS
    attention_cap: float = 0.0
    logit_cap: float = 0.0
    embedding_scale: float = 1.0
    gate: Callable[[torch.Tensor], torch.Tensor] = F.silu
    stretched: bool = False

    def weights(self, seed: int = 3) -> dict[str, np.ndarray]:
        found = tensors(self.architecture, seed, self.head_dim)
        if self.stretched:
            found["rope_freqs.weight"] = np.linspace(1, 8, self.head_dim // 2, dtype="<f4")
        return found

    def write(self, path: Path, seed: int = 3) -> Path:
        keys = metadata(self.architecture, self.head_dim)
        return write_model(path, keys + self.keys, self.weights(seed))


def array(name: str, kind: int, form: str, values: Sequence[object]) -> bytes:
    return key(name, 9, struct.pack(f"<IQ{len(values)}{form}", kind, len(values), *values))


def _gelu(gate: torch.Tensor) -> torch.Tensor:
    return 0.5 * gate * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (gate + 0.044715 * gate**3)))


GEMMA = {"head_dim": 32, "embedding_scale": 8.0, "gate": _gelu}
FAMILIES = {
    "llama": Family("llama"),
    "llama, stretched": Family("llama", stretched=True),
    "llama, linear": Family(
        "llama",
        [key("llama.rope.scaling.type", 8, text("linear")), real("llama.rope.scaling.factor", 4)],
        divisors=(4.0, 4.0),
    ),
    "mistral": Family("llama", [number("llama.attention.sliding_window", 6)], windows=(6, 6)),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3"),
    "qwen3, wide heads": Family("qwen3", head_dim=32),
    "gemma": Family("gemma", **GEMMA),  # type: ignore[arg-type]
    "gemma2": Family(
        "gemma2",
        [
            number("gemma2.attention.sliding_window", 6),
            real("gemma2.attn_logit_softcapping", 3.0),
            real("gemma2.final_logit_softcapping", 5.0),
        ],
        windows=(6, 0),
        attention_cap=3.0,
        logit_cap=5.0,
        **GEMMA,  # type: ignore[arg-type]
    ),
    "gemma3": Family(
        "gemma3",
        [
            number("gemma3.attention.sliding_window", 6),
            array("gemma3.attention.sliding_window_pattern", 7, "?", [True, False]),
            key("gemma3.rope.scaling.type", 8, text("linear")),
            real("gemma3.rope.scaling.factor", 8.0),
            real("gemma3.rope.freq_base_swa", 500.0),
        ],
        windows=(6, 0),
        bases=(500.0, 10_000.0),
        divisors=(1.0, 8.0),
        **GEMMA,  # type: ignore[arg-type]
    ),
}


def _rms(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return values / (values.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def _halves(weight: torch.Tensor, family: Family) -> torch.Tensor:
    """GGUF's llama alternates the rotary halves."""
    if family.architecture != "llama":
        return weight
    heads = weight.view(-1, family.head_dim, weight.shape[1])
    return torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1).reshape(weight.shape)


def naive_logits(family: Family, tokens: list[int], seed: int = 3) -> torch.Tensor:
    """Logits after every token, (tokens, vocabulary), with no memory, no batch and no step."""
    w = {name: torch.from_numpy(array) for name, array in family.weights(seed).items()}
    x = w["token_embd.weight"][tokens] * family.embedding_scale
    place, width = torch.arange(len(tokens)), family.head_dim
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        rate = family.bases[layer] ** (-torch.arange(0, width, 2).double() / width)
        rate = rate / family.divisors[layer]
        if family.stretched:
            rate = rate / w["rope_freqs.weight"]
        angle = (place[:, None] * rate)[:, None].float()

        def turned(heads: torch.Tensor, angle: torch.Tensor = angle) -> torch.Tensor:
            one, two = heads.chunk(2, -1)
            cos, sin = angle.cos(), angle.sin()
            return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)

        def heads(name: str, rotated: bool, y: torch.Tensor, at: str = at) -> torch.Tensor:
            weight = w[f"{at}attn_{name}.weight"]
            found = y @ (_halves(weight, family) if rotated else weight).T
            found = found + w.get(f"{at}attn_{name}.bias", torch.zeros(1))
            found = found.view(len(tokens), -1, width)
            norm = w.get(f"{at}attn_{name}_norm.weight")
            return found if norm is None else _rms(found, norm)

        y = _rms(x, w[at + "attn_norm.weight"])
        query, key_ = turned(heads("q", True, y)), turned(heads("k", True, y))
        value = heads("v", False, y).repeat_interleave(HEADS // KV_HEADS, 1)
        key_ = key_.repeat_interleave(HEADS // KV_HEADS, 1)
        scores = torch.einsum("qhd,khd->hqk", query, key_) / width**0.5
        if family.attention_cap:
            scores = family.attention_cap * torch.tanh(scores / family.attention_cap)
        back = place[:, None] - place[None]
        unseen = (back < 0) | (back >= (family.windows[layer] or len(tokens)))
        mixed = scores.masked_fill(unseen, -torch.inf).softmax(-1)
        y = torch.einsum("hqk,khd->qhd", mixed, value).reshape(len(tokens), -1)
        y = y @ w[at + "attn_output.weight"].T
        after = w.get(at + "post_attention_norm.weight")
        x = x + (y if after is None else _rms(y, after))
        y = _rms(x, w[at + "ffn_norm.weight"])
        y = family.gate(y @ w[at + "ffn_gate.weight"].T) * (y @ w[at + "ffn_up.weight"].T)
        y = y @ w[at + "ffn_down.weight"].T
        after = w.get(at + "post_ffw_norm.weight")
        x = x + (y if after is None else _rms(y, after))
    found = _rms(x, w["output_norm.weight"]) @ w["token_embd.weight"].T
    cap = family.logit_cap
    return cap * torch.tanh(found / cap) if cap else found


assert WIDTH == 64, "the embedding scale of the Gemmas above is its root"
