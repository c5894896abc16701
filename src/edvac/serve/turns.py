"""Whose turn it is: so many calls run at a time, and clients that wait are served in rotation.

A client that sends a thousand calls does not stand before one that sends its first. Who comes when
too many wait is refused at once. Knows nothing of HTTP or models.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from edvac.core.errors import ProcessorError


@dataclass(slots=True)
class Turns:
    """
    Args:
        most: calls that run at a time.
        most_waiting: calls that wait for their turn, of all clients together.
    """

    most: int
    most_waiting: int
    running: int = 0
    waiting: int = 0
    _queues: OrderedDict[str, deque[asyncio.Future[None]]] = field(default_factory=OrderedDict)

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """One call of a client's, from its turn to its end.

        Raises:
            ProcessorError: too many wait already (`service_busy`).
        """
        await self._enter(client)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, client: str) -> None:
        if self.running < self.most:  # then nobody waits
            self.running += 1
            return
        if self.waiting >= self.most_waiting:
            raise ProcessorError(
                "service_busy",
                "too many calls are waiting",
                f"{self.waiting} wait and {self.running} run.",
                "Try again when some of them are done.",
            )
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append(granted)
        self.waiting += 1
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._leave()  # it was given just now, and goes to the next
            else:
                self._forget(client, granted)
            raise

    def _leave(self) -> None:
        while self._queues:
            client, queue = self._queues.popitem(last=False)
            granted = queue.popleft()
            self.waiting -= 1
            if queue:
                self._queues[client] = queue
            if not granted.cancelled():  # else who waited has gone, and does not know it yet
                granted.set_result(None)
                return
        self.running -= 1

    def _forget(self, client: str, granted: asyncio.Future[None]) -> None:
        queue = self._queues.get(client)
        if queue is None or granted not in queue:
            return
        queue.remove(granted)
        self.waiting -= 1
        if not queue:
            del self._queues[client]
