"""The chain of a run: each record's hash covers the record and the hash before it.

A torn, stale, misdirected, missing or doubled record breaks it. The first link is the run's name,
so records of another run do not fit. Knows nothing of where the rows lie.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from edvac.core.errors import DamageError
from edvac.store.model import FileVersion, Kind

REF_BYTES = 20  # a blob, segment or record hash
LABEL_BYTES = 8
MARK_BYTES = 8
REUSE_BYTES = 16
SEQ_BITS = 32

_HEX = frozenset("0123456789abcdef")
_encode = msgspec.msgpack.Encoder().encode


class Row(NamedTuple):
    """A record as stored, without its hash. `id` is the run's number and the seq in one integer,
    which keeps a run's rows side by side in one B-tree."""

    id: int
    epoch: int
    slot: str
    kind: Kind
    payload: bytes | None
    ref: bytes | None  # the payload's blob, where it is too large for a row
    labels: bytes
    blobs: bytes
    segments: bytes
    files: bytes  # marks of the file versions of the same batch
    reuse: bytes | None  # under which another run finds it; see `reuse_mark`

    @property
    def seq(self) -> int:
        return self.id & ((1 << SEQ_BITS) - 1)


def row_id(number: int, seq: int) -> int:
    return number << SEQ_BITS | seq


def first_link(run: str) -> bytes:
    return hashlib.blake2b(b"edvac run " + run.encode(), digest_size=REF_BYTES).digest()


def link(previous: bytes, row: Row) -> bytes:
    return hashlib.blake2b(previous + _encode(row), digest_size=REF_BYTES).digest()


def content_digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=REF_BYTES).hexdigest()


def reuse_mark(reuse_key: str) -> bytes:
    """What a reuse key is looked up by: short and of one size, whatever the key."""
    return hashlib.blake2b(reuse_key.encode(), digest_size=REUSE_BYTES).digest()


def mark(run: str, seq: int, entry: FileVersion) -> bytes:
    """The checksum of a file version's row; a record of its batch carries it into the chain."""
    fields = (
        run,
        seq,
        entry.path,
        entry.version,
        entry.slot,
        entry.blob,
        entry.size,
        entry.digest,
        entry.label,
        entry.deleted,
    )
    return hashlib.blake2b(_encode(fields), digest_size=MARK_BYTES).digest()


def is_ref(text: str) -> bool:
    return len(text) == REF_BYTES * 2 and _HEX.issuperset(text)


def pack(refs: tuple[str, ...]) -> bytes:
    return bytes.fromhex("".join(refs))


def unpack(packed: bytes, size: int) -> tuple[str, ...]:
    return tuple(packed[at : at + size].hex() for at in range(0, len(packed), size))


def damaged_record(run: str, seq: int, why: str) -> DamageError:
    return DamageError(
        "record_damaged",
        f"record {seq} of run {run} is not what was written",
        why,
        "Run `edvac doctor` to see what is damaged; nothing of this run is used until then.",
    )
