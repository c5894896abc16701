"""One connection to the store's database: opening, transactions, and what happens when it fails.

After any I/O error nothing is trusted: the connection is closed, and the next use opens it anew,
moves everything out of the log into the database file with fresh writes (a page whose sync failed
may be marked clean by the kernel, so syncing it again proves nothing), and asks the owner of the
connection to check what it had acknowledged. Until that succeeds every use is refused.

Knows nothing of what the tables hold.
"""

from __future__ import annotations

import contextlib
import errno
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import apsw

from edvac.core.errors import DamageError, StoreError
from edvac.core.seams import durability_point
from edvac.store.bound import Bound
from edvac.store.files import Files
from edvac.store.model import Problem
from edvac.store.part import Rows
from edvac.store.schema import APPLICATION_ID, FORMAT, MIGRATIONS, Execute, migrate
from edvac.store.seal import seal

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE})
BUSY_MS = 30_000
CHECKPOINT_PAGES = 256  # 1 MiB of log: what a run of ordinary size stays under
_SCHEMA = "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
_DOCTOR = "Run `edvac doctor` to see what is damaged."

_PRAGMAS = (
    "PRAGMA synchronous = FULL",  # NORMAL is consistent but loses the last commits at power loss
    "PRAGMA fullfsync = ON",  # only macOS has a difference
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",  # a removed run leaves no bytes behind
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA temp_store = MEMORY",
    f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * 4096}",
)


def explain(error: apsw.Error, what: str, number: int = 0) -> StoreError:
    """The typed error for what SQLite said; `number` is what the system said to it."""
    match error:
        case apsw.FullError():
            return disk_full(what)
        case apsw.IOError() if number in FULL and _is_index(error):
            return disk_full(what)
        case apsw.CantOpenError() if number in TOO_MANY:
            return too_many_files(what)
        case apsw.BusyError() | apsw.LockedError():
            return StoreError(
                "store_busy",
                f"another process kept the store locked while {what}",
                f"Waited {BUSY_MS // 1000} s for it.",
                "Try again; look for a stopped edvac process if it stays so.",
            )
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError():
            return StoreError(
                "store_unwritable",
                f"the store cannot be opened for writing while {what}",
                str(error),
                "Check the permissions of the workspace's .edvac directory.",
            )
        case apsw.NotADBError():
            return DamageError(
                "store_not_a_database",
                "the store file is not a database",
                "Its first bytes are not what edvac writes: it was overwritten, or was never one.",
                "Restore .edvac from a backup, or move it away to start afresh.",
            )
        case apsw.CorruptError() | apsw.FormatError():
            return DamageError(
                "store_damaged", f"the store is damaged, seen while {what}", str(error), _DOCTOR
            )
        case apsw.IOError():
            return io_failed(what, str(error))
    return StoreError("store_failed", f"the database refused {what}", str(error), _DOCTOR)


def _is_index(error: apsw.Error) -> bool:
    """Is it the index of the log that cannot grow? Nothing has been written then."""
    return bool(getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE)


def disk_full(what: str) -> StoreError:
    return StoreError(
        "disk_full",
        f"no space left on the disk while {what}",
        "Nothing of it was stored and nothing else is harmed.",
        "Free some space, then `edvac resume`.",
    )


def too_many_files(what: str) -> StoreError:
    return StoreError(
        "store_files_exhausted",
        f"no more files may be opened while {what}",
        "The system's limit on open files is reached; nothing is harmed.",
        "Raise it, such as with `ulimit -n 4096`, then `edvac resume`.",
    )


def io_failed(what: str, why: str) -> StoreError:
    return StoreError(
        "store_io_failed",
        f"the disk failed while {what}",
        f"{why}. What was being stored may be there in full or not at all.",
        "Check the disk. The next use of the store verifies itself first; `edvac resume` goes on.",
    )


def _not_text(what: str) -> DamageError:
    return DamageError(
        "store_damaged", f"the store is damaged, seen while {what}", "A text is no text.", _DOCTOR
    )


@functools.cache
def expected_schema() -> Rows:
    """The tables that a store of this format has, by making one in memory."""
    made = apsw.Connection(":memory:")
    for number in sorted(MIGRATIONS):
        MIGRATIONS[number](made.execute)
    found: Rows = made.execute(_SCHEMA).fetchall()
    made.close()
    return found


class Database(Bound):
    """A connection that belongs to the thread that opened it."""

    def __init__(
        self, path: Path, vfs: str | None, files: Files, verify: Callable[[], None]
    ) -> None:
        super().__init__()
        self.path = path
        self._vfs = vfs
        self._files = files
        self._verify = verify
        self._suspect = False
        self._recovering = False
        self._log_pages = 0
        self._connection: Any = None

    def open(self, fresh: bool) -> None:
        """Connect and bring the schema up to date; `fresh` sets what only an empty file can."""
        try:
            self._connect(fresh)
            # SQLite syncs the directory when it makes its log, but ignores whether that worked; the
            # log's name has to be durable before anything in it counts.
            self._files.sync_dir(self.path.parent)
        except apsw.Error as error:
            problem = self._explain(error, "opening the store")
            self.drop()
            raise problem from error
        except UnicodeDecodeError as error:
            self.drop()
            raise _not_text("opening the store") from error
        except OSError as error:
            self.drop()
            if error.errno in TOO_MANY:
                raise too_many_files("opening the store") from error
            raise io_failed("opening the store", error.strerror or str(error)) from error
        except StoreError:
            self.drop()
            raise

    def _connect(self, fresh: bool) -> None:
        made = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=self._vfs)
        self._connection = made
        made.set_busy_timeout(BUSY_MS)
        if fresh:
            made.execute("PRAGMA auto_vacuum = INCREMENTAL")
        identity = made.pragma("application_id")
        if identity in (0, APPLICATION_ID) and made.pragma("user_version") <= FORMAT:
            self._prepare(made)
        made.execute("BEGIN IMMEDIATE")
        migrate(made.execute)
        made.execute("COMMIT")

    def _prepare(self, made: Any) -> None:
        if made.pragma("journal_mode", "wal") != "wal":
            raise StoreError(
                "store_unsupported_disk",
                "the workspace lies on a file system without shared memory",
                "SQLite's write-ahead log needs it; network file systems lack it.",
                "Put the workspace on a local disk.",
            )
        for pragma in _PRAGMAS:
            made.execute(pragma).fetchall()
        # Replaces SQLite's own checkpoints, which swallow the error of a failed sync.
        made.set_wal_hook(self._note_log)
        made.create_scalar_function("seal", seal, deterministic=True)

    def _note_log(self, _connection: object, _name: str, pages: int) -> int:
        self._log_pages = pages
        return 0

    def close(self) -> None:
        """Fold the log into the file and close.

        Raises:
            StoreError: the disk failed; what was acknowledged is durable all the same.
        """
        self.guard()
        self._closed = True
        if self._connection is None:
            return
        try:
            self._connection.close()
        except apsw.Error as error:
            raise explain(error, "closing the store") from error
        finally:
            self.drop()

    def ready(self) -> Execute:
        """The connection's execute, after recovery if it is due."""
        self.guard()
        if self._suspect and not self._recovering:
            self._recover()
        execute: Execute = self._connection.execute
        return execute

    @contextlib.contextmanager
    def write(self, what: str, *, alone: bool = False) -> Iterator[Execute]:
        """One durable transaction: all of it or nothing, durable when the block has ended.
        `alone`: nobody else writes meanwhile, which in SQLite is always so."""
        execute = self.ready()
        done = False
        try:
            execute("BEGIN IMMEDIATE")
            yield execute
            durability_point("store.commit.before")
            execute("COMMIT")
            done = True
        except apsw.Error as error:
            self._fail(error, what)
        except UnicodeDecodeError as error:
            raise _not_text(what) from error
        finally:
            if not done:
                self._roll_back()
        durability_point("store.commit.after")
        if self._log_pages >= CHECKPOINT_PAGES:
            self.checkpoint()

    @contextlib.contextmanager
    def read(self, what: str) -> Iterator[Execute]:
        """Several reads of one state of the database."""
        execute = self.ready()
        done = False
        try:
            execute("BEGIN")
            yield execute
            execute("COMMIT")
            done = True
        except apsw.Error as error:
            self._fail(error, what)
        except UnicodeDecodeError as error:
            raise _not_text(what) from error
        finally:
            if not done:
                self._roll_back()

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """One read."""
        execute = self.ready()
        try:
            found: Rows = execute(sql, values).fetchall()
        except apsw.Error as error:
            self._fail(error, "reading the store")
        except UnicodeDecodeError as error:
            raise _not_text("reading the store") from error
        return found

    def problems(self) -> Iterator[Problem]:
        """What is wrong with the database as such, whatever its tables hold."""
        for (text,) in self.rows("PRAGMA integrity_check"):
            if text != "ok":
                yield Problem("store_damaged", "store.db", text)
        for table, row, parent, _ in self.rows("PRAGMA foreign_key_check"):
            yield Problem("row_orphaned", f"{table} row {row}", f"its {parent} is missing")
        if self.rows(_SCHEMA) != expected_schema():
            yield Problem("schema_changed", "store.db", "the tables are not those of this format")

    def shrink(self) -> None:
        """Give the room of removed rows back to the file system."""
        self.rows("PRAGMA incremental_vacuum")

    def checkpoint(self, truncate: bool = False) -> None:
        """Move the log into the file, as far as readers allow. What is in the log is durable
        already, so a failure harms nothing that was acknowledged; the next use recovers."""
        if self._suspect:
            return
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if truncate else apsw.SQLITE_CHECKPOINT_PASSIVE
        durability_point("store.checkpoint.before")
        # A reader may wait; a checkpoint may not.
        self._connection.set_busy_timeout(0)
        try:
            self._connection.wal_checkpoint(mode=mode)
            self._log_pages = 0
        except apsw.BusyError:
            pass
        except apsw.Error:
            self.suspect()
            return
        self._connection.set_busy_timeout(BUSY_MS)
        durability_point("store.checkpoint.after")

    def suspect(self) -> None:
        """Trust nothing until the next use has verified it. From any thread; the connection is
        closed by its own, at once or with that next use."""
        self._suspect = True
        if self._is_mine():
            self.drop()

    def _fail(self, error: apsw.Error, what: str) -> NoReturn:
        problem = self._explain(error, what)
        if isinstance(error, apsw.IOError):
            self.suspect()
        raise problem from error

    def _explain(self, error: apsw.Error, what: str) -> StoreError:
        connection = self._connection
        return explain(error, what, connection.system_errno if connection is not None else 0)

    def _roll_back(self) -> None:
        if self._connection is None or not self._connection.in_transaction:
            return
        try:
            self._connection.execute("ROLLBACK")
        except apsw.Error:
            self.suspect()

    def drop(self) -> None:
        """Let go of the connection, whatever state it is in."""
        if self._connection is not None:
            # Not forced, it would stay open with its locks where a cursor cannot be closed.
            with contextlib.suppress(apsw.Error):
                self._connection.close(True)
            self._connection = None

    def _recover(self) -> None:
        durability_point("store.recover.before")
        self.drop()
        self.open(fresh=False)
        self._recovering = True
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._verify()
        except apsw.Error as error:
            self.drop()
            raise explain(error, "verifying the store after a failure") from error
        except StoreError:
            self.drop()
            raise
        finally:
            self._recovering = False
        self._suspect = False
        self._log_pages = 0
        durability_point("store.recover.after")
