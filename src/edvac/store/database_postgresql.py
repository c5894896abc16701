"""One connection to a PostgreSQL server: transactions, and what happens when the server goes away.

A commit whose answer was lost is looked up before anything else is done: each transaction notes its
number in the row of its `writer`, which the next connection reads under the row's lock, and so not
before the old transaction has ended. What it says is what happened, whether the connection broke,
the server was restarted or crashed. (The number of the transaction itself would not do: a server
that crashed may give it away again.)

Knows nothing of what the tables hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from edvac.core.errors import StoreError, UnreachableError
from edvac.core.seams import SystemClock, SystemEntropy, durability_point
from edvac.store import dialect
from edvac.store.address import Address, driver
from edvac.store.bound import Bound
from edvac.store.failures_postgresql import (
    explained,
    is_lost,
    is_refused,
    lost_commits,
    refusal,
    rolled_back,
    said,
    unreachable,
)
from edvac.store.model import Problem
from edvac.store.part import Rows
from edvac.store.schema import Execute
from edvac.store.schema_postgresql import check_server, prepare, schema_problems

PATIENCE_S = 15.0  # a server that is restarted is back by then
TOLD_AFTER_S, TOLD_EVERY_S = 2.0, 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


class Result:
    """The rows of a statement, as apsw's cursor gives them."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def fetchall(self) -> Rows:
        return self._rows

    @property
    def get(self) -> Any:
        """The first row, or its value where it has only one; None where there is no row."""
        if not self._rows:
            return None
        return self._rows[0][0] if len(self._rows[0]) == 1 else self._rows[0]


class PostgresqlDatabase(Bound):
    """A connection that belongs to the thread that opened it.

    Args:
        verify: called after each reconnection, to check what was acknowledged.
        patience_s: how long a server that is away is waited for.
        on_wait: is told, now and then, for how many seconds it has been waited for.
    """

    def __init__(
        self,
        address: Address,
        verify: Callable[[], None],
        patience_s: float = PATIENCE_S,
        on_wait: Callable[[float], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._on_wait = on_wait
        self.address = address
        self._verify = verify
        self._patience_s = patience_s
        self.driver: Any = driver()
        self._connection: Any = None
        self._side: Any = None  # for readers on other threads
        self._side_lock = threading.Lock()
        self._writer = bytes.fromhex(SystemEntropy().token(16))
        self._number = 0  # of this writer's transactions; each attempt gets its own
        self._confirmed = 0  # the number of the last one that was acknowledged
        self._inside = self._suspect = self._recovering = self._signed_on = False
        self.given_up = False  # the server was waited for, and did not come back
        # One lock a store and not a database: several stores lie in one.
        digest = hashlib.blake2b(f"edvac {address.schema}".encode(), digest_size=8).digest()
        self.key = int.from_bytes(digest, "big", signed=True)

    def open(self) -> None:
        """Connect and bring the tables up to date.

        Raises:
            UnreachableError: the server is away.
            StoreError: it refuses, may lose what it confirms, or holds something else.
        """
        what = "opening the store"
        self._connection = self.connect(what)
        try:
            prepare(self._execute, self.address.schema, self.key)
        except self.driver.Error as error:
            problem = self._explained(error, what)
            self.drop()
            raise problem from error
        except StoreError:
            self.drop()
            raise

    def connect(self, what: str, patience_s: float | None = None) -> Any:
        """A connection with its session set up, after as many attempts as patience allows.

        Raises:
            UnreachableError: the server is still away.
            StoreError: it refuses, or may lose what it confirms.
        """
        clock = SystemClock()
        began, tell_at = clock.now(), TOLD_AFTER_S
        for pause in (*_pauses(self._patience_s if patience_s is None else patience_s), None):
            made: Any = None
            waited = clock.now() - began
            if waited >= tell_at:
                tell_at = waited + TOLD_EVERY_S
                self._on_wait(waited)
            try:
                made = self.driver.connect(
                    **self.address.parameters,
                    autocommit=True,
                    cursor_factory=self.driver.RawCursor,
                )
                check_server(made.execute, self.address)
            except self.driver.Error as error:
                lost = is_lost(error, made)
                if made is not None:
                    made.close()
                if is_refused(error):
                    raise refusal(self.address, error) from error
                if not lost:
                    raise explained(self.address, error, what) from error
                if pause is None:
                    raise unreachable(self.address, what, said(self.address, error)) from error
            except StoreError:
                made.close()
                raise
            else:
                return made
            threading.Event().wait(pause)
        raise AssertionError("the last attempt returns or raises")

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> Result:
        if self._connection is None:
            raise self.driver.OperationalError("the connection is lost")
        cursor = self._connection.execute(
            dialect.postgresql(sql), list(values) or None, binary=bool(values)
        )
        return Result(cursor.fetchall() if cursor.description else [])

    def ready(self) -> Execute:
        """The connection's execute, after a reconnection if it is due."""
        self.guard()
        if self._suspect and not self._recovering:
            if self._inside:  # what the transaction has done so far is gone with its connection
                raise unreachable(self.address, "a transaction", "Its connection was lost.")
            self._recover("reaching the store again")
        return self._execute

    @contextlib.contextmanager
    def write(self, what: str, *, alone: bool = False) -> Iterator[Execute]:
        """One durable transaction: all of it or nothing, durable when the block has ended.
        `alone`: nobody else writes meanwhile.

        Raises:
            UnreachableError: the server went away. Unless it is `in_doubt`, nothing was stored.
        """
        self._sign_on(what)
        execute = self._begin("BEGIN ISOLATION LEVEL READ COMMITTED", what)
        done = False
        try:
            lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
            execute(f"SELECT {lock}(?)", (self.key,))
            yield execute
            durability_point("store.commit.before")
            self._sign()
            self._commit(what)
            self._confirmed = self._number
            done = True
        except self.driver.Error as error:
            self._fail(error, what)
        finally:
            self._inside = False
            if not done:
                self._roll_back()
        durability_point("store.commit.after")

    def _sign_on(self, what: str) -> None:
        """The writer's row has to be there before the first transaction that changes it: nobody can
        wait for a row that is not."""
        if self._signed_on:
            self.ready()
            return
        execute = self._begin("BEGIN", what)
        try:
            execute("INSERT INTO writer VALUES (?,0) ON CONFLICT DO NOTHING", (self._writer,))
            execute("COMMIT")
        except self.driver.Error as error:
            self._fail(error, what)
        finally:
            self._inside = False
            self._roll_back()
        self._signed_on = True

    def _sign(self) -> None:
        """Note the transaction's number. This is answered before the commit is sent: who finds the
        row unlocked and unchanged later knows that no commit is still on its way."""
        self._number += 1
        values = (self._number, self._writer)
        changed = self._execute("UPDATE writer SET last = ? WHERE id = ? RETURNING 1", values)
        if not changed.fetchall():
            raise lost_commits(self.address, 0, self._confirmed)

    def _commit(self, what: str) -> None:
        try:
            self._send_commit()
        except self.driver.Error as error:
            if not is_lost(error, self._connection):
                raise
            if not self._was_stored(error, what):
                why = "Its connection broke at the end. Nothing of it was stored."
                raise unreachable(self.address, what, why) from error

    def _send_commit(self) -> None:
        answer = self._connection.execute("COMMIT").statusmessage
        if answer != "COMMIT":  # a failed transaction is rolled back, and that is no error to it
            raise rolled_back(answer)

    def _was_stored(self, error: Any, what: str) -> bool:
        """Was the transaction, whose commit got no answer, stored? Asks the server.

        Raises:
            UnreachableError: it cannot be asked; `in_doubt`.
        """
        self._inside = False
        for last in (False, False, True):  # the next connection may break as well
            self.suspect()
            try:
                return self._recover(what) == self._number
            except UnreachableError as problem:
                if last or self.given_up:
                    problem.in_doubt = True
                    problem.why += " What was being stored may be there in full or not at all."
                    raise problem from error
        raise AssertionError("the last attempt returns or raises")

    @contextlib.contextmanager
    def read(self, what: str) -> Iterator[Execute]:
        """Several reads of one state of the database."""
        execute = self._begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", what)
        done = False
        try:
            yield execute
            self._connection.execute("COMMIT")
            done = True
        except self.driver.Error as error:
            self._fail(error, what)
        finally:
            self._inside = False
            if not done:
                self._roll_back()

    def _begin(self, sql: str, what: str) -> Execute:
        """The first statement finds out whether a connection that lay idle is still there."""
        execute = self.ready()
        try:
            execute(sql)
        except self.driver.Error as error:
            if not is_lost(error, self._connection):
                self._fail(error, what)
            self.suspect()
            execute = self.ready()
            try:
                execute(sql)
            except self.driver.Error as again:
                self._fail(again, what)
        self._inside = True
        return execute

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """One read."""
        what = "reading the store"
        self.ready()
        try:
            return self._execute(sql, values).fetchall()
        except self.driver.Error as error:
            if self._inside or self._recovering or not is_lost(error, self._connection):
                self._fail(error, what)
        self.suspect()
        self.ready()
        try:
            return self._execute(sql, values).fetchall()
        except self.driver.Error as error:
            self._fail(error, what)

    def rows_anywhere(self, sql: str, values: Sequence[Any]) -> Rows:
        """One read from whatever thread; what a transaction that is under way has changed may not
        be seen."""
        self.guard(any_thread=True)
        if self._is_mine():
            return self.rows(sql, values)
        what = "reading the store"
        with self._side_lock:
            for last in (False, True):
                self._side = side = self._side or self.connect(what)
                try:
                    statement = dialect.postgresql(sql)
                    found: Rows = side.execute(statement, list(values), binary=True).fetchall()
                except self.driver.Error as error:
                    lost, self._side = is_lost(error, side), None
                    side.close()
                    if not lost:
                        raise explained(self.address, error, what) from error
                    if last:
                        why = said(self.address, error)
                        raise unreachable(self.address, what, why) from error
                else:
                    return found
        raise AssertionError("the last attempt returns or raises")

    def problems(self) -> Iterator[Problem]:
        """What is wrong with the database as such, whatever its tables hold."""
        execute = self._begin("BEGIN", "checking the tables")
        try:
            found = schema_problems(execute, self.address.schema)
        except self.driver.Error as error:
            self._fail(error, "checking the tables")
        finally:
            self._inside = False
            self._roll_back()
        yield from found

    def checkpoint(self, truncate: bool = False) -> None:
        """The server does that by itself."""

    def shrink(self) -> None:
        """The server does that by itself."""

    def suspect(self) -> None:
        """Trust nothing until the next use has verified it."""
        self._suspect = True
        if self._is_mine():
            self._drop_main()

    def close(self) -> None:
        """Close. What was acknowledged is durable without."""
        self.guard()
        self._closed = True
        # A row left behind costs some bytes, no more.
        with contextlib.suppress(self.driver.Error):
            if self._signed_on:
                self._execute("DELETE FROM writer WHERE id = ?", (self._writer,))
        self.drop()

    def drop(self) -> None:
        """Let go of the connections, whatever state they are in."""
        self._drop_main()
        with self._side_lock:
            side, self._side = self._side, None
        if side is not None:
            side.close()

    def _drop_main(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _recover(self, what: str) -> int:
        """Connect anew and check that what was acknowledged is there; the number of the last
        transaction that was stored, acknowledged or not.

        Raises:
            UnreachableError: the server is still away.
            DamageError: it has lost what it had confirmed.
        """
        durability_point("store.recover.before")
        self._drop_main()
        self.given_up = True
        self._connection = self.connect(what)
        self.given_up = False
        self._recovering = True
        try:
            # Waits until a transaction of the lost connection has ended one way or the other.
            sql = "SELECT last FROM writer WHERE id = ? FOR UPDATE"
            row = self._execute(sql, (self._writer,)).get
            stored: int = row or 0
            if stored < self._confirmed:
                raise lost_commits(self.address, stored, self._confirmed)
            self._confirmed = stored
            self._signed_on = row is not None
            self._suspect = False
            self._verify()
        except self.driver.Error as error:
            self.suspect()
            raise unreachable(self.address, what, said(self.address, error)) from error
        except StoreError:
            self.suspect()
            raise
        finally:
            self._recovering = False
        durability_point("store.recover.after")
        return stored

    def _fail(self, error: Any, what: str) -> NoReturn:
        problem = self._explained(error, what)
        if isinstance(problem, UnreachableError):
            self.suspect()
        raise problem from error

    def _explained(self, error: Any, what: str) -> StoreError:
        if is_lost(error, self._connection):
            why = f"{said(self.address, error)} Nothing of it was stored."
            return unreachable(self.address, what, why)
        return explained(self.address, error, what)

    def _roll_back(self) -> None:
        if self._connection is None:
            return
        try:
            if self._connection.info.transaction_status:
                self._connection.execute("ROLLBACK")
        except self.driver.Error:
            self.suspect()


def _pauses(patience_s: float) -> Iterator[float]:
    """Pauses between attempts, doubling, that make up the patience together."""
    pause, left = _FIRST_PAUSE_S, patience_s
    while left > 0:
        yield min(pause, left)
        left -= pause
        pause = min(2 * pause, _LONGEST_PAUSE_S)
