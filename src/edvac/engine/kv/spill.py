"""Blocks that had to leave memory, in one nameless file: demoted, not dropped.

The file has no name, so nothing of it is left when the process ends, however it ends. Each place
has a checksum in memory; what does not match it is never given back. A disk that takes no more
makes `put` say so and costs nothing else.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import torch


class SpillFile:
    """Places of one size in a file without a name.

    Args:
        directory: on the disk that is to be used.
        shape, dtype: of a block.
        budget: bytes at most.
    """

    def __init__(
        self,
        directory: Path,
        shape: tuple[int, ...],
        budget: int,
        dtype: torch.dtype = torch.float16,
    ) -> None:
        self._shape, self._dtype = shape, dtype
        self._size = math.prod(shape) * dtype.itemsize
        self._most = budget // self._size
        self._file = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._free: list[int] = []
        self._sums: dict[int, bytes] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._sums)

    def put(self, contents: torch.Tensor) -> int | None:
        """Where the contents lie now; None where there is no room for them."""
        if not self._free and self._count >= self._most:
            return None
        place = self._free.pop() if self._free else self._count
        raw = contents.contiguous().view(torch.uint8).numpy().data.cast("B")
        try:
            written = os.pwrite(self._file, raw, place * self._size)
        except OSError:
            written = 0
        if place == self._count:
            self._count += 1
        if written != self._size:
            self._free.append(place)
            return None
        self._sums[place] = _sum(raw)
        return place

    def get(self, place: int) -> torch.Tensor | None:
        """The contents, or None where they are not what was put there."""
        try:
            raw = bytearray(os.pread(self._file, self._size, place * self._size))
        except OSError:
            return None
        if len(raw) != self._size or _sum(memoryview(raw)) != self._sums[place]:
            return None
        return torch.frombuffer(raw, dtype=self._dtype).view(self._shape)

    def free(self, place: int) -> None:
        del self._sums[place]
        self._free.append(place)

    def close(self) -> None:
        os.close(self._file)


def _sum(raw: memoryview) -> bytes:
    return hashlib.blake2b(raw, digest_size=16).digest()
