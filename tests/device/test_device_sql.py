"""SQLite files as hostile input, and rows that a run writes into its own version of them."""

from __future__ import annotations

import datetime as dt
import random
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from device_kit import World

from edvac.device import parser
from edvac.machine.rows import ALL, described, row_changes

pytestmark = pytest.mark.sandbox
TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, price REAL, day DATE)"


def base(path: Path, script: str = "", rows: int = 5) -> Path:
    made = sqlite3.connect(path)
    made.execute(TABLE)
    made.executemany(
        "INSERT INTO t VALUES (?, ?, ?, NULL)", [(n, f"row {n} é", n / 2) for n in range(rows)]
    )
    made.executescript(script)
    made.commit()
    made.close()
    return path


@pytest.fixture
def world(tmp_path: Path) -> World:
    base(tmp_path / "a.db")
    return World({"": tmp_path})


def ask(world: World, query: str, *params: Any, path: str = "a.db") -> Any:
    return world.get("sql.query", path=path, query=query, params=list(params))


def refused(world: World, query: str, path: str = "a.db") -> str:
    return world.refused("sql.query", path=path, query=query, params=[]).code


def test_rows_come_by_column_and_values_go_in(world: World) -> None:
    found = ask(
        world, "SELECT id, name, price FROM t WHERE id > ? AND name LIKE ? ORDER BY id", 2, "row%"
    )
    assert found == [
        {"id": 3, "name": "row 3 é", "price": 1.5},
        {"id": 4, "name": "row 4 é", "price": 2.0},
    ]
    assert ask(world, "SELECT id FROM t WHERE price = ?", Decimal("1.5")) == [{"id": 3}]
    assert ask(world, "SELECT ? AS d, ? AS b, ? AS n", dt.date(2026, 3, 4), True, None) == [
        {"d": "2026-03-04", "b": 1, "n": None}
    ]
    assert ask(world, "SELECT * FROM t WHERE id < 0") == []
    assert ask(world, "WITH x AS (SELECT 1 AS a) SELECT a FROM x; -- done") == [{"a": 1}]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("DELETE FROM t", "query_refused"),
        ("UPDATE t SET name = 'x'", "query_refused"),
        ("CREATE TABLE x (a)", "query_refused"),
        ("ATTACH '/etc/passwd' AS p", "query_refused"),
        ("PRAGMA writable_schema = 1", "query_refused"),
        ("SELECT * FROM pragma_table_info('t')", "query_refused"),
        ("SELECT load_extension('x')", "query_refused"),
        ("VACUUM INTO '/tmp/x'", "query_refused"),
        ("BEGIN", "query_refused"),
        ("SELECT random()", "query_refused"),
        ("SELECT hex(randomblob(8))", "query_refused"),
        ("SELECT date('now')", "query_refused"),
        ("SELECT CURRENT_TIMESTAMP", "query_refused"),
        ("SELECT 1; SELECT 2", "query_unfit"),
        ("SELECT 1; DELETE FROM t", "query_refused"),
        ("", "query_unfit"),
        ("SELEC", "query_unfit"),
        ("SELECT ? FROM t", "query_unfit"),
        ("SELECT id, id FROM t", "query_unfit"),
        ("SELECT * FROM missing", "table_unknown"),
        ("SELECT missing FROM t", "column_unknown"),
        ('SELECT "missing" FROM t', "column_unknown"),
        ("SELECT x'00ff' AS b", "value_unfit"),
        ("SELECT 9e999", "value_unfit"),
        ("SELECT CAST(x'ff' AS TEXT)", "value_unfit"),
        ("SELECT zeroblob(100000000)", "rows_too_many"),
        ("SELECT replace(hex(zeroblob(9000000)), '0', 'ab')", "rows_too_many"),
        ("WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT i FROM r",
         "rows_too_many"),
    ],
)  # fmt: skip
def test_a_query_only_reads_and_is_bounded(world: World, query: str, code: str) -> None:
    assert refused(world, query) == code


def test_a_query_that_does_not_end_is_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parser, "SECONDS", 1)
    text = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r"
    assert refused(world, text) == "query_too_long"


def test_what_a_schema_says_is_no_more_trusted_than_rows(world: World, tmp_path: Path) -> None:
    base(tmp_path / "b.db",
         "CREATE VIEW v AS SELECT load_extension('/tmp/evil') AS x;"
         "CREATE TABLE d (at TEXT DEFAULT CURRENT_TIMESTAMP, r INTEGER DEFAULT (random()), s TEXT);"
         "INSERT INTO d(s) VALUES ('kept');"
         "CREATE VIEW now AS SELECT date('now') AS today;"
         "CREATE VIRTUAL TABLE f USING fts5(body);"
         "INSERT INTO f VALUES ('a needle in hay');")  # fmt: skip
    assert refused(world, "SELECT * FROM v", "b.db") == "query_refused"
    assert refused(world, "SELECT * FROM now", "b.db") == "query_refused"
    [row] = ask(world, "SELECT s, at IS NULL AS empty FROM d", path="b.db")
    assert row == {"s": "kept", "empty": 0}, "a default is not called by reading"
    found = ask(world, "SELECT body FROM f WHERE f MATCH ?", "needle", path="b.db")
    assert found == [{"body": "a needle in hay"}]


def _flipped(raw: bytes) -> bytes:
    rng = random.Random(3)
    made = bytearray(raw)
    for _ in range(400):
        made[rng.randrange(100, len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda raw: raw[:3000], "database_broken"),
        (_flipped, "database_broken"),
        (lambda raw: b"just text, " * 99, "database_unreadable"),
        (lambda raw: random.Random(1).randbytes(8192), "database_encrypted"),
        (lambda raw: raw[:16] + b"\xff" * 84 + raw[100:], "database_broken"),
        (lambda raw: raw[:99], "database_unreadable"),
    ],
    ids=["cut", "flipped", "text", "random", "header", "short"],
)
def test_what_is_no_database_is_an_error_that_says_so(
    world: World, tmp_path: Path, make: Callable[[bytes], bytes], code: str
) -> None:
    (tmp_path / "x.db").write_bytes(make((tmp_path / "a.db").read_bytes()))
    assert refused(world, "SELECT * FROM t ORDER BY name", "x.db") == code
    rows = [{"id": 1, "name": "new"}]
    error = world.refused("sql.update", path="x.db", table="t", rows=rows, key="id")
    assert error.code == code and not world.held.kept


def test_a_file_whose_changes_lie_beside_it_is_not_read(world: World, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    held = sqlite3.connect(path)
    held.execute("PRAGMA journal_mode = WAL")
    held.execute("UPDATE t SET name = 'in the log' WHERE id = 1")
    held.commit()
    assert (tmp_path / "a.db-wal").stat().st_size
    error = world.refused("sql.query", path="a.db", query="SELECT 1", params=[])
    assert error.code == "database_open" and "a.db-wal" in error.why
    held.close()  # it writes the log back; the header still says that there is one
    assert ask(world, "SELECT name FROM t WHERE id = 1") == [{"name": "in the log"}]
    (tmp_path / "a.db-journal").write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(99))
    assert refused(world, "SELECT 1") == "database_open"
    (tmp_path / "a.db-journal").write_bytes(bytes(512))  # as PERSIST leaves it
    assert ask(world, "SELECT 1 AS a") == [{"a": 1}]


def test_rows_are_written_into_the_runs_own_file(world: World, tmp_path: Path) -> None:
    before = (tmp_path / "a.db").read_bytes()
    rows = [{"id": 1, "name": "new", "price": Decimal("3.25")}, {"id": 2, "name": "row 2 é"},
            {"id": 3, "day": dt.date(2026, 3, 4)}]  # fmt: skip
    assert world.get("sql.update", path="a.db", table="t", rows=rows, key="id") == 2
    assert (tmp_path / "a.db").read_bytes() == before, "the user's file is left alone"
    assert ask(world, "SELECT * FROM t WHERE id IN (1, 3)") == [
        {"id": 1, "name": "new", "price": 3.25, "day": None},
        {"id": 3, "name": "row 3 é", "price": 1.5, "day": "2026-03-04"},
    ]
    reply = world.do("sql.update", path="a.db", table="t", rows=rows, key="id")
    assert reply.files == () and reply.value.data == 0, "nothing changes twice"
    assert (
        world.get(
            "sql.update", path="a.db", table="t", rows=[{"name": "new", "price": 1}], key="name"
        )
        == 1
    )


def test_all_rows_fit_or_none_is_written(world: World, tmp_path: Path) -> None:
    base(tmp_path / "c.db", "CREATE UNIQUE INDEX u ON t(name); CREATE VIEW v AS SELECT * FROM t;"
         "CREATE TABLE twice (id, x); INSERT INTO twice VALUES (1, 'a'), (1, 'b');"
         "CREATE TABLE made (id INTEGER PRIMARY KEY, a INT, b INT AS (a + 1));"
         "INSERT INTO made VALUES (1, 1);")  # fmt: skip

    def code(table: str, rows: list[dict[str, Any]], key: str = "id") -> str:
        return world.refused("sql.update", path="c.db", table=table, rows=rows, key=key).code

    assert code("t", [{"id": 1, "name": "x"}, {"id": 99, "name": "y"}]) == "rows_unfit"
    assert code("t", [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]) == "rows_unfit"
    assert code("t", [{"id": 1, "name": "row 2 é"}]) == "rows_unfit"
    assert code("t", [{"name": "x"}]) == "rows_unfit"
    assert code("t", [{"id": 1, "name": ["x"]}]) == "rows_unfit"
    assert code("t", [{"id": 1, "name": 2**63}]) == "rows_unfit"
    assert code("twice", [{"id": 1, "x": "c"}]) == "rows_unfit"
    assert code("t", [{"id": 1, "missing": "x"}]) == "column_unknown"
    assert code("made", [{"id": 1, "b": 7}]) == "column_unknown"
    assert code("v", [{"id": 1, "name": "x"}]) == "table_unknown"
    assert code("missing", [{"id": 1, "name": "x"}]) == "table_unknown"
    assert code("sqlite_schema", [{"name": "t", "sql": ""}], "name") == "table_unknown"
    assert not world.held.kept


def test_a_trigger_keeps_its_promise_and_no_other(world: World, tmp_path: Path) -> None:
    base(tmp_path / "d.db", "CREATE TABLE log (at TEXT DEFAULT CURRENT_TIMESTAMP, what);"
         "CREATE TRIGGER g AFTER UPDATE ON t BEGIN "
         "INSERT INTO log(what) VALUES (new.name); END;")  # fmt: skip
    assert (
        world.get("sql.update", path="d.db", table="t", rows=[{"id": 1, "name": "x"}], key="id")
        == 1
    )
    assert ask(world, "SELECT what FROM log", path="d.db") == [{"what": "x"}]
    base(
        tmp_path / "e.db",
        "CREATE TRIGGER g AFTER UPDATE ON t BEGIN SELECT load_extension('x'); END;",
    )
    error = world.refused(
        "sql.update", path="e.db", table="t", rows=[{"id": 1, "name": "x"}], key="id"
    )
    assert error.code == "query_refused"


def test_rows_are_added_and_tables_and_files_made(world: World) -> None:
    rows = [{"a": 1, "b": "x", "c": Decimal("1.10")}, {"a": None, "b": 'quote "', "d": 2.5}]
    assert world.get("sql.insert", path="new.db", table='odd "name"', rows=rows) == 2
    assert world.get("sql.insert", path="new.db", table='odd "name"', rows=rows[:1]) == 1
    found = ask(world, 'SELECT * FROM "odd ""name""" LIMIT 2', path="new.db")
    assert found == [
        {"a": 1, "b": "x", "c": 1.1, "d": None},
        {"a": None, "b": 'quote "', "c": None, "d": 2.5},
    ]
    assert world.get("sql.insert", path="a.db", table="t", rows=[{"id": 77}]) == 1
    assert (
        world.refused("sql.insert", path="a.db", table="t", rows=[{"id": 78}, {"id": 1}]).code
        == "rows_unfit"
    )
    assert ask(world, "SELECT count(*) AS n FROM t") == [{"n": 6}]


def test_the_case_of_a_tables_name_does_not_count(world: World) -> None:
    assert world.get("sql.insert", path="a.db", table="T", rows=[{"id": 77}]) == 1
    row = {"id": 77, "name": "x"}
    assert world.get("sql.update", path="a.db", table="T", rows=[row], key="id") == 1
    assert ask(world, "SELECT name FROM t WHERE id = 77") == [{"name": "x"}]
    assert world.get("sql.insert", path="a.db", table="É", rows=[{"id": 1}]) == 1
    assert world.get("sql.insert", path="a.db", table="é", rows=[{"id": 2}]) == 1
    assert ask(world, "SELECT id FROM é") == [{"id": 2}], "only ASCII letters are folded"


# -- what differs ---------------------------------------------------------------------------------


def _rows(raw: bytes) -> dict[str, dict[Any, tuple[Any, ...]]]:
    made = sqlite3.connect(":memory:")
    made.deserialize(raw)
    return {
        name: {row[0]: row for row in made.execute(f"SELECT * FROM {name}")} for name in ("t", "u")
    }


@pytest.mark.parametrize("seed", range(8))
def test_what_differs_is_what_an_oracle_says(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = base(tmp_path / "a.db",
                "CREATE TABLE u (k TEXT PRIMARY KEY COLLATE NOCASE, v) WITHOUT ROWID;"
                "INSERT INTO u VALUES ('a', 1), ('b', x'00'), ('c', NULL)", rows=40)  # fmt: skip
    before = path.read_bytes()
    made = sqlite3.connect(path)
    for _ in range(rng.randrange(1, 30)):
        made.execute(rng.choice([
            "UPDATE t SET name = upper(name), price = NULL WHERE id = ?1",
            "UPDATE t SET price = price + 1 WHERE id % 7 = ?1",
            "DELETE FROM t WHERE id = ?1", "INSERT OR REPLACE INTO t VALUES (?1 + 20, 'n', 1, 2)",
            "UPDATE u SET v = '1' WHERE k = 'a' AND ?1 > 5", "UPDATE u SET v = ?1 WHERE k = 'C'",
            "INSERT OR REPLACE INTO u VALUES ('k' || ?1, 0)",
        ]), (rng.randrange(40),))  # fmt: skip
    made.commit()
    made.close()
    old, new = _rows(before), _rows(path.read_bytes())
    found = {one.name: one for one in row_changes("a.db", before, path.read_bytes(), ALL)}
    for name in ("t", "u"):
        both = old[name].keys() & new[name].keys()
        changed = {key for key in both if repr(old[name][key]) != repr(new[name][key])}
        table = found.get(f"table {name}")
        kinds = {} if table is None else {
            kind: {next(iter(row.key.values())) for row in table.rows if row.kind == kind}
            for kind in ("changed", "added", "removed")
        }  # fmt: skip
        assert kinds.get("changed", set()) == changed
        assert kinds.get("added", set()) == new[name].keys() - old[name].keys()
        assert kinds.get("removed", set()) == old[name].keys() - new[name].keys()
        if table is not None:
            assert (table.changed, table.added, table.removed) == tuple(map(len, kinds.values()))


def test_tables_that_come_go_or_change_their_shape_are_named(tmp_path: Path) -> None:
    path = base(tmp_path / "a.db", "CREATE TABLE gone (x); INSERT INTO gone VALUES (1);")
    before = path.read_bytes()
    made = sqlite3.connect(path)
    made.executescript("DROP TABLE gone; CREATE TABLE come (y); INSERT INTO come VALUES (x'ff');"
                       "ALTER TABLE t ADD COLUMN more; CREATE INDEX i ON t(name);")  # fmt: skip
    made.close()
    text, tables = described("a.db", before, path.read_bytes(), 1)
    assert {(one.name, one.kind) for one in tables} == {
        ("index i", "new"), ("table come", "new"), ("table gone", "removed"), ("table t", "changed")
    }  # fmt: skip
    assert "are id, name, price, day, more" in text and "<1 bytes>" in text
    text, _ = described("a.db", before, b"SQLite format 3\x00" + bytes(200), 1)
    assert "its rows cannot be compared" in text
