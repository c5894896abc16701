"""Fixtures of the store's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import postgresql_server
from postgresql_server import Cluster
from store_kit import Kit


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
