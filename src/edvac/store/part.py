"""What the parts of the store share: the database, the blobs, and a run's number.

Each part adds the methods of one noun; `Store` is their sum. The statements are the same for every
database behind `Connection`; where a database is not SQLite it translates them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Protocol, TypeAlias

from edvac.core.errors import UsageError
from edvac.core.seams import Clock
from edvac.store.model import Problem
from edvac.store.owner import Owners
from edvac.store.schema import Execute

Rows: TypeAlias = list[tuple[Any, ...]]
# A statement's last words: a comment to SQLite, which locks all rows at once.
ROW_LOCK = "/* FOR UPDATE */"


def unknown_run(run: str) -> UsageError:
    return UsageError(
        "run_unknown",
        f"there is no run {run!r} in this workspace",
        "",
        "See `edvac ps` for those there are.",
    )


def lock_run(execute: Execute, run: str, number: int) -> None:
    """Inside a transaction: whoever else would change something of this run waits for its end.
    SQLite has one writer anyway, so there the lock is a comment.

    Raises:
        UsageError: the run was removed meanwhile.
    """
    if not execute("SELECT 1 FROM head WHERE number = ? /* FOR UPDATE */", (number,)).fetchall():
        raise unknown_run(run)


class Connection(Protocol):
    """The seam to the database; `Database` says what each method promises."""

    def guard(self, *, any_thread: bool = False) -> None: ...
    def ready(self) -> Execute: ...
    def write(self, what: str, *, alone: bool = False) -> AbstractContextManager[Execute]: ...
    def read(self, what: str) -> AbstractContextManager[Execute]: ...
    def rows(self, sql: str, values: Sequence[Any] = ()) -> Rows: ...
    def problems(self) -> Iterator[Problem]: ...
    def checkpoint(self, truncate: bool = False) -> None: ...
    def shrink(self) -> None: ...
    def suspect(self) -> None: ...
    def drop(self) -> None: ...
    def close(self) -> None: ...


class BlobStore(Protocol):
    """The seam to the blobs; `Blobs` says what each method promises."""

    def put(self, data: bytes) -> str: ...
    def put_stream(self, chunks: Iterable[bytes]) -> tuple[str, int]: ...
    def get(self, ref: str) -> bytes: ...
    def open(self, ref: str) -> BinaryIO: ...
    def size(self, ref: str) -> int | None: ...
    def check(self, ref: str) -> str | None: ...
    def all(self) -> Iterator[str]: ...
    def modified(self, ref: str) -> float: ...
    def remove(self, ref: str) -> None: ...
    def forget_durable(self) -> None: ...


class Part:
    _db: Connection
    _blobs: BlobStore
    _clock: Clock
    _owners: Owners
    _numbers: dict[str, int]

    def _number(self, run: str) -> int:
        """The run's row number, which is never given to another run.

        Raises:
            UsageError: no such run.
        """
        found = self._numbers.get(run)
        if found is None:
            rows = self._db.rows("SELECT number FROM run WHERE id = ?", (run,))
            if not rows:
                raise unknown_run(run)
            found = self._numbers[run] = rows[0][0]
        return found

    def _lease_time(self, now_wall: float) -> float:
        """The time by which leases are judged: the caller's, or that of a clock which all of the
        store's users share."""
        return now_wall
