"""What this machine could do at most, and how far from it the engine is.

Measured, not looked up: bytes that all threads read a second from memory that no cache holds, and
multiplications a second of the 8-bit product. One token of one answer reads every weight once; a
token of a prompt multiplies with every weight once.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from edvac.bench.report import Document
from edvac.engine.gguf import open_gguf
from edvac.engine.linear import Int8Product, Packed, Rows

_BYTES = 1 << 29
_REPEATS = 7


def add(document: Document, model: Path, name: str, threads: int) -> None:
    """Notes on the figures of this model that are in the document under `name`."""
    torch.set_num_threads(threads)
    bandwidth, products = _bandwidth(), _products()
    size, weights = _weights(model)
    for question, most, what in (
        ("write, one", bandwidth / size, f"{bandwidth / 1e9:.0f} GB/s read, {size / 1e9:.2f} GB"),
        ("read 512", products / weights, f"{products / 1e9:,.0f} G products/s"),
    ):
        for figure in document.figures:
            if figure.id.startswith(f"{name},") and figure.id.endswith(f": {question}"):
                share = figure.value / most
                document.notes.append(
                    f"{figure.id}: {share:.0%} of what the machine could do ({most:,.0f} "
                    f"tokens/s: {what})"
                )
                break


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


def _best(work: object) -> float:
    assert callable(work)
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def _weights(model: Path) -> tuple[float, float]:
    """Bytes that one token of an answer reads, and weights that one of a prompt meets (the head
    is met once a prompt)."""
    file = open_gguf(model)
    layers = [one for name, one in file.tensors.items() if name.startswith("blk.")]
    head = file.tensors.get("output.weight") or file.tensors["token_embd.weight"]
    numbers = sum(one.size // one.kind.size * one.kind.items for one in layers)
    return float(sum(one.size for one in layers) + head.size), float(numbers)
