"""SQLite files: what a query gives, and the file that new rows make of one.

A database is read from its bytes into memory and is never opened as a file: no other file is
reached, no extension loaded, nothing attached. What its schema says (views, triggers, defaults) is
hostile input like its rows: the library trusts none of it, an authorizer allows what reading or
writing rows takes and nothing else, and all is bounded. Knows nothing of programs.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import apsw

from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import Source

MAX_SIZE = 256 * 1024 * 1024  # bytes of a database: it is held in memory, three times over
MAX_ROWS = 200_000  # of a result
MAX_RESULT = 48 * 1024 * 1024  # bytes of a result, as JSON
MAX_TEXT = 8 * 1024 * 1024  # characters of one value
MAX_MEMORY = 1_400_000_000  # bytes that SQLite may take
LISTED = 5  # wrong rows, tables or columns that a message names

_MAGIC = b"SQLite format 3\x00"
_HEAD = 100  # bytes of a database's header; two of them say whether it has a write-ahead log
_LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: 64 * 1024 * 1024,  # bytes of a row
    apsw.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    apsw.SQLITE_LIMIT_COLUMN: 2_000,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 200,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    apsw.SQLITE_LIMIT_VDBE_OP: 1_000_000,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 20,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_READING = {
    apsw.SQLITE_SELECT: "select",
    apsw.SQLITE_READ: "read",
    apsw.SQLITE_FUNCTION: "call a function",
    apsw.SQLITE_RECURSIVE: "recurse",
}
_WRITING = _READING | {
    apsw.SQLITE_INSERT: "insert",
    apsw.SQLITE_UPDATE: "update",
    apsw.SQLITE_DELETE: "delete",
    apsw.SQLITE_TRANSACTION: "begin",
    apsw.SQLITE_SAVEPOINT: "save",
}
# Functions that would make a result of something else than the file and the values given. They
# count when they are called: a column may have one of them as its default and be read all the same.
_CHANCE = {"random": 0, "randomblob": 1}
_OUTSIDE = frozenset({"load_extension", "fts3_tokenizer"})
_ROW_NUMBER = ("rowid", "_rowid_", "oid")  # its names; a column may have taken one
_HERE = "edvac-clock"  # name of the file layer whose clock is watched


class _Clock(apsw.VFS):
    """The system's file layer, never asked for a file; notes when it is asked for the time."""

    def __init__(self) -> None:
        self.asked = False
        super().__init__(_HERE, "")

    def xCurrentTimeInt64(self) -> int:
        self.asked = True
        return time.time_ns() // 1_000_000 + 210_866_760_000_000


class Base:
    """A database in memory. Only what it is opened for is allowed."""

    def __init__(self, data: bytes, seconds: float, *, writes: bool = False) -> None:
        self._denied = ""
        self._ends = seconds - 2
        self._writes = writes
        self._clock = _Clock()
        self._logged = data[18:20] if data else b""
        apsw.hard_heap_limit(MAX_MEMORY)
        self.db = apsw.Connection(":memory:", vfs=_HERE)
        with self.explained():
            self._harden()
            self.fill("main", data)

    def _harden(self) -> None:
        db = self.db
        for limit, most in _LIMITS.items():
            db.limit(limit, most)
        db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        db.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)  # a misspelt "column" is no text
        db.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
        for pragma in ("cell_size_check = ON", "temp_store = MEMORY", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        for name, operands in () if self._writes else _CHANCE.items():
            db.create_scalar_function(name, self._chance, operands, flags=apsw.SQLITE_INNOCUOUS)
        db.set_progress_handler(lambda: time.process_time() > self._ends, 10_000)

    def fill(self, name: str, data: bytes) -> None:
        """Lay a database's bytes down. One with a write-ahead log says so in its header, and could
        not be read from memory."""
        if not data:
            return
        _check(data)
        with self.explained():
            plain = bytearray(data)
            plain[18:20] = b"\x01\x01"
            self.db.deserialize(name, plain)
            self.tables(name)  # reads the schema, or says what is wrong with it

    def guard(self) -> None:
        """From here on statements are not edvac's own, or set off what is not."""
        self.db.set_authorizer(self._authorized)

    def bytes(self) -> bytes:
        """What it has become, with or without a log as it was."""
        self.db.set_authorizer(None)
        made = bytearray(self.db.serialize("main"))
        if self._logged and made:
            made[18:20] = self._logged
        return bytes(made)

    def tables(self, name: str = "main") -> dict[str, str]:
        """Every table that is the user's, with its kind: table, view, virtual or shadow."""
        found = self.db.execute(f'PRAGMA "{name}".table_list').fetchall()
        return {
            str(row[1]): str(row[2])
            for row in sorted(found)
            if row[0] == name and not str(row[1]).startswith("sqlite_")
        }

    def _authorized(self, code: int, first: str | None, second: str | None, *_: str | None) -> int:
        allowed = _WRITING if self._writes else _READING
        if code == apsw.SQLITE_PRAGMA and first == "data_version" and second is None:
            return int(apsw.SQLITE_OK)  # what full-text search looks at
        if code not in allowed:
            name = apsw.mapping_authorizer_function.get(code, str(code))
            what = str(name).removeprefix("SQLITE_").lower().replace("_", " ")
            self._denied = f"it would {what}" + (f" {first}" if first else "")
            return int(apsw.SQLITE_DENY)
        name = (second or "").lower()
        if code == apsw.SQLITE_FUNCTION and name in _OUTSIDE:
            self._denied = f"it asks for {name}()"
            return int(apsw.SQLITE_DENY)
        return int(apsw.SQLITE_OK)

    def _chance(self, *_: object) -> None:
        self._denied = "it asks for a random number"
        raise Unreadable(self._denied, "query_refused")

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """What the library raises, in words.

        Raises:
            Unreadable: it could not be done.
        """
        try:
            yield
            if self._clock.asked and not self._writes:
                self._denied = "it asks what time it is"
                raise Unreadable(self._denied, "query_refused")
        except apsw.Error as problem:
            raise self._why(problem) from problem
        except UnicodeDecodeError as problem:
            why = f"it has text that is not UTF-8 ({problem.reason})"
            raise Unreadable(why, "value_unfit") from problem

    def _why(self, problem: apsw.Error) -> Unreadable:
        said = str(problem).partition(": ")[2] or str(problem)
        if self._denied:
            return Unreadable(self._denied, "query_refused")
        match problem:
            case apsw.InterruptError():
                return Unreadable(f"it took more than {self._ends:.0f} s", "query_too_long")
            case apsw.CorruptError() | apsw.FormatError() | apsw.NotADBError():
                return Unreadable(f"its content contradicts itself ({said})", "database_broken")
            case apsw.TooBigError():
                return Unreadable("a row of it is too large", "rows_too_many")
            case apsw.NoMemError() | apsw.FullError():
                return Unreadable("it takes too much memory", "query_too_long")
            case apsw.BindingsError():
                return Unreadable(f"the values do not fit its ?: {problem}", "query_unfit")
            case apsw.ConstraintError() | apsw.MismatchError():
                return Unreadable(said, "rows_unfit")
            case apsw.SQLError() if "unsafe use" in str(problem):
                return Unreadable(str(problem), "query_refused")
            case apsw.SQLError() if "no such table" in str(problem):
                return Unreadable(f"{problem}; {self._known()}", "table_unknown")
            case apsw.SQLError() if "no such column" in str(problem):
                return Unreadable(str(problem), "column_unknown")
            case apsw.SQLError():
                return Unreadable(str(problem), "query_unfit")
        return Unreadable(f"it cannot be read ({problem})", "database_broken")

    def _known(self) -> str:
        self.db.set_authorizer(None)
        return f"its tables are {_some(list(self.tables()))}"


def _check(data: bytes) -> None:
    """Refuse what is no database before the library looks at it."""
    if data.startswith(_MAGIC) and len(data) >= _HEAD:
        return
    if len(data) % 512 == 0 and len(set(data[:4096])) > 200:
        why = "it has no header of SQLite and looks like random bytes, as an encrypted one does"
        raise Unreadable(why, "encrypted")
    raise Unreadable("it does not begin as an SQLite file", "not_database")


def query(header: dict[str, Any], source: Source) -> dict[str, Any]:
    """The columns and rows that one SELECT gives.

    Raises:
        Unreadable: it cannot be had, or there is too much of it.
    """
    base = Base(source.whole(MAX_SIZE), header["seconds"])
    base.guard()
    columns: list[str] = []
    rows: list[list[Any]] = []
    size = 0

    def begun(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        del sql, bindings
        names = [name for name, _ in cursor.get_description()]
        if columns and names:
            raise Unreadable("it has more than one statement", "query_unfit")
        columns.extend(names)
        return True

    with base.explained():
        cursor = base.db.cursor()
        cursor.exec_trace = begun
        for row in cursor.execute(header["query"], tuple(header["params"])):
            rows.append([_given(value, columns[at]) for at, value in enumerate(row)])
            size += len(json.dumps(rows[-1]))
            if len(rows) > MAX_ROWS or size > MAX_RESULT:
                why = f"it gives more than {MAX_ROWS:,} rows or {MAX_RESULT // 2**20} MiB"
                raise Unreadable(why, "rows_too_many")
    if not columns:
        raise Unreadable("it gives no columns", "query_unfit")
    twice = [name for name, times in Counter(columns).items() if times > 1]
    if twice:
        raise Unreadable(f"two of its columns are called {twice[0]!r}", "query_unfit")
    return {"columns": columns, "rows": rows}


def _given(value: Any, column: str) -> Any:
    """A value that a program can have."""
    if isinstance(value, bytes):
        why = f"the column {column!r} has {len(value):,} bytes that are no text"
        raise Unreadable(why, "value_unfit")
    if isinstance(value, float) and not math.isfinite(value):
        raise Unreadable(f"the column {column!r} has {value}, which is no number", "value_unfit")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        why = f"the column {column!r} has a text of {len(value):,} characters"
        raise Unreadable(why, "rows_too_many")
    return value


# -- new rows ---------------------------------------------------------------------------------


def change(header: dict[str, Any], source: Source) -> tuple[int, bytes]:
    """How many rows were changed or added, and the file that comes of it; empty for none.

    Raises:
        Unreadable: it cannot be done; nothing of it is.
    """
    base = Base(source.whole(MAX_SIZE), header["seconds"], writes=True)
    with base.explained():
        wrong = base.db.execute("PRAGMA quick_check(1)").fetchall()
        if wrong != [("ok",)]:
            raise Unreadable(f"its content contradicts itself ({wrong[0][0]})", "database_broken")
        with base.db:
            count = (_update if header["op"] == "sql.update" else _insert)(base, header)
        made = base.bytes() if count else b""
    if len(made) > MAX_SIZE:
        raise Unreadable(f"it would have {len(made):,} bytes", "too_large")
    return count, made


def _update(base: Base, header: dict[str, Any]) -> int:
    """Set the columns that each row gives, where the key is the row's; rows that have these values
    already do not count."""
    table, key, rows = header["table"], header["key"], header["rows"]
    _check_columns(base, table, [key, *_names(rows)])
    place, places = _places(base, table, key)
    _check_keys([row[key] for row in rows], places, f"{table}.{key}")
    base.guard()
    count = 0
    for row in rows:
        names = [name for name in row if name != key]
        if not names:
            continue
        sets = ", ".join(f"{quoted(name)} = ?" for name in names)
        same = " AND ".join(f"{quoted(name)} IS (? COLLATE BINARY)" for name in names)
        values = [row[name] for name in names]
        sql = f"UPDATE {quoted(table)} SET {sets} WHERE {place} = ? AND NOT ({same})"  # noqa: S608
        with _named(f"the row with {key} {row[key]!r}"):
            base.db.execute(sql, (*values, places[row[key]][0], *values))
        count += base.db.changes()
    return count


def _insert(base: Base, header: dict[str, Any]) -> int:
    table, rows = header["table"], header["rows"]
    if rows and _kind(base, table) is None:
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in header["kinds"].items())
        base.db.execute(f"CREATE TABLE {quoted(table)} ({columns})")
    if not rows:
        return 0
    _check_columns(base, table, _names(rows))
    base.guard()
    for number, row in enumerate(rows, 1):
        names = ", ".join(map(quoted, row))
        marks = ", ".join("?" for _ in row)
        sql = f"INSERT INTO {quoted(table)} ({names}) VALUES ({marks})"  # noqa: S608
        with _named(f"row {number}"):
            base.db.execute(sql, tuple(row.values()))
    return len(rows)


def _names(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


@contextlib.contextmanager
def _named(row: str) -> Iterator[None]:
    try:
        yield
    except (apsw.ConstraintError, apsw.MismatchError) as problem:
        raise Unreadable(f"{row} does not fit: {problem}", "rows_unfit") from problem


def _kind(base: Base, table: str) -> str | None:
    """What a name stands for, in any case of its (ASCII) letters, as SQLite takes it."""
    kinds = {_folded(name): kind for name, kind in base.tables().items()}
    return kinds.get(_folded(table))


def _folded(name: str) -> str:
    return "".join(sign.lower() if sign.isascii() else sign for sign in name)


def _check_columns(base: Base, table: str, wanted: list[str]) -> None:
    """Raises:
    Unreadable: there is no such table or column, or it cannot be written.
    """
    kind = _kind(base, table)
    if kind is None:
        why = f"there is no table {table!r}; its tables are {_some(list(base.tables()))}"
        raise Unreadable(why, "table_unknown")
    if kind != "table":
        raise Unreadable(f"{table!r} is a {kind}, not a plain table", "table_unknown")
    found = base.db.execute(f"PRAGMA table_xinfo({quoted(table)})").fetchall()
    computed = {str(row[1]): bool(row[6]) for row in found}
    for name in wanted:
        if name not in computed:
            why = f"{table!r} has no column {name!r}; it has {_some(list(computed))}"
            raise Unreadable(why, "column_unknown")
        if computed[name]:
            raise Unreadable(f"the column {name!r} is computed by the database", "column_unknown")


def _places(base: Base, table: str, key: str) -> tuple[str, dict[Any, list[Any]]]:
    """By what a row is found, and that of each row, by its key. A pass over the table costs less
    than a search for each row where the key has no index."""
    place = place_of(base.db, "main", table) or quoted(key)
    found: dict[Any, list[Any]] = {}
    sql = f"SELECT {quoted(key)}, {place} FROM {quoted(table)}"  # noqa: S608
    for value, where in base.db.execute(sql):
        found.setdefault(value, []).append(where)
    return place, found


def _check_keys(keys: list[Any], places: dict[Any, list[Any]], what: str) -> None:
    """Every row means exactly one of the table's, and each another.

    Raises:
        Unreadable: not so.
    """
    for wrong, said in (
        ([one for one, times in Counter(keys).items() if times > 1], "given more than once"),
        ([one for one in keys if one not in places], "not there"),
        ([one for one in keys if len(places.get(one, ())) > 1], "there more than once"),
    ):
        if wrong:
            why = f"of {len(keys):,} values of {what}, {len(wrong):,} are {said}: {_some(wrong)}"
            raise Unreadable(why, "rows_unfit")


def place_of(db: apsw.Connection, schema: str, table: str) -> str:
    """The name of a table's row number; empty where it has none."""
    pragma = f"PRAGMA {quoted(schema)}"
    listed = db.execute(f"{pragma}.table_list({quoted(table)})").fetchall()
    without = {row[0]: row[4] for row in listed}.get(schema)
    columns = db.execute(f"{pragma}.table_xinfo({quoted(table)})").fetchall()
    taken = {str(row[1]).lower() for row in columns}
    return "" if without else next((one for one in _ROW_NUMBER if one not in taken), "")


def quoted(name: str) -> str:
    """A name of a table or column in a statement.

    Raises:
        Unreadable: it has a character that ends the statement.
    """
    if "\x00" in name:
        raise Unreadable(f"{name!r} is no name of a column", "column_unknown")
    return '"' + name.replace('"', '""') + '"'


def _some(found: list[Any]) -> str:
    shown = ", ".join(map(repr, found[:LISTED])) or "none"
    return shown + (f" and {len(found) - LISTED:,} more" if len(found) > LISTED else "")
