"""The queue of steps in the database of a store on PostgreSQL; see `queue` for what it promises.

A worker locks the rows that it takes and passes over those that others have locked, so that workers
never wait for one another. Waiting listens to the database; where a call is missed, because the
connection was lost or nobody called, the time-out of the wait is the fallback.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from edvac.core.errors import DamageError, StoreError
from edvac.store.model import Lease
from edvac.store.part import Rows
from edvac.store.postgresql import PostgresqlStore
from edvac.store.queue import (
    LIVES_S,
    Done,
    Enlisted,
    Offer,
    Taken,
    check_offers,
    outcome_mark,
    refuse_late,
    step_mark,
)
from edvac.store.runs import check_epoch
from edvac.store.schema import Execute

# The database's clock, unless the store was opened with another.
_NOW = "coalesce(?::double precision, extract(epoch FROM clock_timestamp())::double precision)"
_FREE = f"(state = 'waiting' OR state = 'taken' AND expires <= {_NOW})"
_NEW = (
    "INSERT INTO queue (number, slot, attempt, needs, payload, state, fence, expires, mark)"
    " VALUES (?,?,?,?,?,'waiting',0,0,?) RETURNING id"
)
# Materialised: the choice is made once, whatever plan the update gets.
_TAKE = (
    "WITH chosen AS MATERIALIZED (SELECT id FROM queue"  # noqa: S608 - constants of this module
    f" WHERE {_FREE.replace('?', '?1', 1)} AND needs <@ ?2::text[] ORDER BY id LIMIT ?3"
    " FOR UPDATE SKIP LOCKED)"
    " UPDATE queue SET state = 'taken', worker = ?4, fence = fence + 1,"
    f" expires = ?5::double precision + {_NOW.replace('?', '?1', 1)}"
    " FROM chosen, run WHERE queue.id = chosen.id AND run.number = queue.number"
    " RETURNING queue.id, run.id, slot, attempt, payload, worker, fence, expires, queue.mark"
)
_RENEW = (
    f"UPDATE queue SET expires = ?::double precision + {_NOW}"  # noqa: S608
    " WHERE id = ? AND fence = ? AND state = 'taken' RETURNING expires"
)
_FINISH = (
    "UPDATE queue SET state = 'finished', outcome = ?, mark = ?"
    " WHERE id = ? AND fence = ? AND state = 'taken' RETURNING id"
)
_HAND_BACK = (
    "UPDATE queue SET state = 'waiting', expires = 0"
    " WHERE id = ? AND fence = ? AND state = 'taken' RETURNING id"
)
_SAME = "SELECT 1 FROM queue WHERE id = ? AND fence = ? AND state = 'finished' AND outcome = ?"
_FINISHED = (
    "SELECT id, slot, attempt, outcome, worker, fence, mark FROM queue"
    " WHERE number = ? AND state = 'finished' AND NOT id = ANY(?::bigint[]) ORDER BY id"
)
_EXPIRED = (
    "SELECT id FROM queue WHERE number = ? AND state = 'taken'"  # noqa: S608
    f" AND expires <= {_NOW} ORDER BY id"
)
_FORGET = (
    "DELETE FROM queue WHERE number = ? AND state = 'finished' AND id = ANY(?::bigint[])"
    " RETURNING id"
)
_WITHDRAW = (
    "DELETE FROM queue WHERE number = ? AND state <> 'finished'"
    " AND (?::bigint[] IS NULL OR id = ANY(?::bigint[])) RETURNING id"
)
_ENLIST = (
    "INSERT INTO worker VALUES (?,?,?,?,?,?,?,?,"  # noqa: S608
    f"{_NOW}) ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, doing = excluded.doing,"
    " capabilities = excluded.capabilities"
)
_LIVING = f"seen > {_NOW} - {LIVES_S}"
_WORKERS = (
    "SELECT id, name, host, version, capabilities, slots, doing, started, seen,"  # noqa: S608
    f" {_NOW} - seen FROM worker WHERE {_LIVING} ORDER BY name, id"
)
_GONE = f"DELETE FROM worker WHERE NOT {_LIVING}"  # noqa: S608


class PostgresqlQueue:
    """The queue of the store that is handed in, on its connection and thread.

    Raises, from each method beside what `Queue` says:
        UnreachableError: the server is away; nothing was changed, unless it is `in_doubt`.
        DamageError: a payload or an outcome is not what was stored.
    """

    def __init__(self, store: PostgresqlStore) -> None:
        self._store = store
        self._db = store.postgresql
        self._listener = Listener(store)
        self._channel = self._listener.channel

    def close(self) -> None:
        """Stop listening; the store stays open."""
        self._listener.close()

    def offer(self, lease: Lease, steps: Sequence[Offer]) -> list[int]:
        check_offers(steps)
        number = self._store._number(lease.run)
        with self._db.write("offering steps") as execute:
            check_epoch(execute, number, lease)  # and its lock: offers of a run come one by one
            sql = "SELECT slot, attempt, id FROM queue WHERE number = ? AND slot = ANY(?::text[])"
            rows = execute(sql, (number, [step.slot for step in steps])).fetchall()
            known = {(slot, attempt): id_ for slot, attempt, id_ in rows}
            found = [
                known.get((step.slot, step.attempt)) or self._insert(execute, number, lease, step)
                for step in steps
            ]
            self._call(execute)
        return found

    def _insert(self, execute: Execute, number: int, lease: Lease, step: Offer) -> int:
        needs, mark = sorted(step.needs), step_mark(lease.run, step)
        values = (number, step.slot, step.attempt, needs, step.payload, mark)
        found: int = execute(_NEW, values).get
        return found

    def take(
        self, worker: str, count: int, capabilities: Collection[str], ttl_s: float
    ) -> list[Taken]:
        with self._db.write("taking steps") as execute:
            values = (self._now(), sorted(capabilities), count, worker, float(ttl_s))
            rows = execute(_TAKE, values).fetchall()
        found = []
        for *fields, mark in sorted(rows):
            taken = Taken(*fields)
            if mark != step_mark(
                taken.run, Offer(taken.slot, taken.payload, attempt=taken.attempt)
            ):
                raise _damaged(taken.id)
            found.append(taken)
        return found

    def renew(self, held: Sequence[Taken], ttl_s: float) -> list[Taken]:
        found = []
        with self._db.write("renewing the leases of steps") as execute:
            for one in sorted(
                held, key=lambda one: one.id
            ):  # one order, so that none wait in a ring
                values = (float(ttl_s), self._now(), one.id, one.fence)
                rows = execute(_RENEW, values).fetchall()
                found += [replace(one, expires=row[0]) for row in rows]
        return found

    def hand_back(self, held: Sequence[Taken]) -> int:
        count = 0
        with self._db.write("handing steps back") as execute:
            for one in sorted(held, key=lambda one: one.id):
                count += len(execute(_HAND_BACK, (one.id, one.fence)).fetchall())
            self._call(execute)
        return count

    def finish(self, held: Taken, outcome: bytes) -> None:
        with self._db.write("finishing a step") as execute:
            mark = outcome_mark(held.id, held.fence, outcome)
            values = (outcome, mark, held.id, held.fence)
            same = (held.id, held.fence, outcome)
            if not (execute(_FINISH, values).fetchall() or execute(_SAME, same).fetchall()):
                raise refuse_late(held)
            self._call(execute)

    def expired(self, run: str) -> list[int]:
        rows = self._db.rows(_EXPIRED, (self._store._number(run), self._now()))
        return [row[0] for row in rows]

    def finished(self, run: str, but: Collection[int] = ()) -> list[Done]:
        found = []
        for *fields, mark in self._db.rows(_FINISHED, (self._store._number(run), list(but))):
            done = Done(*fields)
            if mark != outcome_mark(done.id, done.fence, done.outcome):
                raise _damaged(done.id)
            found.append(done)
        return found

    def forget(self, lease: Lease, steps: Sequence[int]) -> int:
        return len(self._delete(lease, _FORGET, (list(steps),)))

    def withdraw(self, lease: Lease, steps: Collection[int] | None = None) -> list[int]:
        which = None if steps is None else list(steps)
        return self._delete(lease, _WITHDRAW, (which, which))

    def enlist(self, worker: Enlisted) -> None:
        about = (worker.id, worker.name, worker.host, worker.version)
        able = (sorted(worker.capabilities), worker.slots, worker.doing, worker.started)
        with self._db.write("enlisting a worker") as execute:
            execute(_GONE, (self._now(),))
            execute(_ENLIST, (*about, *able, self._now()))

    def dismiss(self, worker: str) -> None:
        with self._db.write("dismissing a worker") as execute:
            execute("DELETE FROM worker WHERE id = ?", (worker,))

    def workers(self) -> list[Enlisted]:
        now = self._now()
        return [_enlisted(*row) for row in self._db.rows(_WORKERS, (now, now))]

    def _delete(self, lease: Lease, sql: str, values: tuple[Any, ...]) -> list[int]:
        number = self._store._number(lease.run)
        with self._db.write("removing steps") as execute:
            check_epoch(execute, number, lease)
            rows: Rows = execute(sql, (number, *values)).fetchall()
        return sorted(row[0] for row in rows)

    def wait(self, timeout_s: float) -> bool:
        self._db.guard()
        return self._listener.wait(timeout_s)

    def _call(self, execute: Execute) -> None:
        """Wake who waits, once this transaction is committed."""
        execute("SELECT pg_notify(?, '')", (self._channel,))

    def _now(self) -> float | None:
        return None if self._store.by_database else self._store._clock.wall()


class Listener:
    """Hears when steps are offered or finished, on a connection of its own; from any thread."""

    def __init__(self, store: PostgresqlStore) -> None:
        self._db = store.postgresql
        self.channel = f"edvac_{store.postgresql.address.schema}"
        self._connection: Any = None
        self._one = threading.Lock()

    def wait(self, timeout_s: float) -> bool:
        """See `Queue.wait`."""
        with self._one:
            return self._wait(timeout_s)

    def close(self) -> None:
        """Once nobody waits any more."""
        with self._one:
            self._drop()

    def _wait(self, timeout_s: float) -> bool:
        try:
            if self._connection is None:
                self._connection = self._db.connect("listening for steps", patience_s=0)
                self._connection.execute(f'LISTEN "{self.channel}"')
                return True  # what was called before nobody heard
            heard = bool(list(self._connection.notifies(timeout=timeout_s, stop_after=1)))
            if heard:
                list(self._connection.notifies(timeout=0))  # calls for the same look
        except StoreError:
            threading.Event().wait(timeout_s)
        except self._db.driver.Error:
            self._drop()
        else:
            return heard
        return True

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _enlisted(
    id_: str, name: str, host: str, version: str, able: list[str], *rest: Any
) -> Enlisted:
    return Enlisted(id_, name, host, version, tuple(able), *rest)


def _damaged(id_: int) -> DamageError:
    return DamageError(
        "step_damaged",
        f"step number {id_} of the queue is not what was stored",
        "Its checksum does not match.",
        "Run `edvac doctor` to see what is damaged; withdraw the step and offer it again.",
    )
