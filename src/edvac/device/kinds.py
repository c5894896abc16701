"""Types of the language from Python's hints and from JSON schemas.

What neither can say is `any`: the operands are looked at when they are there. Knows nothing of
devices.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import types
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from edvac.core.schema import (
    ANY,
    BOOL,
    DATE,
    DECIMAL,
    FLOAT,
    INT,
    NONE,
    STR,
    Choice,
    DictOf,
    Field,
    ListOf,
    Maybe,
    Record,
    TupleOf,
    Type,
)

ATOMS: dict[Any, Type] = {
    bool: BOOL,
    int: INT,
    float: FLOAT,
    Decimal: DECIMAL,
    str: STR,
    dt.date: DATE,
    type(None): NONE,
    None: NONE,
    list: ListOf(ANY),
    dict: DictOf(ANY),
}
JSON: dict[str, Type] = {
    "boolean": BOOL,
    "integer": INT,
    "number": FLOAT,
    "string": STR,
    "null": NONE,
    "object": DictOf(ANY),
    "array": ListOf(ANY),
}


def of_hint(hint: Any) -> Type:
    """The type that a Python annotation means."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        parts = (Field(part.name, of_hint(hints[part.name])) for part in dataclasses.fields(hint))
        return Record(hint.__name__, tuple(parts))
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal and all(isinstance(one, str | int | bool) for one in args):
        return Choice(args)
    if origin in (Union, types.UnionType):
        rest = [one for one in args if one is not type(None)]
        return Maybe(of_hint(rest[0])) if len(rest) == 1 and len(args) == 2 else ANY
    if origin is list:
        return ListOf(of_hint(args[0]))
    if origin is dict and args[0] is str:
        return DictOf(of_hint(args[1]))
    if origin is tuple and ... not in args:
        return TupleOf(tuple(map(of_hint, args)))
    return ATOMS.get(hint, ANY) if origin is None and _hashable(hint) else ANY


def of_schema(schema: Mapping[str, Any]) -> Type:
    """The type that a JSON schema means; references and mixtures are `any`."""
    options = schema.get("enum")
    if options and all(isinstance(one, str | int | bool) for one in options):
        return Choice(tuple(options))
    if either := schema.get("anyOf"):
        rest = [one for one in either if one.get("type") != "null"]
        return Maybe(of_schema(rest[0])) if len(rest) == 1 and len(either) == 2 else ANY
    if schema.get("type") == "array":
        return ListOf(of_schema(schema.get("items", {})))
    kind = schema.get("type")
    return JSON.get(kind, ANY) if isinstance(kind, str) else ANY


def _hashable(hint: Any) -> bool:
    return getattr(type(hint), "__hash__", None) is not None
