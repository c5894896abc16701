"""What an endpoint can do, found out once by trying and kept in the user's cache.

An ability is believed when the endpoint has shown it: asked for an answer under a schema or a
grammar that it would never give of itself, it gives it. The record belongs to one address and one
model, and to the weights behind that name: when these change it is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import platformdirs

from edvac.processor.clean import fenced_json, without_thinking
from edvac.processor.gbnf import from_lark
from edvac.processor.product import OTHER, VLLM, Served
from edvac.processor.web import get, rows, text

VERSION = 1
Notation: TypeAlias = Literal["", "lark", "gbnf"]
MAX_AGE_S = 30 * 86400.0
MAX_RECORD = 64 * 1024  # bytes
PROBE_TOKENS = 48
THINKING_TOKENS = 1024  # for a probe of a model that thinks first
_WORD = "edvac-7319"
PROBE = "Say hello."  # asked first
_HELLO = [{"role": "user", "content": PROBE}]


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint's abilities with one model.

    Attributes:
        mark: of the weights, as the server tells them apart; empty where it does not.
        answers_as: the model's name in its answers.
        schema: decodes under a JSON schema.
        grammar: the notation in which it takes a grammar to decode under; empty is none.
        tools: can call tools.
        thinks: thinks before it answers, which costs tokens of the answer.
        context: tokens that one request has room for; 0 where it is not known.
        slots: requests computed at once; 0 where it is not known.
        probed: when, in seconds since 1970.
    """

    version: int = VERSION
    product: str = OTHER
    mark: str = ""
    answers_as: str = ""
    schema: bool = False
    grammar: Notation = ""
    tools: bool = False
    thinks: bool = False
    context: int = 0
    slots: int = 0
    probed: float = 0.0

    def holds(self, served: Served | None, now: float) -> bool:
        """Is the record still about what is there?

        Args:
            served: what the server says of the model now.
            now: wall-clock seconds.
        """
        changed = served is not None and served.mark != self.mark
        return 0 <= now - self.probed < MAX_AGE_S and not changed

    def of(self, served: Served) -> Abilities:
        """The same for other weights, unproven."""
        return msgspec.structs.replace(self.updated(served), mark=served.mark, probed=0.0)

    def updated(self, served: Served | None) -> Abilities:
        """With what a server may be given anew without being another one."""
        if served is None:
            return self
        return msgspec.structs.replace(
            self, context=served.context or self.context, slots=served.slots or self.slots
        )


UNPROVEN = Abilities(schema=True)  # a schema is sent on the chance

# Posts the messages with these further parts of the body; None where that is refused.
Ask = Callable[[dict[str, Any]], Awaitable[Any | None]]


async def probe(ask: Ask, kind: str, served: Served | None, now: float) -> Abilities | None:
    """Try each ability; None where not even a plain answer came.

    Args:
        ask: one call of the endpoint.
        kind: the product behind it.
        served: what the server says of the model.
        now: wall-clock seconds.
    """
    plain = await ask(_body())
    message = get(plain, "choices", 0, "message")
    if not isinstance(message, dict):
        return None
    content = text(message, "content")
    thinks = bool(_thoughts(message)) or without_thinking(content) != content
    tokens = THINKING_TOKENS if thinks else PROBE_TOKENS
    schema = await ask(_body(tokens, response_format=schema_format(_SCHEMA)))
    grammar = await _notation(ask, kind, tokens)
    tools = served.tools if served is not None else None
    if tools is None:
        called = await ask(_body(tokens, tools=[_TOOL], tool_choice="required"))
        tools = bool(rows(called, "choices", 0, "message", "tool_calls"))
    return Abilities(
        product=kind,
        mark=served.mark if served is not None else "",
        answers_as=text(plain, "model"),
        schema=_is_word(_content(schema)),
        grammar=grammar,
        tools=tools,
        thinks=thinks,
        context=served.context if served is not None else 0,
        slots=served.slots if served is not None else 0,
        probed=now,
    )


async def _notation(ask: Ask, kind: str, tokens: int) -> Notation:
    """The first notation in which it decodes under a grammar: Lark says more."""
    notations: tuple[Literal["lark", "gbnf"], ...] = ("lark", "gbnf")
    for notation in notations:
        answer = await ask(_body(tokens, **grammar_part(kind, notation, _LARK)))
        if _content(answer) == _WORD:
            return notation
    return ""


_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": [_WORD]}},
    "required": ["answer"],
    "additionalProperties": False,
}
_LARK = 'start: "edvac-" NUMBER\nNUMBER: /7319/\n'
_TOOL = {
    "type": "function",
    "function": {
        "name": "say",
        "description": "Say a word.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string"}},
            "required": ["word"],
        },
    },
}


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    """The part of a request that asks for an answer under a JSON schema."""
    named = {"name": "answer", "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": named}


def grammar_part(kind: str, notation: Literal["lark", "gbnf"], lark: str) -> dict[str, Any]:
    """The parts of a request that ask for an answer under a Lark grammar."""
    text = lark if notation == "lark" else from_lark(lark)
    if kind == VLLM:
        return {"structured_outputs": {"grammar": text}}
    return {"grammar": f"%llguidance {{}}\n{lark}" if notation == "lark" else text}


def _body(tokens: int = PROBE_TOKENS, **parts: Any) -> dict[str, Any]:
    return {"messages": _HELLO, "max_tokens": tokens, "temperature": 0.0, **parts}


def _content(answer: Any | None) -> str:
    return without_thinking(text(answer, "choices", 0, "message", "content")).strip()


def _thoughts(message: dict[str, Any]) -> str:
    return text(message, "reasoning_content") or text(message, "reasoning")


def _is_word(content: str) -> bool:
    try:
        found = msgspec.json.decode(fenced_json(content))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return bool(found == {"answer": _WORD})


# -- the record ---------------------------------------------------------------------------------


def cache_dir() -> Path:
    return Path(platformdirs.user_cache_dir("edvac")) / "endpoints"


def _path(directory: Path, base: str, model: str) -> Path:
    name = hashlib.blake2b(f"{base}#{model}".encode(), digest_size=16).hexdigest()
    return directory / f"{name}.json"


def recall(directory: Path, base: str, model: str) -> Abilities | None:
    """The record of an endpoint; None where there is none that can be used."""
    try:
        with _path(directory, base, model).open("rb") as file:
            found = msgspec.json.decode(file.read(MAX_RECORD), type=Abilities)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if found.version == VERSION else None


def keep(directory: Path, base: str, model: str, found: Abilities) -> None:
    """Write the record; a cache that cannot be written costs a probe the next time, no more."""
    path = _path(directory, base, model)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(found))
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()


def forget(directory: Path) -> None:
    """Forget every record, so that each endpoint is probed again when it is next used."""
    for path in directory.glob("*.json"):
        path.unlink(missing_ok=True)
