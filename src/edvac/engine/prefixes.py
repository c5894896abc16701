"""Keys and values that outlive their request: prefixes parked in memory, and kept ones on disk.

Entries are found by token ids and only inside one reader class; the least recently used go first
when the budget is spent. A kept prefix is a file named by what it holds, checksummed, and dropped
when it does not match. It knows no requests and no attention.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import safetensors
import safetensors.torch
import torch

from edvac.engine.scheduler import common_prefix

_LEAST: Final = 16  # shorter prefixes are quicker to compute than to look after


@dataclass(slots=True, eq=False)
class Parked:
    tokens: list[int]
    block: torch.Tensor  # (2, layers, heads, tokens, width)
    used: int = 0

    @property
    def size(self) -> int:
        return int(self.block.numel()) * int(self.block.element_size())


@dataclass(slots=True)
class ParkedPrefixes:
    """The memory tier."""

    budget: int
    size: int = 0
    _entries: dict[str, list[Parked]] = field(default_factory=dict)
    _ticks: int = 0

    def __len__(self) -> int:
        return sum(len(entries) for entries in self._entries.values())

    def match(self, reader_class: str, tokens: list[int]) -> int:
        found = self._best(reader_class, tokens)
        return 0 if found is None else found[1]

    def get(self, reader_class: str, tokens: list[int], count: int) -> torch.Tensor:
        """The first `count` positions; the caller has matched at least that many just now."""
        found = self._best(reader_class, tokens)
        if found is None or found[1] < count:
            raise KeyError("no such prefix is parked")
        self._ticks += 1
        found[0].used = self._ticks
        return found[0].block[:, :, :, :count]

    def park(self, reader_class: str, tokens: list[int], block: torch.Tensor) -> None:
        """Remember a prefix; entries that it contains entirely are given up for it."""
        if len(tokens) < _LEAST:
            return
        entries = self._entries.setdefault(reader_class, [])
        for entry in list(entries):
            shared = common_prefix(entry.tokens, tokens)
            if shared == len(tokens):
                return
            if shared == len(entry.tokens):
                self._drop(reader_class, entry)
        self._ticks += 1
        entry = Parked(tokens, block, self._ticks)
        self._entries.setdefault(reader_class, []).append(entry)
        self.size += entry.size
        self.shrink(self.budget)

    def shrink(self, budget: int) -> None:
        """Evict the least recently used entries until `budget` bytes hold the rest."""
        everything = [(e.used, name, e) for name, some in self._entries.items() for e in some]
        for _, name, entry in sorted(everything, key=lambda one: one[0]):
            if self.size <= budget:
                return
            self._drop(name, entry)

    def _drop(self, reader_class: str, entry: Parked) -> None:
        self._entries[reader_class].remove(entry)
        self.size -= entry.size
        if not self._entries[reader_class]:
            del self._entries[reader_class]

    def _best(self, reader_class: str, tokens: list[int]) -> tuple[Parked, int] | None:
        best: tuple[Parked, int] | None = None
        for entry in self._entries.get(reader_class, ()):
            shared = common_prefix(entry.tokens, tokens)
            if shared >= _LEAST and (best is None or shared > best[1]):
                best = (entry, shared)
        return best


class KeptPrefixes:
    """The disk tier, for shared prompts. `model` names weights and precision."""

    def __init__(self, directory: Path, model: str, budget: int = 512 << 20) -> None:
        self._directory, self._model, self._budget = directory, model, budget

    def path(self, reader_class: str, tokens: list[int]) -> Path:
        digest = hashlib.sha256(f"{self._model}\0{reader_class}\0".encode())
        digest.update(np.asarray(tokens, np.int64).tobytes())
        return self._directory / f"{digest.hexdigest()[:40]}.prefix.safetensors"

    def save_prefix(self, reader_class: str, tokens: list[int], block: torch.Tensor) -> None:
        """Write a prefix unless it is there; failing to is no failure of the request."""
        path = self.path(reader_class, tokens)
        if path.exists():
            return
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            notes = {"sum": _checksum(block)}
            safetensors.torch.save_file({"block": block.contiguous()}, str(temporary), notes)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            self._limit()
        except (OSError, safetensors.SafetensorError):  # the latter is how a full disk is said
            _discard(temporary)

    def load_prefix(self, reader_class: str, tokens: list[int]) -> torch.Tensor | None:
        """The block, or None where it is absent or damaged (then it is removed)."""
        path = self.path(reader_class, tokens)
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(str(path), framework="pt") as file:
                block: torch.Tensor = file.get_tensor("block")
                expected = (file.metadata() or {}).get("sum")
            if block.shape[3] != len(tokens) or _checksum(block) != expected:
                _discard(path)
                return None
        except (OSError, safetensors.SafetensorError):
            _discard(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return block

    def _limit(self) -> None:
        """Remove the files that were used longest ago until the rest fit."""
        files = [(file.stat(), file) for file in self._directory.glob("*.prefix.safetensors")]
        total = sum(stat.st_size for stat, _ in files)
        for stat, file in sorted(files, key=lambda one: one[0].st_mtime):
            if total <= self._budget:
                return
            file.unlink(missing_ok=True)
            total -= stat.st_size


def _discard(path: Path) -> None:
    """Remove a file, or leave it where the disk refuses even that."""
    with contextlib.suppress(OSError):
        path.unlink()


def _checksum(block: torch.Tensor) -> str:
    raw = block.contiguous().view(torch.uint8).numpy()
    return hashlib.blake2b(raw.data, digest_size=16).hexdigest()
