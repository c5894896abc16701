"""The store of one workspace: journal, runs, files, blobs, grants, threads in ``.edvac/``.

Acknowledged means durable: a method that returned survives a kill, a crash of the system and a
power cut, on a disk that honours a flush. One object belongs to one thread, but for `get_blob`;
several processes may have the same store open.

Knows nothing of programs or models, and never looks inside a payload.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from edvac.core.errors import DamageError, EdvacError, StoreError, UnreachableError
from edvac.core.seams import Clock, SystemClock, SystemEntropy, durability_point
from edvac.store.blobs import Blobs, explain_os
from edvac.store.chain import row_id
from edvac.store.database import Database
from edvac.store.files import Files, SystemFiles
from edvac.store.maintenance import MaintenancePart
from edvac.store.notes import NotePart
from edvac.store.owner import Owners, SystemOwners
from edvac.store.run_queues import QueuePart

DIRECTORY = ".edvac"
DATABASE = "store.db"
MARKER = "store.id"  # written once the tables are durable: a missing database is then damage


class Store(MaintenancePart, NotePart, QueuePart):
    """Open with ``Store(workspace)``; usable as a context manager.

    Args:
        workspace: an existing directory; ``.edvac`` in it is made where it is missing.
        clock, files, owners, vfs: the seams.

    Raises:
        StoreError: it cannot be opened or is of a newer format.
        DamageError: what is there is not a store, or is cut short.
    """

    def __init__(
        self,
        workspace: Path,
        *,
        clock: Clock | None = None,
        files: Files | None = None,
        owners: Owners | None = None,
        vfs: str | None = None,
    ) -> None:
        self._remember_nothing(workspace)
        self._clock = clock or SystemClock()
        self._owners = owners or SystemOwners()
        self._files = files or SystemFiles()
        # Only names of temporary files, which nothing depends on.
        self._entropy = SystemEntropy()
        root = workspace / DIRECTORY
        self._sqlite = Database(root / DATABASE, vfs, self._files, self._verify_acknowledged)
        self._folder = Blobs(root, self._files, self._owners, self._entropy, self._distrust)
        self._db, self._blobs = self._sqlite, self._folder
        try:
            self._open(root)
        except BaseException as error:
            self._db.drop()
            if isinstance(error, OSError):
                raise explain_os(error, "opening the store") from error
            raise

    def _remember_nothing(self, workspace: Path) -> None:
        """The fields in which a store keeps what it has seen and acknowledged."""
        self.workspace = workspace
        self._numbers: dict[str, int] = {}
        self._acknowledged: dict[str, tuple[int, bytes]] = {}
        self._doubtful: dict[str, tuple[int, bytes]] = {}
        self._last_checkpoint: tuple[int, str, bytes] | None = None
        self._pending: dict[str, bytes] = {}
        self._pending_bytes = 0

    def _open(self, root: Path) -> None:
        self._make_root(root)
        marked = self._files.size(root / MARKER) is not None
        if not marked:
            self._files.sync_dir(self.workspace)
        size = self._files.size(root / DATABASE)
        if marked and not size:
            raise DamageError(
                "store_missing",
                "the store's database is gone",
                f"{DIRECTORY}/{DATABASE} is {'empty' if size == 0 else 'missing'}, though a store"
                " was made here.",
                f"Restore it from a backup, or move {DIRECTORY} away to start afresh.",
            )
        if size is None:
            try:
                self._files.create(root / DATABASE)
            except FileExistsError:
                pass  # another process was faster
        durability_point("store.open.before_schema")
        self._sqlite.open(fresh=not size)
        self._folder.prepare(self._clock.wall())
        if not marked:
            durability_point("store.open.before_marker")
            temporary = root / "tmp" / f"marker-{self._entropy.token(8)}"
            self._files.write_new(temporary, [self._entropy.token(16).encode()])
            self._files.rename(temporary, root / MARKER)
            self._files.sync_dir(root)

    def _make_root(self, root: Path) -> None:
        if not self.workspace.is_dir():
            raise StoreError(
                "workspace_missing",
                f"there is no directory {str(self.workspace)!r}",
                "A workspace is a directory that exists.",
                "Make it, or work in another directory.",
            )
        self._files.make_dir(root)

    def close(self) -> None:
        """Fold the log into the database and close. What was acknowledged is durable without."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except EdvacError:
            if kind is None:  # an error on its way out is worth more than this one
                raise

    def worth_repeating(self, error: UnreachableError) -> bool:
        """May what ended in `error` be done again at once? What was stored before it stays."""
        del error
        return False

    def put_blob(self, data: bytes) -> str:
        """Keep bytes as a blob; durable on return. `gc` keeps it while something names it."""
        self._db.ready()
        return self._blobs.put(data)

    def get_blob(self, ref: str) -> bytes:
        """A blob's bytes, checked. From any thread, since a large value is read when it is needed,
        wherever that is.

        Raises:
            DamageError: they are missing or not what was stored.
        """
        self._db.guard(any_thread=True)
        return self._blobs.get(ref)

    def put_blob_stream(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Keep a stream as a blob without holding it in memory; its reference and size."""
        self._db.ready()
        return self._blobs.put_stream(chunks)

    def open_blob(self, ref: str) -> BinaryIO:
        """A blob as a file to read, checked before it is handed out."""
        self._db.guard()
        return self._blobs.open(ref)

    def _distrust(self) -> None:
        self._blobs.forget_durable()
        self._db.suspect()

    def _verify_acknowledged(self) -> None:
        """After a failure: everything that this object acknowledged must still be there."""
        self._verify_heads()
        for run in self._acknowledged:
            for _ in self.records(run):
                pass
        self._verify_last_checkpoint()

    def _verify_heads(self) -> None:
        """Each journal still reaches as far as this object has seen it reach."""
        self._blobs.forget_durable()
        self._numbers.clear()
        for run, (seq, head) in self._acknowledged.items():
            number = self._number(run)
            if seq:
                rows = self._db.rows("SELECT hash FROM record WHERE id = ?", (row_id(number, seq),))
            else:
                rows = [(head,)]
            if not rows or rows[0][0] != head:
                raise DamageError(
                    "acknowledged_lost",
                    f"record {seq} of run {run} was stored, and is gone",
                    "The disk failed and lost what it had confirmed.",
                    "Do not trust this disk; restore the workspace from a backup.",
                )
