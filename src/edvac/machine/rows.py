"""What a run has changed in an SQLite file, row by row, for people.

The two files are compared in the process that parses documents: they are hostile input, here too.
Knows nothing of runs.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import msgspec

from edvac.core.errors import EdvacError
from edvac.core.label import PUBLIC
from edvac.device.content import Content
from edvac.device.parser import Parser
from edvac.device.sql import refused

MAGIC = b"SQLite format 3\x00"
SHOWN = 10  # rows of a table, where not all are asked for
ALL = 1_000_000_000
WIDTH = 60  # characters of a value on a line

Cell: TypeAlias = str | int | float | dict[str, int] | None


class RowChange(msgspec.Struct, frozen=True):
    """`kind` is added, removed or changed; of a changed row only the columns that differ."""

    kind: str
    key: dict[str, Cell]
    before: dict[str, Cell]
    after: dict[str, Cell]


class TableChange(msgspec.Struct, frozen=True):
    """A table, or a view, index or trigger, that differs. `rows` are the first of them."""

    name: str
    kind: str
    note: str
    added: int
    removed: int
    changed: int
    rows: list[RowChange]


def is_database(content: bytes | None) -> bool:
    return content is not None and content.startswith(MAGIC)


def row_changes(name: str, before: bytes, after: bytes, most: int) -> list[TableChange]:
    """What differs, with at most so many rows a table.

    Raises:
        EdvacError: one of the two cannot be read.
    """
    return asyncio.run(_compared(name, before, after, most))


async def _compared(name: str, before: bytes, after: bytes, most: int) -> list[TableChange]:
    request = {"op": "sql.compare", "name": name, "split": len(before), "most": most}
    parser = Parser()
    try:
        answer = await parser.ask(request, Content.held(before + after, PUBLIC))
    finally:
        await parser.close()
    if answer.error:
        raise refused(name, answer)
    return msgspec.json.decode(answer.text, type=list[TableChange])


def described(path: str, before: bytes, after: bytes, most: int) -> tuple[str, list[TableChange]]:
    """The lines that `edvac diff` shows of the file, and the same as data."""
    sizes = f"{path}: {len(before):,} -> {len(after):,} bytes"
    try:
        found = row_changes(path, before, after, most)
    except EdvacError as problem:
        why = (problem.why or problem.what).rstrip(".")
        return f"{sizes}; its rows cannot be compared: {why}\n", []
    lines = [f"{sizes}; no row differs" if not found else sizes]
    for table in found:
        lines.append(f"{path}: {table.name}{_counted(table)}")
        lines += [f"  {_line(row)}" for row in table.rows]
        left = table.added + table.removed + table.changed - len(table.rows)
        if left:
            lines.append(f"  and {left:,} more (--all shows all)")
    return "\n".join(lines) + "\n", found


def _counted(table: TableChange) -> str:
    if table.name.partition(" ")[0] != "table":
        return f": {table.kind}"
    counts = {"changed": table.changed, "added": table.added, "removed": table.removed}
    said = [f"{count:,} {word}" for word, count in counts.items() if count]
    rows = f"rows {', '.join(said)}" if said else ""
    shape = table.kind if table.kind != "changed" else ""
    return ": " + "; ".join(part for part in (shape, table.note, rows) if part)


def _line(row: RowChange) -> str:
    key = " ".join(f"{name}={_shown(value)}" for name, value in row.key.items())
    if row.kind == "changed":
        names = row.after
        cells = [f"{n}: {_shown(row.before.get(n))} -> {_shown(row.after[n])}" for n in names]
        return f"{key}  {'; '.join(cells)}"
    values: dict[str, Any] = dict(row.after if row.kind == "added" else row.before)
    cells = [f"{name}: {_shown(value)}" for name, value in values.items() if name not in row.key]
    sign = "+" if row.kind == "added" else "-"
    return f"{sign} {key}  {'; '.join(cells)}".rstrip()


def _shown(value: Cell) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, dict):
        return f"<{value.get('bytes', 0):,} bytes>"
    text = repr(value)
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}…"
