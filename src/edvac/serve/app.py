"""The service: a thin application over one processor.

It reads requests, takes turns, runs calls and writes answers; what a request means is `chat`'s and
`text`'s, who is answered `guard`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Received
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edvac import __version__
from edvac.core.errors import EdvacError, InternalError, ProcessorError, UsageError
from edvac.core.seams import Clock, Entropy, SystemClock, SystemEntropy
from edvac.engine.protocol import Ready, Segment, StatsReply, Tokens
from edvac.processor import Answer, OnText, OnTokens, Processor, Request
from edvac.serve.calls import Calls, Ended, Piece
from edvac.serve.chat import read_chat
from edvac.serve.events import Events, event, unless_gone
from edvac.serve.forms import Asked, Envelope, Form
from edvac.serve.guard import CLIENT, Guard
from edvac.serve.metrics import TYPE, Metrics
from edvac.serve.reading import LONGEST_BODY, Model
from edvac.serve.refusal import body_of, refused
from edvac.serve.text import read_completion, read_native
from edvac.serve.tokens import read_text, read_tokens, told_text, told_tokens
from edvac.serve.turns import Turns

OWNER: Final = "edvac"
MOST_WAITING: Final = 256  # calls; more are refused with 429
BODY_S: Final = 60.0  # for which the body of a request may take to come
MOST_HELD: Final = 64 << 20  # bytes of requests that are received or wait
STARTED: Final = "Process-Start-Time-Unix"  # a header of llama.cpp's
HELD: Final = "edvac.held"  # where in a request's scope its bytes among them stand

Read: TypeAlias = Callable[[bytes, Model, int, Envelope], Asked]
Endpoint: TypeAlias = Callable[[Received], Awaitable[Response]]


class Served(Processor, Protocol):
    """What is served: a processor that also tells tokens and what it is."""

    @property
    def card(self) -> Ready: ...

    @property
    def file(self) -> str: ...

    async def complete(
        self, request: Request, on_text: OnText | None = None, on_tokens: OnTokens | None = None
    ) -> Answer: ...

    def segments(self, request: Request) -> list[Segment]: ...

    async def tokenize(self, segments: list[Segment], *, bos: bool) -> Tokens: ...

    async def stats(self) -> StatsReply: ...


@dataclass(slots=True)
class Service:
    """
    Args:
        names: of the model for clients; it has the first one in answers.
        hosts: values of the header ``Host`` that are answered.
        keys: what clients have to know, with the name of who has it; none for no key.
    """

    processor: Served
    names: tuple[str, ...]
    hosts: frozenset[str]
    keys: dict[str, str]
    clock: Clock = field(default_factory=SystemClock)
    entropy: Entropy = field(default_factory=SystemEntropy)
    metrics: Metrics = field(default_factory=Metrics)
    _numbers: Any = field(init=False)
    _turns: Turns = field(init=False)
    _started: int = field(init=False)
    _running: set[Calls] = field(default_factory=set)
    _held: int = 0
    _stopping: bool = False

    def __post_init__(self) -> None:
        # Seeds of calls that name none: other ones after each start.
        self._numbers = itertools.count(int(self.entropy.token(3), 16))
        self._turns = Turns(self.processor.concurrency, MOST_WAITING)
        self._started = int(self.clock.wall())

    def application(self) -> ASGIApp:
        chat, text, native = read_chat, read_completion, read_native
        posts: dict[str, Endpoint] = {
            "/v1/chat/completions": self._answering(chat),
            "/chat/completions": self._answering(chat),
            "/v1/completions": self._answering(text),
            "/completions": self._answering(native),
            "/completion": self._answering(native),
            "/tokenize": self.tokenize,
            "/detokenize": self.detokenize,
            "/apply-template": self.apply_template,
            "/v1/chat/completions/input_tokens": self.input_tokens,
            "/chat/completions/input_tokens": self.input_tokens,
        }
        gets: dict[str, Endpoint] = {
            "/health": self.health,
            "/v1/models": self.models,
            "/models": self.models,
            "/v1/models/{name:path}": self.model,
            "/props": self.props,
            "/slots": self.slots,
            "/metrics": self.counters,
        }
        routes = [Route(path, self._whole(one), methods=["POST"]) for path, one in posts.items()]
        routes += [Route(path, self._whole(one), methods=["GET"]) for path, one in gets.items()]
        handlers = {HTTPException: _no_such_place, Exception: _fault}
        inner = Starlette(routes=routes, exception_handlers=handlers)
        return Guard(inner, self.hosts, self.keys)

    def stop(self) -> None:
        """Take no new calls; those that run go on."""
        self._stopping = True

    def end(self) -> None:
        """End the calls that still run, with an error that says why."""
        for calls in list(self._running):
            calls.fail(_stopping())

    # --- answers ---------------------------------------------------------------------------

    def _whole(self, answer: Endpoint) -> Endpoint:
        """The endpoint, with its errors as answers and its statuses counted."""

        async def answered(received: Received) -> Response:
            try:
                response = await answer(received)
            except EdvacError as error:
                response = refused(error)
            finally:
                self._held -= received.scope.pop(HELD, 0)
            self.metrics.statuses[response.status_code] += 1
            return response

        return answered

    def _answering(self, read: Read) -> Endpoint:
        async def answer(received: Received) -> Response:
            if self._stopping:
                raise _stopping()
            asked = read(await self._body(received), *self._facts())
            calls = self._start(asked, received.scope[CLIENT])
            try:
                if asked.stream:
                    first = await unless_gone(received.receive, calls.next())
                    # Who has gone away is not worked for.
                    return Events(_events(calls, asked.form, first), lambda: self._close(calls))
                answers = await unless_gone(received.receive, calls.answers())
            except BaseException:
                await self._close(calls)
                raise
            await self._close(calls)
            return JSONResponse(asked.form.whole(answers))

        return answer

    def _facts(self) -> tuple[Model, int, Envelope]:
        """What is served, the number of this call, and what stands around its answer."""
        number, created = next(self._numbers), int(self.clock.wall())
        name = f"chatcmpl-{created:x}{number:x}"
        return self._model(), number, Envelope(name, self.names[0], created, self._fingerprint())

    def _model(self) -> Model:
        ends = self.processor.card.special_tokens
        found = tuple(int(name[4:]) for name in ends if name.startswith("end_"))
        return Model(self.names, self.processor.context_tokens, found)

    def _fingerprint(self) -> str:
        about = f"{self.processor.identity} {__version__}"
        return f"edvac-{hashlib.sha256(about.encode()).hexdigest()[:12]}"

    def _start(self, asked: Asked, client: str) -> Calls:
        def start(request: Request) -> Callable[[OnText, OnTokens], Awaitable[Answer]]:
            async def call(on_text: OnText, on_tokens: OnTokens) -> Answer:
                async with self._turns.turn(f"{client}/{asked.client}"):
                    answer = await self.processor.complete(
                        request,
                        on_text if asked.stream else None,
                        on_tokens if asked.stream and request.report else None,
                    )
                self.metrics.count(answer)
                return answer

            return call

        calls = Calls([start(request) for request in asked.requests])
        self._running.add(calls)
        return calls

    async def _close(self, calls: Calls) -> None:
        self._running.discard(calls)
        await calls.close()

    async def _body(self, received: Received) -> bytes:
        """
        Raises:
            UsageError: it is too long, or does not come.
            ProcessorError: too much is being received.
        """
        data, size = bytearray(), 0
        try:
            async with asyncio.timeout(BODY_S):
                async for part in received.stream():
                    size += len(part)
                    if size > LONGEST_BODY:  # the rest is read and dropped: the client listens then
                        self._hold(received, -len(data))
                        data.clear()
                        continue
                    self._hold(received, len(part))
                    data += part
                    if self._held > MOST_HELD:
                        raise ProcessorError("service_busy", "too much is asked at once")
        except TimeoutError as problem:
            raise UsageError("request_slow", "the request did not come in time") from problem
        except ClientDisconnect as problem:
            raise UsageError("client_gone", "the client has gone away") from problem
        if size > LONGEST_BODY:
            raise UsageError("request_too_long", f"a request has at most {LONGEST_BODY} bytes")
        return bytes(data)

    def _hold(self, received: Received, size: int) -> None:
        """Count bytes of a request that stay in memory until it is answered."""
        self._held += size
        received.scope[HELD] = received.scope.get(HELD, 0) + size

    # --- tokens and templates --------------------------------------------------------------

    async def tokenize(self, received: Received) -> Response:
        asked = read_text(await self._body(received))
        found = await self.processor.tokenize([asked.segment], bos=asked.add_special)
        return JSONResponse(told_tokens(found, asked.with_pieces))

    async def detokenize(self, received: Received) -> Response:
        tokens = read_tokens(await self._body(received))
        found = await self.processor.tokenize([Segment(tokens=tokens)], bos=False)
        return JSONResponse(told_text(found))

    async def apply_template(self, received: Received) -> Response:
        return JSONResponse({"prompt": "".join(one.text for one in await self._prompt(received))})

    async def input_tokens(self, received: Received) -> Response:
        found = await self.processor.tokenize(await self._prompt(received), bos=True)
        return JSONResponse({"input_tokens": len(found.tokens)})

    async def _prompt(self, received: Received) -> list[Segment]:
        asked = read_chat(await self._body(received), *self._facts())
        return self.processor.segments(asked.requests[0])

    # --- what is served, and how it does ---------------------------------------------------

    async def health(self, received: Received) -> Response:
        del received
        return JSONResponse({"status": "ok", "version": __version__})

    async def models(self, received: Received) -> Response:
        del received
        return JSONResponse({"object": "list", "data": [self._about()]})

    async def model(self, received: Received) -> Response:
        name = received.path_params["name"]
        if name not in self.names:
            raise UsageError("model_not_found", f"{name!r} is not served here")
        return JSONResponse(self._about())

    def _about(self) -> dict[str, Any]:
        return {
            "id": self.names[0],
            "object": "model",
            "created": 0,
            "owned_by": OWNER,
            "aliases": list(self.names),
            "max_model_len": self.processor.context_tokens,
            "identity": self.processor.identity,
            "slots": self.processor.concurrency,
            "version": __version__,
        }

    async def props(self, received: Received) -> Response:
        del received
        card = self.processor.card
        settings = {"n_ctx": card.context_length}
        about = {
            "default_generation_settings": settings,
            "total_slots": (await self.processor.stats()).slots,
            "model_alias": self.names[0],
            "model_path": self.processor.file,
            "model_sha256": card.sha256,
            "architecture": card.architecture,
            "chat_template": card.chat_template or "",
            "bos_token": card.special_tokens.get("bos_token", ""),
            "eos_token": card.special_tokens.get("eos_token", ""),
            "modalities": {"vision": False, "audio": False},
            "build_info": f"edvac {__version__}",
        }
        return JSONResponse(about)

    async def slots(self, received: Received) -> Response:
        """Places for sequences. A sequence keeps none beyond its answer, so they have no history;
        which of them are taken says how many are."""
        del received
        stats = await self.processor.stats()
        context = self.processor.context_tokens
        found = [
            {"id": at, "n_ctx": context, "is_processing": at < stats.running}
            for at in range(stats.slots)
        ]
        return JSONResponse(found)

    async def counters(self, received: Received) -> Response:
        del received
        stats = await self.processor.stats()
        text = self.metrics.text(stats, self._turns.waiting)
        return Response(text, media_type=TYPE, headers={STARTED: str(self._started)})


def _stopping() -> ProcessorError:
    what = "the service is stopping"
    return ProcessorError("service_stopping", what, "", "Ask again when it is back.")


async def _events(
    calls: Calls, form: Form, item: Piece | Ended | None
) -> AsyncGenerator[bytes, None]:
    """The answers as they come, and an error as the last event where there is one."""
    answers: dict[int, Answer] = {}
    for document in form.begun():
        yield event(document)
    try:
        while item is not None:
            if isinstance(item, Piece):
                found = form.piece(item.index, item.text, item.tokens)
            else:
                answers[item.index] = item.answer
                found = form.ended(item.index, item.answer)
            for document in found:
                yield event(document)
            item = await calls.next()
        for document in form.over([answers[at] for at in sorted(answers)]):
            yield event(document)
    except EdvacError as error:
        yield event(body_of(error))
    if form.last:
        yield form.last


async def _no_such_place(received: Received, problem: Exception) -> Response:
    what = f"{received.method} {received.url.path} is not served"
    if isinstance(problem, HTTPException) and problem.status_code == 405:
        return refused(UsageError("method_wrong", what))
    return refused(UsageError("address_unknown", what))


async def _fault(received: Received, problem: Exception) -> Response:
    """What nobody thought of. Starlette raises it again, so that its traceback is in the log."""
    del received
    why = type(problem).__name__
    return refused(InternalError("service_fault", "the service has failed", why, "Please report."))
