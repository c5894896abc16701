"""The run's ledger: the one thread that owns the database, and how records become stored bytes.

All of the store's calls happen on this thread. Knows nothing of scheduling: it commits what it is
given, in one durable transaction a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from edvac.control import Record
from edvac.control.step import WrittenFile
from edvac.core.codec import Encoder, label_key
from edvac.core.errors import EdvacError, UnreachableError
from edvac.store import FileVersion, Lease, NewRecord, Store

T = TypeVar("T")
Committed = Callable[[Lease, Sequence[Record]], None]
REPEATS = (
    50  # of what a connection that breaks has cut short, while the server comes back each time
)


def append(
    store: Store, lease: Lease, records: Sequence[Record], taken: Sequence[int] = ()
) -> None:
    """`Ledger.commit` for who has the store itself."""
    versions: dict[str, int] = {}  # of this batch only: others may have written before it
    files = [
        _version(store, lease.run, record.slot, new, versions)
        for record in records
        for new in record.files
    ]
    store.append(lease, [encode(store, record) for record in records], files, taken)


class Ledger:
    """A store on a thread of its own."""

    _commit = staticmethod(append)

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edvac-store")
        self.on_commit: list[Committed] = []  # called with what has become durable
        try:
            self._store: Store = self._thread.submit(open_store).result()
        except EdvacError:
            self._thread.shutdown()
            raise

    async def call(self, function: Callable[[Store], T]) -> T:
        """`function(store)` on the store's thread. It may be called again where the connection to a
        server broke: what it had stored before that is there."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._insist, function)

    def _insist(self, function: Callable[[Store], T]) -> T:
        for _ in range(REPEATS):
            try:
                return function(self._store)
            except UnreachableError as error:
                if not self._store.worth_repeating(error):
                    raise
        return function(self._store)

    def call_now(self, function: Callable[[Store], T]) -> T:
        """The same for code without an event loop."""
        return self._thread.submit(function, self._store).result()

    def close(self) -> None:
        try:
            self._thread.submit(self._store.close).result()
        finally:
            self._thread.shutdown()

    async def commit(
        self, lease: Lease, records: Sequence[Record], taken: Sequence[int] = ()
    ) -> None:
        """Make a batch durable, with the files and labels that it names; the messages `taken`
        leave the inbox with it, or stay with it.

        Raises:
            LeaseError: another process owns the run by now; nothing was written.
            StoreError: the disk refused; nothing was acknowledged.
        """
        await self.call(lambda store: self._commit(store, lease, records, taken))
        for told in self.on_commit:
            told(lease, records)


def _version(
    store: Store, run: str, slot: str, written: WrittenFile, versions: dict[str, int]
) -> FileVersion:
    if written.path not in versions:
        latest = store.file_latest(run, written.path)
        versions[written.path] = latest.version if latest else 0
    versions[written.path] += 1
    return FileVersion(
        written.path,
        versions[written.path],
        slot,
        content=written.content,
        size=len(written.content or b""),
        label=label_key(written.label),
        deleted=written.content is None,
    )


def encode(store: Store, record: Record) -> NewRecord:
    """A record in its stored form; large texts go to blobs, prompts to segments."""
    encoder = Encoder(store.put_blob)
    body = dict(record.body)
    if record.value is not None:
        body["value"] = encoder.encode(record.value)
    segments = tuple(store.put_segment(text) for text in record.prompt)
    labels = dict(encoder.labels)
    labels.update({label_key(written.label): written.label for written in record.files})
    return NewRecord(
        record.slot,
        record.kind,
        msgspec.msgpack.encode(body),
        labels=labels,
        blobs=tuple(dict.fromkeys(encoder.blobs)),
        segments=segments,
        reuse_key=record.reuse_key or None,
    )
