"""An answer as server-sent events, to a client that may go away or stop reading at any moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edvac.core.errors import UsageError

STALLED_S: Final = 60.0  # for which a client may read nothing
DONE: Final = b"data: [DONE]\n\n"
_log = logging.getLogger("edvac.serve")

T = TypeVar("T")


def event(document: Any) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """What the work gives, unless the client goes away first; then it is cancelled.

    Raises:
        UsageError: the client has gone away (`client_gone`).
    """
    call = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({call, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not call.done():
            raise UsageError("client_gone", "the client has gone away")
        return call.result()
    finally:
        call.cancel()
        leaving.cancel()
        await asyncio.gather(call, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Events(Response):
    """Sends what comes from `source`.

    Args:
        close: called in the end, however that comes about, also before anything is sent.
    """

    media_type = "text/event-stream"

    def __init__(
        self, source: AsyncGenerator[bytes, None], close: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._source, self._close = source, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(receive, self._send(send))
        except (UsageError, TimeoutError):
            _log.info("a client left, or stopped reading, before the end of its answer")
        finally:
            await self._source.aclose()
            await self._close()  # a source that was never begun does not clear up

    async def _send(self, send: Send) -> None:
        """
        Raises:
            TimeoutError: the client does not read; what it was sent is all that it gets.
        """
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for part in self._source:
            async with asyncio.timeout(STALLED_S):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
