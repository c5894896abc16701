from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

from machine_kit import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    for number, word in enumerate(["ann", "bert", "cleo"]):
        made.file(f"inbox/{number}.txt", f"word={word}\n")
    made.count(monkeypatch)
    return made
