"""The tables of a store and the numbered steps that bring an older store up to date.

The format is SQLite's `user_version`; a newer one is refused, never guessed at. A migration is
added to the table, none is ever changed; only formats from before the first release are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from edvac.core.errors import StoreError

APPLICATION_ID = 0x45445643  # "EDVC"
FORMAT = 5
OLDEST = 2  # the first release's

Execute: TypeAlias = Callable[..., Any]

_TABLES = """
CREATE TABLE run (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  created REAL NOT NULL,
  state TEXT NOT NULL,
  task TEXT NOT NULL,
  program TEXT NOT NULL,
  title TEXT NOT NULL,
  closed REAL,
  seconds REAL NOT NULL DEFAULT 0,
  counts TEXT NOT NULL DEFAULT '{}',
  mark BLOB NOT NULL DEFAULT x''
);
CREATE TABLE head (
  number INTEGER PRIMARY KEY REFERENCES run ON DELETE CASCADE,
  last INTEGER NOT NULL DEFAULT 0,
  hash BLOB NOT NULL,
  epoch INTEGER NOT NULL DEFAULT 0,
  owner TEXT,
  process TEXT,
  acquired REAL NOT NULL DEFAULT 0,
  expires REAL NOT NULL DEFAULT 0,
  seen REAL NOT NULL DEFAULT 0,
  mark BLOB NOT NULL DEFAULT x''
);
CREATE TABLE record (
  id INTEGER PRIMARY KEY,
  epoch INTEGER NOT NULL,
  slot TEXT NOT NULL,
  kind TEXT NOT NULL,
  payload BLOB,
  ref BLOB,
  labels BLOB NOT NULL,
  blobs BLOB NOT NULL,
  segments BLOB NOT NULL,
  files BLOB NOT NULL,
  reuse BLOB,
  hash BLOB NOT NULL
);
CREATE INDEX record_reuse ON record (reuse) WHERE reuse NOTNULL;
CREATE TABLE label (key TEXT PRIMARY KEY, form BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE segment (
  id INTEGER PRIMARY KEY,
  hash BLOB NOT NULL UNIQUE,
  packed BLOB NOT NULL,
  touched REAL NOT NULL
);
CREATE TABLE file (
  id INTEGER PRIMARY KEY,
  number INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  path TEXT NOT NULL,
  version INTEGER NOT NULL,
  slot TEXT NOT NULL,
  content BLOB,
  blob TEXT,
  size INTEGER NOT NULL,
  digest TEXT NOT NULL,
  label TEXT NOT NULL,
  deleted INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  mark BLOB NOT NULL,
  UNIQUE (number, path, version)
);
CREATE TABLE apply (
  number INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  round INTEGER NOT NULL,
  root TEXT NOT NULL,
  phase TEXT NOT NULL,
  files INTEGER NOT NULL,
  mark BLOB NOT NULL DEFAULT x'',
  PRIMARY KEY (number, round)
) WITHOUT ROWID;
CREATE TABLE applied (
  number INTEGER NOT NULL,
  round INTEGER NOT NULL,
  path TEXT NOT NULL,
  before TEXT,
  after TEXT,
  mode INTEGER NOT NULL,
  state TEXT NOT NULL,
  mark BLOB NOT NULL DEFAULT x'',
  PRIMARY KEY (number, round, path),
  FOREIGN KEY (number, round) REFERENCES apply ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE inbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  number INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  kind TEXT NOT NULL,
  payload BLOB NOT NULL,
  posted REAL NOT NULL,
  taken INTEGER NOT NULL DEFAULT 0,
  mark BLOB NOT NULL DEFAULT x''
);
CREATE INDEX inbox_number ON inbox (number, id) WHERE taken = 0;
CREATE TABLE permission (
  id TEXT PRIMARY KEY,
  shape TEXT NOT NULL,
  scope TEXT NOT NULL,
  expires REAL,
  created REAL NOT NULL,
  mark BLOB NOT NULL DEFAULT x''
) WITHOUT ROWID;
"""


def _create(execute: Execute) -> None:
    """0 → `OLDEST`: the first tables."""
    execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            execute(statement)


def _schedules(execute: Execute) -> None:
    """2 → 3: what is run at set times."""
    execute(
        "CREATE TABLE schedule (id TEXT PRIMARY KEY, spec TEXT NOT NULL, created REAL NOT NULL,"
        " fired TEXT NOT NULL, run TEXT NOT NULL, said TEXT NOT NULL,"
        " mark BLOB NOT NULL DEFAULT x'') WITHOUT ROWID"
    )


def _placed(execute: Execute) -> None:
    """3 → 4: what runs that were removed put into real directories, as checksums only."""
    execute(
        "CREATE TABLE placed (key BLOB PRIMARY KEY, mark BLOB NOT NULL DEFAULT x'') WITHOUT ROWID"
    )


_THREADS = """
CREATE TABLE thread (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  namespace TEXT NOT NULL,
  newest TEXT NOT NULL DEFAULT '',
  checkpoints INTEGER NOT NULL DEFAULT 0,
  writes INTEGER NOT NULL DEFAULT 0,
  mark BLOB NOT NULL DEFAULT x'',
  UNIQUE (name, namespace)
);
CREATE TABLE checkpoint (
  number INTEGER NOT NULL REFERENCES thread ON DELETE CASCADE,
  id TEXT NOT NULL,
  parent TEXT,
  run TEXT,
  created REAL NOT NULL,
  bound INTEGER NOT NULL,
  payload BLOB NOT NULL,
  channels BLOB NOT NULL,
  mark BLOB NOT NULL,
  PRIMARY KEY (number, id)
) WITHOUT ROWID;
CREATE INDEX checkpoint_run ON checkpoint (run) WHERE run NOTNULL;
CREATE TABLE task (
  number INTEGER NOT NULL REFERENCES thread ON DELETE CASCADE,
  checkpoint TEXT NOT NULL,
  id TEXT NOT NULL,
  writes BLOB NOT NULL,
  mark BLOB NOT NULL,
  PRIMARY KEY (number, checkpoint, id)
) WITHOUT ROWID;
CREATE TABLE chunk (
  id INTEGER PRIMARY KEY,
  hash BLOB NOT NULL UNIQUE,
  size INTEGER NOT NULL,
  packed BLOB NOT NULL
);
CREATE TABLE piece (
  number INTEGER NOT NULL REFERENCES thread ON DELETE CASCADE,
  stream INTEGER NOT NULL,
  at INTEGER NOT NULL,
  size INTEGER NOT NULL,
  data BLOB,
  chunk INTEGER REFERENCES chunk,
  PRIMARY KEY (number, stream, at)
) WITHOUT ROWID;
CREATE INDEX piece_chunk ON piece (chunk) WHERE chunk NOTNULL;
"""


def _threads(execute: Execute) -> None:
    """4 → 5: checkpoints of threads, whose growing values share what they begin with.

    A value is the beginning of a stream, which is a row of pieces; a piece that is not small lies
    in a chunk, which is kept once however many pieces are alike.
    """
    for statement in _THREADS.split(";\n"):
        if statement.strip():
            execute(statement)


MIGRATIONS: dict[int, Callable[[Execute], None]] = {
    0: _create,
    2: _schedules,
    3: _placed,
    4: _threads,
}


def migrate(execute: Execute) -> int:
    """Bring the database up to `FORMAT` inside the caller's transaction; the format it had.

    Raises:
        StoreError: it is newer than this edvac, or not edvac's.
    """
    found: int = execute("PRAGMA user_version").fetchall()[0][0]
    identity: int = execute("PRAGMA application_id").fetchall()[0][0]
    tables: int = execute("SELECT count(*) FROM sqlite_schema").fetchall()[0][0]
    if identity != APPLICATION_ID and (identity or tables or found):
        raise StoreError(
            "store_foreign",
            "the store file belongs to another program",
            f"It is an SQLite database with application id {identity:#x}.",
            "Move .edvac/store.db away, or choose another workspace.",
        )
    if found > FORMAT:
        raise StoreError(
            "store_newer",
            f"the store has format {found}, this edvac reads up to {FORMAT}",
            "A newer edvac wrote it.",
            "Update edvac, or choose another workspace.",
        )
    if 0 < found < OLDEST:
        raise StoreError(
            "store_older",
            f"the store has format {found}, this edvac reads from {OLDEST} on",
            "It was written before the first release.",
            "Move .edvac away, or choose another workspace.",
        )
    if found < FORMAT:
        for number in sorted(MIGRATIONS):
            if number >= found:
                MIGRATIONS[number](execute)
        execute(f"PRAGMA user_version = {FORMAT}")
    return found
