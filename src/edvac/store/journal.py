"""The journal: records appended in durable batches, read back along their hash chain.

A batch is one transaction: its records, labels, prompt segments, file versions and reuse keys are
there together or not at all. Large payloads become blobs before the transaction begins. Knows
nothing of what a payload means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeAlias

import msgspec

from edvac.core.codec import INLINE_LIMIT, label_form, label_key
from edvac.core.errors import DamageError, InternalError, StoreError
from edvac.core.label import Label
from edvac.core.seams import durability_point
from edvac.store.chain import (
    LABEL_BYTES,
    REF_BYTES,
    SEQ_BITS,
    Row,
    damaged_record,
    first_link,
    is_ref,
    link,
    mark,
    pack,
    reuse_mark,
    row_id,
    unpack,
)
from edvac.store.filing import insert_file, stage_file
from edvac.store.inbox import take_message
from edvac.store.model import KINDS, FileVersion, Kind, Lease, NewRecord, Record
from edvac.store.part import Part
from edvac.store.runs import check_epoch
from edvac.store.schema import Execute
from edvac.store.seal import resealed
from edvac.store.segments import SegmentPart, has_row, pack_names, unpack_names

IN_DOUBT = frozenset({"store_io_failed", "store_unreachable"})
_CHUNK_ROWS = 256
# The names are those of `Row`; nothing from outside gets into these statements.
_FIELDS = f"{', '.join(Row._fields)}, hash"
_READ = f"SELECT {_FIELDS} FROM record"  # noqa: S608
_INSERT = f"INSERT INTO record ({_FIELDS}) VALUES (?{',?' * len(Row._fields)})"  # noqa: S608
# The latest in the newest run; a record of a run that is gone is `verify`'s to report.
_REUSE = (
    "SELECT run.id, record.id FROM record JOIN run ON run.number = record.id >> ?"
    " WHERE reuse = ? ORDER BY record.id DESC LIMIT 1"
)
_ADVANCE = resealed("head", "last", "hash")


def check_records(records: Sequence[NewRecord]) -> None:
    """Assertions at the boundary, shared by every store.

    Raises:
        InternalError: an empty batch, an unknown kind, a label under another's key, or a malformed
            reference.
    """
    if not records:
        raise InternalError("append_empty", "a batch without records was appended")
    for record in records:
        if record.kind not in KINDS:
            raise InternalError("record_kind_unknown", f"{record.kind!r} is no kind of record")
        for key, label in record.labels.items():
            if label_key(label) != key:
                raise InternalError("label_key_wrong", f"{key!r} is not the key of {label!r}")
        for ref in (*record.blobs, *filter(has_row, record.segments)):
            if not is_ref(ref):
                raise InternalError("reference_malformed", f"{ref!r} names no blob or segment")


Staged: TypeAlias = tuple[NewRecord, str | None]  # with the blob of a large payload


def make_batch(
    number: int,
    start: tuple[int, bytes],
    lease: Lease,
    staged: Sequence[Staged],
    filed: Sequence[FileVersion],
) -> tuple[list[Row], list[bytes]]:
    """The rows of a batch that follows `start` (a seq and its hash), and the hash of each."""
    rows = [
        Row(
            row_id(number, start[0] + offset),
            lease.epoch,
            record.slot,
            record.kind,
            None if ref else record.payload,
            bytes.fromhex(ref) if ref else None,
            pack(tuple(record.labels)),
            pack(record.blobs),
            pack_names(record.segments),
            b"",
            reuse_mark(record.reuse_key) if record.reuse_key is not None else None,
        )
        for offset, (record, ref) in enumerate(staged, start=1)
    ]
    seq = rows[-1].seq
    rows[-1] = rows[-1]._replace(files=b"".join(mark(lease.run, seq, entry) for entry in filed))
    hashes = [start[1]]
    for row in rows:
        hashes.append(link(hashes[-1], row))
    return rows, hashes[1:]


class JournalPart(SegmentPart, Part):
    _acknowledged: dict[str, tuple[int, bytes]]
    _doubtful: dict[str, tuple[int, bytes]]

    def append(
        self,
        lease: Lease,
        records: Sequence[NewRecord],
        files: Sequence[FileVersion] = (),
        taken: Sequence[int] = (),
    ) -> int:
        """Append a batch in one durable transaction; the seq of its last record. The messages
        `taken` leave the inbox in the same transaction: what they led to is in the batch.

        After an error of `IN_DOUBT` the batch may be stored or not. Appending the same batch again
        stores it exactly once, whichever it was.

        Raises:
            LeaseError: the run has another owner; nothing was written.
            StoreError: the disk failed or is full.
        """
        check_records(records)
        number = self._number(lease.run)
        staged: list[Staged] = [
            (record, self._blobs.put(record.payload))
            if len(record.payload) > INLINE_LIMIT
            else (record, None)
            for record in records
        ]
        filed = [stage_file(entry, self._blobs.put) for entry in files]
        self._db.ready()  # a recovery, if one is due, must not happen inside the doubt below
        known = self._acknowledged.get(lease.run)
        try:
            with self._db.write("appending to the journal") as execute:
                last, head = self._append(execute, number, lease, staged, filed)
                for message in taken:
                    take_message(execute, number, message)
                durability_point("store.append.before_commit")
        except StoreError as error:
            if error.code in IN_DOUBT and known is not None:
                self._doubtful.setdefault(lease.run, known)
            raise
        self._acknowledged[lease.run] = (last, head)
        self._doubtful.pop(lease.run, None)
        self._written(segment for record in records for segment in record.segments)
        durability_point("store.append.after_commit")
        if any(record.kind == "closed" for record in records):
            self._db.checkpoint(truncate=True)
        return last

    def _append(
        self,
        execute: Execute,
        number: int,
        lease: Lease,
        staged: Sequence[Staged],
        filed: Sequence[FileVersion],
    ) -> tuple[int, bytes]:
        last, head = check_epoch(execute, number, lease)
        doubt = self._doubtful.get(lease.run)
        if doubt is not None and doubt[0] != last:
            rows, hashes = make_batch(number, doubt, lease, staged, filed)
            if rows[-1].seq == last and hashes[-1] == head:
                return last, head  # the failed attempt had reached the disk after all
        rows, hashes = make_batch(number, (last, head), lease, staged, filed)
        self._check_blobs(staged, filed)
        self._insert_named(execute, [record for record, _ in staged])
        for row, hash_ in zip(rows, hashes, strict=True):
            execute(_INSERT, (*row, hash_))
        for entry in filed:
            insert_file(execute, number, lease.run, rows[-1].seq, entry)
        last, head = rows[-1].seq, hashes[-1]
        execute(_ADVANCE, (last, head, number))
        return last, head

    def _check_blobs(self, staged: Sequence[Staged], filed: Sequence[FileVersion]) -> None:
        """Inside the transaction, where `gc` cannot run: what the batch names is really there."""
        named = {ref for record, own in staged for ref in (*record.blobs, own) if ref}
        named.update(entry.blob for entry in filed if entry.blob)
        for ref in named:
            if self._blobs.size(ref) is None:
                raise StoreError(
                    "blob_missing",
                    f"a record names blob {ref}, which is not in the store",
                    "It was never stored, or was collected before a record named it.",
                    "Run the step again.",
                )

    def _insert_named(self, execute: Execute, records: Sequence[NewRecord]) -> None:
        """What the records name, in one order for all writers, so that none wait in a ring."""
        named = {key: label for record in records for key, label in record.labels.items()}
        for key in sorted(named):
            values = (key, label_form(named[key]))
            execute("INSERT INTO label VALUES (?,?) ON CONFLICT DO NOTHING", values)
        segments = [name for record in records for name in record.segments]
        if segments:
            self._insert_segments(execute, segments)

    def records(
        self, run: str, kinds: Collection[Kind] | None = None, after: int = 0
    ) -> Iterator[Record]:
        """The records after `after`, in order, each checked against the chain.

        Raises:
            DamageError: a record is missing, doubled or not what was written.
        """
        return self._walk(run, kinds, after, self._payload)

    def _walk(
        self,
        run: str,
        kinds: Collection[Kind] | None,
        after: int,
        payload: Callable[[Row, str], bytes],
    ) -> Iterator[Record]:
        number = self._number(run)
        seq, previous = after, first_link(run)
        if after:
            rows = self._db.rows("SELECT hash FROM record WHERE id = ?", (row_id(number, after),))
            if not rows:
                raise damaged_record(run, after, "It is missing.")
            previous = rows[0][0]
        while True:
            with self._db.read("reading the journal") as execute:
                check = execute("SELECT last, hash FROM head WHERE number = ?", (number,)).get
                found = execute(
                    f"{_READ} WHERE id > ? AND id < ? ORDER BY id LIMIT ?",
                    (row_id(number, seq), row_id(number + 1, 0), _CHUNK_ROWS),
                ).fetchall()
            for values in found:
                row, hash_ = Row(*values[:-1]), values[-1]
                seq += 1
                if row.seq != seq:
                    raise damaged_record(run, seq, f"It is missing; {row.seq} comes next.")
                if link(previous, row) != hash_:
                    raise damaged_record(run, seq, "Its hash does not follow from the one before.")
                previous = hash_
                if kinds is None or row.kind in kinds:
                    yield as_record(run, row, hash_, payload(row, run))
            if len(found) < _CHUNK_ROWS:
                if check is None or seq != check[0] or previous != check[1]:
                    raise damaged_record(run, seq + 1, "The journal ends before its last record.")
                return

    def reuse_get(self, reuse_key: str) -> Record | None:
        """The latest record with this key in any run that is still here."""
        mark_ = reuse_mark(reuse_key)
        rows = self._db.rows(_REUSE, (SEQ_BITS, mark_))
        if not rows:
            return None
        run, id_ = rows[0]
        found = self._db.rows(f"{_READ} WHERE id IN (?,?) ORDER BY id", (id_ - 1, id_))
        if not found or found[-1][0] != id_:
            return None  # its run was removed since
        row, hash_ = Row(*found[-1][:-1]), found[-1][-1]
        previous = first_link(run) if row.seq == 1 else found[0][-1]
        if row.reuse != mark_ or link(previous, row) != hash_:
            raise damaged_record(run, row.seq, "Its hash does not follow from the one before.")
        return as_record(run, row, hash_, self._payload(row, run))

    def _payload(self, row: Row, run: str) -> bytes:
        if row.ref is not None:
            return self._blobs.get(row.ref.hex())
        if row.payload is None:
            raise damaged_record(run, row.seq, "It has no payload.")
        return row.payload

    def label(self, key: str) -> Label:
        """A label by its key.

        Raises:
            DamageError: it is missing or not what was stored.
        """
        rows = self._db.rows("SELECT form FROM label WHERE key = ?", (key,))
        return restore_label(key, rows[0][0] if rows else None)


def restore_label(key: str, form: bytes | None) -> Label:
    """The label, if its stored form hashes to its key (see `label_key`); checked before decoding.

    Raises:
        DamageError: it is missing or not what was stored.
    """
    if (
        not isinstance(form, bytes)
        or hashlib.blake2b(form, digest_size=LABEL_BYTES).hexdigest() != key
    ):
        raise DamageError(
            "label_damaged",
            f"label {key} is not what was stored",
            "Labels say where data came from; without one nothing may be done with it.",
            "Run `edvac doctor` to verify the workspace.",
        )
    return Label.restore(msgspec.msgpack.decode(form))


def as_record(run: str, row: Row, hash_: bytes, payload: bytes) -> Record:
    return Record(
        run,
        row.seq,
        row.epoch,
        row.slot,
        row.kind,
        payload,
        unpack(row.labels, LABEL_BYTES),
        unpack(row.blobs, REF_BYTES),
        unpack_names(row.segments),
        hash_.hex(),
    )
