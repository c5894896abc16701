"""The OpenAI form of a chat, in and out: a request's JSON as a `Request`, answers as JSON.

What a client asks for and does not get is an error, never passed over: several answers at once,
tools, logprobs. Fields that only tune what is not there (``user``, ``metadata``) are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from edvac.core.errors import EdvacError, OperandError, ProcessorError, UsageError
from edvac.processor import Answer, Message, Request, Segment

LONGEST_BODY = 32 << 20  # bytes
ROLES = ("system", "developer", "user", "assistant")
LARK = "%llguidance {}\n"  # how llama.cpp's server tells a Lark grammar from its own
UNSERVED = ("tools", "functions", "logprobs", "audio", "logit_bias")
ANY_OBJECT: dict[str, Any] = {"type": "object"}


class _Said(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None


class _Stream(msgspec.Struct):
    include_usage: bool = False


class _Body(msgspec.Struct):
    model: str
    messages: list[_Said]
    temperature: float = 1.0
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: _Stream | None = None
    response_format: dict[str, Any] | None = None
    grammar: str | None = None
    n: int = 1


@dataclass(frozen=True, slots=True)
class Chat:
    """One call as a client wants it.

    Attributes:
        stream: are parts of the answer sent as they come, and `usage` behind them?
    """

    request: Request
    stream: bool
    usage: bool


def read_chat(data: bytes, model: str, context: int, number: int) -> Chat:
    """
    Args:
        data: body of the HTTP request.
        model: the one that is served.
        context: tokens that it has room for.
        number: of this call; makes its name, and its seed where the client gives none.

    Raises:
        UsageError: it is not a chat, or asks for something that is not served.
    """
    try:
        body = msgspec.json.decode(data, type=_Body)
        extra = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise UsageError("request_malformed", "the request is no chat", str(problem)) from problem
    if body.model != model:
        fix = f"Name {model}; /v1/models lists it."
        raise UsageError("model_not_found", f"{body.model!r} is not served here", "", fix)
    for name in UNSERVED:
        if extra.get(name):
            raise UsageError("request_unserved", f"{name} is not served", "", f"Leave {name} out.")
    if body.n != 1:
        raise UsageError("request_unserved", "one answer a request is served", "", "Leave n out.")
    messages, prefill = _messages(body.messages)
    most = body.max_completion_tokens or body.max_tokens
    if (most is not None and most < 1) or not 0 <= body.temperature <= 2:
        raise UsageError("request_malformed", "max_tokens is at least 1, temperature from 0 to 2")
    schema, lark = _shape(body)
    request = Request(
        run=f"serve-{number}",
        slot="",
        messages=messages,
        prefill=prefill,
        schema=schema,
        lark=lark,
        max_tokens=min(most or context, context),
        temperature=body.temperature,
        seed=number if body.seed is None else body.seed & 0x7FFFFFFF,
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
    )
    usage = body.stream_options is not None and body.stream_options.include_usage
    return Chat(request, body.stream, usage)


def _messages(said: list[_Said]) -> tuple[tuple[Message, ...], str]:
    """Messages, and the beginning of the answer where the last one is the assistant's."""
    made: list[Message] = []
    for one in said:
        if one.role not in ROLES:
            raise UsageError("request_unserved", f"there is no role {one.role!r} here")
        role = "system" if one.role == "developer" else one.role
        made.append(Message(role, (Segment(_text(one.content)),)))
    if not made:
        raise UsageError("request_malformed", "messages is empty")
    prefill = made.pop().text if made[-1].role == "assistant" else ""
    if not made:
        raise UsageError("request_malformed", "there is nothing to answer")
    return tuple(made), prefill


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, str):
        return content
    parts = []
    for part in content or ():
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise UsageError("request_unserved", "only texts are served as content")
        parts.append(part["text"])
    return "".join(parts)


def _shape(body: _Body) -> tuple[dict[str, Any] | None, str | None]:
    """JSON schema or Lark grammar that the answer is decoded under."""
    wanted = body.response_format or {"type": "text"}
    if body.grammar is not None:
        if not body.grammar.startswith(LARK):
            fix = f"Begin it with {LARK.strip()!r} and a new line."
            raise UsageError("request_unserved", "grammars are in Lark's notation", "", fix)
        return None, body.grammar.removeprefix(LARK)
    match wanted.get("type"):
        case "text":
            return None, None
        case "json_object":
            return ANY_OBJECT, None
        case "json_schema":
            named = wanted.get("json_schema")
            schema = named.get("schema") if isinstance(named, dict) else None
            if isinstance(schema, dict):
                return schema, None
    raise UsageError(
        "request_malformed", "response_format is none of text, json_object and a schema"
    )


# -- answers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Envelope:
    """What stands around every answer to one call."""

    id: str
    model: str
    created: int  # seconds since 1970

    def whole(self, answer: Answer) -> dict[str, Any]:
        said = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": said, "finish_reason": _finish(answer)}
        return self._around("chat.completion", [choice]) | {"usage": _usage(answer)}

    def begun(self) -> dict[str, Any]:
        return self._part({"role": "assistant", "content": ""})

    def piece(self, text: str) -> dict[str, Any]:
        return self._part({"content": text})

    def ended(self, answer: Answer, *, usage: bool) -> Iterator[dict[str, Any]]:
        yield self._part({}, _finish(answer))
        if usage:
            yield self._around("chat.completion.chunk", []) | {"usage": _usage(answer)}

    def _part(self, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return self._around("chat.completion.chunk", [choice])

    def _around(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        about = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return about | {"choices": choices}


def _finish(answer: Answer) -> str:
    return "length" if answer.finish == "length" else "stop"


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }


def refusal(error: EdvacError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an error, as OpenAI clients read them."""
    status, kind = 500, "server_error"
    if isinstance(error, UsageError | OperandError):
        missing = error.code == "model_not_found"
        status, kind = 404 if missing else 400, "invalid_request_error"
    elif isinstance(error, ProcessorError):
        status, kind = 503, "server_error"
    code = "context_length_exceeded" if error.code == "operand_too_large" else error.code
    return status, {"error": {"message": str(error), "type": kind, "param": None, "code": code}}
