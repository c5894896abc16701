"""A PostgreSQL server of the tests' own: a cluster in a temporary directory, on a Unix socket, and
at an address only where a test gives one.

PostgreSQL refuses to run as root; there the user `postgres`, whom its packages make, runs it.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

BINARIES = ("initdb", "postgres", "pg_ctl")
CONFIGURATION = """
listen_addresses = '{listen}'
unix_socket_directories = '{root}'
max_connections = 300
shared_buffers = 32MB
fsync = on
full_page_writes = on
synchronous_commit = off
log_min_messages = warning
"""
# synchronous_commit is off as a default: the store has to see to it itself.


def binaries() -> Path | None:
    """Where PostgreSQL's programs are, the newest version first."""
    packaged = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name)
    )
    on_path = shutil.which("pg_ctl")
    for folder in [*packaged, *([Path(on_path).parent] if on_path else [])]:
        if all((folder / name).exists() for name in BINARIES):
            return folder
    return None


def missing() -> str:
    """Why there can be no server here; empty where there can."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed (the extra `scale`)"
    if binaries() is None:
        return "no initdb, postgres and pg_ctl under /usr/lib/postgresql/*/bin or on PATH"
    if os.geteuid() == 0 and not _exists("postgres"):
        return "PostgreSQL refuses to run as root, and there is no user postgres"
    return ""


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


class Cluster:
    """A running server. Its superuser `edvac` needs no password, `guarded` needs one.

    Args:
        listen: an address of this machine, whose network of 256 is let in.
    """

    def __init__(self, listen: str = "") -> None:
        found = binaries()
        assert found is not None
        self.bin = found
        self.root = Path(tempfile.mkdtemp(prefix="edvac-pg-"))
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self.root, "postgres", "postgres")
        self.data = self.root / "data"
        self._schemas = 0
        # ICU's order of texts is not that of their bytes: what relies on the latter shows.
        icu = ["--locale-provider=icu", "--icu-locale=en-US"]
        make = ["initdb", "-D", self.data, "-U", "edvac", "-E", "UTF8", "--locale=C.UTF-8"]
        make += ["--auth=trust", "--no-sync"]
        if self._run([*make, *icu], check=False) != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            self._run(make)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(CONFIGURATION.format(root=self.root, listen=listen))
        rules = (self.data / "pg_hba.conf").read_text()
        guard = "local all guarded scram-sha-256\n"
        guard += f"host all edvac {listen}/24 trust\n" if listen else ""
        (self.data / "pg_hba.conf").write_text(guard + rules)
        self.start()

    def _run(self, command: list[Any], check: bool = True) -> int:
        program = [str(self.bin / command[0]), *map(str, command[1:])]
        with (self.root / "tools.log").open("ab") as log:
            done = subprocess.run(
                program,
                cwd=self.root,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={"PATH": f"{self.bin}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                check=False,
                **self._user,
            )
        if check and done.returncode:
            raise RuntimeError((self.root / "tools.log").read_text()[-2000:])
        return done.returncode

    def start(self, *options: str) -> None:
        given = ["-o", " ".join(options)] if options else []
        log = self.root / "server.log"
        self._run(["pg_ctl", "-D", self.data, "-w", "-s", "-l", log, *given, "start"])

    def stop(self, mode: str = "fast") -> None:
        self._run(["pg_ctl", "-D", self.data, "-w", "-s", "-m", mode, "stop"])

    def restart(self, mode: str = "fast") -> None:
        """`immediate` is a crash: the server comes back by reading its log."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        self._run(["pg_ctl", "-D", self.data, "-w", "-s", "-m", "immediate", "stop"], check=False)
        shutil.rmtree(self.root, ignore_errors=True)

    def url(self, schema: str = "", user: str = "edvac", **query: str) -> str:
        """The URL of a store in this cluster; without a name, of a new one."""
        self._schemas += 1
        asked = {"host": str(self.root), "schema": schema or f"s{self._schemas}", **query}
        text = "&".join(f"{key}={quote(value, safe='')}" for key, value in asked.items())
        return f"postgresql://{user}@/postgres?{text}"

    def empty(self) -> None:
        """Drop every store, one at a time: all at once would need too many locks."""
        sql = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|public|information_schema)'"
        for (name,) in self.sql(sql):
            self.sql(f'DROP SCHEMA "{name}" CASCADE')

    def sql(self, statement: str, schema: str = "public") -> list[Any]:
        """What somebody else does to the database, behind the store's back."""
        import psycopg

        with psycopg.connect(
            host=str(self.root), user="edvac", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f"SET search_path = {schema}")
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One PostgreSQL server for all tests; skips where there can be none."""
    why = missing()
    if why:
        pytest.skip(why)
    made = Cluster()
    yield made
    made.close()


@pytest.fixture
def server(cluster: Cluster) -> Iterator[Cluster]:
    """The same, for one test: what it made goes with it, so that a crash is recovered from soon."""
    yield cluster
    cluster.empty()
