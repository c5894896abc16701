"""Types of an app's tools: what a JSON schema means here, and the form in which a type is kept.

A schema is a stranger's text: it is read to a small depth, only words become names or options, and
what it says beyond that is not read at all. What cannot be said in the language's types is `any`
for an operand, and a text for a result. Knows nothing of tools.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Mapping
from typing import Any

from edvac.core.errors import ConfigError, ProgramError
from edvac.core.schema import (
    ANY,
    DATE,
    Choice,
    DictOf,
    Field,
    ListOf,
    Maybe,
    Plain,
    Record,
    TupleOf,
    Type,
    show,
)
from edvac.device.kinds import JSON
from edvac.program.annotate import read_type

DEEPEST = 6  # schemas within schemas
FIELDS, OPTIONS = 40, 100
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_OPTION = re.compile(r"[\w.:+/-]{1,40}")
_PLAIN = frozenset({"any", "None", "bool", "int", "float", "Decimal", "str", "date"})


def word(said: object) -> str:
    """A stranger's name as one of the language, ``from`` as ``from_``; empty where it is none.

    Long enough for a function, too short for a sentence.
    """
    made = re.sub(r"[-./]", "_", said) if isinstance(said, str) else ""
    made = f"{made}_" if keyword.iskeyword(made) else made
    return made if _NAME.fullmatch(made) else ""


def of_schema(schema: object, name: str, depth: int = 0) -> Type:
    """The type that a JSON schema means; `name` is what a record in it is called."""
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return ANY
    if "enum" in schema:
        return _choice(schema["enum"])
    either = schema.get("anyOf")
    if isinstance(either, list) and len(either) == 2:
        rest = [one for one in either if not _is_null(one)]
        return _maybe(of_schema(rest[0], name, depth + 1)) if len(rest) == 1 else ANY
    kind = schema.get("type")
    if isinstance(kind, list) and len(kind) == 2 and "null" in kind:
        (rest_kind,) = [one for one in kind if one != "null"] or ["null"]
        return _maybe(of_schema({**schema, "type": rest_kind}, name, depth + 1))
    if kind == "array":
        return ListOf(of_schema(schema.get("items"), name, depth + 1))
    if kind == "object":
        return _object(schema, name, depth)
    if kind == "string" and schema.get("format") == "date":
        return DATE
    return JSON.get(kind, ANY) if isinstance(kind, str) else ANY


def _maybe(kind: Type) -> Type:
    return kind if isinstance(kind, Maybe) or kind == ANY else Maybe(kind)


def _is_null(schema: object) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "null"


def _choice(options: object) -> Type:
    if not isinstance(options, list) or not 0 < len(options) <= OPTIONS:
        return ANY
    if all(isinstance(one, str) and _OPTION.fullmatch(one) for one in options):
        return Choice(tuple(options))
    whole = all(isinstance(one, int) and not isinstance(one, bool) for one in options)
    return Choice(tuple(options)) if whole else ANY


def _object(schema: Mapping[str, Any], name: str, depth: int) -> Type:
    fields, needed = schema.get("properties"), schema.get("required", [])
    if not isinstance(fields, Mapping) or not 0 < len(fields) <= FIELDS:
        return DictOf(of_schema(schema.get("additionalProperties"), name, depth + 1))
    if not isinstance(needed, list) or not all(word(key) == key for key in fields):
        return DictOf(ANY)
    parts = []
    for key, part in fields.items():
        kind = of_schema(part, f"{name}{key.title().replace('_', '')}"[:40], depth + 1)
        parts.append(Field(key, kind if key in needed else _maybe(kind)))
    return Record(name, tuple(parts))


def open_parts(kind: Type) -> bool:
    """Is there an `any` in it?"""
    match kind:
        case Plain("any"):
            return True
        case ListOf() | DictOf() | Maybe():
            return open_parts(kind.item)
        case TupleOf():
            return any(map(open_parts, kind.items))
        case Record():
            return any(open_parts(part.type) for part in kind.fields)
    return False


def written(text: str) -> Type:
    """The type that a person writes, as in a program.

    Raises:
        ConfigError: it is none, or one of a program's own records.
    """
    try:
        return read_type(ast.parse(text, mode="eval").body, {})
    except (ProgramError, SyntaxError, ValueError, RecursionError) as problem:
        why = problem.what if isinstance(problem, ProgramError) else "it cannot be read"
        raise ConfigError(
            "app_type",
            f"{text[:60]!r} is no type of a result",
            f"{why[0].upper()}{why[1:]}.",
            'Write float, Decimal, list[str] or Literal["yes", "no"], for example.',
        ) from None


def shown(kind: Type) -> str:
    """The type for a person, a record with its fields."""
    return show(kind, fields=True)


def filled(data: Any, kind: Type) -> Any:
    """JSON data with nothing for each field that may be left out, and is."""
    match kind:
        case Maybe():
            return filled(data, kind.item)
        case ListOf() if isinstance(data, list):
            return [filled(one, kind.item) for one in data]
        case DictOf() if isinstance(data, dict):
            return {key: filled(one, kind.item) for key, one in data.items()}
        case Record() if isinstance(data, dict):
            left_out = [f.name for f in kind.fields if isinstance(f.type, Maybe)]
            kinds = {part.name: part.type for part in kind.fields}
            made = dict.fromkeys(left_out) | data
            return {key: filled(one, kinds.get(key, ANY)) for key, one in made.items()}
    return data


def stored(kind: Type) -> Any:
    """The form in which a type is kept, as JSON."""
    match kind:
        case Plain():
            return kind.name
        case Choice():
            return {"options": list(kind.options)}
        case ListOf():
            return {"list": stored(kind.item)}
        case DictOf():
            return {"dict": stored(kind.item)}
        case Maybe():
            return {"maybe": stored(kind.item)}
        case TupleOf():
            return {"tuple": [stored(one) for one in kind.items]}
        case Record():
            return {"record": kind.name, "fields": [[f.name, stored(f.type)] for f in kind.fields]}
    raise ConfigError("app_type", f"{shown(kind)} is no type of a result")


def restored(form: Any) -> Type:
    """A type from its kept form.

    Raises:
        ValueError: it is none.
    """
    match form:
        case str() if form in _PLAIN:
            return Plain(form)
        case {"options": [_, *_] as options}:
            return Choice(tuple(options))
        case {"list": inner}:
            return ListOf(restored(inner))
        case {"dict": inner}:
            return DictOf(restored(inner))
        case {"maybe": inner}:
            return Maybe(restored(inner))
        case {"tuple": [*items]}:
            return TupleOf(tuple(map(restored, items)))
        case {"record": str() as name, "fields": [*fields]}:
            return Record(name, tuple(Field(key, restored(part)) for key, part in fields))
    raise ValueError("this is no type")
