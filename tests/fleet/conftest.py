from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
sys.path.insert(0, str(Path(__file__).parent))

import pytest
from cli_kit import Bench, make_bench
from postgresql_server import cluster, server

__all__ = ["cluster", "server"]  # fixtures


@pytest.fixture
def edvac(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bench:
    for name in [name for name in os.environ if name.startswith("EDVAC_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "work"
    root.mkdir()
    return make_bench(root, monkeypatch, capsys)
