"""An OpenAI-compatible endpoint against a small server that answers well, badly and not at all."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from edvac.core.errors import (
    ConfigError,
    EdvacError,
    ModelOutputError,
    OperandError,
    ProcessorError,
)
from edvac.processor import Answer, Message, Request, Segment
from edvac.processor.openai import OpenAIProcessor, Timeouts
from edvac.processor.stream import MAX_ANSWER

KEY = "sk-canary-0123456789"


@dataclass
class Server:
    """Says `replies` one after another (the last again and again): raw bytes of whole responses."""

    replies: list[bytes]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    tasks: set[Any] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = dict(
                line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
            )
            body = await reader.readexactly(int(lines["content-length"]))
            self.keys.append(lines.get("authorization", ""))
            self.bodies.append(json.loads(body))
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            endless = reply.endswith(b"...")
            writer.write(reply.removesuffix(b"..."))
            while endless:
                writer.write(b"x" * 1_000_000)
                await writer.drain()
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            await asyncio.wait({asyncio.ensure_future(writer.wait_closed())}, timeout=5)


def response(status: int, body: str | bytes, kind: str = "application/json") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n"
    return head.encode() + data


def stream(*events: object, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return response(200, "".join(lines) + ("data: [DONE]\n\n" if done else ""), "text/event-stream")


def piece(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}


USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 11,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 7},
    },
}
GOOD = stream(piece("Hel"), piece("lo", "stop"), USAGE)
REQUEST = Request("run", "slot", (Message("user", (Segment("Say hello"),)),), seed=5)
OPTIONAL = ("response_format", "stream_options", "seed", "max_tokens", "temperature", "stop")
SCHEMA = Request("run", "slot", REQUEST.messages, schema={"type": "object"}, stop=("END",))


def talk(
    server: Server, request: Request = REQUEST, *, timeout_s: float = 10, calls: int = 1
) -> tuple[Answer, list[str]]:
    pieces: list[str] = []

    async def go() -> Answer:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        processor = OpenAIProcessor(
            f"http://127.0.0.1:{port}/v1",
            "m",
            key_env="TEST_KEY",
            timeouts=Timeouts(first=timeout_s, idle=timeout_s),
        )
        try:
            await processor.open()
            for _ in range(calls):
                answer = await processor.complete(request, lambda text, n: pieces.append(text))
            return answer
        finally:
            await processor.close()
            listening.close()
            await listening.wait_closed()
            await asyncio.gather(*server.tasks, return_exceptions=True)
            server.tasks.clear()

    return asyncio.run(go()), pieces


def refused(reply: bytes, request: Request = REQUEST, **more: Any) -> EdvacError:
    with pytest.raises(EdvacError) as error:
        talk(Server([reply]), request, **more)
    return error.value


def test_a_streamed_answer_with_its_usage() -> None:
    server = Server([GOOD])
    answer, pieces = talk(server)
    assert answer == Answer("Hello", "stop", 11, 7, 2, ("<user>\nSay hello\n",))
    assert pieces == ["Hel", "lo"]
    body = server.bodies[0]
    assert (body["model"], body["seed"], body["temperature"]) == ("m", 5, 0.0)
    assert body["messages"] == [{"role": "user", "content": "Say hello"}]


def test_split_and_blank_lines_and_comments_do_not_matter() -> None:
    text = (
        ": ping\r\n\r\nevent: x\r\ndata:" + json.dumps(piece("é", "stop")) + "\r\n\r\ndata: [DONE]"
    )
    assert talk(Server([response(200, text, "text/event-stream")]))[0].text == "é"


def test_an_endpoint_that_does_not_stream() -> None:
    whole = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    answer, pieces = talk(Server([response(200, json.dumps(whole))]))
    assert (answer.text, answer.finish, pieces) == ("Hello", "stop", ["Hello"])


@pytest.mark.parametrize(
    ("finish", "wanted"), [("stop", "stop"), ("length", "length"), ("eos", "stop")]
)
def test_finish_reasons(finish: str, wanted: str) -> None:
    assert talk(Server([stream(piece("x", finish))]))[0].finish == wanted


def test_a_filtered_answer_is_no_answer() -> None:
    error = refused(stream(piece("x", "content_filter")))
    assert isinstance(error, ModelOutputError)


@pytest.mark.parametrize("part", OPTIONAL)
@pytest.mark.parametrize("status", [400, 422])
def test_what_an_endpoint_refuses_is_left_out_from_then_on(part: str, status: int) -> None:
    no = response(status, json.dumps({"error": {"message": f"'{part}' is not supported"}}))
    server = Server([no, GOOD])
    assert talk(server, SCHEMA, calls=2)[0].text == "Hello"
    assert [part in body for body in server.bodies] == [True, False, False]
    assert ("max_completion_tokens" in server.bodies[1]) is (part == "max_tokens")


def test_an_endpoint_that_refuses_everything_is_an_error_not_a_loop() -> None:
    no = response(400, " ".join(OPTIONAL))
    server = Server([no])
    with pytest.raises(ConfigError) as error:
        talk(server, SCHEMA)
    assert error.value.code == "endpoint_refused"
    assert len(server.bodies) == len(OPTIONAL) + 1


@pytest.mark.parametrize(
    ("status", "text", "kind", "code"),
    [
        (401, "bad key", ConfigError, "endpoint_key"),
        (403, "no", ConfigError, "endpoint_key"),
        (404, "model not found", ConfigError, "endpoint_refused"),
        (301, "moved", ConfigError, "endpoint_refused"),
        (400, "maximum context length is 4096 tokens", OperandError, "operand_too_large"),
        (413, "too big", OperandError, "operand_too_large"),
        (408, "", ProcessorError, "endpoint_away"),
        (429, "slow down", ProcessorError, "endpoint_busy"),
        (429, "insufficient_quota", ConfigError, "endpoint_quota"),
        (402, "pay", ConfigError, "endpoint_quota"),
        (500, "<html>oops", ProcessorError, "endpoint_away"),
        (503, "", ProcessorError, "endpoint_busy"),
    ],
)
def test_statuses(status: int, text: str, kind: type[EdvacError], code: str) -> None:
    error = refused(response(status, text, "text/plain"))
    assert isinstance(error, kind)
    assert error.code == code
    assert error.retryable is (kind is ProcessorError)
    assert error.fix


GARBAGE: dict[str, bytes] = {
    "a page": response(200, "<html>hello</html>", "text/html"),
    "nothing": response(200, "", "text/event-stream"),
    "only the end": response(200, "data: [DONE]\n\n", "text/event-stream"),
    "no JSON": response(200, "data: {nope\n\n", "text/event-stream"),
    "a number": response(200, "data: 5\n\n", "text/event-stream"),
    "a list": response(200, "data: [1]\n\n", "text/event-stream"),
    "choices of another kind": stream({"choices": 7}),
    "a choice of another kind": stream({"choices": ["x"]}),
    "a text of another kind": stream({"choices": [{"delta": {"content": 5}}]}),
    "deep nesting": response(200, "data: " + "[" * 100_000 + "\n\n", "text/event-stream"),
    "bytes": response(200, b"data: \xff\xfe\n\n", "text/event-stream"),
    "an empty object": response(200, "{}"),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_called_garbage(what: str) -> None:
    error = refused(GARBAGE[what])
    assert isinstance(error, ProcessorError)
    assert error.code == "endpoint_garbage"
    assert error.why


def test_strange_counts_are_no_counts_but_guesses() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": None, "completion_tokens": "many"}}
    answer, _ = talk(Server([stream(piece("x", "stop"), usage)]))
    assert (answer.prompt_tokens, answer.completion_tokens) == (3, 1)


def test_halves_of_a_character_are_joined_or_replaced() -> None:
    answer, pieces = talk(Server([stream(piece("a\ud83d"), piece("\ude42b\ud800", "stop"))]))
    assert answer.text == "a🙂b\ufffd"
    assert all(text.encode() for text in pieces)


def test_an_error_inside_a_stream_is_retryable() -> None:
    error = refused(stream(piece("x"), {"error": {"message": "out of memory"}}))
    assert (error.code, error.retryable) == ("endpoint_away", True)
    assert "out of memory" in error.why


def test_an_answer_that_breaks_off_is_not_an_answer() -> None:
    error = refused(stream(piece("half an ans"), done=False))
    assert (error.code, error.retryable) == ("endpoint_away", True)
    assert "middle" in error.what


@pytest.mark.parametrize("status", [200, 500])
def test_an_endless_answer_ends(status: int) -> None:
    for kind in ("text/event-stream", "application/json"):
        error = refused(response(status, "data: ...", kind))
        assert isinstance(error, ProcessorError)
    assert MAX_ANSWER < 10_000_000


def test_an_empty_answer_with_a_reason_is_an_empty_text() -> None:
    assert talk(Server([stream(piece("", "stop"))]))[0].text == ""


def test_a_prompt_that_was_cut_silently_is_noticed() -> None:
    long = Request("r", "s", (Message("user", (Segment("word " * 10_000),)),))
    error = refused(GOOD, long)
    assert isinstance(error, OperandError)
    assert error.code == "operand_too_large"
    honest = stream(piece("x", "stop"), {"choices": [], "usage": {"prompt_tokens": 10_000}})
    assert talk(Server([honest]), long)[0].text == "x"


def test_nobody_listening_and_nobody_answering() -> None:
    async def refused_connection() -> None:
        listening = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        listening.close()
        await listening.wait_closed()
        processor = OpenAIProcessor(f"http://127.0.0.1:{port}/v1", "m")
        try:
            await processor.complete(REQUEST)
        finally:
            await processor.close()

    with pytest.raises(ProcessorError) as error:
        asyncio.run(refused_connection())
    assert error.value.code == "endpoint_away"

    server = Server([GOOD])

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.tasks.add(asyncio.current_task())
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server.serve = silent  # type: ignore[method-assign]
    with pytest.raises(ProcessorError, match="in time"):
        talk(server, timeout_s=0.1)


def test_the_retry_after_a_refusal_may_fail_like_any_other() -> None:
    no = response(400, "response_format is unknown")
    with pytest.raises(ProcessorError) as error:
        talk(Server([no, b""]), SCHEMA)
    assert error.value.code == "endpoint_away"


# -- the key ------------------------------------------------------------------------------------


def test_the_key_is_sent_and_read_at_the_moment_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server([GOOD])
    monkeypatch.setenv("TEST_KEY", KEY + "\n")
    talk(server)
    monkeypatch.delenv("TEST_KEY")
    talk(server)
    assert server.keys == [f"bearer {KEY}", ""]


@pytest.mark.parametrize(
    "reply",
    [
        response(401, f"Incorrect API key provided: {KEY}"),
        response(400, f"your key {KEY} is wrong"),
        response(500, f"{KEY}"),
        stream({"error": f"key {KEY}"}),
        response(200, f"data: {{{KEY}\n\n", "text/event-stream"),
        response(200, f"<html>{KEY}"),
        response(413, f"{KEY}"),
    ],
)
def test_no_error_repeats_the_key(reply: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    error = refused(reply)
    assert KEY not in str(error) + repr(error) + str(error.as_dict())


@pytest.mark.parametrize("key", ["sk-ü", "a b", "a\nb", "a\x00b".replace("\x00", "\x01")])
def test_a_key_that_is_none_is_a_typed_error(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", key)
    error = refused(GOOD)
    assert error.code == "endpoint_key"
    assert key not in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/v1", "http://", "http:///v1", "http://[::1", "http://x:99999/v1", "nonsense",
        "http://user:secret@host/v1", "http://host/v1?key=secret",
    ],
)  # fmt: skip
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        OpenAIProcessor(url, "m")
    assert error.value.code == "endpoint_url"
    if "secret" in url:
        assert "secret" not in str(error.value)


def test_identities_differ_by_port() -> None:
    names = {OpenAIProcessor(f"http://127.0.0.1:{port}/v1", "m").identity for port in (1, 2)}
    assert len(names) == 2
