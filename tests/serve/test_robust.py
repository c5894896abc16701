"""Clients that mean ill, leave, do not read or are too many; a service that is told to stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edvac.core.errors import ProcessorError, UsageError
from edvac.processor import Answer, OnText, OnTokens, Request
from edvac.serve import app, calls, events, run
from edvac.serve.calls import MOST_UNSENT, Calls, Ended, Piece
from edvac.serve.reading import LONGEST_BODY

from .served import HELLO, KEY, Pieces, one_model, served, talk

CHAT = "/v1/chat/completions"


def slow(pause_s: float = 0.02, **more: Any) -> Pieces:
    return Pieces(lambda request: "word " * 1000, pause_s=pause_s, **more)


async def until(true: Callable[[], bool]) -> None:
    for _ in range(400):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come about")


# -- what is sent --------------------------------------------------------------------------------


def test_a_body_that_is_too_long_is_refused_and_not_held() -> None:
    seen: list[app.Service] = []
    held = 0

    async def work(url: str, http: httpx2.AsyncClient) -> list[tuple[int, str]]:
        async def endless() -> Any:
            nonlocal held
            for _ in range(2 * LONGEST_BODY // 65536):
                yield b" " * 65536
                held = max(held, seen[0]._held)

        found = []
        for content in (b" " * (LONGEST_BODY + 1), endless()):
            reply = await http.post(url + CHAT, content=content)
            found.append((reply.status_code, reply.json()["error"]["code"]))
        fits = await http.post(url + CHAT, content=json.dumps(HELLO).ljust(LONGEST_BODY).encode())
        return [*found, (fits.status_code, "")]

    assert talk(Pieces(lambda request: "x"), work, seen=seen) == [
        (413, "request_too_long"),
        (413, "request_too_long"),
        (200, ""),
    ]
    assert 65536 <= held <= LONGEST_BODY


def test_bodies_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MOST_HELD", 300_000)
    begun = asyncio.Event()

    async def work(url: str, http: httpx2.AsyncClient) -> list[int]:
        async def half() -> Any:
            yield b" " * 200_000
            await begun.wait()
            yield json.dumps(HELLO).encode()

        first = asyncio.ensure_future(http.post(url + CHAT, content=half()))
        await asyncio.sleep(0.2)
        second = await http.post(url + CHAT, content=b" " * 200_000)
        begun.set()
        third = await http.post(url + CHAT, json=HELLO)
        assert second.headers["retry-after"] == "1"
        return [(await first).status_code, second.status_code, third.status_code]

    assert talk(Pieces(lambda request: "x"), work) == [200, 429, 200]


def test_calls_that_wait_count_among_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MOST_HELD", 300_000)
    processor = slow(concurrency=1)
    seen: list[app.Service] = []
    large = HELLO | {"metadata": {"x": "x" * 200_000}}

    async def work(url: str, http: httpx2.AsyncClient) -> int:
        calls = [asyncio.ensure_future(http.post(url + CHAT, json=HELLO))]
        await until(lambda: len(processor.asked) == 1)
        calls.append(asyncio.ensure_future(http.post(url + CHAT, json=large)))
        await until(lambda: seen[0].models.room.waiting == 1)
        status = (await http.post(url + CHAT, json=large)).status_code
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: seen[0]._held == 0)
        return status

    assert talk(processor, work, seen=seen) == 429


def test_who_leaves_in_the_middle_of_a_body_is_no_fault() -> None:
    seen: list[app.Service] = []

    async def work(url: str, http: httpx2.AsyncClient) -> None:
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, port)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {KEY}\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        await until(lambda: seen[0]._held == 1)
        writer.transport.abort()
        await until(lambda: seen[0].metrics.statuses[499] == 1)
        assert seen[0]._held == 0 and seen[0].metrics.statuses[500] == 0

    talk(Pieces(lambda request: "x"), work, seen=seen)


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_S", 0.2)

    async def work(url: str, http: httpx2.AsyncClient) -> bytes:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, port)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {KEY}\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return line

    assert b" 408 " in talk(Pieces(lambda request: "x"), work)


@pytest.mark.parametrize("before", [0, 1])
def test_a_head_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Also behind a request that was answered on the same connection."""
    monkeypatch.setattr(run, "HEAD_S", 0.3)

    async def work(url: str, http: httpx2.AsyncClient) -> None:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, port)
        whole = (
            f"GET /health HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        )
        for _ in range(before):
            writer.write(whole.encode())
            assert b"200" in await reader.readuntil(b"}")
        writer.write(b"GET /health HT")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        # Who takes long to be answered is not meant.
        assert (await http.post(url + CHAT, json=HELLO)).status_code == 200

    talk(Pieces(lambda request: "a b c", pause_s=0.2), work)


DEEP: Any = {}
for _ in range(200):
    DEEP = {"properties": {"a": DEEP}}


@pytest.mark.parametrize(
    "parts",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"schema": DEEP}}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]},
        {"n": 10**30},
        {"n": 17},
        {"temperature": 10**400},
        {"top_p": 0},
        {"top_logprobs": 5},
        {"logprobs": True, "top_logprobs": 21},
        {"stop": ["x"] * 17},
        {"stop": "x" * 1001},
        {"logit_bias": {"word": 1}},
        {"logit_bias": [["word", 1]]},
        {"messages": [{"role": "user", "content": {"a": 1}}]},
        {"messages": [{"role": "user"}, {"role": "assistant", "tool_calls": [{}]}]},
        {"max_tokens": "many"},
        {"stream": "yes"},
        {"seed": 1.5},
    ],
    ids=lambda parts: str(parts)[:40],
)
def test_what_is_too_deep_too_much_or_of_the_wrong_kind_is_refused(parts: dict[str, Any]) -> None:
    async def work(url: str, http: httpx2.AsyncClient) -> Any:
        return await http.post(url + CHAT, json=HELLO | parts)

    processor = Pieces(lambda request: "x")
    reply = talk(processor, work)
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "request_malformed"
    assert processor.asked == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
FIELDS = [
    "model", "messages", "prompt", "tools", "tool_choice", "stop", "n", "n_predict", "logit_bias",
    "stream", "response_format", "json_schema", "temperature", "max_tokens", "logprobs", "content",
    "tokens", "response_fields", "seed", "stream_options", "top_k", "grammar", "best_of", "user",
]  # fmt: skip
PATHS = [CHAT, "/v1/completions", "/completion", "/tokenize", "/detokenize", "/apply-template"]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(PATHS),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5),
    st.booleans(),
)
def test_no_document_brings_the_service_down(path: str, document: Any, good: bool) -> None:
    """Whatever is asked, the answer is one, or a refusal in words."""
    base = {"prompt": "p", "messages": HELLO["messages"], "content": "c", "tokens": [1]}
    asked = (base | document) if good else document

    async def scene() -> None:
        transport = httpx2.ASGITransport(application(Pieces(lambda request: "a b")))
        async with httpx2.AsyncClient(transport=transport, base_url="http://h") as http:
            reply = await http.post(path, content=json.dumps(asked), headers={"Host": "h"})
        assert reply.status_code in (200, 400, 404), reply.text
        if reply.status_code != 200:
            assert reply.json()["error"]["message"]

    asyncio.run(scene())


def application(processor: Pieces) -> Any:
    return app.Service(one_model(processor, "m"), frozenset({"h"}), {}).application()


# -- too many ------------------------------------------------------------------------------------


def test_who_comes_when_too_many_wait_is_told_when_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "MOST_WAITING", 2)
    processor = slow(concurrency=1)

    async def work(url: str, http: httpx2.AsyncClient) -> tuple[int, str, str]:
        calls = [asyncio.ensure_future(http.post(url + CHAT, json=HELLO)) for _ in range(3)]
        await asyncio.sleep(0.3)
        late = await http.post(url + CHAT, json=HELLO)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return late.status_code, late.headers["retry-after"], late.json()["error"]["type"]

    assert talk(processor, work) == (429, "1", "rate_limit_error")


def test_a_full_queue_of_the_engine_is_said_likewise() -> None:
    def full(request: Request) -> str:
        raise ProcessorError("engine_overloaded", "the engine's queue is full")

    async def work(url: str, http: httpx2.AsyncClient) -> tuple[int, str]:
        reply = await http.post(url + CHAT, json=HELLO | {"stream": True})
        return reply.status_code, reply.headers["retry-after"]

    assert talk(Pieces(full), work) == (429, "1")


def test_one_client_does_not_stand_before_another() -> None:
    order: list[str] = []

    def script(request: Request) -> str:
        order.append(request.messages[0].text)
        return "x y"

    async def work(url: str, http: httpx2.AsyncClient) -> None:
        def ask(text: str, key: str, **more: Any) -> Any:
            said = HELLO | {"messages": [{"role": "user", "content": text}]} | more
            head = {"Authorization": f"Bearer {key}"}
            return asyncio.ensure_future(http.post(url + CHAT, json=said, headers=head))

        calls = []
        for n in range(10):
            calls.append(ask(f"many {n}", "first-key"))
            await asyncio.sleep(0.02)
        calls += [ask("one", "second-key"), ask("user", "first-key", user="u")]
        await asyncio.gather(*calls)

    processor = Pieces(script, pause_s=0.05, concurrency=1)
    talk(processor, work, keys={"first-key": "1", "second-key": "2"})
    # Those that came last are next after at most the turns that were taken before they came.
    assert {order.index("one"), order.index("user")} <= set(range(2, 8))
    assert order.index("many 9") == 11


# -- leaving -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_the_queue_gives_its_place_away(stream: bool) -> None:
    processor = slow(concurrency=1)

    async def work(url: str, http: httpx2.AsyncClient) -> None:
        first = asyncio.ensure_future(http.post(url + CHAT, json=HELLO))
        await until(lambda: len(processor.asked) == 1)
        second = asyncio.ensure_future(http.post(url + CHAT, json=HELLO | {"stream": stream}))
        await asyncio.sleep(0.2)
        second.cancel()
        await asyncio.sleep(0.2)
        first.cancel()
        await until(lambda: processor.cancelled == 1)
        third = asyncio.ensure_future(http.post(url + CHAT, json=HELLO))
        await until(lambda: len(processor.asked) == 2)
        third.cancel()
        await until(lambda: processor.cancelled == 2)

    talk(processor, work)
    assert len(processor.asked) == 2


def test_who_leaves_while_the_prompt_is_read_is_not_worked_for() -> None:
    """No piece has come yet, so nothing was sent on which the leaving could be seen."""
    processor = slow(pause_s=30)

    async def work(url: str, http: httpx2.AsyncClient) -> None:
        call = asyncio.ensure_future(http.post(url + CHAT, json=HELLO | {"stream": True, "n": 3}))
        await until(lambda: len(processor.asked) == 3)
        call.cancel()
        await until(lambda: processor.cancelled == 3)

    talk(processor, work)


def test_who_leaves_before_anything_is_sent_is_not_worked_for() -> None:
    """A generator that was never begun does not run what stands in its `finally`."""
    closed = []

    async def source() -> Any:
        yield b"never"

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await asyncio.sleep(5)

    async def close() -> None:
        closed.append(True)

    asyncio.run(events.Events(source(), close)({"type": "http"}, gone, send))
    assert closed == [True]


class Flood(Pieces):
    """Writes as fast as it may."""

    async def complete(
        self, request: Request, on_text: OnText | None = None, on_tokens: OnTokens | None = None
    ) -> Answer:
        self.asked.append(request)
        assert on_text is not None
        try:
            for _ in range(200):
                on_text("x" * 100_000, 1)
                await asyncio.sleep(0)
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Answer("", "stop", 1, 0, 1, ())


@pytest.mark.parametrize("by", ["how far it lags", "how long it reads nothing"])
def test_who_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    if by == "how far it lags":
        monkeypatch.setattr(events, "STALLED_S", 100)
    else:
        monkeypatch.setattr(events, "STALLED_S", 0.3)
        monkeypatch.setattr(calls, "MOST_UNSENT", 1 << 40)
    processor = Flood(lambda _: "")

    async def work(url: str, http: httpx2.AsyncClient) -> None:
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, port, limit=1024)
        body = json.dumps(HELLO | {"stream": True})
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {KEY}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        await until(lambda: processor.cancelled == 1)
        writer.transport.abort()

    talk(processor, work)


def test_what_is_not_taken_is_put_together_and_bounded() -> None:
    async def scene() -> None:
        async def writes(on_text: OnText, on_tokens: OnTokens) -> Answer:
            for _ in range(100):
                on_text("ab", 1)
            return Answer("ab" * 100, "stop", 1, 0, 100, ())

        calls = Calls([writes, writes])
        await asyncio.sleep(0.01)
        found = [await calls.next() for _ in range(4)]
        assert [type(one) for one in found] == [Piece, Piece, Ended, Ended]
        assert found[:2] == [Piece(0, "ab" * 100), Piece(1, "ab" * 100)]
        assert await calls.next() is None

        async def floods(on_text: OnText, on_tokens: OnTokens) -> Answer:
            while True:
                on_text("x" * 10_000, 1)
                await asyncio.sleep(0)

        calls = Calls([floods])
        await asyncio.sleep(0.1)
        first = await calls.next()
        assert isinstance(first, Piece) and MOST_UNSENT < len(first.text) <= MOST_UNSENT + 20_000
        with pytest.raises(UsageError, match="does not read"):
            await calls.next()
        await calls.close()

    asyncio.run(scene())


def test_an_error_in_the_middle_of_a_stream_is_its_last_event() -> None:
    class Breaks(Pieces):
        async def complete(
            self, request: Request, on_text: OnText | None = None, on_tokens: Any = None
        ) -> Answer:
            assert on_text is not None
            on_text("begun", 1)
            await asyncio.sleep(0.05)
            raise ProcessorError("engine_died", "The engine died.")

    async def work(url: str, http: httpx2.AsyncClient) -> list[str]:
        async with http.stream("POST", url + CHAT, json=HELLO | {"stream": True}) as reply:
            assert reply.status_code == 200
            return [line async for line in reply.aiter_lines() if line]

    lines = talk(Breaks(lambda _: ""), work)
    assert json.loads(lines[1][6:])["choices"][0]["delta"]["content"] == "begun"
    assert json.loads(lines[-2][6:])["error"]["code"] == "engine_died"
    assert lines[-1] == "data: [DONE]"


# -- stopping ------------------------------------------------------------------------------------


def test_a_service_that_stops_takes_nothing_new_and_tells_those_it_ends() -> None:
    processor = slow()

    async def scene() -> None:
        seen: list[app.Service] = []
        async with served(processor, seen=seen) as (url, http):
            await ends(seen[0], url, http)

    async def ends(service: app.Service, url: str, http: httpx2.AsyncClient) -> None:
        async def stream() -> list[str]:
            async with http.stream("POST", url + CHAT, json=HELLO | {"stream": True}) as reply:
                return [line async for line in reply.aiter_lines() if line]

        streaming = asyncio.ensure_future(stream())
        whole = asyncio.ensure_future(http.post(url + CHAT, json=HELLO))
        await until(lambda: len(processor.asked) == 2)
        await asyncio.sleep(0.2)
        service.stop()
        late = await http.post(url + CHAT, json=HELLO)
        assert late.status_code == 503 and late.json()["error"]["code"] == "service_stopping"
        assert not streaming.done() and not whole.done(), "what runs has some time yet"
        service.end()
        lines = await streaming
        assert json.loads(lines[-2][6:])["error"]["code"] == "service_stopping"
        assert lines[-1] == "data: [DONE]" and len(lines) > 5
        assert (await whole).status_code == 503
        await until(lambda: processor.cancelled == 2)

    asyncio.run(scene())


# -- waiting for a model -------------------------------------------------------------------------


class NeverThere(Pieces):
    async def open(self) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
def test_who_waits_for_a_model_may_leave_and_is_told_when_the_service_stops(path: str) -> None:
    body = HELLO | {"content": "x"}

    async def scene() -> None:
        seen: list[app.Service] = []
        models = one_model(NeverThere(lambda _: ""), "m")
        async with served(models, seen=seen) as (url, http):
            (service,) = seen
            call = asyncio.ensure_future(http.post(url + path, json=body))
            await until(lambda: models.room.waiting == 1)
            call.cancel()
            await until(lambda: models.room.waiting == 0)
            await until(lambda: service._held == 0)
            call = asyncio.ensure_future(http.post(url + path, json=body))
            await until(lambda: models.room.waiting == 1)
            service.stop()
            service.end()
            reply = await call
            assert reply.status_code == 503
            assert reply.json()["error"]["code"] == "service_stopping"
            assert models.room.waiting == 0 and not models.places[0].running
            await models.close()

    asyncio.run(scene())
