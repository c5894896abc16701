"""The OpenAI form of a chat, in and out: a request's JSON as `Request`s, answers as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from edvac.processor import Answer, Message, Request, Sampling, Segment, Token, ToolCall, Tools
from edvac.processor.tools import NAME, Argued, Called, CallReader, Said
from edvac.serve.events import DONE
from edvac.serve.forms import (
    Asked,
    Envelope,
    finish_of,
    logprobs_of,
    timings_of,
    usage_of,
)
from edvac.serve.reading import (
    ANY_OBJECT,
    MOST_LOGPROBS,
    Common,
    Model,
    adapter_of,
    answers_of,
    check_model,
    check_schema,
    decode,
    in_range,
    lark_of,
    malformed,
    reader_of,
    sampling_of,
    stops_of,
    unserved,
    usage_wanted,
    whole,
)

ROLES = ("system", "developer", "user", "assistant", "tool")
MOST_TOOLS = 128
PLAIN = Sampling()


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] = "{}"


class _Call(msgspec.Struct):
    function: _Function
    id: str = ""


class _Said(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str = ""


class _Body(Common, kw_only=True):
    messages: list[_Said]
    max_completion_tokens: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


def read_chat(data: bytes, model: Model, number: int, envelope: Envelope) -> Asked:
    """
    Args:
        data: body of the HTTP request.
        number: of this call; makes its name, and its seed where the client gives none.

    Raises:
        UsageError: it is no chat, or asks for something that is not served.
    """
    body = decode(data, _Body)
    check_model(body.model, model)
    count, tools = answers_of(body), _tools(body)
    messages, prefill = _messages(body.messages)
    schema, lark = _shape(body)
    if tools is not None and (lark is not None or body.logprobs):
        raise unserved("grammar or logprobs together with tools")
    most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    request = Request(
        run=f"serve-{number}",
        goes_on=True,
        slot="",
        messages=messages,
        prefill=prefill,
        schema=schema,
        lark=lark,
        max_tokens=min(whole("max_tokens", most, 1, math.inf, model.context), model.context),
        temperature=in_range("temperature", body.temperature, 0, 2, 1.0),
        seed=number if body.seed is None else body.seed & 0x7FFFFFFF,
        stop=stops_of(body),
        reader_class=reader_of(body, number),
        tools=tools,
        sampling=sampling_of(body, model, PLAIN),
        fit=True,
        report=bool(body.logprobs),
        logprobs=_logprobs(body),
        adapter=adapter_of(body, model),
    )
    names = tuple(one["name"] for one in tools.functions) if tools else ()
    form = ChatForm(envelope, count, usage_wanted(body), names, request.report)
    many = tuple(replace(request, seed=request.seed + at & 0x7FFFFFFF) for at in range(count))
    return Asked(many, form, bool(body.stream), body.user or "")


def _logprobs(body: _Body) -> int:
    if not body.logprobs:
        if body.top_logprobs:
            raise malformed("top_logprobs needs logprobs")
        return -1
    return whole("top_logprobs", body.top_logprobs, 0, MOST_LOGPROBS, 0)


def _messages(said: list[_Said]) -> tuple[tuple[Message, ...], str]:
    """Messages, and the beginning of the answer where the last one is the assistant's."""
    made: list[Message] = []
    called: list[str] = []  # names of the calls of the message before
    results: dict[str, Message] = {}
    for one in said:
        if one.role not in ROLES:
            raise unserved(f"a message of role {one.role!r}")
        if one.role == "tool":
            _take_result(one, called, results)
            continue
        made += _in_order(called, results)
        calls = tuple(_call(call) for call in one.tool_calls or ())
        called, results = [call.id or str(at) for at, call in enumerate(calls)], {}
        if len(set(called)) < len(called) or (calls and one.role != "assistant"):
            raise malformed("calls are the assistant's, each with an id of its own")
        role = "system" if one.role == "developer" else one.role
        made.append(Message(role, (Segment(_text(one.content)),), calls))
    made += _in_order(called, results)
    if not made:
        raise malformed("messages is empty")
    prefill = made.pop().text if made[-1].role == "assistant" else ""
    if not made or made[-1].role == "assistant":
        raise malformed("there is nothing to answer")
    return tuple(made), prefill


def _in_order(called: list[str], results: dict[str, Message]) -> list[Message]:
    """The results of calls. Templates tell them apart by their order alone, and clients may give
    them in another."""
    if len(results) < len(called):
        raise malformed("the result of a call is missing")
    return [results[name] for name in called]


def _take_result(one: _Said, called: list[str], results: dict[str, Message]) -> None:
    free = [name for name in called if name not in results]
    name = one.tool_call_id or next(iter(free), "")
    if name not in free:
        raise malformed("a message of role tool answers no call of the assistant's before it")
    results[name] = Message("tool", (Segment(_text(one.content)),))


def _call(call: _Call) -> ToolCall:
    given = call.function.arguments
    if not NAME.fullmatch(call.function.name):
        raise malformed(f"{call.function.name!r} is no name of a function")
    try:
        arguments = msgspec.json.decode(given) if isinstance(given, str) else given
    except (msgspec.DecodeError, RecursionError) as problem:
        raise malformed("the arguments of a call are no JSON", str(problem)) from problem
    if not isinstance(arguments, dict):
        raise malformed("the arguments of a call are no object")
    check_schema(arguments)
    return ToolCall(call.function.name, msgspec.json.encode(arguments).decode(), call.id)


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, str):
        return content
    parts = []
    for part in content or ():
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise unserved("content other than text")
        parts.append(part["text"])
    return "\n".join(parts)  # as llama.cpp and vLLM have it


def _tools(body: _Body) -> Tools | None:
    """The functions that may be called; None where there are none, or none is to be called."""
    functions = tuple(_function(one) for one in body.tools or ())
    names = [one["name"] for one in functions]
    if len(set(names)) < len(names) or len(names) > MOST_TOOLS:
        raise malformed(f"tools has at most {MOST_TOOLS} functions, each with a name of its own")
    choice = body.tool_choice or "auto"
    if isinstance(choice, dict):
        named = choice.get("function")
        choice = named.get("name", "") if isinstance(named, dict) else ""
        if choice not in names:
            raise malformed("tool_choice names none of the tools")
    elif choice not in ("none", "auto", "required"):
        raise malformed("tool_choice is none of none, auto, required and a function")
    elif choice == "required" and not names:
        raise malformed("tool_choice is required, and there are no tools")
    if not functions or choice == "none":
        return None
    return Tools(functions, choice, body.parallel_tool_calls is not False)


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        raise unserved("a tool other than a function")
    name, about = function.get("name"), function.get("description", "")
    parameters = function.get("parameters")
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in ("auto", "required"):
        raise malformed("a function has a name of letters, digits, ., _ and -, at most 64")
    if not isinstance(about, str | None) or not isinstance(parameters, dict | None):
        raise malformed("description is a text and parameters a JSON schema")
    found: dict[str, Any] = {"name": name}
    if about:
        found["description"] = about
    if parameters is not None:
        found["parameters"] = check_schema(parameters)
    return found


def _shape(body: _Body) -> tuple[dict[str, Any] | None, str | None]:
    """JSON schema or Lark grammar that the answer is decoded under."""
    wanted = body.response_format or {"type": "text"}
    if body.grammar is not None:
        return None, lark_of(body.grammar)
    if body.json_schema is not None:
        return check_schema(body.json_schema), None
    match wanted.get("type"):
        case "text":
            return None, None
        case "json_object":
            schema = wanted.get("schema", ANY_OBJECT)
        case "json_schema":
            named = wanted.get("json_schema")
            schema = named.get("schema") if isinstance(named, dict) else None
        case _:
            schema = None
    if not isinstance(schema, dict):
        raise malformed("response_format is none of text, json_object and a schema")
    return check_schema(schema), None


# -- answers -------------------------------------------------------------------------------------


@dataclass(slots=True)
class ChatForm:
    """
    Args:
        count: answers to the one prompt.
        usage: is the cost sent behind a stream?
        names: of the functions that may be called in the text.
    """

    envelope: Envelope
    count: int
    usage: bool
    names: tuple[str, ...]
    report: bool
    last: bytes = DONE
    _readers: dict[int, CallReader] = field(default_factory=dict)

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        choices = [self._choice(at, answer) for at, answer in enumerate(answers)]
        document = self.envelope.around("chat.completion", choices)
        return document | {
            "usage": usage_of(answers, self.count),
            "timings": timings_of(answers[0]),
        }

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        finish = finish_of(answer)
        if self.names:
            reader = CallReader(self.names)
            events = [*reader.feed(answer.text), *reader.finish()]
            said = "".join(one.text for one in events if isinstance(one, Said))
            calls = [one for one in events if isinstance(one, Called)]
            message["content"] = said or None if calls else said
            if calls:
                made = [self._called(index, one) for one in calls]
                for one in events:
                    if isinstance(one, Argued):
                        made[one.index]["function"]["arguments"] += one.text
                message["tool_calls"] = made
                finish = "tool_calls" if finish == "stop" else finish
        choice = {"index": index, "message": message, "finish_reason": finish}
        if self.report:
            choice["logprobs"] = {"content": logprobs_of(answer.tokens), "refusal": None}
        return choice

    def begun(self) -> Iterator[dict[str, Any]]:
        for index in range(self.count):
            yield self._part(index, {"role": "assistant", "content": None})

    def piece(self, index: int, text: str, tokens: tuple[Token, ...]) -> Iterator[dict[str, Any]]:
        if self.names:
            reader = self._readers.setdefault(index, CallReader(self.names))
            yield from self._read(index, reader.feed(text))
        elif text or tokens:
            yield self._part(index, {"content": text}, tokens=tokens)

    def ended(self, index: int, answer: Answer) -> Iterator[dict[str, Any]]:
        finish = finish_of(answer)
        if self.names:
            reader = self._readers.setdefault(index, CallReader(self.names))
            yield from self._read(index, reader.finish())
            finish = "tool_calls" if reader.calls and finish == "stop" else finish
        document = self._part(index, {}, finish)
        if not self.usage and index == self.count - 1:
            document["timings"] = timings_of(answer)
        yield document

    def over(self, answers: Sequence[Answer]) -> Iterator[dict[str, Any]]:
        if self.usage:
            document = self.envelope.around("chat.completion.chunk", [])
            yield document | {
                "usage": usage_of(answers, self.count),
                "timings": timings_of(answers[0]),
            }

    def _read(self, index: int, events: Iterator[Any]) -> Iterator[dict[str, Any]]:
        for one in events:
            match one:
                case Said(text):
                    yield self._part(index, {"content": text})
                case Called(at):
                    call = {"index": at} | self._called(index, one)
                    yield self._part(index, {"tool_calls": [call]})
                case Argued(at, text):
                    more = {"index": at, "function": {"arguments": text}}
                    yield self._part(index, {"tool_calls": [more]})

    def _called(self, index: int, call: Called) -> dict[str, Any]:
        name = f"call_{self.envelope.id.rpartition('-')[2]}_{index}_{call.index}"
        function = {"name": call.name, "arguments": ""}
        return {"id": name, "type": "function", "function": function}

    def _part(
        self,
        index: int,
        delta: dict[str, Any],
        finish: str | None = None,
        tokens: tuple[Token, ...] = (),
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": finish}
        if self.report and "content" in delta:
            choice["logprobs"] = {"content": logprobs_of(tokens), "refusal": None}
        return self.envelope.around("chat.completion.chunk", [choice])
