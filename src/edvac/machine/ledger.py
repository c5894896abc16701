"""The run's ledger: the one thread that owns the database, and how records become stored bytes and
back.

All of the store's calls happen on this thread. Knows nothing of scheduling: it commits what it is
given, in one durable transaction a batch, and reads a run back for replay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from edvac.control import Record, Replay
from edvac.control.step import WrittenFile
from edvac.core.codec import Decoder, Encoder, holds_failure, label_key
from edvac.core.errors import EdvacError
from edvac.core.label import Label
from edvac.core.value import Failed, Value
from edvac.machine.budget import UNLIMITED, Budget
from edvac.machine.replay import replayed
from edvac.store import FileVersion, Lease, NewRecord, Store
from edvac.store import Record as StoredRecord

T = TypeVar("T")


class Ledger:
    """A store on a thread of its own."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edvac-store")
        try:
            self._store: Store = self._thread.submit(open_store).result()
        except EdvacError:
            self._thread.shutdown()
            raise

    async def call(self, function: Callable[[Store], T]) -> T:
        """`function(store)` on the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, self._store)

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

    @staticmethod
    def _commit(
        store: Store, lease: Lease, records: Sequence[Record], taken: Sequence[int]
    ) -> None:
        versions: dict[str, int] = {}  # of this batch only: others may have written before it
        files = [
            _version(store, lease.run, record.slot, new, versions)
            for record in records
            for new in record.files
        ]
        store.append(lease, [encode(store, record) for record in records], files, taken)


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


class Entry:
    """A stored record, read back. Its value is decoded when somebody looks at it: a list of twenty
    thousand steps looks at few."""

    __slots__ = ("_decoder", "_stored", "_value", "body", "kind", "prompt", "seq", "slot")

    def __init__(  # noqa: PLR0917 - the columns of a record
        self,
        seq: int,
        kind: str,
        slot: str,
        body: dict[str, Any],
        value: Value | None = None,
        prompt: tuple[str, ...] = (),
    ) -> None:
        self.seq = seq
        self.kind = kind
        self.slot = slot
        self.body = body
        self.prompt = prompt  # names of its segments
        self._value = value
        self._stored = b""
        self._decoder: Decoder | None = None

    @staticmethod
    def stored(record: StoredRecord, decoder: Decoder) -> Entry:
        body: dict[str, Any] = msgspec.msgpack.decode(record.payload)
        made = Entry(record.seq, record.kind, record.slot, body, prompt=record.segments)
        made._stored = body.pop("value", b"")
        made._decoder = decoder
        return made

    @property
    def value(self) -> Value | None:
        """What the step returned, labelled.

        Raises:
            DamageError: it is not what was written.
        """
        if self._stored and self._decoder is not None:
            self._value = self._decoder.decode(self._stored)
            self._stored = b""
        return self._value

    @property
    def failed(self) -> bool:
        """Is the value a failure? Decodes nothing."""
        return isinstance(self._value, Failed) or holds_failure(self._stored)

    @property
    def address(self) -> str:
        return str(self.body.get("at", ""))


@dataclass(slots=True)
class History:
    """Everything that the journal holds of a run."""

    opened: dict[str, Any] = field(default_factory=dict)
    program: str = ""
    previous: Value | None = None  # what `run.previous` is
    budget: Budget = UNLIMITED  # the last one that somebody gave it
    contacted: list[str] = field(default_factory=list)  # endpoints, in drives that have ended
    whole: bool = True  # False while the program is still being written
    entries: list[Entry] = field(default_factory=list)

    def replay(self) -> Replay:
        """What a control unit needs to go on."""
        return replayed(self.entries)


def read_history(store: Store, run: str, *, lazy: bool = False) -> History:
    """Read a run's journal, chain checked. With `lazy`, values are decoded when they are looked
    at, which has to be in the store's thread.

    Raises:
        DamageError: a record is not what was written.
    """
    decoder = decoder_of(store)
    history = History()
    for record in store.records(run):
        entry = read_entry(decoder, record)
        if not lazy:
            _ = entry.value
        match record.kind:
            case "opened":
                history.opened = entry.body
                history.previous = entry.value
                history.budget = Budget.restore(entry.body.get("budget", {}))
            case "program":
                history.program = entry.body["text"]
                history.whole = not history.opened.get("growing", False)
            case "extended":
                history.program += entry.body["text"]
                history.whole = entry.body["whole"]
            case "approved" if entry.body.get("verdict") == "budget":
                history.budget = Budget.restore(entry.body)
            case "approved" if entry.body.get("verdict") == "contacted":
                _contacted(history, entry)
            case _:
                if record.kind == "closed":
                    _contacted(history, entry)
                history.entries.append(entry)
    return history


def _contacted(history: History, entry: Entry) -> None:
    known = dict.fromkeys([*history.contacted, *entry.body.get("contacted", ())])
    history.contacted = list(known)


def decoder_of(store: Store) -> Decoder:
    labels: dict[str, Label] = {}

    def label(key: str) -> Label:
        if key not in labels:
            labels[key] = store.label(key)
        return labels[key]

    return Decoder(store.get_blob, label)


def read_entry(decoder: Decoder, record: StoredRecord) -> Entry:
    return Entry.stored(record, decoder)
