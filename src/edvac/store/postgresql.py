"""The store of one workspace in a PostgreSQL database: the same contract, for several machines.

What differs from `Store`: leases end by the database's clock, large blobs lie in a shared folder,
and a server that goes away is waited for. The statements are the same.

Knows nothing of programs or models, and never looks inside a payload.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edvac.core.errors import StoreError, UnreachableError
from edvac.core.seams import Clock, SystemClock, SystemEntropy
from edvac.store.address import Address, parse
from edvac.store.blobs import Blobs, explain_os
from edvac.store.blobs_postgresql import PostgresqlBlobs
from edvac.store.database_postgresql import PATIENCE_S, PostgresqlDatabase
from edvac.store.files import Files, SystemFiles
from edvac.store.model import FileVersion, Lease, NewCheckpoint, NewRecord, NewWrites, Problem
from edvac.store.owner import Owners, Process, SystemOwners
from edvac.store.queue import Offer, outcome_mark, step_mark
from edvac.store.store import DIRECTORY, Store

_ATTEMPTS = 5  # of an append whose connection breaks, each after the server was there again


_STEPS = (
    "SELECT queue.id, run.id, slot, attempt, payload, fence, outcome, queue.mark"
    " FROM queue JOIN run USING (number) ORDER BY queue.id"
)


class DatabaseClock:
    """The database's clock, which everybody who has the store open shares."""

    def __init__(self, db: PostgresqlDatabase) -> None:
        self._db = db

    def now(self) -> float:
        return SystemClock().now()

    def wall(self) -> float:
        sql = "SELECT extract(epoch FROM clock_timestamp())::double precision"
        return float(self._db.rows(sql)[0][0])


class _Here:
    """The processes of this machine since it was last started. Two machines may carry one name, as
    images are copied, so another start is not taken for the death of an owner."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners

    def me(self) -> Process:
        return self._owners.me()

    def alive(self, process: Process) -> bool | None:
        return self._owners.alive(process) if process.boot == self.me().boot else None


class _Everywhere(_Here):
    """Names for what lies in a folder that several machines share: the first process namespace of
    each machine bears the same number, so the machine and its start are part of the name."""

    def me(self) -> Process:
        me = self._owners.me()
        return replace(me, space=f"{me.machine}{me.boot}{me.space}")

    def alive(self, process: Process) -> bool | None:
        return self._owners.alive(replace(process, space=self._owners.me().space))


class PostgresqlStore(Store):
    """Open with `open_store`; usable as a context manager.

    Args:
        url: see `edvac.store.address`.
        workspace: the directory on this machine, for what is no part of the store.
        clock: judges leases instead of the database's; for tests.
        files, owners: the seams.
        patience_s: how long a server that is away is waited for.
        on_wait: is told, now and then, for how many seconds it has been waited for.

    Raises:
        UsageError: the URL cannot be used, or psycopg is missing.
        UnreachableError: the server is away.
        StoreError: it refuses, may lose what it confirms, or holds a newer format.
    """

    def __init__(
        self,
        url: str,
        workspace: Path,
        *,
        clock: Clock | None = None,
        files: Files | None = None,
        owners: Owners | None = None,
        patience_s: float = PATIENCE_S,
        on_wait: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._remember_nothing(workspace)
        address = parse(url)
        self._files = files or SystemFiles()
        self._entropy = SystemEntropy()
        self._owners = _Here(owners or SystemOwners())
        self.postgresql = PostgresqlDatabase(address, self._verify_seen, patience_s, on_wait)
        self.by_database = clock is None
        self._clock = clock or DatabaseClock(self.postgresql)
        folder = self._shared_folder(address)
        self._db = self.postgresql
        self._blobs = PostgresqlBlobs(self.postgresql, folder, self._clock)
        try:
            self._make_root(workspace / DIRECTORY)  # logs of this machine lie there
            self.postgresql.open()
            if folder is not None:
                folder.prepare(self._clock.wall())
        except BaseException as error:
            self._db.drop()
            if isinstance(error, OSError):
                raise explain_os(error, "opening the store") from error
            raise

    def _shared_folder(self, address: Address) -> Blobs | None:
        if address.folder is None:
            return None
        if not address.folder.is_dir():
            raise StoreError(
                "blob_folder_missing",
                f"there is no directory {str(address.folder)!r} for large values",
                "The store's URL names it with blobs=.",
                "Mount it on this machine, or make it.",
            )
        owners = _Everywhere(self._owners)
        return Blobs(address.folder, self._files, owners, self._entropy, self._distrust)

    def worth_repeating(self, error: UnreachableError) -> bool:
        """The connection broke, nothing was stored, and the server may be there again."""
        return not error.in_doubt and not self.postgresql.given_up

    def append(
        self,
        lease: Lease,
        records: Sequence[NewRecord],
        files: Sequence[FileVersion] = (),
        taken: Sequence[int] = (),
    ) -> int:
        """See `Store.append`. A connection that breaks is made anew, and the batch appended again:
        that stores it once, whatever became of the first attempt.

        Raises:
            LeaseError: the run has another owner; nothing was written.
            UnreachableError: the server stays away.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return super().append(lease, records, files, taken)
            except UnreachableError as error:
                if error.in_doubt or self.postgresql.given_up:
                    raise
        return super().append(lease, records, files, taken)

    def put_together(self, puts: Sequence[NewCheckpoint | NewWrites]) -> None:
        """
        Raises:
            StoreError: always. Rows of checkpoints are sealed outside of the database, and only
                SQLite's store reads such seals.
        """
        raise StoreError(
            "checkpoints_elsewhere",
            "a store on PostgreSQL keeps no checkpoints of threads",
            "Runs, files and queues are there; checkpoints only in a workspace's own store.",
            "Open the checkpointer on a directory.",
        )

    def verify(self) -> list[Problem]:
        """See `Store.verify`; of the queue's steps, too."""
        found = super().verify()
        for id_, run, slot, attempt, payload, fence, outcome, mark in self._db.rows(_STEPS):
            step = step_mark(run, Offer(slot, payload, attempt=attempt))
            if mark != (step if outcome is None else outcome_mark(id_, fence, outcome)):
                found.append(Problem("step_damaged", f"step number {id_}", "it was changed"))
        return found

    def _lease_time(self, now_wall: float) -> float:
        return self._clock.wall() if self.by_database else now_wall

    def _verify_seen(self) -> None:
        """After a reconnection: the journals that this object appended to are as long as they were.
        That no transaction at all is missing was checked before; a run may have been removed."""
        for run in list(self._acknowledged):
            if not self._db.rows("SELECT 1 FROM run WHERE id = ?", (run,)):
                del self._acknowledged[run]
        self._verify_heads()
