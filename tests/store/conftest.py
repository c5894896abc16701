"""Fixtures of the store's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import postgresql_server
from crash_harness import OneOwner
from postgresql_server import Cluster

from edvac.core.seams import ManualClock
from edvac.store import MemoryStore, Store


class Kit:
    """One kind of store with its seams; `reopen` is what a new process would see."""

    def __init__(self, kind: str, root: Path, url: str = "") -> None:
        self.kind, self.root, self.url = kind, root, url
        self.clock = ManualClock()
        self.owners = OneOwner()
        self._memory = MemoryStore(clock=self.clock, owners=self.owners)
        self.store: Any = self._open()

    def _open(self) -> Any:
        if self.kind == "memory":
            return self._memory
        if self.kind == "postgresql":
            from edvac.store.postgresql import PostgresqlStore

            return PostgresqlStore(self.url, self.root, clock=self.clock, owners=self.owners)
        return Store(self.root, clock=self.clock, owners=self.owners)

    def reopen(self) -> Any:
        self.store.close()
        self.store = self._open()
        return self.store

    def close(self) -> None:
        self.store.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One PostgreSQL server for all tests; skips where there can be none."""
    why = postgresql_server.missing()
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


@pytest.fixture(params=["sqlite", "memory", "postgresql"])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kit]:
    url = ""
    if request.param == "postgresql":
        url = request.getfixturevalue("server").url()
    made = Kit(request.param, tmp_path, url)
    yield made
    made.close()
