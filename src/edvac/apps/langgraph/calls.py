"""Calls of the store that are more than one: puts that share a transaction, lists that come in
parts. Knows nothing of LangGraph but its configs."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from langgraph.checkpoint.base import get_checkpoint_id

from edvac.apps.langgraph.form import Config, metadata_of
from edvac.machine.ledger import Ledger
from edvac.store import Checkpoint, CheckpointInfo, NewCheckpoint, NewWrites, Store

Put: TypeAlias = NewCheckpoint | NewWrites

_AT_ONCE = 64  # puts in one transaction
_PAGE = 16  # checkpoints that a list fetches at a time


class Puts:
    """What waits to be put: whatever has come by the time that the store's thread gets to it shares
    a transaction, and so one sync.

    Attributes:
        closed: by the saver; copies of that have the same.
    """

    def __init__(self) -> None:
        self.closed = False
        self._waiting: deque[tuple[Put, Future[None]]] = deque()

    def now(self, ledger: Ledger, put: Put) -> None:
        """Durable on return."""
        done = self._wait(put)
        ledger.call_now(self._flush)
        done.result()

    async def later(self, ledger: Ledger, put: Put) -> None:
        """The same for a program with an event loop."""
        done = self._wait(put)
        await ledger.call(self._flush)
        # Who gives up waiting takes nothing back.
        await asyncio.shield(asyncio.wrap_future(done))

    def _wait(self, put: Put) -> Future[None]:
        done: Future[None] = Future()
        self._waiting.append((put, done))
        return done

    def _flush(self, store: Store) -> None:
        batch: list[tuple[Put, Future[None]]] = []
        while self._waiting and len(batch) < _AT_ONCE:
            batch.append(self._waiting.popleft())
        if not _try(store, batch) and len(batch) > 1:
            # One of them may be at fault; a put that is repeated changes nothing.
            for one in batch:
                _try(store, [one])


def _try(store: Store, batch: Sequence[tuple[Put, Future[None]]]) -> bool:
    """Put these together; whether that was possible. One alone is told what it was."""
    try:
        store.put_together([put for put, _ in batch])
    except Exception as error:  # whoever put it is told, be it the store's or a serialiser's
        if len(batch) == 1:
            batch[0][1].set_exception(error)
        return False
    for _, done in batch:
        done.set_result(None)
    return True


class Pages:
    """Fetches the checkpoints of a list in parts, on the store's thread."""

    def __init__(
        self,
        serde: Any,
        config: Config | None,
        wanted: Mapping[str, Any] | None,
        before: Config | None,
        limit: int | None,
    ) -> None:
        self._serde, self._wanted, self._left = serde, wanted or {}, limit
        where = config["configurable"] if config else {}
        thread = where.get("thread_id")
        self._thread = None if thread is None else str(thread)
        self._namespace = where.get("checkpoint_ns")
        self._id = get_checkpoint_id(config) if config else None
        self._before = get_checkpoint_id(before) if before else None
        self._infos: Iterator[CheckpointInfo] | None = None

    def fetch(self, store: Store) -> list[Checkpoint]:
        """The next ones; none at the end."""
        if self._infos is None:
            self._infos = store.checkpoints(self._thread, self._namespace, self._before)
        infos = self._infos
        most = _PAGE if self._left is None else min(_PAGE, self._left)
        read = (store.checkpoint(i.thread, i.namespace, i.id) for i in infos if self._is(i))
        found = list(itertools.islice((one for one in read if one is not None), most))
        if self._left is not None:
            self._left -= len(found)
        return found

    def _is(self, info: CheckpointInfo) -> bool:
        if self._id and info.id != self._id:
            return False
        metadata = metadata_of(self._serde, info) if self._wanted else {}
        return all(metadata.get(key) == value for key, value in self._wanted.items())
