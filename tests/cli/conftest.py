from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

from cli_kit import Bench, make_bench

from edvac.engine import client


@pytest.fixture(autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines, and what they keep, of the test's own: `rm` takes away what all of them read."""
    cache = tmp_path_factory.mktemp("engine")
    monkeypatch.setattr(client, "default_cache", lambda: cache)
    monkeypatch.setattr(client, "default_runtime", lambda: cache / "none")
    return cache


@pytest.fixture
def edvac(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bench:
    for name in [name for name in os.environ if name.startswith("EDVAC_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "work"
    root.mkdir()
    return make_bench(root, monkeypatch, capsys)
