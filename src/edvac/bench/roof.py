"""What this machine could do at most, and how far from it the engine is.

Measured, not looked up: bytes that all threads read a second from memory that no cache holds,
multiplications a second of the 8-bit product, and those in single precision. A step of answers
reads every weight once, whoever shares it; a token of a prompt multiplies with every weight once;
either multiplies with the keys and values of every token before it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from edvac.bench.report import Document
from edvac.engine.config import from_metadata
from edvac.engine.gguf import open_gguf
from edvac.engine.linear import Int8Product, Packed, Rows

_BYTES = 1 << 29
_REPEATS = 7


@dataclass(frozen=True, slots=True)
class Work:
    """What a figure asked of the engine.

    Attributes:
        seconds: that it took.
        read: tokens of prompts that were computed.
        past: tokens before each of them, on average.
        answers: tokens of answers.
        at_once: answers that share a step.
    """

    seconds: float
    read: float = 0.0
    past: float = 0.0
    answers: float = 0.0
    at_once: int = 1


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes, 8-bit multiplications and those in single precision a second."""

    bandwidth: float
    products: float
    floats: float

    @classmethod
    def measured(cls, threads: int) -> Machine:
        torch.set_num_threads(threads)
        products = _products()
        # An instruction has four times as many products of 8 bits, and torch's in single precision
        # are far from the processor's best on some.
        return cls(_bandwidth(), products, max(_floats(), products / 4))


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model takes: bytes that a step of answers reads, weights that a token of a prompt
    meets, those of the head, which only tokens of answers meet, and multiplications for each token
    before one."""

    size: float
    weights: float
    head: float
    pair: float

    @classmethod
    def of(cls, model: Path) -> Needs:
        file = open_gguf(model)
        layers = [one for name, one in file.tensors.items() if name.startswith("blk.")]
        head = file.tensors.get("output.weight") or file.tensors["token_embd.weight"]
        config = from_metadata(file)
        count = [one.size // one.kind.size * one.kind.items for one in (*layers, head)]
        return cls(
            float(sum(one.size for one in layers) + head.size),
            float(sum(count[:-1])),
            float(count[-1]),
            2.0 * config.layers * config.heads * config.head_dim,
        )


def least(work: Work, needs: Needs, machine: Machine) -> float:
    """Seconds that the machine would take at its best."""
    reading = needs.weights / machine.products + work.past * needs.pair / machine.floats
    together = work.at_once * (needs.weights + needs.head) / machine.products
    step = max(needs.size / machine.bandwidth, together)
    return work.read * reading + work.answers / work.at_once * step


def add(document: Document, work: dict[str, Work], model: Path, label: str, threads: int) -> None:
    """Notes on the distance of each figure, under the document's `label`."""
    machine, needs = Machine.measured(threads), Needs.of(model)
    shares = ", ".join(
        f"{what} {least(one, needs, machine) / one.seconds:.0%}" for what, one in work.items()
    )
    speeds = (
        f"{machine.bandwidth / 1e9:.0f} GB/s, {machine.products / 1e9:,.0f} 8-bit G products/s, "
        f"{machine.floats / 1e9:,.0f} in single precision"
    )
    document.notes.append(f"{label}, no drafts, of what the machine could do ({speeds}): {shares}")


def _bandwidth() -> float:
    """Bytes a second."""
    data = torch.ones(_BYTES // 8, dtype=torch.int64)
    return _BYTES / _best(data.sum)


def _products() -> float:
    """Multiplications with an addition, a second."""
    outputs, width, count = 8960, 1536, 512
    matrix = Int8Product(Packed(torch.ones(outputs, width, dtype=torch.int8)), torch.ones(outputs))
    rows = Rows(torch.ones(count, width))
    rows.codes()
    return outputs * width * count / _best(lambda: matrix(rows))


def _floats() -> float:
    side = 2048
    left, right = torch.ones(side, side), torch.ones(side, side)
    return side**3 / _best(lambda: left @ right)


def _best(work: object) -> float:
    assert callable(work)
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
