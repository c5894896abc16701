"""SQLite files: rows that a query gives, and rows written into the run's own version of the file.

The user's file is read as bytes, in the isolated process that parses documents, and never changed:
a write makes a new version of it in the run's store, which `edvac diff` shows row by row. Knows
nothing of SQLite's insides.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.metadata
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from edvac.core.errors import DeviceError
from edvac.core.label import PROGRAM, Label, combine
from edvac.core.schema import ANY, INT, STR, DictOf, ListOf
from edvac.core.signature import Effect, Param, Role, Signature, address_param
from edvac.core.value import Mapping, Scalar, Sequence, total_label
from edvac.device.content import Content
from edvac.device.files import Files, clean, writable
from edvac.device.parser import NO_SANDBOX, WORKERS, Atom, Parsed, Parsers
from edvac.device.port import Call, NewFile, Reply
from edvac.sandbox import bubblewrap

MAX_SIZE = 256 * 1024 * 1024  # bytes of a database
_BESIDE = ("-wal", "-journal")  # where changes lie that are not in the file, or not whole
_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # how a journal begins that has to be played back
_INT64 = 2**63

_PATH = address_param(doc="an SQLite file")
_ROWS = Param("rows", ListOf(ANY), doc="dicts or records; their fields are columns")


def _literal(name: str, doc: str, **more: Any) -> Param:
    return Param(name, STR, role=Role.CODE, doc=doc, **more)


SIGNATURES = (
    Signature(
        "sql.query",
        (
            _PATH,
            _literal("query", "one SELECT, a literal text with ? for values"),
            Param("params", ListOf(ANY), default=[], doc="the values, in order"),
        ),
        ListOf(DictOf(ANY)),
        Effect.READ,
        "The rows that a query gives, each a dict by column. The query is a literal text; values "
        "go in for its question marks.",
        reads=("path",),
        limit=WORKERS,
        timeout_s=600.0,
    ),
    Signature(
        "sql.update",
        (
            _PATH,
            _literal("table", "a literal text"),
            _ROWS,
            _literal("key", "the column that tells rows apart", default="id"),
        ),
        INT,
        Effect.WRITE,
        "Set columns of rows that are there: all or, where one does not fit, none; returns how "
        "many changed. Nothing outside the run changes before `edvac apply`.",
        reads=("path",),
        writes=("path",),
        limit=WORKERS,
        timeout_s=600.0,
    ),
    Signature(
        "sql.insert",
        (_PATH, _literal("table", "a literal text"), _ROWS),
        INT,
        Effect.WRITE,
        "Add rows; returns how many. A table or a file that is not there is made.",
        reads=("path",),
        writes=("path",),
        limit=WORKERS,
        timeout_s=600.0,
    ),
)


class Databases:
    """The `sql` device."""

    signatures = SIGNATURES

    def __init__(self, files: Files) -> None:
        self._files = files
        self._parsers = Parsers()

    @property
    def version(self) -> str:
        return f"1/{importlib.metadata.version('apsw')}"

    async def call(self, call: Call) -> Reply:
        op = call.signature.op
        path = clean(call.text("path"))
        request: dict[str, Any] = {"op": op, "name": Path(path).name}
        if op == "sql.query":
            params = [atom("params", one) for one in call.data("params")]
            request |= {"query": call.text("query"), "params": params}
        else:
            writable(path)
            request |= _rows(call) | {"makes": MAX_SIZE}
        async with self._opened(path, op) as content:
            answer = await self._parsers.ask(request, content)
            await self._settled(path, content)
        if answer.error:
            raise refused(path, answer)
        notes = () if bubblewrap.probe().available else (NO_SANDBOX,)
        if op == "sql.query":
            return Reply(_table(answer, content.label), notes=notes)
        label = combine([content.label, *map(total_label, call.operands.values())])
        files = (NewFile(path, answer.made, label),) if answer.made else ()
        return Reply(Scalar(answer.count, label), files, notes)

    async def read_version(self, call: Call) -> str | None:
        path = clean(call.text("path"))
        async with self._opened(path, call.signature.op) as content:
            return await asyncio.to_thread(content.fingerprint)

    async def close(self) -> None:
        await self._parsers.close()

    @asynccontextmanager
    async def _opened(self, path: str, op: str) -> AsyncIterator[Content]:
        if op == "sql.insert" and not await self._files.is_there(path):
            yield Content.held(b"", PROGRAM)
            return
        content = await self._files.open(path)
        try:
            if content.descriptor >= 0:
                await self._refuse_open(path)
                self._files.note_read(path, await asyncio.to_thread(content.fingerprint))
            yield content
        except OSError as problem:
            raise _unreadable(path, f"{problem.strerror or problem}") from problem
        finally:
            content.close()

    async def _settled(self, path: str, content: Content) -> None:
        """Nothing was written to the file while it was read; else it would be half old, half new.

        Raises:
            DeviceError: something was.
        """
        if content.descriptor < 0:
            return
        await self._refuse_open(path)
        if not content.unchanged():
            raise _busy(path, "It changed while it was read.")

    async def _refuse_open(self, path: str) -> None:
        for suffix in _BESIDE:
            name = path + suffix
            if not await self._files.is_there(name):
                continue
            beside = await self._files.open(name)
            try:
                begins = beside.read(0, len(_JOURNAL))
            finally:
                beside.close()
            if begins and (suffix == "-wal" or begins == _JOURNAL):
                raise _busy(path, f"{name!r} beside it holds changes that belong to it.")


def _rows(call: Call) -> dict[str, Any]:
    """The operands of a write, as the parser takes them."""
    key = call.text("key") if "key" in call.operands else ""
    rows: list[dict[str, Atom]] = []
    kinds: dict[str, str] = {}
    for number, row in enumerate(call.data("rows"), 1):
        if not isinstance(row, dict) or not row or not all(isinstance(name, str) for name in row):
            raise _unfit(f"row {number} is no dict or record with fields", "Rows have columns.")
        if key and row.get(key) is None:
            raise _unfit(f"row {number} has no {key}", f"{key!r} says which row is meant.")
        for name, value in row.items():
            kinds[name] = _wider(kinds.get(name, ""), value)
        rows.append({name: atom(name, value) for name, value in row.items()})
    found = {"table": call.text("table"), "rows": rows, "key": key}
    return found | {"kinds": {name: kind or "TEXT" for name, kind in kinds.items()}}


def _wider(kind: str, value: Any) -> str:
    """The kind of a new column that has held `kind` so far and now holds this, too."""
    if value is None:
        return kind
    found = "TEXT"
    if isinstance(value, int):
        found = "INTEGER"
    elif isinstance(value, float):
        found = "REAL"
    elif isinstance(value, Decimal):
        found = "NUMERIC"
    if kind in ("", found):
        return found
    return "TEXT" if "TEXT" in (kind, found) else "NUMERIC"


def atom(name: str, data: Any) -> Atom:
    """A value as a database takes it: decimals and dates as text, truth as 1 and 0.

    Raises:
        DeviceError: it takes no such value.
    """
    match data:
        case None:
            return None
        case bool():
            return int(data)
        case int() if -_INT64 <= data < _INT64:
            return data
        case float() if math.isfinite(data):
            return data
        case Decimal():
            return str(data)
        case dt.date():
            return data.isoformat()
        case str() if "\x00" not in data and not any(0xD800 <= ord(sign) < 0xE000 for sign in data):
            return data
    raise _unfit(
        f"{str(data)[:60]!r} in {name} is no value of a database",
        "It takes texts, whole numbers of 64 bits, numbers, dates, True, False and None.",
    )


def _table(answer: Parsed, label: Label) -> Sequence:
    rows = (
        Mapping({n: Scalar(v, label) for n, v in zip(answer.columns, row, strict=True)}, label)
        for row in answer.rows
    )
    return Sequence(tuple(rows), label)


def _busy(path: str, why: str) -> DeviceError:
    return DeviceError(
        "database_open",
        f"{path!r} is not whole",
        f"{why} A program has it open or was cut off.",
        "Close that program, or open the file once with it and close it, then run "
        "`edvac resume --retry`.",
    )


def _unreadable(path: str, why: str) -> DeviceError:
    return DeviceError(
        "database_unreadable",
        f"{path!r} cannot be read",
        f"{why[0].upper()}{why[1:]}.",
        "Mend that, then run `edvac resume --retry`.",
    )


def _unfit(what: str, why: str) -> DeviceError:
    return DeviceError("rows_unfit", what, why, "Mend the rows; nothing was written.")


def refused(path: str, answer: Parsed) -> DeviceError:
    """The error that says why a database did not give or take what it was asked for."""
    why = f"{answer.error[:1].upper()}{answer.error[1:]}."
    match answer.kind:
        case "not_database":
            fix = "Name an SQLite file; read other documents with doc.text."
            return DeviceError("database_unreadable", f"{path!r} is no SQLite file", why, fix)
        case "encrypted":
            fix = "Save a copy without the key, then run `edvac resume --retry`."
            return DeviceError("database_encrypted", f"{path!r} is encrypted", why, fix)
        case "database_broken":
            fix = "Mend it (`sqlite3 FILE .recover`), then run `edvac resume --retry`."
            return DeviceError("database_broken", f"{path!r} is broken", why, fix)
        case "table_unknown":
            fix = "Use a table that it has."
            return DeviceError("table_unknown", f"{path!r} has no such table", why, fix)
        case "column_unknown":
            fix = "Use columns that the table has; a program does not change its shape."
            return DeviceError("column_unknown", f"{path!r} has no such column", why, fix)
        case "query_refused":
            fix = "A query is a SELECT over the file's own tables; give values as params."
            return DeviceError("query_refused", f"not allowed on {path!r}", why, fix)
        case "query_unfit":
            fix = "Mend the query."
            return DeviceError("query_unfit", f"the query does not fit {path!r}", why, fix)
        case "value_unfit":
            fix = "Leave the column out, or select hex(column), length(column) or a CAST of it."
            return DeviceError("value_unfit", f"{path!r} gives what is no value here", why, fix)
        case "rows_unfit":
            fix = "Mend the rows; nothing was written."
            return DeviceError("rows_unfit", f"{path!r} does not take the rows", why, fix)
    return _too_much(path, answer, why)


def _too_much(path: str, answer: Parsed, why: str) -> DeviceError:
    match answer.kind:
        case "query_too_long":
            fix = "Ask for less, or give the file an index for what is searched."
            return DeviceError("query_too_long", f"a statement on {path!r} was stopped", why, fix)
        case "rows_too_many":
            fix = "Select fewer columns, or rows in parts: WHERE id > ? ORDER BY id LIMIT 10000."
            return DeviceError("rows_too_many", f"{path!r} gives too much", why, fix)
        case "too_large":
            fix = "Work on a copy with the rows that are needed."
            return DeviceError("database_too_large", f"{path!r} is too large", why, fix)
    return _unreadable(path, answer.error)
