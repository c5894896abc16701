from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

from hasty import hasty
from machine_kit import Bench

__all__ = ["hasty"]  # a fixture


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    for number, word in enumerate(["ann", "bert", "cleo"]):
        made.file(f"inbox/{number}.txt", f"word={word}\n")
    made.count(monkeypatch)
    return made
