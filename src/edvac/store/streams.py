"""Values that share what they begin with: a value is the beginning of a stream of bytes.

A value that goes on where the one before it ended adds a piece to that one's stream, so that a list
which grows by an element costs an element. Any other begins a stream of its own, whose pieces are
kept once however many values hold them. A value carries the digest of its bytes, which is checked
whenever it is read. All of it lies in the database, in pieces of at most 64 KiB: what is removed is
gone with the transaction. Knows nothing of whose values they are.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edvac.core.errors import DamageError
from edvac.store.chain import REF_BYTES
from edvac.store.cuts import LARGEST, cuts, head_size
from edvac.store.model import Typed
from edvac.store.schema import Execute

PACKED_KIND = "msgpack"  # the kind of value that is cut behind its elements
_CHUNK_ROWS = 256
_INLINE = 64  # bytes; a value or piece of that size costs less beside its name than in a row
_PIECES = (
    "SELECT piece.size, piece.data, chunk.packed FROM piece LEFT JOIN chunk ON chunk.id = chunk"
    " WHERE number = ? AND stream = ? AND at < ? ORDER BY at"
)
_TIP = "SELECT at + size FROM piece WHERE number = ? AND stream = ? ORDER BY at DESC LIMIT 1"


class Ref(NamedTuple):
    """A stored value: `head`, then the first `length` bytes of a stream of its thread; without one,
    `head` is all of it."""

    kind: str
    head: bytes
    stream: int = 0
    length: int = 0
    digest: bytes = b""

    def packed(self) -> tuple[Any, ...]:
        """As it lies in a row: what says nothing is left out."""
        kind = None if self.kind == PACKED_KIND else self.kind
        rest = (self.stream, self.length, self.digest) if self.stream else ()
        return (kind, self.head, *rest)

    @staticmethod
    def unpacked(packed: Sequence[Any]) -> Ref:
        """What `packed` gave."""
        kind, *rest = packed
        return Ref(PACKED_KIND if kind is None else kind, *rest)


class Writer:
    """Writes values into the streams of one thread, inside a transaction of the caller's."""

    def __init__(self, execute: Execute, number: int) -> None:
        self._execute, self._number = execute, number

    def put(self, value: Typed, before: Ref | None = None) -> Ref:
        """Keep a value; `before` is one that it may go on from."""
        kind, data = value
        if len(data) <= _INLINE:
            return Ref(kind, data)
        packed = kind == PACKED_KIND
        cut = head_size(data) if packed else 0
        head, body = data[:cut], data[cut:]
        state = hashlib.blake2b(digest_size=REF_BYTES)
        stream, at = 0, 0
        if before is not None and before.kind == kind and 0 < before.length <= len(body):
            state.update(memoryview(body)[: before.length])
            if state.digest() == before.digest and self._goes_on(before, len(body)):
                stream, at = before.stream, before.length
            state.update(memoryview(body)[before.length :])
        else:
            state.update(body)
        if not stream:
            stream = self._begin()
        for end in cuts(body, at, packed=packed):
            self._add(stream, at, body[at:end])
            at = end
        return Ref(kind, head, stream, len(body), state.digest())

    def _goes_on(self, before: Ref, length: int) -> bool:
        """Is the end of `before` still the end of its stream? Another value may have gone on from
        there."""
        tip = self._execute(_TIP, (self._number, before.stream)).get
        return length == before.length or bool(tip == before.length)

    def _begin(self) -> int:
        last: int | None = self._execute(
            "SELECT max(stream) FROM piece WHERE number = ?", (self._number,)
        ).get
        return (last or 0) + 1

    def _add(self, stream: int, at: int, data: bytes) -> None:
        inline = len(data) <= _INLINE
        self._execute(
            "INSERT INTO piece (number, stream, at, size, data, chunk) VALUES (?,?,?,?,?,?)",
            (
                self._number,
                stream,
                at,
                len(data),
                *((data, None) if inline else (None, self._chunk(data))),
            ),
        )

    def _chunk(self, data: bytes) -> int:
        hash_ = hashlib.blake2b(data, digest_size=REF_BYTES).digest()
        known: int | None = self._execute("SELECT id FROM chunk WHERE hash = ?", (hash_,)).get
        if known is not None:
            return known
        packed = zlib.compress(data, 1)
        # Not smaller, it is kept as it is; the size tells which.
        found: int = self._execute(
            "INSERT INTO chunk (hash, size, packed) VALUES (?,?,?) RETURNING id",
            (hash_, len(data), packed if len(packed) < len(data) else data),
        ).fetchall()[0][0]
        return found


def read_value(execute: Execute, number: int, ref: Ref) -> Typed:
    """The bytes of a thread's value.

    Raises:
        DamageError: they are missing or not what was stored.
    """
    if not ref.stream:
        return Typed(ref.kind, ref.head)
    rows = execute(_PIECES, (number, ref.stream, ref.length)).fetchall()
    body = b"".join(_piece(*row) for row in rows)
    if len(body) != ref.length or _digest(body) != ref.digest:
        raise _damaged(ref.stream)
    return Typed(ref.kind, ref.head + body)


def broken_streams(
    execute: Execute, number: int, wanted: Mapping[int, Mapping[int, bytes]]
) -> Iterator[tuple[int, str]]:
    """The streams of a thread whose values, by length and digest, cannot be read: each stream is
    read once."""
    for stream, digests in wanted.items():
        state, at = hashlib.blake2b(digest_size=REF_BYTES), 0
        left = dict(digests)
        for row in execute(_PIECES, (number, stream, max(digests))).fetchall():
            try:
                piece = _piece(*row)
            except DamageError as error:
                yield stream, error.what
                break
            state.update(piece)
            at += len(piece)
            if at in left and left.pop(at) != state.digest():
                yield stream, f"its first {at} bytes are not what was written"
                break
        else:
            if left:
                yield stream, f"its first {min(left)} bytes are not there"


def broken_chunks(execute: Execute) -> Iterator[int]:
    """The chunks whose bytes do not match their hash."""
    sql = "SELECT id, hash, size, packed FROM chunk WHERE id > ? ORDER BY id LIMIT ?"
    last = -(1 << 63)
    while rows := execute(sql, (last, _CHUNK_ROWS)).fetchall():
        for last, hash_, size, packed in rows:
            try:
                if _digest(_piece(size, None, packed)) == hash_:
                    continue
            except DamageError:
                pass
            yield last


def copy_streams(execute: Execute, source: int, target: int) -> None:
    """The streams of a thread for another one that has none yet; their chunks are shared."""
    execute(
        "INSERT INTO piece (number, stream, at, size, data, chunk)"
        " SELECT ?, stream, at, size, data, chunk FROM piece WHERE number = ?",
        (target, source),
    )


def chunks_of(execute: Execute, number: int) -> set[int]:
    """The chunks that a thread's streams hold."""
    rows = execute(
        "SELECT DISTINCT chunk FROM piece WHERE number = ? AND chunk NOTNULL", (number,)
    ).fetchall()
    return {row[0] for row in rows}


def trim(execute: Execute, number: int, used: Mapping[int, int]) -> None:
    """Remove the streams of a thread but for these, each down to its used length."""
    rows = execute("SELECT DISTINCT stream FROM piece WHERE number = ?", (number,)).fetchall()
    for (stream,) in rows:
        execute(
            "DELETE FROM piece WHERE number = ? AND stream = ? AND at >= ?",
            (number, stream, used.get(stream, 0)),
        )


def drop_chunks(execute: Execute, among: Iterable[int]) -> None:
    """Remove those of these chunks that no piece holds any more."""
    for chunk in among:
        execute(
            "DELETE FROM chunk WHERE id = ?1 AND NOT EXISTS"
            " (SELECT 1 FROM piece WHERE piece.chunk = ?1)",
            (chunk,),
        )


def _piece(size: Any, data: Any, packed: Any) -> bytes:
    """The bytes of a row, whose columns may hold anything where the row is damaged."""
    found = data if packed is None else packed
    if not isinstance(size, int) or not 0 < size <= LARGEST or not isinstance(found, bytes):
        raise _damaged(0)
    if packed is not None and len(packed) != size:
        unpacker = zlib.decompressobj()
        try:
            found = unpacker.decompress(packed, size + 1)
        except zlib.error as problem:
            raise _damaged(0) from problem
        if not unpacker.eof or unpacker.unused_data:
            raise _damaged(0)
    if len(found) != size:
        raise _damaged(0)
    return found


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=REF_BYTES).digest()


def _damaged(stream: int) -> DamageError:
    where = f" (stream {stream})" if stream else ""
    return DamageError(
        "value_damaged",
        f"a value of a checkpoint is not what was stored{where}",
        "Its pieces are missing or do not match its digest.",
        "Run `edvac doctor`; go on from an earlier checkpoint of the thread.",
    )
