from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

from cli_kit import Bench, make_bench


@pytest.fixture
def edvac(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bench:
    for name in [name for name in os.environ if name.startswith("EDVAC_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "work"
    root.mkdir()
    return make_bench(root, monkeypatch, capsys)
