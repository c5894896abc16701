"""A part of a document as a value of a program.

The record says what it is called and which pages, lines or rows it holds; its `place` is for
`doc.text`, which reads that stretch and nothing else, and only if it is still what it was.
"""

from __future__ import annotations

import re
from typing import Any

from edvac.core.label import Label
from edvac.core.schema import INT, STR, Field, Record
from edvac.core.value import Instance, Scalar, Value
from edvac.device.reading.place import Place

PART = Record(
    "Part",
    (
        Field("name", STR, "page 3, sheet Costs, message 12, lines 1-900, rows 1-500 or part 2"),
        Field("kind", STR, "page, sheet, message, lines, rows or section"),
        Field("number", INT, "from 1, in order"),
        Field("first", INT, "first page, line or row in it, from 1"),
        Field("last", INT, "last page, line or row in it"),
        Field("place", STR, "where it lies in the file, for doc.text"),
    ),
)

_PLACE = re.compile(r"(\d{1,15}):(\d{1,15}):(\d{1,15}):([\w.-]{0,30}):([0-9a-f]{0,40})")
_STRETCHES = frozenset({"message", "lines", "rows"})  # read by their bytes alone


def value_of(place: Place, label: Label) -> Value:
    """The record of a part; its fields come from the file, and have its label."""
    where = f"{place.start}:{place.end}:{place.head}:{place.encoding}:{place.digest}"
    fields: dict[str, Any] = {
        "name": place.name,
        "kind": place.kind,
        "number": place.number,
        "first": place.first,
        "last": place.last,
        "place": where,
    }
    return Instance(PART.name, {k: Scalar(v, label) for k, v in fields.items()}, label)


def place_of(data: Any) -> Place | None:
    """What a record says; None where it is no part that `doc.parts` made."""
    if not isinstance(data, dict):
        return None
    found = _PLACE.fullmatch(str(data.get("place", "")))
    texts = [data.get(name) for name in ("name", "kind")]
    numbers = [data.get(name) for name in ("number", "first", "last")]
    if found is None or not all(isinstance(one, str) for one in texts):
        return None
    if not all(isinstance(one, int) and 0 <= one < 10**15 for one in numbers):
        return None
    start, end, head = map(int, found.groups()[:3])
    values: list[Any] = [*texts, *numbers, start, end, head, found[4], found[5]]
    return Place(*values)


def stretches(place: Place) -> tuple[tuple[int, int], ...]:
    """The bytes that reading the part depends on; nothing where that is the whole file."""
    if place.kind not in _STRETCHES:
        return ()
    return ((0, place.head), (place.start, place.end))
