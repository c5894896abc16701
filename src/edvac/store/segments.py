"""Prompts are lists of segments; each distinct segment is kept once, compressed, by its hash.

A segment that is shorter than a name would be is its own name, and is kept where it is named. Any
other waits in memory until the batch that names it is appended, so it costs no sync of its own.
Knows nothing of how prompts are put together.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from edvac.core.errors import DamageError, InternalError
from edvac.store.chain import REF_BYTES, content_digest, is_ref
from edvac.store.part import Part
from edvac.store.schema import Execute

PENDING_BYTES = 8 << 20  # more than that waiting is written at once
NAME_SIZE = 2 * REF_BYTES  # characters of a name that is a hash
_ASKED_AT_ONCE = 500  # names in one question, well below what SQLite binds
_LARGEST = 256 << 20  # a segment beyond that can only be damage

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


class SegmentPart(Part):
    _pending: dict[str, bytes]
    _pending_bytes: int

    def put_segment(self, text: str) -> str:
        """Keep a segment; its name. Durable with the first record that names it."""
        if not has_row(text):
            return text
        self._db.guard()
        data = text.encode()
        found = content_digest(data)
        if found not in self._pending:
            self._pending[found] = data
            self._pending_bytes += len(data)
            if self._pending_bytes > PENDING_BYTES:
                self._flush_segments()
        return found

    def segment(self, hash_: str) -> str:
        """A segment by its name.

        Raises:
            DamageError: it is missing or not what was stored.
        """
        if not has_row(hash_):
            return hash_
        self._db.guard()
        data = self._pending.get(hash_)
        if data is None:
            key = bytes.fromhex(hash_) if is_ref(hash_) else b""
            rows = self._db.rows("SELECT packed FROM segment WHERE hash = ?", (key,))
            data = unpack_segment(hash_, rows[0][0] if rows else None)
        return data.decode()

    def _insert_segments(self, execute: Execute, names: Iterable[str]) -> None:
        wanted = {bytes.fromhex(name): name for name in names if has_row(name)}
        for known in _known(execute, list(wanted)):
            del wanted[known]
        for key, hash_ in sorted(wanted.items()):  # one order, so that writers never wait in a ring
            data = self._pending.get(hash_)
            if data is None:
                raise InternalError("segment_missing", f"no segment {hash_} was put")
            execute(
                "INSERT INTO segment (hash, packed, touched) VALUES (?,?,?) ON CONFLICT DO NOTHING",
                (key, zlib.compress(data), self._clock.wall()),
            )

    def _written(self, hashes: Iterable[str]) -> None:
        for hash_ in hashes:
            self._pending_bytes -= len(self._pending.pop(hash_, b""))

    def _flush_segments(self) -> None:
        with self._db.write("storing prompt segments") as execute:
            self._insert_segments(execute, tuple(self._pending))
        self._pending.clear()
        self._pending_bytes = 0


def has_row(name: str) -> bool:
    """Is the segment of this name kept apart from the records that name it? A text as long as a
    name is, so that no text is taken for another's name."""
    return len(name) >= NAME_SIZE


def pack_names(names: tuple[str, ...]) -> bytes:
    """Names of segments as a record carries them."""
    parts = [bytes.fromhex(name) if has_row(name) else name for name in names]
    return _encode(parts) if parts else b""


def unpack_names(packed: bytes) -> tuple[str, ...]:
    """The names that `pack_names` packed.

    Raises:
        DamageError: these are none.
    """
    try:
        return tuple(map(_name, _decode(packed))) if packed else ()
    except msgspec.DecodeError as problem:
        why = "A record's prompt is no list of segments."
        raise DamageError("store_damaged", "the store is damaged", why) from problem


def _name(part: Any) -> str:
    match part:
        case str():
            return part
        case bytes():
            return part.hex()
    raise msgspec.ValidationError("a name is a text or a hash")


def row_names(packed: bytes) -> list[str]:
    """Of the names that a record carries those that have a row; see `unpack_names`."""
    return [name for name in unpack_names(packed) if has_row(name)]


def _known(execute: Execute, keys: list[bytes]) -> Iterator[bytes]:
    for start in range(0, len(keys), _ASKED_AT_ONCE):
        some = keys[start : start + _ASKED_AT_ONCE]
        places = ",".join("?" * len(some))
        found = execute(f"SELECT hash FROM segment WHERE hash IN ({places})", some)  # noqa: S608
        yield from (key for (key,) in found.fetchall())


def unpack_segment(hash_: str, packed: bytes | None) -> bytes:
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(packed or b"", _LARGEST)
    except zlib.error:
        data = b""
    if packed is None or content_digest(data) != hash_:
        raise DamageError(
            "segment_damaged",
            f"prompt segment {hash_} is not what was stored",
            "It is missing or its content does not match its hash.",
            "Run `edvac doctor` to verify the workspace.",
        )
    return data
