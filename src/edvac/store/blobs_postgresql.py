"""Blobs of a store on PostgreSQL: rows up to 64 MB, files of a shared folder beyond.

The name is the hash of the bytes, checked on each read, in either place. A blob is stored in a
transaction of its own, before the one with the record that names it. Knows nothing of records;
which blobs are still needed is `gc`'s business.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from edvac.core.errors import DamageError, StoreError
from edvac.core.seams import Clock, durability_point
from edvac.store.blobs import CHUNK, Blobs, blob_damaged, check_ref, explain_os
from edvac.store.chain import REF_BYTES
from edvac.store.database_postgresql import PostgresqlDatabase

LARGEST = 64 << 20  # in the database; one statement handles such a value in memory
_SPOOL = 8 << 20  # of a stream, in memory
_NEW = (
    "INSERT INTO blob (ref, size, touched) VALUES (?,?,?) ON CONFLICT (ref) DO UPDATE"
    " SET size = excluded.size, touched = excluded.touched"
)
_TOUCH = "UPDATE blob SET touched = ? WHERE ref = ? RETURNING size"
# One statement, and so one state of the database: never the size of one and the pieces of another.
_GET = (
    "SELECT blob.size, blob_piece.data FROM blob LEFT JOIN blob_piece USING (ref)"
    " WHERE blob.ref = ? ORDER BY blob_piece.place"
)


class PostgresqlBlobs:
    """Args:
    folder: the blobs of a shared folder, for those that are larger than `LARGEST`.
    """

    def __init__(self, db: PostgresqlDatabase, folder: Blobs | None, clock: Clock) -> None:
        self._db = db
        self._folder = folder
        self._clock = clock
        self._durable: set[str] = set()  # stored or checked by this object

    def put(self, data: bytes) -> str:
        """Store bytes; durable on return.

        Raises:
            StoreError: they are too many for the database, and there is no shared folder.
        """
        if len(data) > LARGEST:
            return self._beyond().put(data)
        ref = hashlib.blake2b(data, digest_size=REF_BYTES).hexdigest()
        if not self._known(ref):
            self._insert(ref, data)
        return ref

    def put_stream(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Store a stream; its reference and size. It is held on this machine until its size is
        known, which decides where it goes."""
        with tempfile.SpooledTemporaryFile(_SPOOL) as spool:
            size = 0
            for chunk in chunks:
                size += len(chunk)
                _spool(spool, chunk)
            spool.seek(0)
            if size > LARGEST:
                return self._beyond().put_stream(iter(lambda: spool.read(CHUNK), b""))
            return self.put(spool.read()), size

    def get(self, ref: str) -> bytes:
        """The bytes, from any thread.

        Raises:
            DamageError: they are missing or not what was stored.
        """
        check_ref(ref)
        rows = self._db.rows_anywhere(_GET, (bytes.fromhex(ref),))
        if not rows:
            if self._folder is None:
                raise blob_damaged(ref, "The row is missing.")
            return self._folder.get(ref)
        data = b"".join(piece for _, piece in rows if piece is not None)
        if hashlib.blake2b(data, digest_size=REF_BYTES).hexdigest() != ref:
            raise blob_damaged(ref, "Its content does not match its name.")
        return data

    def open(self, ref: str) -> BinaryIO:
        """A file to read from, its content checked before it is handed out."""
        check_ref(ref)
        if self._folder is not None and self._stored_size(ref) is None:
            return self._folder.open(ref)
        return io.BytesIO(self.get(ref))

    def size(self, ref: str) -> int | None:
        check_ref(ref)
        found = self._stored_size(ref)
        if found is None and self._folder is not None:
            return self._folder.size(ref)
        return found

    def check(self, ref: str) -> str | None:
        """What is wrong with a blob, if anything."""
        try:
            self.open(ref).close()
        except DamageError as error:
            return error.why
        return None

    def all(self) -> Iterator[str]:
        for (ref,) in self._db.rows("SELECT ref FROM blob ORDER BY ref"):
            yield ref.hex()
        if self._folder is not None:
            yield from self._folder.all()

    def modified(self, ref: str) -> float:
        rows = self._db.rows("SELECT touched FROM blob WHERE ref = ?", (bytes.fromhex(ref),))
        if not rows and self._folder is not None:
            return self._folder.modified(ref)
        return float(rows[0][0]) if rows else 0.0

    def remove(self, ref: str) -> None:
        """Remove a blob, in the transaction that is under way."""
        self._durable.discard(ref)
        self._db.ready()("DELETE FROM blob WHERE ref = ?", (bytes.fromhex(ref),))
        if self._folder is not None:
            self._folder.remove(ref)

    def forget_durable(self) -> None:
        """After a failure nothing that was seen earlier is relied on."""
        self._durable.clear()
        if self._folder is not None:
            self._folder.forget_durable()

    def _beyond(self) -> Blobs:
        if self._folder is None:
            raise StoreError(
                "blob_too_large",
                f"a value of more than {LARGEST >> 20} MB has no place in the database",
                "The store's URL names no folder for such values.",
                "Add blobs=/path/of/a/folder/that/all/machines/share to the URL.",
            )
        return self._folder

    def _stored_size(self, ref: str) -> int | None:
        rows = self._db.rows("SELECT size FROM blob WHERE ref = ?", (bytes.fromhex(ref),))
        return int(rows[0][0]) if rows else None

    def _known(self, ref: str) -> bool:
        """Whether the blob is there and whole; it is then as good as new to `gc`."""
        if self._stored_size(ref) is None:
            return False
        if ref not in self._durable and self.check(ref) is not None:
            return False
        key = bytes.fromhex(ref)
        with self._db.write("storing a blob") as execute:
            there = execute(_TOUCH, (self._clock.wall(), key)).fetchall()
        if there:
            self._durable.add(ref)
        return bool(there)  # `gc` may have taken it in between

    def _insert(self, ref: str, data: bytes) -> None:
        key = bytes.fromhex(ref)
        durability_point("store.blob.before_rename")
        with self._db.write("storing a blob") as execute:
            execute(_NEW, (key, len(data), self._clock.wall()))
            execute("DELETE FROM blob_piece WHERE ref = ?", (key,))  # of one that is not whole
            for place, start in enumerate(range(0, len(data), CHUNK)):
                values = (key, place, data[start : start + CHUNK])
                execute("INSERT INTO blob_piece (ref, place, data) VALUES (?,?,?)", values)
        durability_point("store.blob.after_rename")
        self._durable.add(ref)


def _spool(spool: tempfile.SpooledTemporaryFile[bytes], chunk: bytes) -> None:
    try:
        spool.write(chunk)
    except OSError as error:
        raise explain_os(error, "holding a stream on this machine") from error
