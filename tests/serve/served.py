"""A service at a real socket, over a processor that answers from a function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx2
import uvicorn
import uvicorn.server

from edvac.engine.protocol import Segment, StatsReply, Tokens
from edvac.processor import Answer, OnText, OnTokens, Request, Timings, Token
from edvac.processor.scripted import ScriptedProcessor
from edvac.serve import app
from edvac.serve.app import Service
from edvac.serve.models import Models
from edvac.serve.offered import Offered
from edvac.serve.run import config_of, hosts_of, listen

KEY = "a-key-of-some-length"
TICK_S = 0.005  # between two looks of a server whether it is to end; by itself 0.1
HELLO = {"model": "m", "messages": [{"role": "user", "content": "Say hello."}]}
STATS = StatsReply(
    running=1, waiting=2, slots=3, kv_tokens=40, kv_bytes=50, kv_capacity_bytes=60,
    parked_prefixes=7, steps=8, prefill_tokens=9, cached_tokens=10, decode_tokens=11,
    forced_tokens=12, busy_seconds=1.5, prefill_tokens_per_second=1.0,
    decode_tokens_per_second=2.0, resident_bytes=123_456_789,
)  # fmt: skip
CARD = SimpleNamespace(
    model="m.gguf", sha256="0" * 64, architecture="qwen2", context_length=1000,
    chat_template="{{ x }}", special_tokens={"eos_token": "<|end|>", "end_5": "<|end|>"},
)  # fmt: skip


class _Hasty:
    """What uvicorn knows of asyncio; a test would wait longest for its pauses."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, TICK_S))


uvicorn.server.asyncio = _Hasty()  # type: ignore[assignment]


class Pieces(ScriptedProcessor):
    """Answers word by word; remembers what it was asked and which calls were cancelled."""

    card = CARD
    file = "m.gguf"

    def __init__(
        self, script: Callable[[Request], str], pause_s: float = 0.0, concurrency: int = 32
    ) -> None:
        super().__init__(script, concurrency=concurrency)
        self.asked: list[Request] = []
        self.cancelled = 0
        self._pause_s = pause_s

    async def complete(
        self, request: Request, on_text: OnText | None = None, on_tokens: OnTokens | None = None
    ) -> Answer:
        self.asked.append(request)
        text = self._script(request)
        words = [f"{word} " for word in text.split(" ")]
        tokens = [
            Token(number, word.encode(), -0.5, ((number, word.encode(), -0.5),))
            for number, word in enumerate(words)
        ]
        try:
            for word, token in zip(words, tokens, strict=True):
                await asyncio.sleep(self._pause_s)
                if on_tokens is not None:
                    on_tokens((token,))
                if on_text is not None:
                    on_text(word, 1)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        told = tuple(tokens) if request.report and on_tokens is None else ()
        times = Timings(1.0, 20.0, 30.0, 4, 2)
        count = len(text.split())
        return Answer(text, "stop", 7, 3, count, (), tokens=told, timings=times)

    def segments(self, request: Request) -> list[Segment]:
        return [Segment("<|user|>", control=True), Segment(request.messages[-1].text)]

    async def tokenize(self, segments: list[Segment], *, bos: bool) -> Tokens:
        text = "".join(one.text for one in segments).encode()
        tokens = [*([256] if bos else []), *text, *(t for one in segments for t in one.tokens)]
        return Tokens("t", tokens, [b"<s>" if one == 256 else bytes([one]) for one in tokens])

    async def stats(self) -> StatsReply:
        return STATS

    async def unload(self) -> None:
        await self.close()

    def has_adapter(self, name: str) -> bool:
        return False


def one_model(processor: Any, *names: str) -> Models[Offered]:
    return Models(((Offered(processor), names),), most_waiting=app.MOST_WAITING)


def service_at(processor: Any, listener: Any, **more: Any) -> Service:
    """Of one processor, or of the models that are given instead."""
    chosen = {"hosts": hosts_of(listener, ()), "keys": {KEY: "one"}} | more
    models = processor
    if not isinstance(processor, Models):
        models = one_model(processor, *chosen.pop("names", ("m",)))
    return Service(models, **chosen)


@asynccontextmanager
async def served(
    processor: Any, seen: list[Service] | None = None, **more: Any
) -> AsyncIterator[tuple[str, httpx2.AsyncClient]]:
    """Its address and a client; the service itself goes into `seen`."""
    listener = listen("127.0.0.1", 0)
    service = service_at(processor, listener, **more)
    if seen is not None:
        seen.append(service)
    config = config_of(service.application())
    config.log_level = "critical"
    config.configure_logging()
    if not isinstance(processor, Models):  # as `edvac serve` does with its first
        await service.models.load(service.models.places[0])
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server.serve(sockets=[listener]))
    key = next(iter(service.keys), "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with httpx2.AsyncClient(headers=headers, timeout=20, trust_env=False) as http:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", http
    finally:
        server.should_exit = True
        await running


def talk(
    processor: Any, work: Callable[[str, httpx2.AsyncClient], Awaitable[Any]], **more: Any
) -> Any:
    async def main() -> Any:
        async with served(processor, **more) as (url, http):
            return await asyncio.wait_for(work(url, http), 20)

    return asyncio.run(main())


def post(processor: Any, path: str, document: Any, **more: Any) -> tuple[int, Any]:
    async def work(url: str, http: httpx2.AsyncClient) -> tuple[int, Any]:
        reply = await http.post(url + path, json=document)
        return reply.status_code, reply.json()

    found: tuple[int, Any] = talk(processor, work, **more)
    return found


def ask(processor: Any, **parts: Any) -> tuple[int, Any]:
    return post(processor, "/v1/chat/completions", HELLO | parts)
