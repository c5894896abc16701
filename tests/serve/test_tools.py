"""Tools over HTTP: what reaches the model, and how its calls are written down."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from edvac.processor import ToolCall, Tools

from .served import HELLO, Pieces, ask, talk

ADD = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": ADD | {"strict": True}}]
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("parts", "tools"),
    [
        ({}, Tools((ADD,))),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, Tools((ADD,), "auto", False)),
        ({"tool_choice": "required"}, Tools((ADD,), "required")),
        (
            {"tool_choice": {"type": "function", "function": {"name": "add"}}},
            Tools((ADD,), "add"),
        ),
        ({"tool_choice": "none"}, None),
        ({"tools": [], "tool_choice": "auto"}, None),
    ],
)
def test_tools_reach_the_model(parts: dict[str, Any], tools: Tools | None) -> None:
    processor = Pieces(lambda _: "x")
    status, _ = ask(processor, **({"tools": TOOLS} | parts))
    assert status == 200 and processor.asked[0].tools == tools


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"tools": [{"type": "web_search"}]}, "request_unserved"),
        ({"tools": [{"type": "function"}]}, "request_unserved"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "request_malformed"),
        ({"tools": [{"type": "function", "function": {"name": 'a"b'}}]}, "request_malformed"),
        ({"tools": TOOLS * 2}, "request_malformed"),
        ({"tools": TOOLS, "tool_choice": "always"}, "request_malformed"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "sub"}}},
            "request_malformed",
        ),
        ({"tool_choice": "required"}, "request_malformed"),
        ({"tools": TOOLS, "logprobs": True}, "request_unserved"),
        ({"functions": [ADD]}, "request_unserved"),
    ],
)
def test_tools_that_cannot_be_meant_are_refused(parts: dict[str, Any], code: str) -> None:
    status, body = ask(Pieces(lambda _: "x"), **parts)
    assert (status, body["error"]["code"]) == (400, code)


def called(*names: str) -> dict[str, Any]:
    calls = [
        {"id": name, "type": "function", "function": {"name": "add", "arguments": '{"a": "é"}'}}
        for name in names
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(name: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": text}


USER = HELLO["messages"][0]  # type: ignore[index]


def test_calls_and_results_reach_the_model_in_the_order_of_the_calls() -> None:
    processor = Pieces(lambda _: "x")
    said = [USER, called("p", "q"), result("q", "two"), result("p", "one"), USER]
    assert ask(processor, messages=said)[0] == 200
    messages = processor.asked[0].messages
    assert [one.role for one in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert [one.text for one in messages[2:4]] == ["one", "two"]
    assert messages[1].calls == (
        ToolCall("add", '{"a":"é"}', "p"),
        ToolCall("add", '{"a":"é"}', "q"),
    )
    # Clients without names for calls: the results are in order.
    nameless = [{"role": "tool", "content": "one"}, {"role": "tool", "content": "two"}]
    assert ask(processor, messages=[USER, called("p", "q"), *nameless])[0] == 200
    assert [one.text for one in processor.asked[1].messages[2:]] == ["one", "two"]


@pytest.mark.parametrize(
    "said",
    [
        [USER, result("p", "one")],
        [USER, called("p"), result("q", "one")],
        [USER, called("p"), result("p", "one"), result("p", "again")],
        [USER, called("p")],
        [USER, called("p"), USER, result("p", "late")],
        [USER, called("p", "q"), result("q", "two"), USER],
        [USER, called("p", "p"), result("p", "one"), result("p", "two")],
        [called("p") | {"role": "user"}, result("p", "one")],
        [{"role": "tool", "content": "x"}],
    ],
)
def test_results_without_calls_and_calls_without_results_are_refused(said: Any) -> None:
    status, body = ask(Pieces(lambda _: "x"), messages=said)
    assert (status, body["error"]["code"]) == (400, "request_malformed")


def test_calls_come_whole() -> None:
    _, body = ask(Pieces(lambda _: f"Let me see.\n{CALL}\n{CALL}"), tools=TOOLS)
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see."
    calls = choice["message"]["tool_calls"]
    assert [one["function"] for one in calls] == [{"name": "add", "arguments": '{"a": 1}'}] * 2
    assert len({one["id"] for one in calls}) == 2
    _, body = ask(Pieces(lambda _: CALL), tools=TOOLS)
    assert body["choices"][0]["message"]["content"] is None
    _, body = ask(Pieces(lambda _: "It is five."), tools=TOOLS)
    assert "tool_calls" not in body["choices"][0]["message"]
    assert body["choices"][0]["finish_reason"] == "stop"
    _, body = ask(Pieces(lambda _: CALL))
    assert body["choices"][0]["message"]["content"] == CALL, "without tools it is a text"


def test_calls_come_as_deltas() -> None:
    async def work(url: str, http: httpx2.AsyncClient) -> list[Any]:
        asked = HELLO | {"tools": TOOLS, "stream": True}
        async with http.stream("POST", f"{url}/v1/chat/completions", json=asked) as reply:
            lines = [line[6:] async for line in reply.aiter_lines() if line]
        return [json.loads(line)["choices"][0] for line in lines[:-1]]

    choices = talk(Spaced(lambda _: f"See: {CALL}"), work)
    deltas = [one["delta"] for one in choices]
    assert "".join(one.get("content") or "" for one in deltas) == "See: "
    calls = [call for one in deltas for call in one.get("tool_calls", ())]
    assert calls[0]["function"] == {"name": "add", "arguments": ""} and calls[0]["id"]
    assert all("id" not in one and one["index"] == 0 for one in calls[1:])
    assert "".join(one["function"]["arguments"] for one in calls) == '{"a": 1}'
    assert len(calls) > 2, "the arguments come as they are written"
    assert choices[-1]["finish_reason"] == "tool_calls" and choices[-1]["delta"] == {}


class Spaced(Pieces):
    """Writes exactly its text, three letters at a time."""

    async def complete(self, request: Any, on_text: Any = None, on_tokens: Any = None) -> Any:
        answer = await super().complete(request)
        for at in range(0, len(answer.text), 3):
            on_text(answer.text[at : at + 3], 1)
            await asyncio.sleep(0.002)
        return answer
