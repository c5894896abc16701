"""Checkpoints of threads in dicts: the plain version of `threads` and `pruning`.

Every value is kept whole, and nothing is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

from edvac.core.seams import Clock
from edvac.store.model import (
    ChannelVersion,
    Checkpoint,
    CheckpointInfo,
    NewCheckpoint,
    NewWrites,
    TaskWrite,
    Typed,
)
from edvac.store.pruning import Standing, kept_ids, needed, thread_exists


@dataclass(slots=True)
class _Kept:
    info: CheckpointInfo
    channels: dict[str, tuple[ChannelVersion, Typed]]


@dataclass(slots=True)
class _Line:
    """One namespace of a thread."""

    checkpoints: dict[str, _Kept] = field(default_factory=dict)
    writes: dict[str, dict[tuple[str, int], TaskWrite]] = field(default_factory=dict)


class MemoryThreads:
    _clock: Clock
    fault: Callable[[str], None]
    _threads: dict[tuple[str, str], _Line]

    def put_checkpoint(self, new: NewCheckpoint) -> None:
        self.fault("thread.before")
        line = self._threads.get((new.thread, new.namespace)) or _Line()
        parent = line.checkpoints.get(new.parent or "")
        held: Mapping[str, tuple[ChannelVersion, Typed]] = parent.channels if parent else {}
        channels = {
            name: held[name]
            if not given.changed and name in held and held[name][0] == given.version
            else (given.version, given.value())
            for name, given in new.channels.items()
        }
        old = line.checkpoints.get(new.id)
        info = CheckpointInfo(
            new.thread,
            new.namespace,
            new.id,
            new.parent,
            new.run,
            old.info.created if old else self._clock.wall(),
            bool(parent and parent.info.bound) if new.bound is None else new.bound,
            new.payload,
        )
        line.checkpoints[new.id] = _Kept(info, channels)
        self._threads[new.thread, new.namespace] = line
        self.fault("thread.after")

    def put_writes(self, new: NewWrites) -> None:
        self.fault("writes.before")
        line = self._threads.setdefault((new.thread, new.namespace), _Line())
        kept = line.writes.setdefault(new.checkpoint, {})
        for one in new.writes:
            if one.index < 0 or (one.task, one.index) not in kept:
                kept[one.task, one.index] = one
        self.fault("writes.after")

    def put_together(self, puts: Sequence[NewCheckpoint | NewWrites]) -> None:
        before = deepcopy(self._threads)
        try:
            for new in puts:
                if isinstance(new, NewCheckpoint):
                    self.put_checkpoint(new)
                else:
                    self.put_writes(new)
        except BaseException:  # all of them or none
            self._threads = before
            raise

    def checkpoint(
        self, thread: str, namespace: str = "", id: str | None = None
    ) -> Checkpoint | None:
        line = self._threads.get((thread, namespace))
        if line is None or not line.checkpoints:
            return None
        kept = line.checkpoints.get(max(line.checkpoints) if id is None else id)
        if kept is None:
            return None
        writes = line.writes.get(kept.info.id, {}).values()
        ordered = sorted(writes, key=lambda one: (one.path, one.task, one.index))
        channels = {name: value for name, (_, value) in kept.channels.items()}
        return Checkpoint(kept.info, channels, tuple(ordered))

    def checkpoints(
        self, thread: str | None = None, namespace: str | None = None, before: str | None = None
    ) -> Iterator[CheckpointInfo]:
        found = [
            kept.info
            for (name, space), line in self._threads.items()
            if thread in (None, name) and namespace in (None, space)
            for kept in line.checkpoints.values()
            if before is None or kept.info.id < before
        ]
        yield from sorted(found, key=lambda info: info.id, reverse=True)

    def delete_threads(self, threads: Iterable[str]) -> int:
        wanted = set(threads)
        return sum(self._drop(key, set()) for key in list(self._threads) if key[0] in wanted)

    def delete_checkpoints(self, runs: Sequence[str]) -> int:
        plans: list[tuple[tuple[str, str], set[str]]] = []
        for key, line in self._threads.items():
            infos = [kept.info for kept in line.checkpoints.values()]
            going = {info.id for info in infos if info.run is not None and info.run in runs}
            for info in infos:
                if info.bound and info.parent in going and info.id not in going:
                    raise needed(info.parent)
            if going:
                plans.append((key, set(line.checkpoints) - going))
        return sum(self._drop(key, kept) for key, kept in plans)

    def prune_threads(
        self, threads: Iterable[str] | None = None, *, keep: int = 1, before: float | None = None
    ) -> int:
        wanted = None if threads is None else set(threads)
        removed = 0
        for key, line in list(self._threads.items()):
            if wanted is None or key[0] in wanted:
                infos = [kept.info for kept in line.checkpoints.values()]
                rows = [Standing(one.id, one.parent, one.created, one.bound) for one in infos]
                kept = kept_ids(rows, keep, before)
                if len(kept) < len(rows) or (keep == 0 and before is None):
                    removed += self._drop(key, kept)
        return removed

    def copy_thread(self, source: str, target: str) -> int:
        if any(name == target for name, _ in self._threads):
            raise thread_exists(target)
        copied = 0
        for (name, namespace), line in list(self._threads.items()):
            if name == source:
                made = self._threads[target, namespace] = _Line(
                    {
                        id_: _Kept(replace(kept.info, thread=target), dict(kept.channels))
                        for id_, kept in line.checkpoints.items()
                    },
                    {id_: dict(writes) for id_, writes in line.writes.items()},
                )
                copied += len(made.checkpoints)
        return copied

    def _drop(self, key: tuple[str, str], kept: set[str]) -> int:
        line = self._threads[key]
        removed = len(line.checkpoints) - len(kept)
        if not kept:
            del self._threads[key]
        for id_ in set(line.checkpoints) - kept:
            del line.checkpoints[id_]
            line.writes.pop(id_, None)
        return removed
