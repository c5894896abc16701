"""A model small enough for whole engines in tests: two layers of noise, a vocabulary of bytes."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edvac.engine.gguf import BLOCK_TYPES
from edvac.engine.tokenizer import byte_alphabet

WIDTH, FEED, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 64, 96, 4, 2, 16, 2
SPECIALS = ["<|end|>", "<|user|>", "<|assistant|>"]
MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "t"), ("Ġt", "he")]


def vocabulary() -> list[str]:
    letters = sorted(byte_alphabet(), key=lambda char: byte_alphabet()[char])
    return [*letters, *("".join(pair) for pair in MERGES), *SPECIALS]


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, body: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + body


def number(name: str, value: int) -> bytes:
    return key(name, 4, struct.pack("<I", value))


def real(name: str, value: float) -> bytes:
    return key(name, 6, struct.pack("<f", value))


def strings(name: str, values: list[str]) -> bytes:
    return key(name, 9, struct.pack("<IQ", 8, len(values)) + b"".join(map(text, values)))


def metadata(
    architecture: str,
    head_dim: int = HEAD_DIM,
    layers: int = LAYERS,
    *,
    template: str = "{{ messages }}",
    context: int = 512,
) -> list[bytes]:
    tokens = vocabulary()
    kinds = [3 if token in SPECIALS else 1 for token in tokens]
    return [
        key("general.architecture", 8, text(architecture)),
        key("general.name", 8, text("tiny")),
        number(f"{architecture}.block_count", layers),
        number(f"{architecture}.context_length", context),
        number(f"{architecture}.embedding_length", WIDTH),
        number(f"{architecture}.feed_forward_length", FEED),
        number(f"{architecture}.attention.head_count", HEADS),
        number(f"{architecture}.attention.head_count_kv", KV_HEADS),
        number(f"{architecture}.attention.key_length", head_dim),
        number(f"{architecture}.attention.value_length", head_dim),
        real(f"{architecture}.rope.freq_base", 10000.0),
        real(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5),
        key("tokenizer.ggml.model", 8, text("gpt2")),
        key("tokenizer.ggml.pre", 8, text("qwen2")),
        strings("tokenizer.ggml.tokens", tokens),
        strings("tokenizer.ggml.merges", [" ".join(pair) for pair in MERGES]),
        key(
            "tokenizer.ggml.token_type", 9, struct.pack(f"<IQ{len(kinds)}i", 5, len(kinds), *kinds)
        ),
        key("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", tokens.index("<|end|>"))),
        key("tokenizer.chat_template", 8, text(template)),
    ]


def tensors(
    architecture: str, seed: int, head_dim: int = HEAD_DIM, layers: int = LAYERS
) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)

    def noise(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.3).astype("<f4")

    found = {"token_embd.weight": noise(len(vocabulary()), WIDTH)}
    found["output_norm.weight"] = 1 + noise(WIDTH)
    for layer in range(layers):
        at = f"blk.{layer}"
        found |= {
            f"{at}.attn_norm.weight": 1 + noise(WIDTH),
            f"{at}.ffn_norm.weight": 1 + noise(WIDTH),
            f"{at}.attn_q.weight": noise(HEADS * head_dim, WIDTH),
            f"{at}.attn_k.weight": noise(KV_HEADS * head_dim, WIDTH),
            f"{at}.attn_v.weight": noise(KV_HEADS * head_dim, WIDTH),
            f"{at}.attn_output.weight": noise(WIDTH, HEADS * head_dim),
            f"{at}.ffn_gate.weight": noise(FEED, WIDTH),
            f"{at}.ffn_up.weight": noise(FEED, WIDTH),
            f"{at}.ffn_down.weight": noise(WIDTH, FEED),
        }
        if architecture == "qwen2":
            for name, rows in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
                found[f"{at}.attn_{name}.bias"] = noise(rows * head_dim)
        if architecture in ("qwen3", "gemma3"):
            found[f"{at}.attn_q_norm.weight"] = 1 + noise(head_dim)
            found[f"{at}.attn_k_norm.weight"] = 1 + noise(head_dim)
        if architecture in ("gemma2", "gemma3"):
            found[f"{at}.post_attention_norm.weight"] = 1 + noise(WIDTH)
            found[f"{at}.post_ffw_norm.weight"] = 1 + noise(WIDTH)
    return found


def head(name: str, dims: tuple[int, ...], kind: int, offset: int) -> bytes:
    return (
        text(name)
        + struct.pack("<I", len(dims))
        + struct.pack(f"<{len(dims)}Q", *dims)
        + struct.pack("<IQ", kind, offset)
    )


def random_blocks(kind: str, outputs: int, width: int, seed: int = 0) -> np.ndarray:
    """The bytes of a matrix of this kind: any codes, scales that keep numbers below one."""
    random = np.random.default_rng(seed)
    block = next(one for one in BLOCK_TYPES.values() if one.name == kind)
    count = outputs * width // block.items
    raw = random.integers(0, 256, (count, block.size), dtype=np.uint8)
    largest = {"Q8_0": 128, "Q4_K": 15 * 63, "Q5_K": 31 * 63, "Q6_K": 32 * 128}.get(kind, 31)
    places = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
    places |= {"Q2_K": (80, 82), "Q3_K": (108,), "MXFP4": ()}
    if kind == "MXFP4":
        raw[:, 0] = random.integers(118, 124, count)
    for at in places.get(kind, (0,)):
        scales = (random.uniform(0.1, 1.0, count) / largest).astype("<f2")
        raw[:, at : at + 2] = scales.view(np.uint8).reshape(count, 2)
    return raw.reshape(-1)


def write_tiny(
    path: Path,
    architecture: str = "qwen2",
    seed: int = 1,
    kinds: tuple[str, ...] = (),
    template: str = "{{ messages }}",
    context: int = 512,
) -> Path:
    """With `kinds`, matrices hold random blocks of these, one kind after the other."""
    keys = metadata(architecture, template=template, context=context)
    return write_model(path, keys, tensors(architecture, seed), kinds)


def write_model(
    path: Path, keys: list[bytes], found: dict[str, np.ndarray], kinds: tuple[str, ...] = ()
) -> Path:
    heads, body = b"", b""
    numbers = {one.name: number for number, one in BLOCK_TYPES.items()}
    chosen = itertools.cycle(kinds or ("F32",))
    for place, (name, tensor) in enumerate(found.items()):
        kind = next(chosen) if tensor.ndim == 2 else "F32"
        heads += head(name, tuple(reversed(tensor.shape)), numbers[kind], len(body))
        if kind == "F32":
            body += np.ascontiguousarray(tensor, "<f4").tobytes()
        else:
            body += random_blocks(kind, *tensor.shape, seed=place).tobytes()
        body += bytes(-len(body) % 32)
    start = b"GGUF" + struct.pack("<IQQ", 3, len(found), len(keys)) + b"".join(keys) + heads
    path.write_bytes(start + bytes(-len(start) % 32) + body)
    return path


def gguf(keys: list[bytes], heads: list[bytes], body: bytes = b"", version: int = 3) -> bytes:
    start = b"GGUF" + struct.pack("<IQQ", version, len(heads), len(keys))
    start += b"".join(keys) + b"".join(heads)
    return start + bytes(-len(start) % 32) + body


Maker = Callable[[], bytes]
