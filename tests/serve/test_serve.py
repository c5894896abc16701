"""The service over a real socket: what clients get, what they are refused, who is answered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from edvac.core.errors import OperandError, ProcessorError
from edvac.processor import Answer, Message, Request, Segment
from edvac.processor.openai import OpenAIProcessor

from .served import HELLO, KEY, Pieces, ask, talk

BEGUN = {"role": "assistant", "content": "He"}


def test_an_answer_comes_whole_with_its_cost() -> None:
    processor = Pieces(lambda request: "hello you")
    status, body = ask(processor, temperature=0, seed=3, stop=["END"], max_tokens=9)
    assert status == 200 and body["object"] == "chat.completion" and body["model"] == "m"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello you"},
            "finish_reason": "stop",
        }
    ]
    assert body["timings"] == {
        "prompt_n": 4,
        "cache_n": 3,
        "prompt_ms": 20.0,
        "prompt_per_token_ms": 5.0,
        "prompt_per_second": 200.0,
        "predicted_n": 2,
        "predicted_ms": 30.0,
        "predicted_per_token_ms": 30.0,
        "predicted_per_second": pytest.approx(1000 / 30),
        "queue_ms": 1.0,
        "draft_n": 4,
        "draft_n_accepted": 2,
    }
    assert body["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    (request,) = processor.asked
    assert (request.temperature, request.seed, request.stop) == (0, 3, ("END",))
    assert request.max_tokens == 9 and request.messages[0].text == "Say hello."


def test_an_answer_comes_in_pieces_and_ends_with_its_cost() -> None:
    async def work(url: str, http: httpx2.AsyncClient) -> list[str]:
        body = HELLO | {"stream": True, "stream_options": {"include_usage": True}}
        async with http.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            return [line async for line in reply.aiter_lines() if line]

    lines = talk(Pieces(lambda request: "one two three"), work)
    assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)
    events = [json.loads(line[6:]) for line in lines[:-1]]
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    assert deltas[0] == {"role": "assistant", "content": None}
    assert "".join(delta.get("content") or "" for delta in deltas) == "one two three "
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 3
    assert len({event["id"] for event in events}) == 1


def test_schemas_grammars_and_begun_answers_reach_the_model() -> None:
    processor = Pieces(lambda request: "{}")
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    begun = [*HELLO["messages"], {"role": "assistant", "content": "He"}]
    ask(processor, response_format=form)
    ask(processor, response_format={"type": "json_object"})
    ask(processor, grammar='%llguidance {}\nstart: "a"')
    ask(processor, grammar='root ::= "a" [b-d]+')
    ask(processor, messages=begun)
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    ask(processor, messages=[{"role": "developer", "content": parts}, *HELLO["messages"]])
    assert [request.schema for request in processor.asked[:2]] == [schema, {"type": "object"}]
    assert processor.asked[2].lark == 'start: "a"'
    assert processor.asked.pop(3).lark == '\nstart: "a" /[b-d]/+\n'
    assert processor.asked[3].prefill == "He" and len(processor.asked[3].messages) == 1
    assert processor.asked[4].messages[0] == Message("system", (Segment("a\nb"),))


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ({"model": "other"}, 404, "model_not_found"),
        ({"messages": []}, 400, "request_malformed"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "request_malformed"),
        ({"messages": "hello"}, 400, "request_malformed"),
        ({"temperature": 9}, 400, "request_malformed"),
        ({"max_tokens": 0}, 400, "request_malformed"),
        ({"grammar": "root ::= x"}, 400, "gbnf_invalid"),
        ({"grammar": "root ::= (not valid"}, 400, "gbnf_invalid"),
        ({"grammar": "(" * 5000}, 400, "gbnf_invalid"),
        ({"grammar": "#" * 70_000}, 400, "request_malformed"),
        ({"messages": [*HELLO["messages"], BEGUN, BEGUN]}, 400, "request_malformed"),
        ({"response_format": {"type": "xml"}}, 400, "request_malformed"),
        ({"response_format": {"type": "json_schema"}}, 400, "request_malformed"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "request_unserved",
        ),
    ],
)
def test_what_is_not_served_is_said(parts: dict[str, Any], status: int, code: str) -> None:
    processor = Pieces(lambda request: "x")
    given, body = ask(processor, **parts)
    assert (given, body["error"]["code"]) == (status, code) and body["error"]["message"]
    assert processor.asked == []


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"model": "m"}'])
def test_what_is_no_chat_is_refused(data: bytes) -> None:
    async def work(url: str, http: httpx2.AsyncClient) -> Any:
        return await http.post(f"{url}/v1/chat/completions", content=data)

    reply = talk(Pieces(lambda request: "x"), work)
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "request_malformed"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OperandError("operand_too_large", "too long"), 400, "context_length_exceeded"),
        (ProcessorError("engine_away", "the engine has ended"), 503, "engine_away"),
    ],
)
def test_what_goes_wrong_in_the_model_has_a_status(
    error: Exception, status: int, code: str, stream: bool
) -> None:
    def fails(request: Request) -> str:
        raise error

    given, body = ask(Pieces(fails), stream=stream)
    assert (given, body["error"]["code"]) == (status, code)


def test_models_and_health() -> None:
    async def work(url: str, http: httpx2.AsyncClient) -> tuple[Any, Any]:
        return (await http.get(f"{url}/v1/models")).json(), (await http.get(f"{url}/health")).json()

    models, health = talk(Pieces(lambda request: "x"), work)
    (model,) = models["data"]
    assert model["id"] == "m" and model["owned_by"] == "edvac" and health["status"] == "ok"
    assert model["max_model_len"] == 1_000_000


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_is_not_worked_for(stream: bool) -> None:
    processor = Pieces(lambda request: "word " * 1000, pause_s=0.02)

    async def work(url: str, http: httpx2.AsyncClient) -> None:
        call = http.post(f"{url}/v1/chat/completions", json=HELLO | {"stream": stream})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.5)
        for _ in range(100):
            if processor.cancelled:
                return
            await asyncio.sleep(0.05)

    talk(processor, work)
    assert processor.cancelled == 1


def test_edvac_is_a_client_of_its_own_service(tmp_path: Path, monkeypatch: Any) -> None:
    """Probed like any other endpoint: schemas, grammars and begun answers are found."""
    monkeypatch.setenv("SERVED_KEY", KEY)

    def script(request: Request) -> str:
        if request.schema is not None:
            return json.dumps({"answer": "edvac-7319"})
        if request.lark is not None:
            return "edvac-7319"
        return f"begun with {request.prefill}, asked {request.messages[-1].text}"

    async def work(url: str, http: httpx2.AsyncClient) -> tuple[Any, Answer]:
        found = OpenAIProcessor(f"{url}/v1", "m", key_env="SERVED_KEY", records=tmp_path)
        await found.open()
        asked = Request("r", "s", (Message("user", (Segment("hi"),)),), prefill="He")
        answer = await found.complete(asked)
        able = (found.abilities, found.has_grammar, found.context_tokens)
        await found.close()
        return able, answer

    (abilities, has_grammar, context), answer = talk(Pieces(script), work)
    assert abilities.product == "edvac" and abilities.schema and abilities.grammar == "lark"
    assert has_grammar and context == 1_000_000 and abilities.slots == 32
    assert answer.text.strip() == "begun with He, asked hi" and answer.cached_tokens == 3
