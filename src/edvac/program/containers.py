"""Reading and changing containers by their shape: elements are passed along, known or not.

Changing makes a new version; what decides *where* or *whether* something changes goes into the
label of the shape (rule 3). Knows nothing of syntax.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from edvac.core.label import Label, combine
from edvac.core.prefix import replaced
from edvac.core.value import (
    Cell,
    Failed,
    Instance,
    Mapping,
    Operand,
    Scalar,
    Sequence,
    Value,
    settle,
)
from edvac.program.data import key_refused, python

DATE_PARTS = ("year", "month", "day")


class Pending(Exception):
    """A container on the way to the place that changes is not known yet."""

    def __init__(self, cell: Cell) -> None:
        super().__init__("pending")
        self.cell = cell


def truth(value: Value) -> bool:
    """Python's truth of a value; of a container by its length alone."""
    match value:
        case Scalar():
            return bool(value.data)
        case Sequence():
            return bool(value.items)
        case Mapping():
            return bool(value.entries)
    return True


def elements(value: Value) -> list[Operand]:
    """What a loop over the value visits.

    Raises:
        TypeError: it cannot be looped over.
    """
    match value:
        case Sequence():
            return list(value.items)
        case Mapping():
            return [Scalar(key, value.label) for key in value.entries]
        case Scalar() if isinstance(value.data, str):
            return [Scalar(sign, value.label) for sign in value.data]
        case Scalar():
            raise TypeError(f"a {type(value.data).__name__} cannot be looped over")
    raise TypeError("a record cannot be looped over")


def item(holder: Value, key: Value) -> Operand:
    """``holder[key]`` without labels of shape and key."""
    match holder, key:
        case Sequence(), Scalar():
            return holder.items[_index(key)]  # type: ignore[no-any-return]
        case Mapping(), Scalar():
            return holder.entries[key.data]  # type: ignore[no-any-return]
        case Scalar(), Scalar() if isinstance(holder.data, str):
            return Scalar(holder.data[_index(key)], combine([holder.label, key.label]))
    raise TypeError("this value has no parts by index or key")


def _index(key: Scalar) -> int:
    if not isinstance(key.data, int):
        raise TypeError(f"an index is an int, not {type(key.data).__name__}")
    return key.data


def sliced(values: list[Any], label: Label) -> Operand:
    """``holder[a:b:c]``."""
    holder, *bounds = values
    at = slice(*[None if bound.data is None else _index(bound) for bound in bounds])
    match holder:
        case Sequence():
            return Sequence(holder.items[at], label, fixed=holder.fixed)
        case Scalar() if isinstance(holder.data, str):
            return Scalar(holder.data[at], label)
    raise TypeError("this value cannot be sliced")


def attribute(holder: Value, name: str) -> Operand:
    """``holder.name``: a field of a record, a part of a date."""
    match holder:
        case Instance() if name in holder.fields:
            return holder.fields[name]  # type: ignore[no-any-return]
        case Instance():
            raise AttributeError(f"{holder.record} has no field {name}")
        case Scalar() if isinstance(holder.data, dt.date) and name in DATE_PARTS:
            return Scalar(getattr(holder.data, name), holder.label)
        case Mapping():
            raise AttributeError(f'a dict has no field {name}; write d["{name}"]')
    raise AttributeError(f"this value has no field {name}")


def bound(holder: Sequence, key: Scalar, *, inserting: bool = False) -> int:
    """A list index, checked and counted from the start."""
    size, at = len(holder.items), _index(key)
    if inserting:
        return max(at + size, 0) if at < 0 else min(at, size)
    if not -size <= at < size:
        raise IndexError("list assignment index out of range")
    return at % size


def stored(holder: Value, key: Value, made: Callable[[Operand], Operand]) -> Value:
    """The container with `made(what was there)` under `key`; for a dict that lacks the key,
    `made` gets the key's absence as a `KeyError` to raise or ignore."""
    if not isinstance(key, Scalar):
        raise key_refused(python(key))
    match holder:
        case Sequence(fixed=False):
            at = bound(holder, key)
            parts = replaced(holder.items, at, made(holder.items[at]))
            return Sequence(parts, holder.label.steer(key.label), origin=holder.origin)
        case Mapping():
            here = holder.entries.get(key.data, Failed("", "key_missing", "", holder.label))
            entries = {**holder.entries, key.data: made(here)}
            return Mapping(entries, combine([holder.label, key.label]), origin=holder.origin)
    raise TypeError("this value does not support item assignment")


def reached(operand: Operand) -> Value:
    """The container itself.

    Raises:
        Pending: it is not known yet.
    """
    here = settle(operand)
    if isinstance(here, Cell):
        raise Pending(here)
    return here
