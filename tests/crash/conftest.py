from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

from crash_kit import Ended, Server, live, workspace


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="session")
def undisturbed(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ended, float, Path]:
    """The run that nobody kills, how long it takes, and its workspace."""
    work = workspace(tmp_path_factory.mktemp("undisturbed"))
    start = time.monotonic()
    ended = live(server, work, [])
    assert not ended.faults
    return ended, time.monotonic() - start, work


@pytest.fixture
def done_workspace(undisturbed: tuple[Ended, float, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed[2], tmp_path / "done"))
