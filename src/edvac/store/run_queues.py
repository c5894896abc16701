"""Queues of runs: what waits, what goes on, what ended, and what was given up.

Needs no lease: whoever serves a workspace's queues is alone (`machine.queues`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edvac.core.errors import UsageError
from edvac.core.seams import durability_point
from edvac.store.model import QueuedRun, QueuedState, RunQueue
from edvac.store.part import Part
from edvac.store.schema import Execute
from edvac.store.seal import reseal, sealed, sound

_QUEUES = sealed(
    "SELECT name, spec, created, SOUND FROM queue_rules ORDER BY created, name", "queue_rules"
)
_COLUMNS = (
    "id, queue, spec, key, priority, added, due, state, run, attempts, recoveries, started, ended,"
    " said"
)
_ITEMS = f"SELECT {_COLUMNS}, SOUND FROM queued"  # noqa: S608 (a constant)
_ORDER = " ORDER BY priority DESC, id"


def queue_unknown(name: str) -> UsageError:
    return UsageError(
        "queue_unknown",
        f"there is no queue {name!r} in this workspace",
        "",
        "`edvac queue` lists those there are; `edvac queue put` makes one.",
    )


def queue_full(name: str, most: int) -> UsageError:
    return UsageError(
        "queue_full",
        f"{most:,} runs wait in the queue {name!r} already",
        "It takes no more than that.",
        "Let `edvac queue run` work on it, or allow more: edvac queue set NAME --most N.",
    )


class QueuePart(Part):
    def keep_queue(self, queue: RunQueue) -> None:
        """Keep a queue; the same name replaces what is known of it, not what is in it."""
        with self._db.write("storing a queue") as execute:
            execute(
                "INSERT INTO queue_rules (name, spec, created) VALUES (?,?,?)"
                " ON CONFLICT (name) DO UPDATE SET spec = excluded.spec",
                (queue.name, queue.spec, queue.created),
            )
            reseal(execute, "queue_rules", "name = ?", (queue.name,))

    def queues(self) -> list[RunQueue]:
        """All of them, oldest first."""
        return [RunQueue(*row) for row in sound("queue", self._db.rows(_QUEUES))]

    def drop_queue(self, name: str) -> bool:
        """Remove a queue and what is in it; its runs stay. Whether it was there."""
        with self._db.write("removing a queue") as execute:
            rows = execute(
                "DELETE FROM queue_rules WHERE name = ? RETURNING name", (name,)
            ).fetchall()
        return bool(rows)

    def enqueue(self, item: QueuedRun, most: int, *, replaces: bool = False) -> QueuedRun:
        """Put one at the end; where its key is in the queue already, that one.

        Args:
            item: its `id` is given by the store.
            most: how many may wait.
            replaces: take the place of the one of its key, as long as that has not begun and is not
                due when this one is `added`; else the key goes over to this one.

        Raises:
            UsageError: no such queue, or it is full.
        """
        with self._db.write("queueing a run") as execute:
            if not execute("SELECT 1 FROM queue_rules WHERE name = ?", (item.queue,)).fetchall():
                raise queue_unknown(item.queue)
            if item.key:
                where = " WHERE queue = ? AND key = ? /* FOR UPDATE */"
                known = _read(execute, where, (item.queue, item.key))
                if known and not replaces:
                    return known[0]
                if known and may_replace(known[0], item):
                    return _replace(execute, known[0], item)
                if known:
                    execute("UPDATE queued SET key = '' WHERE id = ?", (known[0].id,))
                    reseal(execute, "queued", "id = ?", (known[0].id,))
            counted = "SELECT count(*) FROM queued WHERE queue = ? AND state = 'waiting'"
            if execute(counted, (item.queue,)).fetchall()[0][0] >= most:
                raise queue_full(item.queue, most)
            values = _values(item)[1:]
            places = ",".join("?" * len(values))
            columns = _COLUMNS.removeprefix("id, ")
            number: int = execute(
                f"INSERT INTO queued ({columns}) VALUES ({places}) RETURNING id",  # noqa: S608
                values,
            ).fetchall()[0][0]
            reseal(execute, "queued", "id = ?", (number,))
            durability_point("store.queue.before_commit")
        durability_point("store.queue.after_commit")
        return replace(item, id=number)

    def queued(self, queue: str, states: Sequence[QueuedState] = ()) -> list[QueuedRun]:
        """What is in a queue, in the order in which it is taken."""
        where = f" AND state IN ({','.join('?' * len(states))})" if states else ""
        rows = self._db.rows(
            sealed(f"{_ITEMS} WHERE queue = ?{where}{_ORDER}", "queued"),
            (queue, *states),
        )
        return [QueuedRun(*row) for row in sound("queued", rows)]

    def keep_queued(self, item: QueuedRun) -> bool:
        """Replace what is known of one, but for its key; whether it was still there."""
        kept = [name for name in _COLUMNS.split(", ") if name not in ("id", "key")]
        sets = ", ".join(f"{name} = ?" for name in kept)
        with self._db.write("storing what became of a queued run") as execute:
            rows = execute(
                f"UPDATE queued SET {sets} WHERE id = ? RETURNING id",  # noqa: S608
                (*(getattr(item, name) for name in kept), item.id),
            ).fetchall()
            reseal(execute, "queued", "id = ?", (item.id,))
            durability_point("store.queue.before_commit")
        durability_point("store.queue.after_commit")
        return bool(rows)

    def drop_queued(self, item: int) -> bool:
        """Take one out; its run stays. Whether it was there."""
        with self._db.write("taking a run out of a queue") as execute:
            rows = execute("DELETE FROM queued WHERE id = ? RETURNING id", (item,)).fetchall()
        return bool(rows)


def may_replace(known: QueuedRun, item: QueuedRun) -> bool:
    """Has it not begun, and cannot begin before this one is there?"""
    return known.state == "waiting" and not known.run and known.due > item.added


def replaced(known: QueuedRun, item: QueuedRun) -> QueuedRun:
    return replace(known, spec=item.spec, priority=item.priority, due=item.due)


def _replace(execute: Execute, known: QueuedRun, item: QueuedRun) -> QueuedRun:
    execute(
        "UPDATE queued SET spec = ?, priority = ?, due = ? WHERE id = ?",
        (item.spec, item.priority, item.due, known.id),
    )
    reseal(execute, "queued", "id = ?", (known.id,))
    durability_point("store.queue.before_commit")
    return replaced(known, item)


def _values(item: QueuedRun) -> tuple[object, ...]:
    return tuple(getattr(item, name) for name in _COLUMNS.split(", "))


def _read(execute: Execute, where: str, values: Sequence[object]) -> list[QueuedRun]:
    rows = execute(sealed(_ITEMS + where, "queued"), values).fetchall()
    return [QueuedRun(*row) for row in sound("queued", rows)]
