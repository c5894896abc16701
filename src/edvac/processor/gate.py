"""How many calls an endpoint is given at once: fewer after each refusal, slowly more again.

Halved when it says that it is asked too much, one more after as many answers as are let in; and
shut for as long as it asked for. Knows nothing of what a call is.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

MAX_WAIT_S = 600.0  # however long an endpoint asks for
FIRST_WAIT_S = 5.0  # where it does not say how long; doubled with every refusal in a row


class Gate:
    """Use it as a context manager around a call; say `refused` or `answered` inside."""

    def __init__(self, most: int) -> None:
        self.most = max(1, most)
        self.limit = self.most
        self._inside = 0
        self._opens_at = 0.0
        self._refusals = 0
        self._answers = 0
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Gate:
        loop = asyncio.get_running_loop()
        while True:
            wait = self._opens_at - loop.time()
            if wait <= 0 and self._inside < self.limit:
                break
            self._changed.clear()
            try:
                async with asyncio.timeout(wait if wait > 0 else None):
                    await self._changed.wait()
            except TimeoutError:
                continue
        self._inside += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside -= 1
        self._changed.set()

    def allow(self, most: int) -> None:
        """Let in so many, unless refusals have lowered that."""
        self.limit = most if self.limit == self.most else min(self.limit, most)
        self.most = most
        self._changed.set()

    def refused(self, wait_s: float | None) -> float:
        """The endpoint is asked too much. Returns the seconds for which nothing is sent.

        Args:
            wait_s: what it asked for; None where it did not.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._opens_at:  # else it is one of those that were under way at the first
            self._refusals += 1
            self._answers = 0
            self.limit = max(1, min(self.limit, self._inside) // 2)
        if wait_s is None:
            wait_s = FIRST_WAIT_S * 2 ** min(self._refusals - 1, 10)
        wait_s = min(max(wait_s, 0.0), MAX_WAIT_S)
        self._opens_at = max(self._opens_at, now + wait_s)
        return wait_s

    def answered(self) -> None:
        self._refusals = 0
        self._answers += 1
        if self._answers >= self.limit and self.limit < self.most:
            self.limit += 1
            self._answers = 0
            self._changed.set()
