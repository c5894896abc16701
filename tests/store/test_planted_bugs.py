"""Are the harnesses worth anything? Known bugs are planted, and each has to be caught.

A green harness without this proves little. The last test prints caught/planted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import crash_harness as harness
import damage_harness
import pytest
from sim_disk import LogFiles, SimDisk, discard, scratch

from edvac.core.errors import DamageError, EdvacError, LeaseError
from edvac.store import (
    NewRecord,
    RunInfo,
    Store,
    Typed,
    blobs,
    database,
    journal,
    runs,
    streams,
    threads,
)

Patch = pytest.MonkeyPatch


# What may catch a bug. Each returns whether it did.


def by_crash(files: Callable[[SimDisk], Any] | None = None, **kind: Any) -> bool:
    try:
        recorded = harness.record(files, **kind)
    except EdvacError:
        return True  # the workload itself does not get through
    return any(harness.crash(recorded, 700, seed, stop=True).bad for seed in (1, 2))


def by_failing_syncs() -> bool:
    import test_crash_images as images

    tally = harness.Tally()
    for k in range(1, harness.record().disk.syncs + 1):
        for ever in (True, False):
            outage = harness.record_failing(lambda n, k=k, ever=ever: n >= k if ever else n == k)
            images.check_after(outage, tally, k)
            if outage.broken or tally.bad:
                return True
    return False


def by_damage() -> bool:
    root = scratch()
    try:
        return bool(damage_harness.unnoticed(root))
    finally:
        discard(root)


def by_fence() -> bool:
    root = scratch()
    try:
        with harness.open_store(root) as store:
            store.create_run(RunInfo("r", 1.0))
            stale = store.acquire("r", "me", 60, 1.0)
            store.acquire("r", "me", 60, 1.0)
            try:
                store.append(stale, [NewRecord("a", "intent")])
            except LeaseError:
                return False
            return True
    finally:
        discard(root)


# The bugs.


class NoContentSync(LogFiles):
    def write_new(self, path: Path, chunks: Iterable[bytes]) -> int:
        return self.write_unsynced(path, chunks)


class NoNameSync(LogFiles):
    def sync_dir(self, path: Path) -> None:
        return None


class NoLogNameSync(LogFiles):
    """Relies on SQLite to make its log's name durable."""

    def sync_dir(self, path: Path) -> None:
        if path.name != ".edvac":
            super().sync_dir(path)


class RenameFirst(LogFiles):
    """Renames, and only then syncs the content."""

    def write_new(self, path: Path, chunks: Iterable[bytes]) -> int:
        return self.write_unsynced(path, chunks)

    def sync_dir(self, path: Path) -> None:
        super().sync_dir(path)
        for file in path.iterdir():
            if file.is_file() and file.parent.parent.name == "blobs":
                self.disk.sync("sync", self.disk.inode(file))


class AcknowledgeFirst(Store):
    """Answers, and commits with the next call."""

    _late: list[Any] | None = None

    def append(self, lease: Any, records: Any, files: Any = ()) -> int:
        self._commit_late()
        self._late = [lease, records, files]
        return 0

    def _commit_late(self) -> None:
        if self._late is not None:
            late, self._late = self._late, None
            super().append(*late)

    def __getattribute__(self, name: str) -> Any:
        if name in {"post", "ack", "grant", "create_run", "begin_apply", "close", "remove_run"}:
            self._commit_late()
        return super().__getattribute__(name)


def acknowledge_first(patch: Patch) -> bool:
    def kind(root: Path, **seams: Any) -> Store:
        return AcknowledgeFirst(
            root, clock=harness.ManualClock(), owners=harness.OneOwner(), **seams
        )

    return by_crash(kind=kind)


def synchronous(level: str) -> Callable[[Patch], bool]:
    def plant(patch: Patch) -> bool:
        kept = tuple(p for p in database._PRAGMAS if "synchronous" not in p)
        patch.setattr(database, "_PRAGMAS", (*kept, f"PRAGMA synchronous = {level}"))
        return by_crash()

    return plant


def wrong_checksum_accepted(patch: Patch) -> bool:
    class Anything(bytes):
        def __ne__(self, other: object) -> bool:
            return False

    real = journal.link
    patch.setattr(journal, "link", lambda previous, row: Anything(real(previous, row)))
    return by_damage()


def seal_not_looked_at(patch: Patch) -> bool:
    patch.setattr(runs, "sound", lambda table, rows: [row[:-1] for row in rows])
    patch.setattr("edvac.store.notes.sound", lambda table, rows: [row[:-1] for row in rows])
    patch.setattr("edvac.store.filing.sound", lambda table, rows: [row[:-1] for row in rows])
    patch.setattr("edvac.store.maintenance.TABLES", ())
    return by_damage()


def blob_not_verified(patch: Patch) -> bool:
    def get(self: Any, ref: str) -> bytes:
        with self._open(ref) as file:
            return bytes(file.read())

    patch.setattr(blobs.Blobs, "get", get)
    patch.setattr(blobs.Blobs, "check", lambda self, ref: None)
    return by_damage()


def value_not_verified(patch: Patch) -> bool:
    def read(execute: Any, number: int, ref: Any) -> Any:
        if not ref.stream:
            return Typed(ref.kind, ref.head)
        rows = execute(streams._PIECES, (number, ref.stream, ref.length)).fetchall()
        return Typed(ref.kind, ref.head + b"".join(streams._piece(*row) for row in rows))

    patch.setattr(threads, "read_value", read)
    return by_damage()


def checkpoints_not_counted(patch: Patch) -> bool:
    real = Store._keys

    def keys(self: Any, thread: Any, namespace: Any) -> Any:
        try:
            return real(self, thread, namespace)
        except DamageError:
            return [(row[0], row[1]) for row in self._db.rows("SELECT id, number FROM checkpoint")]

    patch.setattr(Store, "_keys", keys)
    return by_damage()


def puts_in_several_transactions(patch: Patch) -> bool:
    """A checkpoint's pieces are committed before the checkpoint, and its row is of the future."""
    real = threads._put_checkpoint

    def put(execute: Any, line: Any, new: Any, now: float) -> Any:
        threads.set_line(execute, line._replace(checkpoints=line.checkpoints + 1))
        execute("COMMIT")
        execute("BEGIN IMMEDIATE")
        return real(execute, line, new, now)

    patch.setattr(threads, "_put_checkpoint", put)
    return by_crash()


def records_swapped(patch: Patch) -> bool:
    real = journal.make_batch

    def swapped(number: int, start: Any, lease: Any, staged: Any, filed: Any) -> Any:
        return real(number, start, lease, list(reversed(staged)), filed)

    patch.setattr(journal, "make_batch", swapped)
    return by_crash()


def epoch_ignored(patch: Patch) -> bool:
    def check(execute: Any, number: int, lease: Any) -> Any:
        return execute("SELECT last, hash FROM head WHERE number = ?", (number,)).fetchall()[0]

    patch.setattr(journal, "check_epoch", check)
    return by_fence()


def seq_reused(patch: Patch) -> bool:
    real = journal.check_epoch

    def check(execute: Any, number: int, lease: Any) -> Any:
        last, head = real(execute, number, lease)
        return max(0, last - 1), head

    patch.setattr(journal, "check_epoch", check)
    patch.setattr(journal, "_INSERT", journal._INSERT.replace("INSERT", "INSERT OR REPLACE"))
    return by_crash()


def labels_dropped(patch: Patch) -> bool:
    real = journal.JournalPart._insert_named

    def insert(self: Any, execute: Any, records: Any) -> None:
        import dataclasses

        real(self, execute, [dataclasses.replace(record, labels={}) for record in records])

    patch.setattr(journal.JournalPart, "_insert_named", insert)
    return by_crash()


def batch_in_two_transactions(patch: Patch) -> bool:
    real = journal.JournalPart.append

    def append(self: Any, lease: Any, batch: Any, files: Any = ()) -> int:
        for entry in batch[:-1]:
            real(self, lease, [entry])
        return real(self, lease, batch[-1:], files)

    patch.setattr(journal.JournalPart, "append", append)
    return by_crash()


def goes_on_after_failed_sync(patch: Patch) -> bool:
    patch.setattr(database.Database, "suspect", lambda self: self._roll_back())
    return by_failing_syncs()


def failed_append_repeated_blindly(patch: Patch) -> bool:
    class Forgetful(dict[str, Any]):
        def setdefault(self, key: str, value: Any = None) -> Any:
            return value

    real = Store.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        self._doubtful = Forgetful()

    patch.setattr(Store, "__init__", init)
    return by_lost_answer()


def by_lost_answer() -> bool:
    """A commit that reached the disk but whose answer was an error: the repeat must not double."""
    root = scratch()
    try:
        with harness.open_store(root) as store:
            store.create_run(RunInfo("r", 1.0))
            lease = store.acquire("r", "me", 60, 1.0)
            store.append(lease, [NewRecord("a", "intent")])
            batch = [NewRecord("b", "intent"), NewRecord("c", "outcome")]
            with contextlib.suppress(EdvacError), lost_answer(store):
                store.append(lease, batch)
            store.append(lease, batch)
            return [r.slot for r in store.records("r")] != ["a", "b", "c"]
    finally:
        discard(root)


@contextlib.contextmanager
def lost_answer(store: Store) -> Any:
    """The next commit works, and then says that the disk failed."""
    real = store._db.write

    @contextlib.contextmanager
    def write(what: str) -> Any:
        with real(what) as execute:
            yield execute
        store._db.suspect()
        raise database.io_failed(what, "injected after the commit")

    store._db.write = write  # type: ignore[method-assign]
    try:
        yield
    finally:
        store._db.write = real  # type: ignore[method-assign]


def blob_trusted_after_failed_sync(patch: Patch) -> bool:
    def known(self: Any, ref: str) -> bool:
        return self._files.size(self.path(ref)) is not None

    patch.setattr(blobs.Blobs, "_known", known)
    return by_failing_syncs()


def record_before_its_blob(patch: Patch) -> bool:
    """The blob is written when the store is closed."""
    late: list[tuple[Any, bytes]] = []
    real, close = blobs.Blobs.put, Store.close

    def put(self: Any, data: bytes) -> str:
        late.append((self, data))
        return blobs.hashlib.blake2b(data, digest_size=20).hexdigest()

    def closing(self: Any) -> None:
        while late:
            real(*late.pop())
        close(self)

    patch.setattr(blobs.Blobs, "put", put)
    patch.setattr(blobs.Blobs, "size", lambda self, ref: 1)
    patch.setattr(Store, "close", closing)
    return by_crash()


def marker_before_the_tables(patch: Patch) -> bool:
    real = Store._open

    def opening(self: Any, root: Path) -> None:
        self._files.make_dir(root)
        if self._files.size(root / "store.id") is None:
            self._files.write_new(root / "store.id", [b"0"])
            self._files.sync_dir(root)
            self._files.sync_dir(self.workspace)
            self._files.create(root / "store.db")
            self._db.open(fresh=True)
        real(self, root)

    patch.setattr(Store, "_open", opening)
    return by_crash()


BUGS: dict[str, Callable[[Patch], bool]] = {
    "no sync of a blob's content": lambda patch: by_crash(NoContentSync),
    "no sync of directories": lambda patch: by_crash(NoNameSync),
    "log's name left to SQLite": lambda patch: by_failing_syncs_with(patch, NoLogNameSync),
    "rename before the sync": lambda patch: by_crash(RenameFirst),
    "acknowledge before the commit": acknowledge_first,
    "synchronous = OFF": synchronous("OFF"),
    "synchronous = NORMAL": synchronous("NORMAL"),
    "wrong checksum accepted": wrong_checksum_accepted,
    "seal not looked at": seal_not_looked_at,
    "blob not verified": blob_not_verified,
    "value of a checkpoint not verified": value_not_verified,
    "checkpoints of a thread not counted": checkpoints_not_counted,
    "a checkpoint in several transactions": puts_in_several_transactions,
    "records of a batch swapped": records_swapped,
    "epoch ignored": epoch_ignored,
    "seq reused": seq_reused,
    "label rows dropped": labels_dropped,
    "a batch in several transactions": batch_in_two_transactions,
    "goes on after a failed sync": goes_on_after_failed_sync,
    "failed append repeated blindly": failed_append_repeated_blindly,
    "blob trusted after a failed sync": blob_trusted_after_failed_sync,
    "record before its blob": record_before_its_blob,
    "marker before the tables": marker_before_the_tables,
}


def by_failing_syncs_with(patch: Patch, files: type[LogFiles]) -> bool:
    patch.setattr("sim_disk.LogFiles", files)
    return by_failing_syncs()


@pytest.fixture(autouse=True)
def small_log(monkeypatch: Patch) -> None:
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", 24)


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_the_bug_is_caught(bug: str, monkeypatch: Patch) -> None:
    assert BUGS[bug](monkeypatch), f"{bug!r} was planted and nothing noticed"


def test_without_a_bug_the_same_harnesses_are_silent() -> None:
    assert not by_damage()
    assert not by_fence()
    assert not by_lost_answer()
