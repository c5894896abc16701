"""What the tests of `edvac.core` draw from: labels, data, values, types, and answers that fit."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from edvac.core.label import UNBOUNDED, Label
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
    Quoted,
    Record,
    TupleOf,
    Type,
)
from edvac.core.value import Failed, Instance, Mapping, Scalar, Sequence, Value

SOURCE = "In 2026 the price was 12.50, as it is said, true or not."

names = st.sampled_from(["user", "program", "file:a", "file:b", "model:m"])
principals = st.frozensets(names, max_size=3)
bits = st.sampled_from([0.0, 1.0, 2.5, 20.0, UNBOUNDED])
labels = st.builds(Label.of, principals, principals, st.none() | principals, bits)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
decimals = st.decimals(-(10**14), 10**14, places=2, allow_nan=False)
dates = st.dates()
atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | texts
    | dates
)
keys = texts | st.integers() | dates | st.none()
scalars = st.builds(Scalar, atoms, labels)
failures = st.builds(Failed, texts, texts, texts, labels)


def containers(parts: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    some = st.lists(parts, max_size=3).map(tuple)
    return (
        st.builds(Sequence, some, labels, st.booleans())
        | st.builds(Mapping, st.dictionaries(keys, parts, max_size=3), labels)
        | st.builds(
            Instance,
            st.sampled_from(["Row", "Item"]),
            st.dictionaries(texts, parts, max_size=3),
            labels,
        )
    )


values: st.SearchStrategy[Value] = st.recursive(scalars | failures, containers, max_leaves=8)
sound_values: st.SearchStrategy[Value] = st.recursive(scalars, containers, max_leaves=8)
data = st.recursive(
    atoms,
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.lists(parts, max_size=3).map(tuple)
        | st.dictionaries(keys, parts, max_size=3)
    ),
    max_leaves=8,
)

numbers = decimals | st.integers(-(10**14), 10**14)
OPTIONS = st.lists(st.sampled_from(["EUR", "none", "", 1, 7, True]), min_size=1, max_size=3)


def is_absent(found: Any) -> bool:
    """Would this text be read as *not stated*?"""
    return isinstance(found, str) and found.strip().lower() in ("", "null", "none", "not stated")


def answers(kind: Type) -> st.SearchStrategy[Any]:
    """JSON data that a model may answer for a type, as its schema has it."""
    match kind:
        case Choice():
            return st.sampled_from(kind.options)
        case Maybe():
            inner = answers(kind.item)
            return st.none() | (inner if isinstance(kind.item, Choice) else _stated(inner))
        case ListOf():
            return st.lists(answers(kind.item), max_size=3)
        case TupleOf():
            return st.tuples(*map(answers, kind.items)).map(list)
        case DictOf():
            return st.dictionaries(texts, answers(kind.item), max_size=3)
        case Quoted():
            quote = st.sampled_from(SOURCE.split())
            return st.fixed_dictionaries({"quote": quote, "value": answers(kind.item)})
        case Record():
            return st.fixed_dictionaries({part.name: answers(part.type) for part in kind.fields})
    return ATOMS[kind]


def _stated(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return inner.filter(lambda found: not is_absent(found))


ATOMS: dict[Type, st.SearchStrategy[Any]] = {
    ANY: st.none() | st.booleans() | numbers | texts,
    NONE: st.none(),
    BOOL: st.booleans(),
    INT: st.integers(-(10**999), 10**999),
    FLOAT: numbers.map(str),
    DECIMAL: numbers.map(str),
    STR: texts,
    DATE: dates.map(dt.date.isoformat),
}


def records(parts: st.SearchStrategy[Type]) -> st.SearchStrategy[Type]:
    fields = st.lists(
        st.builds(Field, st.sampled_from("abc"), parts, st.sampled_from(["", "why"])),
        max_size=3,
        unique_by=lambda part: part.name,
    )
    return st.builds(Record, st.sampled_from(["Row", "Item"]), fields.map(tuple))


atomic: st.SearchStrategy[Type] = st.sampled_from(list(ATOMS)) | st.builds(
    Choice, OPTIONS.map(lambda found: tuple(dict.fromkeys(found)))
)

types: st.SearchStrategy[Type] = st.recursive(
    atomic,
    lambda parts: (
        st.builds(ListOf, parts)
        | st.builds(DictOf, parts)
        | st.builds(TupleOf, st.lists(parts, max_size=3).map(tuple))
        | st.builds(Maybe, parts)
        | st.builds(Quoted, parts)
        | records(parts)
    ),
    max_leaves=5,
)


@st.composite
def answered(draw: st.DrawFn) -> tuple[Type, Any]:
    """A type and data that fits it."""
    kind = draw(types)
    return kind, draw(answers(kind))


def same(left: Any, right: Any) -> bool:
    """Equal data of equal types, in the same order; what a digest tells apart."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return str(left) == str(right) if isinstance(left, Decimal) else bool(left == right)
