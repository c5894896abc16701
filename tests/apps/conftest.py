from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[Any]:
    """edvac's checkpointer on a fresh workspace."""
    pytest.importorskip("langgraph.checkpoint.base", reason="needs edvac[langgraph]")
    from edvac.apps.langgraph import EdvacSaver

    with EdvacSaver(tmp_path) as made:
        yield made
