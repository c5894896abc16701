"""Removing, copying and checking the checkpoints of threads.

What is removed is gone with the transaction: its bytes are overwritten in the database, values
that others share stay. Knows nothing of why something is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from edvac.core.errors import UsageError
from edvac.core.seams import durability_point
from edvac.store.model import Problem
from edvac.store.schema import Execute
from edvac.store.seal import seal, sealed, sound
from edvac.store.streams import (
    broken_chunks,
    broken_streams,
    chunks_of,
    copy_streams,
    drop_chunks,
    trim,
)
from edvac.store.threads import (
    Line,
    ThreadPart,
    begin_line,
    full,
    set_line,
    short,
    unpack_channels,
    unpack_writes,
)

_LINES = sealed(
    "SELECT number, name, namespace, newest, checkpoints, writes, SOUND FROM thread"
    " WHERE (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR number = ?2)",
    "thread",
)
_NAMED = _LINES.replace("(?1 IS NULL OR name = ?1)", "name = ?1")  # so that the index is used
_ROWS = sealed(
    "SELECT id, parent, run, created, bound, payload, channels, SOUND FROM checkpoint"
    " WHERE number = ?",
    "checkpoint",
)
_TASKS = sealed("SELECT checkpoint, id, writes, SOUND FROM task WHERE number = ?", "task")


class Standing(NamedTuple):
    """What decides whether a checkpoint is kept."""

    id: str
    parent: str | None
    created: float
    bound: bool


def kept_ids(rows: Iterable[Standing], keep: int, before: float | None) -> set[str]:
    """The checkpoints that pruning keeps: the latest `keep`, those made at `before` or later, and
    whatever these cannot be read without."""
    known = {row.id: row for row in rows}
    newest = sorted(known, reverse=True)
    kept = set(newest[:keep])
    if before is not None:
        kept |= {row.id for row in known.values() if row.created >= before}
    for id_ in sorted(kept):
        row = known[id_]
        while row.bound and row.parent in known and row.parent not in kept:
            kept.add(row.parent)
            row = known[row.parent]
    return kept


def needed(id_: str) -> UsageError:
    return UsageError(
        "checkpoint_needed",
        f"checkpoint {id_} cannot be removed on its own",
        "A later one holds only what changed since, and could not be read any more.",
        "Remove the runs that followed as well, or the whole thread.",
    )


def thread_exists(thread: str) -> UsageError:
    return UsageError(
        "thread_exists",
        f"there is a thread {thread!r} already",
        "A copy would mix with what it has.",
        "Copy to another name, or delete that thread first.",
    )


class PrunePart(ThreadPart):
    def delete_threads(self, threads: Iterable[str]) -> int:
        """Remove threads with all of their namespaces; how many checkpoints went."""
        removed = 0
        with self._db.write("deleting threads") as execute:
            for line in _lines(execute, threads):
                removed += self._drop(execute, line, set())
        return self._tidied(removed)

    def delete_checkpoints(self, runs: Sequence[str]) -> int:
        """Remove the checkpoints of these runs, with the writes beside them; how many went.

        Raises:
            UsageError: a checkpoint of another run cannot be read without one of them; nothing was
                removed.
        """
        removed = 0
        with self._db.write("deleting checkpoints") as execute:
            for line in _lines_of_runs(execute, runs):
                rows = execute(
                    "SELECT id, parent, bound, run FROM checkpoint WHERE number = ?", (line.number,)
                ).fetchall()
                going = {id_ for id_, _, _, run in rows if run in runs}
                for id_, parent, bound, _ in rows:
                    if bound and parent and full(parent) in going and id_ not in going:
                        raise needed(full(parent))
                removed += self._drop(execute, line, {row[0] for row in rows} - going)
        return self._tidied(removed)

    def prune_threads(
        self, threads: Iterable[str] | None = None, *, keep: int = 1, before: float | None = None
    ) -> int:
        """Remove old checkpoints of these threads, or of all; how many went.

        In each namespace the latest `keep` stay, and, with `before`, those put at that wall time or
        later. What a kept one cannot be read without stays as well.
        """
        removed = 0
        with self._db.write("pruning threads") as execute:
            for line in _lines(execute, threads):
                rows = execute(
                    "SELECT id, parent, created, bound FROM checkpoint WHERE number = ?",
                    (line.number,),
                ).fetchall()
                standing = [
                    Standing(id_, None if parent is None else full(parent), created, bool(bound))
                    for id_, parent, created, bound in rows
                ]
                kept = kept_ids(standing, keep, before)
                if len(kept) < len(rows) or (keep == 0 and before is None):
                    removed += self._drop(execute, line, kept)
        return self._tidied(removed)

    def copy_thread(self, source: str, target: str) -> int:
        """Copy a thread with all of its namespaces; how many checkpoints it has. Nothing happens
        where there is no such thread.

        Raises:
            UsageError: there is a thread of the target's name.
        """
        copied = 0
        with self._db.write("copying a thread") as execute:
            if _lines(execute, [target]):
                raise thread_exists(target)
            for line in _lines(execute, [source]):
                copied += _copy(execute, line, target)
            durability_point("store.thread.before_commit")
        return copied

    def _drop(self, execute: Execute, line: Line, kept: set[str]) -> int:
        """Remove all checkpoints of a namespace but these; how many went."""
        shared = chunks_of(execute, line.number)
        if not kept:
            execute("DELETE FROM thread WHERE number = ?", (line.number,))
        else:
            rows = execute("SELECT id FROM checkpoint WHERE number = ?", (line.number,)).fetchall()
            for (id_,) in rows:
                if id_ not in kept:
                    execute(
                        "DELETE FROM checkpoint WHERE number = ? AND id = ?", (line.number, id_)
                    )
                    execute(
                        "DELETE FROM task WHERE number = ? AND checkpoint = ?",
                        (line.number, short(id_)),
                    )
            used = _used(execute, line.number)
            trim(execute, line.number, {stream: max(by) for stream, by in used.items()})
            writes: int = execute("SELECT count(*) FROM task WHERE number = ?", (line.number,)).get
            set_line(execute, line._replace(newest=max(kept), checkpoints=len(kept), writes=writes))
        drop_chunks(execute, shared)
        if self._last_checkpoint is not None and self._last_checkpoint[0] == line.number:
            self._last_checkpoint = None
        durability_point("store.thread.before_prune")
        return line.checkpoints - len(kept)

    def _tidied(self, removed: int) -> int:
        if removed:
            self._db.rows("PRAGMA incremental_vacuum")
            self._db.checkpoint(truncate=True)
        return removed

    def _verify_threads(self) -> Iterator[Problem]:
        with self._db.read("verifying checkpoints") as execute:
            for chunk in broken_chunks(execute):
                yield Problem("value_damaged", f"chunk {chunk}", "it does not match its hash")
            rows = execute(_LINES, (None, None)).fetchall()
            for line in (Line(*row) for row in sound("thread", rows)):
                where = f"thread {line.thread!r}"
                where += f", namespace {line.namespace!r}" * bool(line.namespace)
                for what in _faults(execute, line):
                    yield Problem("thread_damaged", where, what)


def _lines(execute: Execute, threads: Iterable[str] | None) -> list[Line]:
    """The rows of these threads' namespaces, or of all."""
    if threads is None:
        rows = execute(_LINES, (None, None)).fetchall()
    else:
        rows = [
            row
            for thread in dict.fromkeys(threads)
            for row in execute(_NAMED, (thread, None)).fetchall()
        ]
    return [Line(*row) for row in sound("thread", rows)]


def _lines_of_runs(execute: Execute, runs: Sequence[str]) -> list[Line]:
    """The rows of the namespaces that have checkpoints of these runs."""
    numbers = {
        row[0]
        for run in runs
        for row in execute(
            "SELECT DISTINCT number FROM checkpoint WHERE run = ?", (run,)
        ).fetchall()
    }
    rows = [row for number in numbers for row in execute(_LINES, (None, number)).fetchall()]
    return [Line(*row) for row in sound("thread", rows)]


def _used(execute: Execute, number: int) -> dict[int, dict[int, bytes]]:
    """The streams that a thread's values lie in, with the digest for each length in use."""
    found: dict[int, dict[int, bytes]] = {}
    rows = [row[-1] for row in sound("checkpoint", execute(_ROWS, (number,)).fetchall())]
    refs = [ref for packed in rows for _, ref in unpack_channels(packed).values()]
    rows = [row[-1] for row in sound("task", execute(_TASKS, (number,)).fetchall())]
    refs += [write.ref for packed in rows for write in unpack_writes(packed)]
    for ref in refs:
        if ref.stream:
            found.setdefault(ref.stream, {})[ref.length] = ref.digest
    return found


def _copy(execute: Execute, line: Line, target: str) -> int:
    made = begin_line(execute, target, line.namespace)
    copy_streams(execute, line.number, made.number)
    for row in sound("checkpoint", execute(_ROWS, (line.number,)).fetchall()):
        values = (made.number, *row)
        execute(
            "INSERT INTO checkpoint (number, id, parent, run, created, bound, payload, channels,"
            " mark) VALUES (?,?,?,?,?,?,?,?,?)",
            (*values, seal("checkpoint", *values)),
        )
    for row in sound("task", execute(_TASKS, (line.number,)).fetchall()):
        task = (made.number, *row)
        execute(
            "INSERT INTO task (number, checkpoint, id, writes, mark) VALUES (?,?,?,?,?)",
            (*task, seal("task", *task)),
        )
    set_line(execute, line._replace(number=made.number, thread=target))
    return line.checkpoints


def _faults(execute: Execute, line: Line) -> Iterator[str]:
    """What is wrong with a namespace beyond its rows' seals."""
    for table, wanted in (("checkpoint", line.checkpoints), ("task", line.writes)):
        there: Any = execute(
            f"SELECT count(*) FROM {table} WHERE number = ?",  # noqa: S608
            (line.number,),
        ).get
        if there != wanted:
            yield f"{there} of {wanted} rows of the table {table!r} are there"
    newest = execute("SELECT max(id) FROM checkpoint WHERE number = ?", (line.number,)).get
    if (newest or "") != line.newest:
        yield f"its newest checkpoint {line.newest} is missing"
    for stream, what in broken_streams(execute, line.number, _used(execute, line.number)):
        yield f"stream {stream}: {what}"
