"""Whose turn it is: so many calls run at a time, and clients that wait are served in rotation.

A client that sends a thousand calls does not stand before one that sends its first. Who comes when
too many wait is refused at once. Turns may be shut: then nobody gets one, and those who come wait.
Knows nothing of HTTP or models.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from edvac.core.errors import EdvacError, ProcessorError


@dataclass(slots=True)
class Room:
    """How many calls may wait, and do; several `Turns` may share one."""

    most: int
    waiting: int = 0


@dataclass(slots=True)
class Turns:
    """
    Args:
        most: calls that run at a time.
        room: for calls that wait for their turn, of all clients together.
        changed: called when a call has begun to wait, has given up or has ended.
        shut: does nobody get a turn?
    """

    most: int
    room: Room
    changed: Callable[[], None] = lambda: None
    shut: bool = False
    running: int = 0
    waiting: int = 0
    _queues: OrderedDict[str, deque[asyncio.Future[None]]] = field(default_factory=OrderedDict)

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """One call of a client's, from its turn to its end.

        Raises:
            ProcessorError: too many wait already (`service_busy`).
            EdvacError: all who waited were refused.
        """
        await self._enter(client)
        try:
            yield
        finally:
            self._leave()

    def open(self) -> None:
        """Give turns to those who wait, as many as there are."""
        self.shut = False
        self._give()

    def refuse(self, error: EdvacError) -> None:
        """Tell all who wait that there is no turn for them."""
        for queue in self._queues.values():
            for granted in queue:
                if not granted.done():
                    granted.set_exception(error)
        self._queues.clear()
        self._count(-self.waiting)

    async def _enter(self, client: str) -> None:
        if self.running < self.most and not self.shut:  # then nobody waits
            self.running += 1
            return
        if self.room.waiting >= self.room.most:
            raise ProcessorError(
                "service_busy",
                "too many calls are waiting",
                f"{self.room.waiting} wait and {self.running} run.",
                "Try again when some of them are done.",
            )
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append(granted)
        self._count(1)
        self.changed()
        try:
            await granted
        except asyncio.CancelledError:
            if not granted.done() or granted.cancelled():
                self._forget(client, granted)
            elif granted.exception() is None:
                self._leave()  # it was given just now, and goes to the next
            raise

    def _leave(self) -> None:
        self.running -= 1
        self.changed()
        self._give()

    def _give(self) -> None:
        while self._queues and self.running < self.most and not self.shut:
            client, queue = self._queues.popitem(last=False)
            granted = queue.popleft()
            self._count(-1)
            if queue:
                self._queues[client] = queue
            if not granted.cancelled():  # else who waited has gone, and does not know it yet
                self.running += 1
                granted.set_result(None)

    def _forget(self, client: str, granted: asyncio.Future[None]) -> None:
        queue = self._queues.get(client)
        if queue is not None and granted in queue:  # else it was passed over already
            queue.remove(granted)
            self._count(-1)
            if not queue:
                del self._queues[client]
        self.changed()

    def _count(self, more: int) -> None:
        self.waiting += more
        self.room.waiting += more
