"""Calls of tools: how a model is told of its functions, held to their form, and read.

A call is written as Qwen's and Hermes' templates have it: a JSON object with ``name`` and
``arguments`` between ``<tool_call>`` and ``</tool_call>``; or, by models of code, as that object
alone. The grammar leaves a model free until it begins a call and forces that call to
the function's JSON schema, so what is read afterwards is well-formed by construction. Knows nothing
of HTTP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, TypeAlias

from edvac.processor.port import Message, Segment, Tools

BEGIN: Final = "<tool_call>"
END: Final = "</tool_call>"
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MOST_CALLS: Final = 16  # of one answer
_FENCE: Final = "```json\n"
_BARE: Final = re.compile(r'(?:```json\n)?\{\s*"name":\s*"([^"]+)",\s*"arguments": ')
_HEAD: Final = re.compile(r'\n\{"name": "([^"]+)", "arguments": ')
_TAIL: Final = "}\n" + END
_OPENING: Final = re.compile(r"\n*" + BEGIN)
_NOTHING: Final = {"type": "object", "properties": {}, "additionalProperties": False}
# Spaces as in `edvac.engine.grammar`, so that a call looks like those in the prompt.
_SPACING: Final = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
_INTRODUCTION: Final = (
    "You can call functions. Each line below describes one, with the JSON schema of its arguments:"
)
_FORM: Final = (
    "To call a function, write nothing but its name and arguments, in this form:\n"
    f'{BEGIN}\n{{"name": "function", "arguments": {{"parameter": "value"}}}}\n{END}'
)


# -- in the prompt -------------------------------------------------------------------------------


def knows_tools(template: str) -> bool:
    """Does a chat template show functions, and ask for calls in the form that is read here?"""
    return "tools" in template and BEGIN in template and "<function=" not in template


def described(function: dict[str, Any]) -> dict[str, Any]:
    """A function as templates expect it."""
    return {"type": "function", "function": function}


def as_text(messages: tuple[Message, ...], tools: Tools | None) -> tuple[Message, ...]:
    """The messages for a template that knows no tools: functions are described in the system's
    message, calls and results are texts."""
    found: list[Message] = []
    for role, group in groupby(messages, key=lambda one: one.role):
        if role == "tool":  # results belong together, as one turn of the user's
            parts = [Segment("\n"), *(part for one in group for part in _result(one))]
            found.append(Message("user", tuple(parts[1:-1])))
        else:
            found += [_with_calls(one) for one in group]
    if tools is None:
        return tuple(found)
    lines = [json.dumps(described(one), ensure_ascii=False) for one in tools.functions]
    about = Segment("\n".join((_INTRODUCTION, *lines, "", _FORM)))
    if found[:1] and found[0].role == "system":
        system = Message("system", (*found[0].segments, Segment("\n\n"), about))
        return (system, *found[1:])
    return (Message("system", (about,)), *found)


def _result(message: Message) -> tuple[Segment, ...]:
    return (
        Segment("<tool_response>\n"),
        *message.segments,
        Segment("\n</tool_response>"),
        Segment("\n"),
    )


def _with_calls(message: Message) -> Message:
    if not message.calls:
        return message
    calls = [
        Segment(
            f'{BEGIN}\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}\n{END}'
        )
        for call in message.calls
    ]
    parts = [*message.segments, *calls] if message.text else calls
    lines = [piece for part in parts for piece in (Segment("\n"), part)]
    return Message(message.role, tuple(lines[1:]))


# -- while decoding ------------------------------------------------------------------------------


def grammar(tools: Tools, control: Collection[str], schema: dict[str, Any] | None = None) -> str:
    """What an answer may be, in Lark's notation.

    Args:
        control: special tokens of the vocabulary; the marks of a call may be among them.
        schema: of an answer that is no call; None for free text.
    """
    begin, end = (_mark(one, control) for one in (BEGIN, END))
    named = [one for one in tools.functions if tools.choice in ("auto", "required", one["name"])]
    calls = ["body"]
    if tools.parallel and tools.choice in ("auto", "required"):
        calls.append(f'("\\n" begin body){{0,{MOST_CALLS - 1}}}')
    called = " ".join(calls)
    rules = [
        f"start: begin {called}",
        f"begin: {begin}",
        'body: "\\n{\\"name\\": \\"" call "}\\n" end',
        f"end: {end}",
        "call: " + "\n   | ".join(_arguments(one) for one in named),
    ]
    if tools.choice == "auto" and schema is not None:
        rules[0] = f"start: said | begin {called}"
        rules.append(f"said: %json {_json(schema)}")
    elif tools.choice == "auto":
        special = f" | TEXT {BEGIN}" if BEGIN in control else ""
        rules[0] = f"start: TEXT | bare | begun {called}"
        rules += [
            "bare: " + " | ".join(f'bare{at} "}}"' for at in range(len(named))),
            *(rule for at, one in enumerate(named) for rule in _bare(at, one)),
            f"begun: spelled{special}",
            f'spelled[lazy]: TEXT "{BEGIN}"',
            r"TEXT: /(.|\n)*/",
        ]
    return "\n".join(rules)


def _mark(name: str, control: Collection[str]) -> str:
    """A mark as text, or as the token that a vocabulary has for it; models have learnt the token,
    but some spell it out."""
    return f'"{name}" | {name}' if name in control else f'"{name}"'


def _arguments(function: dict[str, Any]) -> str:
    return f'"{function["name"]}\\", \\"arguments\\": " {_schema(function)}'


def _bare(at: int, function: dict[str, Any]) -> tuple[str, str]:
    name = re.escape(function["name"])
    head = rf'(```json\n)?\{{\s*"name":\s*"{name}",\s*"arguments":'
    return f'bare{at}: open{at} " " {_schema(function)}', f"open{at}[lazy]: /{head}/"


def _schema(function: dict[str, Any]) -> str:
    schema = function.get("parameters") or _NOTHING
    if schema.get("type") == "object" and "properties" in schema:
        # What is not described no function takes, though JSON schema lets it pass.
        schema = {"additionalProperties": False} | schema
    return f"%json {_json(schema)}"


def _json(schema: dict[str, Any]) -> str:
    return json.dumps({"x-guidance": _SPACING} | schema)


# -- afterwards ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """Text that is no call."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A call begins, the `index`-th of its answer."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class Argued:
    """More of the JSON text of the arguments of a call."""

    index: int
    text: str


Event: TypeAlias = Said | Called | Argued


@dataclass(slots=True)
class CallReader:
    """Tells calls from text in an answer as it comes, in pieces of any size.

    Args:
        names: of the functions that may be called.
    """

    names: Collection[str]
    calls: int = 0
    _rest: str = ""
    _inside: bool = False  # a call's arguments have begun
    _bare: bool | None = None  # is the answer one object? None while it may be
    _arguments: str = ""  # of a bare call

    def feed(self, text: str) -> Iterator[Event]:
        """What is certain now."""
        self._rest += text
        while (found := self._next()) is not None:
            yield found

    def finish(self) -> Iterator[Event]:
        """What is left of an answer that has ended; of a call that was cut off before its
        arguments nothing is."""
        rest, self._rest = self._rest, ""
        if self._inside and self._bare and _is_json(self._arguments):
            return
        if self._inside and rest:
            yield Argued(self.calls - 1, rest)
        elif not _OPENING.match(rest) and (rest.strip() or (rest and not self.calls)):
            yield Said(rest)

    def _next(self) -> Event | None:
        if self._bare is None:
            self._bare = may_be_bare(self._rest, self.names)
            if self._bare is None:
                return None
            if self._bare:
                return self._called(_BARE.match(self._rest))
        if self._inside:
            return self._argued_bare() if self._bare else self._argued()
        opening = _OPENING.search(self._rest)
        if opening is None:
            return self._said(len(self._rest) - _held(self._rest, BEGIN, "\n"))
        if opening.start() > 0:
            return self._said(opening.start())
        return self._called(_HEAD.match(self._rest, opening.end()))

    def _called(self, head: re.Match[str] | None) -> Event | None:
        if head is None:
            return None
        self._rest, self._inside = self._rest[head.end() :], True
        self.calls += 1
        return Called(self.calls - 1, head.group(1))

    def _said(self, size: int) -> Event | None:
        text, self._rest = self._rest[:size], self._rest[size:]
        return Said(text) if text else None

    def _argued(self) -> Event | None:
        end = self._rest.find(_TAIL)
        if end < 0:
            end = len(self._rest) - _held(self._rest, _TAIL)
            text, self._rest = self._rest[:end], self._rest[end:]
        else:
            text, self._rest = self._rest[:end], self._rest[end + len(_TAIL) :]
            self._inside = False
        if text:
            return Argued(self.calls - 1, text)
        return None if self._inside else self._next()

    def _argued_bare(self) -> Event | None:
        """All but the last brace, which may be the object's that the arguments are in."""
        end = len(self._rest) - self._rest.endswith("}")
        text, self._rest = self._rest[:end], self._rest[end:]
        self._arguments += text
        return Argued(self.calls - 1, text) if text else None


def may_be_bare(text: str, names: Collection[str]) -> bool | None:
    """Is an answer that begins so nothing but a call? None if that cannot be known yet."""
    head = _BARE.match(text)
    if head is not None:
        return head.group(1) in names
    text = text.removeprefix(_FENCE)
    if _FENCE.startswith(text):
        return None
    begun = "".join(text.split())
    heads = (f'{{"name":"{name}","arguments":' for name in names)
    return None if any(head.startswith(begun) for head in heads) else False


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def names_called(tools: Tools, text: str) -> list[str]:
    """The functions that a whole answer calls, in their order."""
    reader = CallReader({one["name"] for one in tools.functions})
    events = [*reader.feed(text), *reader.finish()]
    return [one.name for one in events if isinstance(one, Called)]


def _held(text: str, mark: str, before: str = "") -> int:
    """Length of the tail that may become `mark`, with what may stand `before` it."""
    sizes = range(min(len(mark) - 1, len(text)), 0, -1)
    size = next((one for one in sizes if text.endswith(mark[:one])), 0)
    head = text[: len(text) - size]
    return size + len(head) - len(head.rstrip(before))
