"""Whole files that mean ill, each written here and broken in one way that somebody could think of.

Names are what is wrong; values write the file into a directory and say what reads it. Broken
containers (counts, offsets, types) are in `test_gguf`, broken adapters in `test_adapters`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from . import tiny
from .families import array
from .test_loader import write_safetensors
from .test_sentencepiece import metadata as spm_metadata

Maker = Callable[[Path], Path]


def model(
    *more: bytes,
    without: str = "nothing",
    architecture: str = "llama",
    kinds: tuple[str, ...] = (),
    **changed: Any,
) -> Maker:
    """A tiny model: further keys instead of those whose names hold `without`, and tensors that are
    replaced (by a new one, or by None to be gone)."""

    def write(folder: Path) -> Path:
        keys = [key for key in tiny.metadata(architecture) if without.encode() not in key]
        found = tiny.tensors(architecture, 1)
        for name, made in changed.items():
            whole = name.replace("__", ".")
            if made is None:
                del found[whole]
            else:
                found[whole] = made(found[whole]) if callable(made) else made
        return tiny.write_model(folder / "bad.gguf", [*keys, *more], found, kinds)

    return write


def tokens(changed: Callable[[list[str]], object]) -> Maker:
    """The vocabulary of the tiny model, with something done to it."""
    words = tiny.vocabulary()
    changed(words)
    return model(
        tiny.strings("tokenizer.ggml.tokens", words),
        without="tokenizer.ggml.tokens",
    )


def spm(**changed: object) -> Maker:
    """A vocabulary of SentencePiece's, with a column of it replaced."""
    columns = {name.rpartition(".")[2]: value for name, value in spm_metadata(**changed).items()}

    def write(folder: Path) -> Path:
        keys = [one for one in tiny.metadata("gemma3", 32) if b"tokenizer.ggml" not in one]
        keys.append(tiny.key("tokenizer.ggml.model", 8, tiny.text("llama")))
        keys.append(tiny.strings("tokenizer.ggml.tokens", list(columns["tokens"])))  # type: ignore[arg-type]
        for name, kind, form in (("scores", 6, "f"), ("token_type", 5, "i")):
            if columns[name] is not None:
                keys.append(array(f"tokenizer.ggml.{name}", kind, form, columns[name]))  # type: ignore[arg-type]
        return tiny.write_model(folder / "bad.gguf", keys, tiny.tensors("gemma3", 1, 32))

    return write


def published(name: str, change: Callable[[Any], object]) -> Maker:
    """The tiny model as safetensors, with a change to one of the JSON files beside it."""

    def write(folder: Path) -> Path:
        path = write_safetensors(folder, tiny.write_tiny(folder / "tiny.gguf"))
        file = folder / name
        document = json.loads(file.read_bytes())
        change(document)
        file.write_text(json.dumps(document))
        return path

    return write


def stored(change: Callable[[dict[str, np.ndarray]], object]) -> Maker:
    """The same with a change to the tensors themselves."""

    def write(folder: Path) -> Path:
        path = write_safetensors(folder, tiny.write_tiny(folder / "tiny.gguf"))
        found = safetensors.numpy.load_file(str(path))
        change(found)
        safetensors.numpy.save_file(found, str(path))
        return path

    return write


def infinite(blocks: np.ndarray) -> np.ndarray:
    return np.full_like(blocks, np.inf)


def _split(pattern: str) -> Callable[[Any], object]:
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return lambda document: document.update(pre_tokenizer=step)


U32 = tiny.number
ZEROS = np.zeros((64, 64), "<f4")
Q = "model.layers.0.self_attn.q_proj.weight"

CORPUS: dict[str, Maker] = {
    "heads of none": model(U32("llama.attention.head_count", 0), without=".head_count"),
    "heads of 2^31": model(U32("llama.attention.head_count", 1 << 31), without="head_count"),
    "heads that do not divide": model(
        U32("llama.attention.head_count", 4),
        U32("llama.attention.head_count_kv", 3),
        without="head_count",
    ),
    "heads as text": model(
        tiny.key("llama.attention.head_count", 8, tiny.text("4")), without="head_count"
    ),
    "odd heads": model(U32("llama.attention.key_length", 15), without="_length"),
    "layers that are not there": model(U32("llama.block_count", 3), without="block_count"),
    "a million layers": model(U32("llama.block_count", 1_000_000), without="block_count"),
    "no context": model(U32("llama.context_length", 0), without="context_length"),
    "no rotation": model(tiny.real("llama.rope.freq_base", 0.0), without="freq_base"),
    "rotation of no number": model(
        tiny.real("llama.rope.freq_base", float("nan")), without="freq_base"
    ),
    "a product of another shape": model(blk__0__attn_q__weight=np.zeros((32, 64), "<f4")),
    "a product of three dimensions": model(blk__1__ffn_up__weight=np.zeros((2, 48, 64), "<f4")),
    "a product of one": model(blk__1__ffn_up__weight=np.zeros(96, "<f4")),
    "a norm of another width": model(blk__1__ffn_norm__weight=np.ones(65, "<f4")),
    "an embedding of another width": model(token_embd__weight=np.zeros((264, 32), "<f4")),
    "an output of another size": model(output__weight=np.zeros((9, 64), "<f4")),
    "another width between": model(U32("llama.feed_forward_length", 95), without="feed_forward"),
    "a bias too long": model(architecture="qwen2", blk__0__attn_k__bias=np.zeros(33, "<f4")),
    "a layer without its down": model(blk__1__ffn_down__weight=None),
    "a norm of heads that is missing": model(
        architecture="qwen3", blk__0__attn_q_norm__weight=None
    ),
    "infinite weights": model(blk__0__ffn_up__weight=infinite),
    "infinite norms": model(output_norm__weight=infinite),
    "fewer tokens than embeddings": tokens(lambda words: words.pop()),
    "more tokens than embeddings": tokens(lambda words: words.append("more")),
    "a token of a megabyte": tokens(lambda words: words.__setitem__(7, "x" * (1 << 20))),
    "merges of what is no token": tokens(lambda words: words.__setitem__(ord("h"), "other")),
    "merges that are no pairs": model(
        tiny.strings("tokenizer.ggml.merges", ["ab"]), without="ggml.merges"
    ),
    "merges that are numbers": model(
        array("tokenizer.ggml.merges", 4, "I", [1, 2]), without="ggml.merges"
    ),
    "no merges": model(without="ggml.merges"),
    "no tokens": model(without="ggml.tokens"),
    "an unknown way of cutting": model(
        tiny.key("tokenizer.ggml.pre", 8, tiny.text("nope")), without="ggml.pre"
    ),
    "an unknown tokeniser": model(
        tiny.key("tokenizer.ggml.model", 8, tiny.text("bert")), without="ggml.model"
    ),
    "a template of two megabytes": model(
        tiny.key("tokenizer.chat_template", 8, tiny.text("x" * (2 << 20))), without="chat_template"
    ),
    "scores of no number": spm(scores=[float("nan")] * 276),
    "no scores": spm(scores=None),
    "an architecture that sees pictures": published(
        "config.json", lambda config: config.update(model_type="gemma3")
    ),
    "ids that are no numbers": published(
        "tokenizer.json", lambda one: one["model"]["vocab"].update(a="7")
    ),
    "ids below zero": published("tokenizer.json", lambda one: one["model"]["vocab"].update(a=-1)),
    "ids beyond the vocabulary": published(
        "tokenizer.json", lambda one: one["model"]["vocab"].update(a=264)
    ),
    "a special token of an infinite id": published(
        "tokenizer.json", lambda one: one["added_tokens"][0].update(id=float("inf"))
    ),
    "a special token without a name": published(
        "tokenizer.json", lambda one: one["added_tokens"].append({"id": 3})
    ),
    "merges of what is no token, as JSON": published(
        "tokenizer.json", lambda one: one["model"]["merges"].append(["no", "where"])
    ),
    "another tokeniser": published(
        "tokenizer.json", lambda one: one["model"].update(type="WordPiece")
    ),
    "no tokens, as JSON": published("tokenizer.json", lambda one: one["model"].update(vocab=[])),
    "no model": published("tokenizer.json", lambda one: one.update(model=None)),
    "an expression that is none": published("tokenizer.json", _split("(")),
    "an expression without end": published("tokenizer.json", _split("(l+l+)+y|(.+.+)+\x01")),
    "weights that are whole numbers": stored(lambda found: found.update({Q: ZEROS.astype("i4")})),
    "a product transposed": stored(
        lambda found: found.update({Q: np.zeros((64, 65), "<f4")}),
    ),
    "a tensor that is missing": stored(lambda found: found.pop(Q)),
}
