"""Fixtures of the store's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from postgresql_server import cluster, server
from store_kit import Kit

__all__ = ["cluster", "server"]  # fixtures


@pytest.fixture(params=["sqlite", "memory", "postgresql"])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kit]:
    url = ""
    if request.param == "postgresql":
        url = request.getfixturevalue("server").url()
    made = Kit(request.param, tmp_path, url)
    yield made
    made.close()
