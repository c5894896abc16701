"""Seals: a checksum in each row outside the journal's chains, over the row and its table's name.

A row that changed behind the store's back is refused when it is read. A row that vanished whole is
noticed where another row refers to it. Knows nothing of what the columns mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from edvac.core.errors import DamageError
from edvac.store.schema import Execute

_COLUMNS = {
    "run": "number, id, created, state, task, program, title, closed, seconds, counts",
    "head": "number, last, hash, epoch, owner, process, acquired, expires, seen",
    "apply": "number, round, root, phase, files",
    "applied": "number, round, path, before, after, mode, state",
    "inbox": "id, number, kind, payload, posted, taken",
    "permission": "id, shape, scope, expires, created",
    "schedule": "id, spec, created, fired, run, said",
    "placed": "key",
    "thread": "number, name, namespace, newest, checkpoints, writes",
    "checkpoint": "number, id, parent, run, created, bound, payload, channels",
    "task": "number, checkpoint, id, writes",
}
TABLES = tuple(_COLUMNS)
_encode = msgspec.msgpack.Encoder().encode


def seal(*values: Any) -> bytes:
    """The SQL function `seal(table, column, ...)`, registered with each connection."""
    return hashlib.blake2b(_encode(values), digest_size=8).digest()


def _qualified(table: str) -> str:
    return ", ".join(f"{table}.{column}" for column in _COLUMNS[table].split(", "))


_SOUND = {table: f"{table}.mark IS seal('{table}', {_qualified(table)})" for table in TABLES}
# The names are the constants above; nothing from outside gets into these statements.
_UPDATE = {
    table: f"UPDATE {table} SET mark = seal('{table}', {columns}) WHERE "  # noqa: S608
    for table, columns in _COLUMNS.items()
}
BROKEN = {
    table: f"SELECT count(*) FROM {table} WHERE NOT ({check})"  # noqa: S608
    for table, check in _SOUND.items()
}


def sealed(sql: str, *tables: str) -> str:
    """The statement with SOUND, its last column, spelt out: whether the rows are as written."""
    return sql.replace("SOUND", " AND ".join(_SOUND[table] for table in tables))


def reseal(execute: Execute, table: str, where: str, values: Sequence[Any]) -> None:
    """After each change of a row, in the same transaction."""
    execute(_UPDATE[table] + where, values)


def resealed(table: str, *columns: str) -> str:
    """Change and seal of one row by `number` in one statement, for a change as frequent as an
    append; the values are bound as they are stored, so the columns must convert nothing."""
    values = {name: f"?{place}" for place, name in enumerate(columns, start=1)}
    covered = ", ".join(values.get(name, name) for name in _COLUMNS[table].split(", "))
    sets = ", ".join(f"{name} = {value}" for name, value in values.items())
    where = f"WHERE number = ?{len(columns) + 1}"
    return f"UPDATE {table} SET {sets}, mark = seal('{table}', {covered}) {where}"  # noqa: S608


def sound(table: str, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows without their last column, which says whether they are sound.

    Raises:
        DamageError: one is not.
    """
    for row in rows:
        if not row[-1]:
            raise DamageError(
                "row_damaged",
                f"a row of the table {table!r} is not what was written",
                f"Its checksum does not match: {str(row[:2])[:80]}",
                "Run `edvac doctor` to see what is damaged.",
            )
    return [row[:-1] for row in rows]
