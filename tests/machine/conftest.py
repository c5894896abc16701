from __future__ import annotations

from pathlib import Path

import pytest
from machine_kit import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    for number, word in enumerate(["ann", "bert", "cleo"]):
        made.file(f"inbox/{number}.txt", f"word={word}\n")
    made.count(monkeypatch)
    return made
