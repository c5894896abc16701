"""What a run has changed in an SQLite file: its rows before and after.

Rows are the same by their primary key, or by their number where a table has none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import apsw

from edvac.device.reading.database import MAX_RESULT, MAX_SIZE, Base, place_of, quoted
from edvac.device.reading.source import Source

OLD = "old"


@dataclass(slots=True)
class Table:
    """A table that differs; `note` says what of it could not be compared, or has another shape."""

    name: str
    kind: str
    note: str = ""
    added: int = 0
    removed: int = 0
    changed: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)


class _Listing:
    """Rows to be shown: the first of each table, as long as there is room."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._room = MAX_RESULT

    def add(self, table: Table, row: dict[str, Any]) -> None:
        if len(table.rows) < self._most and self._room > 0:
            table.rows.append(row)
            self._room -= len(json.dumps(row))


def compare(header: dict[str, Any], source: Source) -> list[dict[str, Any]]:
    """Every table, view, index and trigger that differs between the first `split` bytes, an older
    file, and the rest.

    Raises:
        Unreadable: one of the two is no database, broken or encrypted.
    """
    data = source.whole(2 * MAX_SIZE)
    split = header["split"]
    base = Base(data[split:], header["seconds"])
    with base.explained():
        base.db.limit(apsw.SQLITE_LIMIT_ATTACHED, 1)
        base.db.execute(f"ATTACH ':memory:' AS {OLD}")
        base.fill(OLD, data[:split])
        shapes = {schema: _shapes(base, schema) for schema in (OLD, "main")}
        found = _others(base.db)
        base.guard()
        listing = _Listing(header["most"])
        for name in sorted({*shapes[OLD], *shapes["main"]}):
            found.append(_table(base.db, name, shapes, listing))
    return [asdict(one) for one in found if one is not None]


@dataclass(frozen=True, slots=True)
class _Shape:
    columns: tuple[str, ...]
    key: tuple[str, ...]  # in the form in which they stand in a statement
    place: bool  # the key is the row's number and no column


def _shapes(base: Base, schema: str) -> dict[str, _Shape]:
    made = {}
    for name, kind in base.tables(schema).items():
        if kind != "table":
            continue
        info = base.db.execute(f"PRAGMA {quoted(schema)}.table_xinfo({quoted(name)})").fetchall()
        key = [
            quoted(str(row[1])) for row in sorted(info, key=lambda row: int(str(row[5]))) if row[5]
        ]
        place = "" if key else place_of(base.db, schema, name)
        columns = tuple(str(row[1]) for row in info)
        made[name] = _Shape(columns, tuple(key) or ((place,) if place else ()), bool(place))
    return made


def _others(db: apsw.Connection) -> list[Table | None]:
    """Views, indexes and triggers that differ, and tables that are no plain ones."""
    sql = (
        "SELECT type || ' ' || name, sql FROM {}.sqlite_schema WHERE sql IS NOT NULL AND "
        "(type <> 'table' OR sql LIKE 'CREATE VIRTUAL%') ORDER BY 1"
    )
    old, new = (
        {str(name): text for name, text in db.execute(sql.format(schema))}
        for schema in (OLD, "main")
    )
    found: list[Table | None] = []
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            kind = "new" if name not in old else "removed" if name not in new else "changed"
            found.append(Table(str(name), kind))
    return found


def _table(
    db: apsw.Connection, name: str, shapes: dict[str, dict[str, _Shape]], listing: _Listing
) -> Table | None:
    old, new = shapes[OLD].get(name), shapes["main"].get(name)
    if old is None or new is None:
        table = Table(f"table {name}", "new" if old is None else "removed")
        _alone(db, table, (name, old or new, "main" if old is None else OLD), listing)
        return table
    table = Table(f"table {name}", "changed")
    if old.columns != new.columns:
        table.note = f"its columns were {', '.join(old.columns)}, are {', '.join(new.columns)}"
    if old.key != new.key or not new.key:
        table.note = "its rows cannot be told apart, or are by another key"
        return table
    shared = [one for one in new.columns if one in old.columns]
    _changed(db, table, (name, new, shared), listing)
    for one, other in ((OLD, "main"), ("main", OLD)):
        _only(db, table, (name, new, shared), (one, other), listing)
    return table if table.added or table.removed or table.changed or table.note else None


def _alone(
    db: apsw.Connection, table: Table, where: tuple[str, _Shape | None, str], listing: _Listing
) -> None:
    """All rows of a table that is new or gone."""
    name, shape, schema = where
    assert shape is not None
    new = schema == "main"
    for row in db.execute(f"SELECT * FROM {schema}.{quoted(name)}"):  # noqa: S608
        table.added += new
        table.removed += not new
        values = dict(zip(shape.columns, map(_cell, row), strict=False))
        made = ({}, values) if new else (values, {})
        listing.add(table, _row("added" if new else "removed", {}, *made))


def _changed(
    db: apsw.Connection, table: Table, what: tuple[str, _Shape, list[str]], listing: _Listing
) -> None:
    name, shape, shared = what
    keys, columns = shape.key, [one for one in shared if quoted(one) not in shape.key]
    if not columns:
        return
    differs = " OR ".join(
        f"n.{c} IS NOT (o.{c} COLLATE BINARY) OR typeof(n.{c}) <> typeof(o.{c})"
        for c in map(quoted, columns)
    )
    wanted = [f"n.{key}" for key in keys]
    wanted += [f"{side}.{quoted(one)}" for one in columns for side in "on"]
    order = ", ".join(f"n.{key}" for key in keys)
    both = f"main.{quoted(name)} n JOIN {OLD}.{quoted(name)} o ON {_same(keys)}"
    sql = f"SELECT {', '.join(wanted)} FROM {both} WHERE {differs} ORDER BY {order}"  # noqa: S608
    for row in db.execute(sql):
        table.changed += 1
        pairs = zip(columns, row[len(keys) :: 2], row[len(keys) + 1 :: 2], strict=True)
        moved = [
            (one, _cell(before), _cell(after))
            for one, before, after in pairs
            if before != after or type(before) is not type(after)
        ]
        before = {one: value for one, value, _ in moved}
        after = {one: value for one, _, value in moved}
        listing.add(table, _row("changed", _keyed(shape, row), before, after))


def _only(
    db: apsw.Connection,
    table: Table,
    what: tuple[str, _Shape, list[str]],
    sides: tuple[str, str],
    listing: _Listing,
) -> None:
    """Rows of one side that the other has not."""
    name, shape, shared = what
    here, there = sides
    wanted = [f"n.{key}" for key in shape.key] + [f"n.{quoted(one)}" for one in shared]
    sql = (
        f"SELECT {', '.join(wanted)} FROM {here}.{quoted(name)} n WHERE NOT EXISTS "  # noqa: S608
        f"(SELECT 1 FROM {there}.{quoted(name)} o WHERE {_same(shape.key)}) "
        f"ORDER BY {', '.join(f'n.{key}' for key in shape.key)}"
    )
    new = here == "main"
    for row in db.execute(sql):
        table.added += new
        table.removed += not new
        values = dict(zip(shared, map(_cell, row[len(shape.key) :]), strict=True))
        key = _keyed(shape, row)
        made = ({}, values) if new else (values, {})
        listing.add(table, _row("added" if new else "removed", key, *made))


def _same(keys: tuple[str, ...]) -> str:
    return " AND ".join(f"o.{key} = n.{key}" for key in keys)


def _keyed(shape: _Shape, row: tuple[Any, ...]) -> dict[str, Any]:
    names = ["row"] if shape.place else [key[1:-1].replace('""', '"') for key in shape.key]
    return {name: _cell(value) for name, value in zip(names, row, strict=False)}


def _row(
    kind: str, key: dict[str, Any], before: dict[str, Any], after: dict[str, Any]
) -> dict[str, Any]:
    return {"kind": kind, "key": key, "before": before, "after": after}


def _cell(value: Any) -> Any:
    """A value as JSON has it; what is no text by its size."""
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    if isinstance(value, float) and value - value != 0:
        return str(value)  # infinite
    return value
