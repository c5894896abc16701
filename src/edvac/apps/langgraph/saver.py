"""The checkpointer: LangGraph's interface on a store that has a thread of its own.

Any thread of a program may use it. Knows nothing of how values are serialised (`form`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from edvac.apps.langgraph.calls import Pages, Puts
from edvac.apps.langgraph.form import (
    Config,
    as_tuple,
    config_of,
    new_checkpoint,
    new_writes,
    place_of,
)
from edvac.core.errors import ConfigError, UsageError
from edvac.core.seams import SystemClock
from edvac.machine.ledger import Ledger
from edvac.store import Store

Allowed: TypeAlias = type | tuple[str, ...]


class EdvacSaver(BaseCheckpointSaver):  # type: ignore[misc]
    """A checkpointer for ``graph.compile(checkpointer=...)``; a context manager of both kinds.

    Any thread may use it, and other processes the same workspace.

    Args:
        workspace: an existing directory; the checkpoints lie in ``.edvac`` in it.
        allow: classes of yours that states hold, or (module, name) of such. Others come back as an
            error: to make an object is to run its class's code.
        serde: another serialiser, such as one that encrypts. Values of an encrypted state share
            nothing.

    Raises:
        ConfigError: the serialiser may pickle.
        StoreError: the workspace cannot be opened.
    """

    def __init__(
        self, workspace: str | Path, *, allow: Iterable[Allowed] = (), serde: Any = None
    ) -> None:
        for one in (serde, getattr(serde, "serde", None)):
            if getattr(one, "pickle_fallback", False):
                raise ConfigError(
                    "pickle_refused",
                    "this serialiser may read pickles",
                    "Whoever can write into the workspace could run code with one.",
                    "Give a serialiser without `pickle_fallback`, and `allow` the types needed.",
                )
        if serde is None:
            serde = JsonPlusSerializer(allowed_msgpack_modules=tuple(allow) or None)
        super().__init__(serde=serde)
        self._opened = Ledger(lambda: Store(Path(workspace)))
        self._puts = Puts()

    def close(self) -> None:
        """Let go of the workspace. Nothing is lost where this is forgotten."""
        if not self._puts.closed:
            self._puts.closed = True
            self._opened.close()

    @property
    def _ledger(self) -> Ledger:
        """
        Raises:
            UsageError: this saver, or the one that it was made from, was closed.
        """
        if self._puts.closed:
            raise UsageError(
                "saver_closed",
                "a checkpointer was used after it was closed",
                "",
                "Use it inside of its `with`, or open another one on the workspace.",
            )
        return self._opened

    def __enter__(self) -> EdvacSaver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> EdvacSaver:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self.close()

    # writing

    def put(
        self, config: Config, checkpoint: Any, metadata: Any, new_versions: Mapping[str, Any]
    ) -> Config:
        """Keep a checkpoint; durable on return.

        Args:
            config: where: the thread, the namespace, and the parent's id as ``checkpoint_id``.
            new_versions: the channels whose values the parent does not have.

        Returns:
            The config of this checkpoint.

        Raises:
            StoreError: the disk failed or is full.
        """
        new = new_checkpoint(self.serde, config, checkpoint, metadata, new_versions)
        self._puts.now(self._ledger, new)
        return config_of(new.thread, new.namespace, new.id)

    async def aput(
        self, config: Config, checkpoint: Any, metadata: Any, new_versions: Mapping[str, Any]
    ) -> Config:
        """`put` for a program with an event loop."""
        new = new_checkpoint(self.serde, config, checkpoint, metadata, new_versions)
        await self._puts.later(self._ledger, new)
        return config_of(new.thread, new.namespace, new.id)

    def put_writes(
        self,
        config: Config,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep what a task wrote beside a checkpoint; durable on return.

        Args:
            writes: pairs of channel and value. The first ones of a task count, but for errors,
                interrupts and the like, where the last one does.

        Raises:
            StoreError: the disk failed or is full.
        """
        self._puts.now(self._ledger, new_writes(self.serde, config, writes, (task_id, task_path)))

    async def aput_writes(
        self,
        config: Config,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """`put_writes` for a program with an event loop."""
        made = new_writes(self.serde, config, writes, (task_id, task_path))
        await self._puts.later(self._ledger, made)

    # reading

    def get_tuple(self, config: Config) -> Any:
        """The checkpoint that a config names, or the latest of its thread and namespace; None where
        there is none.

        Raises:
            UsageError: it holds a type that is not allowed.
            DamageError: it is not what was stored.
        """
        found = self._ledger.call_now(lambda store: store.checkpoint(*place_of(config)))
        return None if found is None else as_tuple(self.serde, found)

    async def aget_tuple(self, config: Config) -> Any:
        """`get_tuple` for a program with an event loop."""
        found = await self._ledger.call(lambda store: store.checkpoint(*place_of(config)))
        return None if found is None else as_tuple(self.serde, found)

    def list(
        self,
        config: Config | None,
        *,
        filter: Mapping[str, Any] | None = None,
        before: Config | None = None,
        limit: int | None = None,
    ) -> Iterator[Any]:
        """Checkpoints, those with the largest ids first.

        Args:
            config: whose: without a thread those of all, without a namespace those of each.
            filter: what the metadata must hold.
            before: only those with smaller ids than this one's.
            limit: how many at most.

        Raises:
            UsageError, DamageError: as `get_tuple`.
        """
        pages = Pages(self.serde, config, filter, before, limit)
        while found := self._ledger.call_now(pages.fetch):
            yield from (as_tuple(self.serde, one) for one in found)

    async def alist(
        self,
        config: Config | None,
        *,
        filter: Mapping[str, Any] | None = None,
        before: Config | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Any]:
        """`list` for a program with an event loop."""
        pages = Pages(self.serde, config, filter, before, limit)
        while found := await self._ledger.call(pages.fetch):
            for one in found:
                yield as_tuple(self.serde, one)

    # removing and copying

    def delete_thread(self, thread_id: str) -> None:
        """Remove a thread with all that belongs to it; nothing happens where there is none."""
        self._ledger.call_now(lambda store: store.delete_threads([str(thread_id)]))

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread` for a program with an event loop."""
        await self._ledger.call(lambda store: store.delete_threads([str(thread_id)]))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints whose metadata name one of these as ``run_id``.

        Raises:
            UsageError: a checkpoint of another run holds only what changed since one of them;
                nothing was removed.
        """
        self._ledger.call_now(lambda store: store.delete_checkpoints(tuple(run_ids)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`delete_for_runs` for a program with an event loop."""
        await self._ledger.call(lambda store: store.delete_checkpoints(tuple(run_ids)))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with all that belongs to it; values are shared, not copied.

        Raises:
            UsageError: there is a thread of the target's name.
        """
        names = str(source_thread_id), str(target_thread_id)
        self._ledger.call_now(lambda store: store.copy_thread(*names))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`copy_thread` for a program with an event loop."""
        names = str(source_thread_id), str(target_thread_id)
        await self._ledger.call(lambda store: store.copy_thread(*names))

    def prune(
        self,
        thread_ids: Sequence[str] | None,
        *,
        strategy: str = "keep_latest",
        keep: int = 1,
        older_than: timedelta | None = None,
    ) -> None:
        """Remove old checkpoints.

        Args:
            thread_ids: of these threads; None is of all.
            strategy: ``keep_latest`` keeps the latest `keep` of each namespace, ``delete`` none.
            older_than: with it, whatever is younger stays as well.

        What a kept checkpoint cannot be read without (one of a delta channel) stays too.

        Raises:
            UsageError: there is no such strategy.
        """
        self._ledger.call_now(pruning(thread_ids, strategy, keep, older_than))

    async def aprune(
        self,
        thread_ids: Sequence[str] | None,
        *,
        strategy: str = "keep_latest",
        keep: int = 1,
        older_than: timedelta | None = None,
    ) -> None:
        """`prune` for a program with an event loop."""
        await self._ledger.call(pruning(thread_ids, strategy, keep, older_than))


def pruning(
    threads: Sequence[str] | None, strategy: str, keep: int, older_than: timedelta | None
) -> Callable[[Store], int]:
    if strategy not in ("keep_latest", "delete") or keep < 1:
        raise UsageError(
            "prune_unknown",
            f"there is no way of pruning {strategy!r} that keeps {keep}",
            "",
            "Give strategy='keep_latest' with keep=1 or more, or strategy='delete'.",
        )
    names = None if threads is None else [str(thread) for thread in threads]
    before = None if older_than is None else SystemClock().wall() - older_than.total_seconds()
    count = keep if strategy == "keep_latest" else 0
    return lambda store: store.prune_threads(names, keep=count, before=before)
