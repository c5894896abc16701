"""Prefixes that outlive the engine: each a file named by what it holds.

A file is found by token ids and only inside one reader class, checksummed, and dropped when it
does not match; the longest unused go first when the budget is spent. It knows no requests and no
attention.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch


class KeptPrefixes:
    """The disk tier, for shared prompts. `model` names weights and precision."""

    def __init__(self, directory: Path, model: str, budget: int = 512 << 20) -> None:
        self._directory, self._model, self._budget = directory, model, budget

    def path(self, reader_class: str, tokens: list[int]) -> Path:
        digest = hashlib.sha256(f"{self._model}\0{reader_class}\0".encode())
        digest.update(np.asarray(tokens, np.int64).tobytes())
        return self._directory / f"{digest.hexdigest()[:40]}.prefix.safetensors"

    def has(self, reader_class: str, tokens: list[int]) -> bool:
        return self.path(reader_class, tokens).exists()

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
