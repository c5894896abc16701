"""The service: a thin application over one processor.

Nothing is answered to who does not know the key, nor to a browser that was led here: the ``Host``
has to be the address that the service was started at.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edvac import __version__
from edvac.core.errors import EdvacError, UsageError
from edvac.core.seams import Clock, SystemClock
from edvac.processor import Answer, Processor
from edvac.serve.chat import LONGEST_BODY, Chat, Envelope, read_chat, refusal

Endpoint: TypeAlias = Callable[[Asked], Awaitable[Response]]
OWNER = "edvac"
DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Service:
    """
    Args:
        model: its name for clients.
        hosts: values of the header ``Host`` that are answered.
        key: what clients have to know; empty for none.
    """

    processor: Processor
    model: str
    hosts: frozenset[str]
    key: str
    clock: Clock = field(default_factory=SystemClock)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self._guarded(self.health)),
                Route("/v1/models", self._guarded(self.models)),
                Route("/v1/chat/completions", self._guarded(self.chat), methods=["POST"]),
            ]
        )

    def _guarded(self, answer: Endpoint) -> Endpoint:
        async def guarded(asked: Asked) -> Response:
            if asked.headers.get("host", "") not in self.hosts:
                what = "this is not the address that is served"
                return _refused(UsageError("host_unknown", what), 403)
            given = asked.headers.get("authorization", "").removeprefix("Bearer ")
            if self.key and not hmac.compare_digest(given.encode(), self.key.encode()):
                fix = "Send it as the API key."
                return _refused(
                    UsageError("key_wrong", "the key is missing or wrong", "", fix), 401
                )
            return await answer(asked)

        return guarded

    async def health(self, asked: Asked) -> Response:
        del asked
        return JSONResponse({"status": "ok", "version": __version__})

    async def models(self, asked: Asked) -> Response:
        del asked
        about = {
            "id": self.model,
            "object": "model",
            "created": 0,
            "owned_by": OWNER,
            "max_model_len": self.processor.context_tokens,
            "identity": self.processor.identity,
            "slots": self.processor.concurrency,
            "version": __version__,
        }
        return JSONResponse({"object": "list", "data": [about]})

    async def chat(self, asked: Asked) -> Response:
        number = next(self._numbers)
        try:
            data = await _body(asked)
            chat = read_chat(data, self.model, self.processor.context_tokens, number)
            created = int(self.clock.wall())
            envelope = Envelope(f"chatcmpl-{created:x}{number:x}", self.model, created)
            if not chat.stream:
                answer = await _unless_gone(asked, self.processor.complete(chat.request))
                return JSONResponse(envelope.whole(answer))
            return await self._streamed(chat, envelope)
        except EdvacError as error:
            return _refused(error)

    async def _streamed(self, chat: Chat, envelope: Envelope) -> Response:
        """The answer as it comes. What is refused before its first piece has a status of its own.

        Raises:
            EdvacError: there is no answer.
        """
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        call = asyncio.ensure_future(
            self.processor.complete(chat.request, lambda text, _: pieces.put_nowait(text))
        )
        call.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            first = await pieces.get()
            if first is None:
                call.result()
        except BaseException:
            call.cancel()
            raise
        events = _events(call, first, pieces, (envelope, chat.usage))
        return StreamingResponse(events, media_type="text/event-stream")


def _refused(error: EdvacError, status: int = 0) -> Response:
    own, body = refusal(error)
    return JSONResponse(body, status or own)


async def _events(
    call: asyncio.Future[Answer],
    piece: str | None,
    pieces: asyncio.Queue[str | None],
    form: tuple[Envelope, bool],
) -> AsyncIterator[bytes]:
    envelope, usage = form
    try:
        yield _event(envelope.begun())
        while piece is not None:
            if piece:
                yield _event(envelope.piece(piece))
            piece = await pieces.get()
        try:
            for document in envelope.ended(call.result(), usage=usage):
                yield _event(document)
        except EdvacError as error:
            yield _event(refusal(error)[1])
        yield DONE
    finally:
        call.cancel()  # who has gone away is not worked for


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"


async def _body(asked: Asked) -> bytes:
    """
    Raises:
        UsageError: it is too long.
    """
    data = bytearray()
    async for part in asked.stream():
        data += part
        if len(data) > LONGEST_BODY:
            raise UsageError("request_too_long", f"a request has at most {LONGEST_BODY} bytes")
    return bytes(data)


async def _unless_gone(asked: Asked, work: Awaitable[Answer]) -> Answer:
    """The answer, unless the client goes away first; then the call is cancelled."""
    call = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(asked))
    try:
        await asyncio.wait({call, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not call.done():
            raise UsageError("client_gone", "the client has gone away")
        return call.result()
    finally:
        call.cancel()
        leaving.cancel()


async def _left(asked: Asked) -> None:
    while (await asked.receive())["type"] != "http.disconnect":
        pass
