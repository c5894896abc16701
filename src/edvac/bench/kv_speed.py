"""What types of keys and values cost in time and memory, at several lengths of context.

One sequence is read and answered as engines do it; of a prompt its last step counts, of an answer
the median step. One type is measured after the other, on a machine that should be alone.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from edvac.bench.engine import words
from edvac.bench.kv import Reader
from edvac.engine.attention import Attending, KernelPlan, Span
from edvac.engine.kv.codecs import KVType, kv_type_named
from edvac.engine.kv.pages import BLOCK, PagedArena, token_bytes

LENGTHS = (1024, 4096, 16_384)
_CHUNK = 256  # rows of a step, as engines take them
_ANSWER = 24  # tokens


@dataclass(frozen=True, slots=True)
class Speed:
    """At one length: milliseconds that a token of a prompt and one of an answer takes."""

    length: int
    prompt: float
    answer: float


def reader_of(model: Path, cache: Path, name: str) -> tuple[Reader, KVType]:
    """The model as an engine of this type loads it."""
    reader = Reader(model, cache, split_key_bias=name != "f16")
    biased = reader.decoder.layers[0].key_bias is not None
    return reader, kv_type_named(name, reader.decoder.config.head_dim, biased=biased)


def per_gigabyte(reader: Reader, kv: KVType) -> int:
    """Tokens whose keys and values fit a GiB."""
    return (1 << 30) // token_bytes(reader.decoder.config, kv)


def speeds(reader: Reader, kv: KVType, lengths: tuple[int, ...]) -> list[Speed]:
    assert reader.native is not None
    decoder = reader.decoder
    capacity = max(lengths) + BLOCK
    arena = PagedArena(decoder.config, 1, capacity, capacity // BLOCK, kv)
    arena.touch(0, capacity)
    bias = decoder.key_bias(capacity)
    attending = Attending(reader.native, arena, decoder.config.heads, bias)
    text = reader.source.codec.encode(words(2 * max(lengths), 1), False)[: max(lengths)]

    def step(tokens: list[int], start: int, answering: int) -> float:
        """Milliseconds."""
        plan = KernelPlan(attending, [Span(0, start, len(tokens))], answering)
        began = time.perf_counter()
        with torch.inference_mode():
            decoder.forward(tokens, plan, [0] if answering else [])
        return (time.perf_counter() - began) * 1000

    found, took = [], 0.0
    for start in range(0, max(lengths), _CHUNK):
        took = step(text[start : start + _CHUNK], start, 0)
        end = start + _CHUNK
        if end in lengths:
            answers = [step([text[0]], end + at, 1) for at in range(_ANSWER)]
            found.append(Speed(end, took / _CHUNK, statistics.median(answers)))
    arena.close()
    return found
