"""A store's tables in a PostgreSQL database, and what a server has to promise before it is used.

The tables are those of `schema`, each store's in a schema of its own, and those of `dialect`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edvac.core.errors import StoreError
from edvac.store import dialect, schema
from edvac.store.address import Address
from edvac.store.model import Problem
from edvac.store.schema import Execute, check_format, upgrade

OLDEST_SERVER = 130000
_TABLES_FORMAT = 2  # of `dialect.TABLES`
# The session's own settings come first: that commits wait for the disk must not hang on what the
# server, the database or the user have as their default.
_SESSION = (
    "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')"
    " WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),"
    " set_config('search_path', $1, false), set_config('lock_timeout', '30s', false),"
    # A transaction whose client is gone must not hold its locks for ever.
    " set_config('idle_in_transaction_session_timeout', '60s', false),"
    # How values are spelt in the text that a seal covers.
    " set_config('extra_float_digits', '1', false), set_config('bytea_output', 'hex', false),"
    " set_config('client_min_messages', 'error', false),"
    " current_setting('server_version_num')::int, current_setting('server_encoding'),"
    " current_setting('fsync'), current_setting('full_page_writes')"
)
_EXISTS = "SELECT count(*) FROM pg_namespace WHERE nspname = ?"
_TABLES = (
    "SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
    " WHERE nspname = ? AND relkind = 'r'"
)
_COLUMNS = (
    "SELECT relname::text, attname::text, format_type(atttypid, atttypmod), attnotnull,"
    " attcollation::bigint FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
    " WHERE relnamespace = {} AND relkind = 'r' AND attnum > 0 AND NOT attisdropped ORDER BY 1, 2"
)
_ABOUT = "CREATE TABLE store (format bigint NOT NULL, tables bigint NOT NULL)"


def check_server(execute: Callable[..., Any], address: Address) -> None:
    """Set up a session, and refuse a server on which a commit would promise too much.

    Raises:
        StoreError: it is too old, does not speak UTF-8, or may lose what it confirms.
    """
    commit, *_, version, encoding, synced, whole = execute(
        _SESSION, [f'"{address.schema}"']
    ).fetchone()
    if version < OLDEST_SERVER or encoding != "UTF8":
        raise StoreError(
            "store_server_unfit",
            f"the database at {address.shown} cannot hold a store",
            f"It has version {version // 10000} and encoding {encoding}.",
            f"It takes version {OLDEST_SERVER // 10000} or later, and UTF8.",
        )
    off = [
        name for name, value in (("fsync", synced), ("full_page_writes", whole)) if value != "on"
    ]
    if commit not in ("on", "remote_apply"):
        off.append("synchronous_commit")
    if off and not address.unsafe:
        raise StoreError(
            "store_not_durable",
            f"the database at {address.shown} may lose what it has confirmed",
            f"Off on this server: {', '.join(off)}.",
            "Switch it on in postgresql.conf, or add unsafe=1 to the URL for data you can lose.",
        )


def prepare(execute: Execute, name: str, key: int) -> None:
    """Make the tables, or bring them up to date, in one transaction under the store's lock `key`.

    Raises:
        StoreError: they are a newer edvac's, or the schema holds something else.
    """
    if _format(execute, name) == (schema.FORMAT, _TABLES_FORMAT):
        return
    execute("BEGIN")
    execute("SELECT pg_advisory_xact_lock(?)", (key,))
    found = _format(execute, name)  # again: somebody may have been faster
    if found is None:
        _create(execute, name)
    else:
        if found[1] > _TABLES_FORMAT:
            raise StoreError(
                "store_newer",
                f"the store's tables have format {found[1]}, this edvac reads {_TABLES_FORMAT}",
                "A newer edvac wrote it.",
                "Update edvac, or choose another workspace.",
            )
        check_format(found[0])
        upgrade(execute, found[0])
        for number in range(found[1] + 1, _TABLES_FORMAT + 1):
            execute(dialect.ADDED[number])
        execute("UPDATE store SET format = ?, tables = ?", (schema.FORMAT, _TABLES_FORMAT))
    execute("COMMIT")


def _format(execute: Execute, name: str) -> tuple[int, int] | None:
    """Of the shared tables and of this database's own; None where there is no store."""
    # Not to_regclass: it answers from a cache that an advisory lock does not bring up to date.
    if not execute(f"{_TABLES} AND relname = 'store'", (name,)).get:
        return None
    rows = execute(f'SELECT format, tables FROM "{name}".store').fetchall()  # noqa: S608
    return rows[0] if rows else (0, 0)


def _create(execute: Execute, name: str) -> None:
    if not execute(_EXISTS, (name,)).get:
        execute(f'CREATE SCHEMA "{name}"')  # a name of plain letters, see `address`
    if execute(_TABLES, (name,)).get:
        raise StoreError(
            "store_foreign",
            f"the schema {name!r} belongs to another program",
            "It has tables, and none that says that they are a store's.",
            "Add schema=NAME to the URL, with another name.",
        )
    for statement in (*dialect.FUNCTIONS, _ABOUT):
        execute(statement)
    upgrade(execute, 0)
    for statement in dialect.TABLES:
        execute(statement)
    execute("INSERT INTO store VALUES (?,?)", (schema.FORMAT, _TABLES_FORMAT))


def schema_problems(execute: Execute, name: str) -> list[Problem]:
    """Where the tables are not those of this format: compared with ones made aside, in the caller's
    transaction, which is to be rolled back."""
    found = execute(_COLUMNS.format("?::regnamespace"), (name,)).fetchall()
    execute("SET LOCAL search_path = pg_temp")
    execute(_ABOUT)
    upgrade(execute, 0)
    for statement in dialect.TABLES:
        execute(statement)
    wanted = execute(_COLUMNS.format("pg_my_temp_schema()")).fetchall()
    changed = sorted({f"{row[0]}.{row[1]}" for row in {*found} ^ {*wanted}})
    return [
        Problem("schema_changed", f"column {column}", "it is not that of this format")
        for column in changed
    ]
