"""Values as ordinary Python data and back, for the pure functions that compute with them.

Records become `RecordView`, which compares and shows itself as a dataclass would. Knows nothing of
evaluation.
"""

from __future__ import annotations

from typing import Any

from edvac.core.errors import OperandError
from edvac.core.label import Label
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
from edvac.program.limits import SHOWN_CHARS, VALUE_DEPTH


class RecordView:
    """A record inside pure code."""

    __slots__ = ("fields", "name")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.fields = fields

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordView):
            return NotImplemented
        return self.name == other.name and self.fields == other.fields

    def __repr__(self) -> str:
        inner = ", ".join(f"{key}={value!r}" for key, value in self.fields.items())
        return f"{self.name}({inner})"


def python(operand: Operand) -> Any:
    """The data of a complete value, without labels."""
    here = settle(operand)
    match here:
        case Scalar():
            return here.data
        case Sequence():
            items = [python(item) for item in here.items]
            return tuple(items) if here.fixed else items
        case Mapping():
            return {key: python(item) for key, item in here.entries.items()}
        case Instance():
            return RecordView(here.record, {k: python(v) for k, v in here.fields.items()})
    raise TypeError("a pending or failed value was read")


def value(data: Any, label: Label) -> Value:
    """Python data as a value with one label in every part."""
    match data:
        case list() | tuple():
            items = tuple(value(item, label) for item in data)
            return Sequence(items, label, fixed=isinstance(data, tuple))
        case dict():
            for key in data:
                if isinstance(key, tuple):
                    raise key_refused(key)
            return Mapping({key: value(item, label) for key, item in data.items()}, label)
        case RecordView():
            return Instance(data.name, {k: value(v, label) for k, v in data.fields.items()}, label)
    return Scalar(data, label)


def key_refused(key: object) -> OperandError:
    return OperandError(
        "key_misfit",
        f"a dict key is a {type(key).__name__}",
        "Keys are texts, numbers, dates, booleans or None.",
        'Join the parts into one text, f"{a}|{b}", or use group(rows, by=[...]).',
    )


def shown(data: object) -> str:
    """A short form of data for a message."""
    text = repr(data)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


def kind_name(value: Value) -> str:
    """The Python name of a value's kind, under which its methods are registered."""
    match value:
        case Scalar():
            return type(value.data).__name__ if value.data is not None else "None"
        case Sequence():
            return "tuple" if value.fixed else "list"
        case Mapping():
            return "dict"
        case Instance():
            return value.record
    return "failed"


class Survey:
    """One look over a whole operand: what is pending, what failed, how large and deep it is.

    Iterative, so that a value nested too deeply is found before anything recurses into it.
    """

    __slots__ = ("deep", "failed", "pending", "size")

    def __init__(self, operands: list[Operand]) -> None:
        self.pending: list[Cell] = []
        self.failed: Failed | None = None
        self.size = 0
        self.deep = False
        todo = [(operand, 0) for operand in reversed(operands)]
        while todo:
            operand, depth = todo.pop()
            here = settle(operand)
            self.size += 1
            match here:
                case Scalar():
                    continue
                case Cell():
                    self.pending.append(here)
                    continue
                case Failed():
                    self.failed = self.failed or here
                    continue
                case Sequence():
                    parts = here.items
                case Mapping():
                    parts = tuple(here.entries.values())
                case _:
                    parts = tuple(here.fields.values())
            if depth >= VALUE_DEPTH:
                self.deep = True
                continue
            todo.extend((part, depth + 1) for part in reversed(parts))
