"""Checkpoints of threads: what an outside program keeps of its state, moment by moment.

A thread has namespaces, each with checkpoints that follow one another; a checkpoint has the values
of its channels, and writes of tasks beside it that count for the next one. Each put is one durable
transaction. The values of a channel are put once for each version, and share what they begin with
(`streams`). Threads need no lease: two processes may put into one, and neither is ahead of the
other. Knows nothing of what channels and tasks mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from edvac.core.errors import DamageError
from edvac.core.seams import durability_point
from edvac.store.model import (
    ChannelVersion,
    Checkpoint,
    CheckpointInfo,
    NewCheckpoint,
    NewWrites,
    TaskWrite,
)
from edvac.store.part import Part
from edvac.store.schema import Execute
from edvac.store.seal import seal, sealed, sound
from edvac.store.streams import Ref, Writer, read_value

_CHUNK_ROWS = 64
_UUID_SIZE = 36  # characters of a UUID in its usual form
_LINE = sealed(
    "SELECT number, name, namespace, newest, checkpoints, writes, SOUND FROM thread"
    " WHERE name = ? AND namespace = ?",
    "thread",
)
_SOMEWHERE = (  # in the index, which this question needs nothing else for, or in the table alone
    "SELECT number FROM thread WHERE name = ?1 AND namespace = ?2"
    " UNION ALL SELECT number FROM thread NOT INDEXED WHERE name = ?1 AND namespace = ?2"
)
_ORPHAN = "SELECT 1 FROM checkpoint WHERE number NOT IN (SELECT number FROM thread) LIMIT 1"
_REFS = sealed(
    "SELECT bound, channels, SOUND FROM checkpoint WHERE number = ? AND id = ?", "checkpoint"
)
_ONE = sealed(
    "SELECT thread.name, thread.namespace, checkpoint.id, checkpoint.parent, checkpoint.run,"
    " checkpoint.created, checkpoint.bound, checkpoint.payload, checkpoint.channels,"
    " SOUND FROM checkpoint JOIN thread USING (number)"
    " WHERE checkpoint.number = ? AND checkpoint.id = ?",
    "thread",
    "checkpoint",
)
_TASK = sealed(
    "SELECT writes, SOUND FROM task WHERE number = ? AND checkpoint = ? AND id = ?", "task"
)
_TASKS = sealed("SELECT id, writes, SOUND FROM task WHERE number = ? AND checkpoint = ?", "task")

_ALL = sealed(
    "SELECT name, number, checkpoints, SOUND FROM thread"
    " WHERE (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR namespace = ?2)",
    "thread",
)
_NAMED = _ALL.replace("(?1 IS NULL OR name = ?1)", "name = ?1")  # so that the index is used

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[list[Any]]).decode


class Line(NamedTuple):
    """The row of one namespace of a thread."""

    number: int
    thread: str
    namespace: str
    newest: str = ""
    checkpoints: int = 0
    writes: int = 0


class Write(NamedTuple):
    """A write of a task as its row has it."""

    place: int
    channel: str
    path: str
    ref: Ref


Channels = Mapping[str, tuple[ChannelVersion, Ref]]


class ThreadPart(Part):
    _last_checkpoint: tuple[int, str, bytes] | None

    def put_checkpoint(self, new: NewCheckpoint) -> None:
        """Keep a checkpoint; one with this id is replaced. Repeated, it changes nothing.

        Raises:
            StoreError: the disk failed or is full.
        """
        self.put_together([new])

    def put_writes(self, new: NewWrites) -> None:
        """Keep writes of tasks beside a checkpoint; see `TaskWrite`. Repeated, it changes nothing.

        Raises:
            StoreError: the disk failed or is full.
        """
        self.put_together([new])

    def put_together(self, puts: Sequence[NewCheckpoint | NewWrites]) -> None:
        """Several of these, in this order and in one durable transaction: all of them or none.

        Raises:
            StoreError: the disk failed or is full.
        """
        last = self._last_checkpoint
        with self._db.write("storing checkpoints") as execute:
            for new in puts:
                line = _line(execute, new.thread, new.namespace)
                line = line or begin_line(execute, new.thread, new.namespace)
                if isinstance(new, NewCheckpoint):
                    line, mark = _put_checkpoint(execute, line, new, self._clock.wall())
                    last = (line.number, new.id, mark)
                else:
                    line = _put_writes(execute, line, new)
                set_line(execute, line)
            durability_point("store.thread.before_commit")
        self._last_checkpoint = last
        durability_point("store.thread.after_commit")

    def checkpoint(
        self, thread: str, namespace: str = "", id: str | None = None
    ) -> Checkpoint | None:
        """A checkpoint with its values; without an id the one whose id is the largest. None where
        there is none.

        Raises:
            DamageError: it is not what was stored, or the newest one is missing.
        """
        with self._db.read("reading a checkpoint") as execute:
            line = _line(execute, thread, namespace)
            if line is None or not line.checkpoints:
                return None
            wanted = line.newest if id is None else id
            rows = sound("checkpoint", execute(_ONE, (line.number, wanted)).fetchall())
            if not rows and wanted == line.newest:
                raise damaged_thread(thread, f"Its newest checkpoint {wanted} is missing.")
            if not rows:
                return None
            channels = {
                name: read_value(execute, line.number, ref)
                for name, (_, ref) in unpack_channels(rows[0][-1]).items()
            }
            tasks = execute(_TASKS, (line.number, short(wanted))).fetchall()
            writes = [
                TaskWrite(full(task), index, channel, read_value(execute, line.number, ref), path)
                for task, packed in sound("task", tasks)
                for index, channel, path, ref in unpack_writes(packed)
            ]
        ordered = sorted(writes, key=lambda one: (one.path, one.task, one.index))
        return Checkpoint(_info(rows[0][:-1]), channels, tuple(ordered))

    def checkpoints(
        self, thread: str | None = None, namespace: str | None = None, before: str | None = None
    ) -> Iterator[CheckpointInfo]:
        """Checkpoints of a thread or of all, of a namespace or of all, those with the largest ids
        first; with `before`, those whose ids are smaller. What is removed meanwhile is left out.

        Raises:
            DamageError: one is missing or not what was stored.
        """
        keys = [key for key in self._keys(thread, namespace) if before is None or key[0] < before]
        for start in range(0, len(keys), _CHUNK_ROWS):
            with self._db.read("listing checkpoints") as execute:
                found = [
                    sound("checkpoint", execute(_ONE, (number, id_)).fetchall())
                    for id_, number in keys[start : start + _CHUNK_ROWS]
                ]
            yield from (_info(rows[0][:-1]) for rows in found if rows)

    def _keys(self, thread: str | None, namespace: str | None) -> list[tuple[str, int]]:
        """Id and number of the wanted checkpoints, in order; all of them must be there."""
        found: list[tuple[str, int]] = []
        with self._db.read("listing checkpoints") as execute:
            sql = _ALL if thread is None else _NAMED
            if thread is None and execute(_ORPHAN).fetchall():
                raise damaged_thread("unknown", "Checkpoints of a thread without a row are there.")
            for name, number, count in sound(
                "thread", execute(sql, (thread, namespace)).fetchall()
            ):
                ids = execute("SELECT id FROM checkpoint WHERE number = ?", (number,)).fetchall()
                if len(ids) != count:
                    raise damaged_thread(name, f"{len(ids)} of {count} checkpoints are there.")
                found.extend((row[0], number) for row in ids)
        return sorted(found, key=lambda key: (key[0], -key[1]), reverse=True)

    def _verify_last_checkpoint(self) -> None:
        """After a failure: the checkpoint acknowledged last must be there."""
        if self._last_checkpoint is None:
            return
        number, id_, mark = self._last_checkpoint
        rows = self._db.rows(
            "SELECT mark FROM checkpoint WHERE number = ? AND id = ?", (number, id_)
        )
        if rows != [(mark,)]:
            raise DamageError(
                "acknowledged_lost",
                f"checkpoint {id_} was stored, and is gone",
                "The disk failed and lost what it had confirmed.",
                "Do not trust this disk; restore the workspace from a backup.",
            )


def _put_checkpoint(
    execute: Execute, line: Line, new: NewCheckpoint, now: float
) -> tuple[Line, bytes]:
    """The namespace's row as it is then, and the seal of the checkpoint's."""
    bound, before = _refs(execute, line.number, new.parent)
    writer = Writer(execute, line.number)
    channels = {}
    for name, given in new.channels.items():
        version, ref = before.get(name) or (given.version, None)
        if ref is None or given.changed or version != given.version:
            ref = writer.put(given.value(), ref)
        channels[name] = (given.version, ref)
    old = None
    if new.id <= line.newest:
        key = (line.number, new.id)
        old = execute("SELECT created FROM checkpoint WHERE number = ? AND id = ?", key).get
    row = (
        line.number,
        new.id,
        None if new.parent is None else short(new.parent),
        new.run,
        now if old is None else old,
        int(bound if new.bound is None else new.bound),
        new.payload,
        pack_channels(channels),
    )
    mark = seal("checkpoint", *row)
    execute(
        "INSERT OR REPLACE INTO checkpoint (number, id, parent, run, created, bound, payload,"
        " channels, mark) VALUES (?,?,?,?,?,?,?,?,?)",
        (*row, mark),
    )
    count = line.checkpoints + (old is None)
    return line._replace(newest=max(line.newest, new.id), checkpoints=count), mark


def _put_writes(execute: Execute, line: Line, new: NewWrites) -> Line:
    """The namespace's row as it is then."""
    for task, given in itertools.groupby(new.writes, lambda one: one.task):
        key = (line.number, short(new.checkpoint), short(task))
        rows = sound("task", execute(_TASK, key).fetchall())
        kept = {write.place: write for write in unpack_writes(rows[0][0])} if rows else {}
        writer = Writer(execute, line.number)
        for one in given:
            if one.index < 0 or one.index not in kept:
                kept[one.index] = Write(one.index, one.channel, one.path, writer.put(one.value))
        form = pack_writes(kept.values())
        execute(
            "INSERT OR REPLACE INTO task (number, checkpoint, id, writes, mark) VALUES (?,?,?,?,?)",
            (*key, form, seal("task", *key, form)),
        )
        line = line._replace(writes=line.writes + (not rows))
    return line


def _line(execute: Execute, thread: str, namespace: str) -> Line | None:
    """The row of a namespace; None where it has none.

    Raises:
        DamageError: table and index of threads disagree about it. The thread would begin anew, and
            nobody would know.
    """
    rows = sound("thread", execute(_LINE, (thread, namespace)).fetchall())
    if not rows and execute(_SOMEWHERE, (thread, namespace)).fetchall():
        raise damaged_thread(thread, "Not all of what names it is there.")
    return Line(*rows[0]) if rows else None


def begin_line(execute: Execute, thread: str, namespace: str) -> Line:
    """A row for a namespace that has none yet; whoever asks for it seals it with `set_line`."""
    number: int = execute(
        "INSERT INTO thread (name, namespace) VALUES (?,?) RETURNING number", (thread, namespace)
    ).fetchall()[0][0]
    return Line(number, thread, namespace)


def set_line(execute: Execute, line: Line) -> None:
    execute(
        "UPDATE thread SET newest = ?, checkpoints = ?, writes = ?, mark = ? WHERE number = ?",
        (line.newest, line.checkpoints, line.writes, seal("thread", *line), line.number),
    )


def _refs(execute: Execute, number: int, parent: str | None) -> tuple[bool, Channels]:
    """Is the parent bound, and what do its channels hold? No and nothing, where it is not there."""
    if parent is None:
        return False, {}
    rows = sound("checkpoint", execute(_REFS, (number, parent)).fetchall())
    if not rows:
        return False, {}
    bound, packed = rows[0]
    return bool(bound), unpack_channels(packed)


def pack_channels(channels: Channels) -> bytes:
    """What the channels of a checkpoint hold, as its row has it."""
    return _encode([(name, version, *ref.packed()) for name, (version, ref) in channels.items()])


def unpack_channels(packed: bytes) -> dict[str, tuple[ChannelVersion, Ref]]:
    """What `pack_channels` packed."""
    return {name: (version, Ref.unpacked(ref)) for name, version, *ref in unpack(packed)}


def pack_writes(writes: Iterable[Write]) -> bytes:
    """The writes of a task as its row has them: a path is named where it changes."""
    entries, before = [], None
    for index, channel, path, ref in writes:
        entries.append((index, channel, None if path == before else path, *ref.packed()))
        before = path
    return _encode(entries)


def unpack_writes(packed: bytes) -> list[Write]:
    """What `pack_writes` packed."""
    found, before = [], ""
    for index, channel, path, *ref in unpack(packed):
        before = before if path is None else path
        found.append(Write(index, channel, before, Ref.unpacked(ref)))
    return found


def short(name: str) -> str | bytes:
    """A name as a row has it where nothing is ordered by it: that of most is a UUID, which takes 16
    bytes instead of 36."""
    if len(name) == _UUID_SIZE:
        try:
            number = UUID(name)
        except ValueError:
            return name
        if str(number) == name:
            return number.bytes
    return name


def full(stored: str | bytes) -> str:
    """The name that `short` made short."""
    return stored if isinstance(stored, str) else str(UUID(bytes=stored))


def unpack(packed: bytes) -> list[list[Any]]:
    """The entries of a sealed row.

    Raises:
        DamageError: they are none.
    """
    try:
        return _decode(packed)
    except msgspec.DecodeError as problem:
        why = "A checkpoint's row is no list of entries."
        raise DamageError("store_damaged", "the store is damaged", why) from problem


def _info(row: Sequence[Any]) -> CheckpointInfo:
    thread, namespace, id_, parent, run, created, bound, payload = row
    above = None if parent is None else full(parent)
    return CheckpointInfo(thread, namespace, id_, above, run, created, bool(bound), payload)


def damaged_thread(thread: str, why: str) -> DamageError:
    return DamageError(
        "thread_damaged",
        f"thread {thread!r} has lost checkpoints",
        why,
        "Run `edvac doctor`; restore the workspace from a backup.",
    )
