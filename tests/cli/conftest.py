from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

from cli_kit import edvac
from hasty import hasty

from edvac.engine import client

__all__ = ["edvac", "hasty"]  # fixtures


@pytest.fixture(autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines, and what they keep, of the test's own: `rm` takes away what all of them read."""
    cache = tmp_path_factory.mktemp("engine")
    monkeypatch.setattr(client, "default_cache", lambda: cache)
    monkeypatch.setattr(client, "default_runtime", lambda: cache / "none")
    return cache
