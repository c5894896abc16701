"""The SHA-256 of a large file, remembered beside it.

Hashing a gigabyte costs seconds, so the answer is noted with the size and time of the file it
belongs to; a note that does not fit the file is ignored. It does not decide which hash is the
right one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from edvac.core.errors import ModelFileError

_PIECE: Final = 4 << 20


class VerifiedNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in ``<file>.verified``."""

    size: int
    mtime_ns: int
    sha256: str


def note_path(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def remembered(path: Path) -> str | None:
    """The noted hash, if the file is still the one it was taken of."""
    try:
        note = msgspec.json.decode(note_path(path).read_bytes(), type=VerifiedNote)
        stat = path.stat()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return note.sha256 if (note.size, note.mtime_ns) == (stat.st_size, stat.st_mtime_ns) else None


def remember(path: Path, sha256: str) -> None:
    """Note a hash just computed. Where that is impossible, it costs time later."""
    stat = path.stat()
    note = VerifiedNote(stat.st_size, stat.st_mtime_ns, sha256)
    temporary = note_path(path).with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_bytes(msgspec.json.encode(note))
        temporary.replace(note_path(path))
    except OSError:
        temporary.unlink(missing_ok=True)


def compute(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Hash the whole file now."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            done += len(piece)
            if on_bytes is not None:
                on_bytes(done)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """The file's hash, from its note where that is good."""
    known = remembered(path)
    if known is None:
        known = compute(path)
        remember(path, known)
    return known


def adapter_files(path: Path) -> tuple[Path, ...]:
    """The files of an adapter, its matrices first: one of GGUF, or what PEFT saves."""
    if path.is_dir():
        path /= "adapter_model.safetensors"
    if path.suffix != ".safetensors":
        return (path,)
    return path, path.with_name("adapter_config.json")


def adapter_digest(path: Path) -> str:
    """A hash of all that an adapter consists of.

    Raises:
        ModelFileError: it cannot be read.
    """
    files = adapter_files(path)
    try:
        digests = [file_digest(files[0]), *map(compute, files[1:])]
    except OSError as error:
        raise ModelFileError(
            "adapter_unreadable",
            f"the adapter {files[0].name} cannot be read",
            f"The system says {error.strerror or error}.",
            "Name a .gguf file, or the directory of a PEFT adapter.",
        ) from error
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )
