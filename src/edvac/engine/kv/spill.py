"""Blocks that had to leave memory, in one file: demoted, not dropped.

With a name the file outlives the engine: an index beside it tells the next one what lies where,
not by tokens but by keyed hashes of them. Each place has a checksum, in memory and in the index;
what does not match it is never given back, so an index that is older than the file does no harm.
Without a name nothing is left when the process ends, however it ends. A disk that takes no more
makes `put` say so and costs nothing else. All blocks of a file are stored alike, as they are or by
a codec that the index names; checksums are of what is stored.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import secrets
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import torch

from edvac.engine.kv.disk import BlockCodec

_OLDEST: Final = 7 * 86_400.0  # seconds after which nothing is brought back any more
_LARGEST_INDEX: Final = 64 << 20
_RATE: Final = 0.2  # how fast the measured time of reading moves
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
Entry: TypeAlias = "tuple[bytes, int]"  # key and place


class _Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What lies in the file; written whole, under a checksum of itself."""

    identity: str
    size: int
    salt: bytes
    entries: list[tuple[bytes, int, bytes]]  # key, place, checksum of what is stored
    codec: str = ""  # of every block; none: as they are


_decoder: Final = msgspec.msgpack.Decoder(_Index)


@dataclass(frozen=True, slots=True)
class Keeping:
    """
    Attributes:
        identity: what the numbers depend on (weights, precision, layout). Blocks come back only to
            engines of the same.
        wall: seconds since 1970; what is too old then is not brought back.
    """

    identity: str
    wall: float


class SpillFile:
    """Places of one size in a file.

    Args:
        directory: on the disk that is to be used.
        shape, dtype: of a block.
        budget: bytes at most.
        keeping: for later engines; None for a file without a name.
        codec: of what is stored; None stores blocks as they are.
    """

    def __init__(
        self,
        directory: Path,
        shape: tuple[int, ...],
        budget: int,
        dtype: torch.dtype = torch.float16,
        keeping: Keeping | None = None,
        *,
        codec: BlockCodec | None = None,
    ) -> None:
        self._identity = "" if keeping is None else keeping.identity
        self._codec = codec
        self._coded = shape if codec is None else codec.shape(shape)
        self._size = math.prod(self._coded) * (dtype.itemsize if codec is None else 1)
        self._most = budget // self._size
        self._salt = secrets.token_bytes(16)
        self._sums: dict[int, bytes] = {}
        self._left: dict[bytes, int] = {}  # an earlier engine's, not asked for yet; oldest first
        self.seconds = 0.0  # to have one place again, as measured: read, checked and decoded
        name = hashlib.sha256(self._identity.encode()).hexdigest()[:24]
        self._index = directory / f"{name}.spill.index"
        self._file, self.named = _open(directory, "" if keeping is None else f"{name}.spill")
        if keeping is not None and self.named:
            self._restore(keeping.wall)
        taken = set(self._sums)
        self._count = max(taken, default=-1) + 1
        self._free = [place for place in range(self._count) if place not in taken]

    def __len__(self) -> int:
        return len(self._sums)

    @property
    def size(self) -> int:
        """Bytes of a place."""
        return self._size

    @property
    def lossy(self) -> bool:
        """What comes back is not what was put there."""
        return self._codec is not None

    def put(self, contents: torch.Tensor, first: int = 0) -> int | None:
        """Where the contents lie now, of tokens from position `first` on; None where there is no
        room for them."""
        if not self._free and self._count >= self._most and not self._give_up():
            return None
        place = self._free.pop() if self._free else self._count
        if self._codec is not None:
            contents = self._codec.encode(contents, first)
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

    def read(self, place: int, target: torch.Tensor, first: int = 0) -> bool:
        """Fill `target` with a place's contents, of tokens from position `first` on; false where
        what is stored is not what was put there.

        May be called from another thread, for a place that is not freed meanwhile.
        """
        started = time.perf_counter()
        coded = target
        if self._codec is not None:
            coded = torch.empty(self._coded, dtype=torch.uint8)
        raw = coded.view(torch.uint8).numpy().reshape(-1).data
        try:
            length = os.preadv(self._file, [raw], place * self._size)
        except OSError:
            return False
        good = length == self._size and _sum(raw) == self._sums[place]
        if good and self._codec is not None:
            self._codec.decode(coded, first, target)
        taken = time.perf_counter() - started
        self.seconds += (taken - self.seconds) * (_RATE if self.seconds else 1.0)
        return good

    def free(self, place: int) -> None:
        del self._sums[place]
        self._free.append(place)

    def close(self) -> None:
        os.close(self._file)

    # --- beyond the end of the engine ----------------------------------------------------------

    def key(self, parent: bytes, tokens: Iterable[int]) -> bytes:
        """Names a block by its tokens and all before them, to who knows the salt."""
        return self._hash(parent + array("q", tokens).tobytes())

    def root(self, reader_class: str) -> bytes:
        return self._hash(reader_class.encode())

    def _hash(self, raw: bytes) -> bytes:
        return hashlib.blake2b(raw, digest_size=16, key=self._salt).digest()

    def find(self, key: bytes) -> int | None:
        """The place of an earlier engine's block; the caller's from now on."""
        return self._left.pop(key, None)

    def save(self, entries: Iterable[Entry]) -> None:
        """Write the index: these blocks, and those of an earlier engine that nobody asked for."""
        if not self.named:
            return
        known = [*self._left.items(), *entries]
        rows = [(key, place, self._sums[place]) for key, place in known]
        index = _Index(self._identity, self._size, self._salt, rows, self._named_codec())
        body = msgspec.msgpack.encode(index)
        temporary = self._index.with_suffix(".tmp")
        try:
            with os.fdopen(os.open(temporary, _WRITE, 0o600), "wb") as to:
                to.write(_sum(memoryview(body)) + body)
            temporary.replace(self._index)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def forget(self) -> None:
        """Nothing of what an earlier engine left comes back, nor will anything of this one."""
        for place in self._left.values():
            self.free(place)
        self._left.clear()
        if self.named:
            self.named = False
            for path in (self._index, self._index.with_suffix("")):
                path.unlink(missing_ok=True)

    def _named_codec(self) -> str:
        return "" if self._codec is None else self._codec.name

    def _give_up(self) -> bool:
        """The oldest block of an earlier engine makes room."""
        if not self._left:
            return False
        self.free(self._left.pop(next(iter(self._left))))
        return True

    def _restore(self, wall: float) -> None:
        try:
            if wall - self._index.stat().st_mtime > _OLDEST:
                return
            with self._index.open("rb") as file:
                raw = file.read(_LARGEST_INDEX)
            body = raw[16:]
            if _sum(memoryview(body)) != raw[:16]:
                return
            index = _decoder.decode(body)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return
        wanted = (self._identity, self._size, self._named_codec())
        if (index.identity, index.size, index.codec) != wanted:
            return
        self._salt = index.salt
        for key, place, total in index.entries:
            if 0 <= place < self._most and place not in self._sums and key not in self._left:
                self._left[key] = place
                self._sums[place] = total


def _open(directory: Path, name: str) -> tuple[int, bool]:
    """A file of one's own, and whether it has a name: another engine may have taken that."""
    if name:
        file = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file, True
        except OSError:
            os.close(file)
    return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), False


def _sum(raw: memoryview) -> bytes:
    return hashlib.blake2b(raw, digest_size=16).digest()
