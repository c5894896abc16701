"""The service: a thin application over models.

It reads requests, takes turns, runs calls and writes answers; what a request means is `chat`'s and
`text`'s, who is answered `guard`'s, which models are there `models`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Received
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edvac import __version__
from edvac.core.errors import EdvacError, InternalError, ProcessorError, UsageError
from edvac.core.seams import Clock, Entropy, SystemClock, SystemEntropy
from edvac.engine.protocol import Segment, StatsReply
from edvac.processor import Answer, OnText, OnTokens, Request
from edvac.serve.calls import Calls, Ended, Piece
from edvac.serve.chat import read_chat
from edvac.serve.events import Events, event, unless_gone
from edvac.serve.forms import Asked, Envelope, Form
from edvac.serve.guard import CLIENT, Guard
from edvac.serve.metrics import TYPE, Metrics
from edvac.serve.models import Models, Place, State
from edvac.serve.offered import (
    Offered,
    read_adapter_name,
    read_scales,
    told,
    told_adapter,
    told_scales,
)
from edvac.serve.reading import LONGEST_BODY, Model, addressed
from edvac.serve.refusal import body_of, refused
from edvac.serve.text import read_completion, read_native
from edvac.serve.tokens import read_text, read_tokens, told_text, told_tokens

MOST_WAITING: Final = 256  # calls; more are refused with 429
BODY_S: Final = 60.0  # for which the body of a request may take to come
MOST_HELD: Final = 64 << 20  # bytes of requests that are received or wait
STARTED: Final = "Process-Start-Time-Unix"  # a header of llama.cpp's
HELD: Final = "edvac.held"  # where in a request's scope its bytes among them stand

Read: TypeAlias = Callable[[bytes, Model, int, Envelope], Asked]
Endpoint: TypeAlias = Callable[[Received], Awaitable[Response]]


@dataclass(slots=True)
class Service:
    """
    Args:
        models: by the names that clients know; the first is meant where a request names none.
        hosts: values of the header ``Host`` that are answered.
        keys: what clients have to know, with the name of who has it; none for no key.
    """

    models: Models[Offered]
    hosts: frozenset[str]
    keys: dict[str, str]
    clock: Clock = field(default_factory=SystemClock)
    entropy: Entropy = field(default_factory=SystemEntropy)
    metrics: Metrics = field(default_factory=Metrics)
    _numbers: Any = field(init=False)
    _started: int = field(init=False)
    _running: set[Calls] = field(default_factory=set)
    _held: int = 0
    _stopping: bool = False

    def __post_init__(self) -> None:
        # Seeds of calls that name none: other ones after each start.
        self._numbers = itertools.count(int(self.entropy.token(3), 16))
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
            "/lora-adapters": self.set_scales,
            "/v1/load_lora_adapter": self.load_adapter,
            "/v1/unload_lora_adapter": self.unload_adapter,
        }
        gets: dict[str, Endpoint] = {
            "/health": self.health,
            "/v1/models": self.list_models,
            "/models": self.list_models,
            "/v1/models/{name:path}": self.model,
            "/lora-adapters": self.scales,
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
        """End the calls that still run or wait, with an error that says why."""
        self.models.refuse(_stopping())
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
            data = await self._body(received)
            wanted = self._find(addressed(data))
            async with AsyncExitStack() as stack:
                if wanted.place.model.about is None:  # it says how requests are read
                    visit = self.models.visit(wanted.place, received.scope[CLIENT])
                    await unless_gone(received.receive, stack.enter_async_context(visit))
                asked = read(data, *self._facts(wanted))
                calls = self._start(wanted.place, asked, received.scope[CLIENT])
                await asyncio.sleep(0)  # its calls wait in line before this lets go of the model
            return await self._answer(received, asked, calls)

        return answer

    async def _answer(self, received: Received, asked: Asked, calls: Calls) -> Response:
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

    def _find(self, name: str | None) -> _Wanted:
        """
        Raises:
            UsageError: no model and no adapter has this name.
        """
        place = self.models.find(name)
        if place is not None:
            return _Wanted(place)
        for place in self.models.places:
            if place.model.offers(name or ""):
                return _Wanted(place, name or "")
        fix = f"Name {self.models.places[0].name}; /v1/models lists what is served."
        raise UsageError("model_not_found", f"{name!r} is not served here", "", fix)

    def _facts(self, wanted: _Wanted) -> tuple[Model, int, Envelope]:
        """What is served, the number of this call, and what stands around its answer."""
        number, created = next(self._numbers), int(self.clock.wall())
        name = f"chatcmpl-{created:x}{number:x}"
        place, adapter = wanted.place, wanted.adapter
        about = place.model.about
        assert about is not None, "it was there"
        found = tuple(int(one[4:]) for one in about.card.special_tokens if one.startswith("end_"))
        model = Model(
            (adapter,) if adapter else place.names,
            about.context,
            found,
            adapter or place.model.usual,
            place.model.numbered,
        )
        fingerprint = _fingerprint(f"{about.identity}{adapter and '+'}{adapter} {__version__}")
        return model, number, Envelope(name, model.name, created, fingerprint)

    def _start(self, place: Place[Offered], asked: Asked, client: str) -> Calls:
        def start(request: Request) -> Callable[[OnText, OnTokens], Awaitable[Answer]]:
            async def call(on_text: OnText, on_tokens: OnTokens) -> Answer:
                async with self.models.turn(place, f"{client}/{asked.client}"):
                    answer = await place.model.complete(
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
        data = await self._body(received)
        asked = read_text(data)
        async with self._there(received, data) as (model, _):
            found = await model.processor.tokenize([asked.segment], bos=asked.add_special)
        return JSONResponse(told_tokens(found, asked.with_pieces))

    async def detokenize(self, received: Received) -> Response:
        data = await self._body(received)
        tokens = read_tokens(data)
        async with self._there(received, data) as (model, _):
            found = await model.processor.tokenize([Segment(tokens=tokens)], bos=False)
        return JSONResponse(told_text(found))

    async def apply_template(self, received: Received) -> Response:
        data = await self._body(received)
        async with self._there(received, data) as (model, wanted):
            prompt = model.processor.segments(self._chat(data, wanted))
        return JSONResponse({"prompt": "".join(one.text for one in prompt)})

    async def input_tokens(self, received: Received) -> Response:
        data = await self._body(received)
        async with self._there(received, data) as (model, wanted):
            prompt = model.processor.segments(self._chat(data, wanted))
            found = await model.processor.tokenize(prompt, bos=True)
        return JSONResponse({"input_tokens": len(found.tokens)})

    def _chat(self, data: bytes, wanted: _Wanted) -> Request:
        return read_chat(data, *self._facts(wanted)).requests[0]

    @asynccontextmanager
    async def _there(
        self, received: Received, data: bytes
    ) -> AsyncIterator[tuple[Offered, _Wanted]]:
        """The model that a request names, in memory."""
        if self._stopping:
            raise _stopping()
        wanted = self._find(addressed(data))
        async with AsyncExitStack() as stack:
            visit = self.models.visit(wanted.place, received.scope[CLIENT])
            await unless_gone(received.receive, stack.enter_async_context(visit))
            yield wanted.place.model, wanted

    # --- adapters --------------------------------------------------------------------------

    async def scales(self, received: Received) -> Response:
        return JSONResponse(told_scales(self._named(received).model))

    async def set_scales(self, received: Received) -> Response:
        model = self._named(received).model
        model.usual = read_scales(await self._body(received), model.numbered)
        return JSONResponse({"success": True})

    async def load_adapter(self, received: Received) -> Response:
        if self._stopping:
            raise _stopping()
        name = read_adapter_name(await self._body(received))
        place = self._place_of(name)
        async with AsyncExitStack() as stack:
            visit = self.models.visit(place, received.scope[CLIENT])
            await unless_gone(received.receive, stack.enter_async_context(visit))
            await place.model.switch_on(name)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload_adapter(self, received: Received) -> Response:
        name = read_adapter_name(await self._body(received))
        place = self._place_of(name)
        if not place.model.offers(name):
            raise UsageError("model_not_found", f"the adapter {name!r} is not loaded")
        place.model.switch_off(name)
        with self.models.looking(place) as here:
            if here:
                await place.model.processor.unload_adapter(name)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    def _place_of(self, adapter: str) -> Place[Offered]:
        """
        Raises:
            UsageError: the service was not started with such an adapter.
        """
        for place in self.models.places:
            if adapter in place.model.adapters:
                return place
        raise UsageError("model_not_found", f"there is no adapter {adapter!r}")

    # --- what is served, and how it does ---------------------------------------------------

    async def health(self, received: Received) -> Response:
        del received
        return JSONResponse({"status": "ok", "version": __version__})

    async def list_models(self, received: Received) -> Response:
        del received
        found = [told(place, __version__) for place in self.models.places]
        for place in self.models.places:
            found += [told_adapter(place, name) for name in place.model.numbered if name]
        return JSONResponse({"object": "list", "data": found})

    async def model(self, received: Received) -> Response:
        place, adapter = self._find(received.path_params["name"])
        return JSONResponse(told_adapter(place, adapter) if adapter else told(place, __version__))

    def _named(self, received: Received) -> Place[Offered]:
        """The model of the query, or the first."""
        return self._find(received.query_params.get("model")).place

    async def props(self, received: Received) -> Response:
        """What a loaded model is; to look at one brings none to memory."""
        place = self._named(received)
        found = {
            "model_alias": place.name,
            "model_path": place.model.processor.file,
            "modalities": {"vision": False, "audio": False},
            "build_info": f"edvac {__version__}",
            "is_sleeping": place.state is State.AWAY,
        }
        about = place.model.about
        if about is not None:
            card = about.card
            found |= {
                "default_generation_settings": {"n_ctx": card.context_length},
                "model_sha256": card.sha256,
                "architecture": card.architecture,
                "chat_template": card.chat_template or "",
                "bos_token": card.special_tokens.get("bos_token", ""),
                "eos_token": card.special_tokens.get("eos_token", ""),
            }
        stats = await self._stats(place)
        return JSONResponse(found | {"total_slots": 0 if stats is None else stats.slots})

    async def slots(self, received: Received) -> Response:
        """Places for sequences. A sequence keeps none beyond its answer, so they have no history;
        which of them are taken says how many are. A model that is not in memory has none."""
        place = self._named(received)
        stats, about = await self._stats(place), place.model.about
        if stats is None or about is None:
            return JSONResponse([])
        found = [
            {"id": at, "n_ctx": about.context, "is_processing": at < stats.running}
            for at in range(stats.slots)
        ]
        return JSONResponse(found)

    async def _stats(self, place: Place[Offered]) -> StatsReply | None:
        with self.models.looking(place) as here:
            return await place.model.processor.stats() if here else None

    async def counters(self, received: Received) -> Response:
        del received
        found = await asyncio.gather(*(self._stats(place) for place in self.models.places))
        engines = [one for one in found if one is not None]
        text = self.metrics.text(engines, self.models.room.waiting)
        return Response(text, media_type=TYPE, headers={STARTED: str(self._started)})


class _Wanted(NamedTuple):
    """Whom a request is for: a model, or one of its adapters."""

    place: Place[Offered]
    adapter: str = ""


def _fingerprint(about: str) -> str:
    return f"edvac-{hashlib.sha256(about.encode()).hexdigest()[:12]}"


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
