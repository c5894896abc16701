"""Prompts are lists of segments; each distinct segment is kept once, compressed, by its hash.

A segment waits in memory until the batch that names it is appended, so it costs no sync of its
own. Knows nothing of how prompts are put together.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from edvac.core.errors import DamageError, InternalError
from edvac.store.chain import content_digest, is_ref
from edvac.store.part import Part
from edvac.store.schema import Execute

PENDING_BYTES = 8 << 20  # more than that waiting is written at once
_LARGEST = 256 << 20  # a segment beyond that can only be damage


class SegmentPart(Part):
    _pending: dict[str, bytes]
    _pending_bytes: int

    def put_segment(self, text: str) -> str:
        """Keep a segment; its hash. Durable with the first record that names it."""
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
        """A segment by its hash.

        Raises:
            DamageError: it is missing or not what was stored.
        """
        self._db.guard()
        data = self._pending.get(hash_)
        if data is None:
            key = bytes.fromhex(hash_) if is_ref(hash_) else b""
            rows = self._db.rows("SELECT packed FROM segment WHERE hash = ?", (key,))
            data = unpack_segment(hash_, rows[0][0] if rows else None)
        return data.decode()

    def _insert_segments(self, execute: Execute, hashes: Iterable[str]) -> None:
        for hash_ in hashes:
            key = bytes.fromhex(hash_)
            if execute("SELECT 1 FROM segment WHERE hash = ?", (key,)).get is not None:
                continue
            data = self._pending.get(hash_)
            if data is None:
                raise InternalError("segment_missing", f"no segment {hash_} was put")
            execute(
                "INSERT INTO segment (hash, packed, touched) VALUES (?,?,?)",
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
