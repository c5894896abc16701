"""Random LoRA adapters for the tiny models, in both kinds of files, and the weights they make."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.numpy

from edvac.engine.weights import HF_PRODUCTS

from .tiny import FEED, HEADS, KV_HEADS, LAYERS, WIDTH, key, real, text, vocabulary, write_model

ALPHA = 6.0
RANK = 4


def matrices(
    seed: int, head_dim: int = 16, size: float = 0.3, rank: int = RANK, layers: int = LAYERS
) -> dict[str, np.ndarray]:
    """``NAME.lora_a`` (rank, width) and ``NAME.lora_b`` (outputs, rank) of every product, with the
    rotary halves one after the other."""
    random = np.random.default_rng(seed)
    outputs = {
        "attn_q": HEADS * head_dim,
        "attn_k": KV_HEADS * head_dim,
        "attn_v": KV_HEADS * head_dim,
        "attn_output": WIDTH,
        "ffn_gate": FEED,
        "ffn_up": FEED,
        "ffn_down": WIDTH,
    }
    widths = {"attn_output": HEADS * head_dim, "ffn_down": FEED}
    found = {}
    names = [(f"blk.{layer}.{name}", name) for layer in range(layers) for name in outputs]
    for whole, name in [*names, ("output", "output")]:
        shapes = (
            (rank, widths.get(name, WIDTH)),
            (outputs.get(name, len(vocabulary())), rank),
        )
        for side, shape in zip("ab", shapes, strict=True):
            noise = random.standard_normal(shape) * size
            found[f"{whole}.weight.lora_{side}"] = noise.astype("<f4")
    return found


def turned(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """As GGUF's llama has them: the rotary halves alternate."""
    heads = rows.reshape(-1, 2, head_dim // 2, rows.shape[1])
    return np.ascontiguousarray(heads.transpose(0, 2, 1, 3).reshape(rows.shape))


def write_gguf(
    path: Path, found: dict[str, np.ndarray], architecture: str, head_dim: int = 16
) -> Path:
    keys = [
        key("general.type", 8, text("adapter")),
        key("general.architecture", 8, text(architecture)),
        key("adapter.type", 8, text("lora")),
        real("adapter.lora.alpha", ALPHA),
    ]
    stored = {
        name: turned(array, head_dim)
        if architecture == "llama" and name.endswith(("q.weight.lora_b", "k.weight.lora_b"))
        else array
        for name, array in found.items()
    }
    return write_model(path, keys, stored)


def write_peft(folder: Path, found: dict[str, np.ndarray], **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    stated = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", **settings}
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    tensors = {}
    for name, array in found.items():
        whole, _, side = name.rpartition(".lora_")
        parts = whole.split(".")
        module = "lm_head"
        if parts[0] == "blk":
            module = f"model.layers.{parts[1]}.{HF_PRODUCTS[parts[2]]}"
        tensors[f"base_model.model.{module}.lora_{side.upper()}.weight"] = array
    safetensors.numpy.save_file(tensors, str(folder / "adapter_model.safetensors"))
    return folder


def merged(weights: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's weights with what the adapter adds to each."""
    both = dict(weights)
    both.setdefault("output.weight", weights["token_embd.weight"])
    for name in [name.removesuffix(".lora_a") for name in found if name.endswith(".lora_a")]:
        down, up = found[f"{name}.lora_a"], found[f"{name}.lora_b"]
        both[name] = both[name] + ALPHA / len(down) * (up @ down)
    return both
