"""Types as program text, for programs that are written by code.

Knows nothing of what such a program does.
"""

from __future__ import annotations

from collections.abc import Iterable

from edvac.core.schema import DictOf, Field, ListOf, Maybe, Quoted, Record, TupleOf, Type, show


def with_inner(records: Iterable[Record]) -> list[Record]:
    """The records with those that they hold, each after what it needs."""
    found: dict[str, Record] = {}

    def add(kind: Type) -> None:
        match kind:
            case Record():
                for part in kind.fields:
                    add(part.type)
                found.setdefault(kind.name, kind)
            case ListOf() | DictOf() | Maybe() | Quoted():
                add(kind.item)
            case TupleOf():
                for item in kind.items:
                    add(item)

    for record in records:
        add(record)
    return list(found.values())


def class_text(record: Record) -> str:
    """The class that declares a record."""

    def line(part: Field) -> str:
        comment = f"  # {' '.join(part.description.split())}" if part.description else ""
        return f"    {part.name}: {show(part.type)}{comment}\n"

    return f"class {record.name}:\n" + "".join(map(line, record.fields))
