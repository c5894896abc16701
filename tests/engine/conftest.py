"""Fixtures: one tiny model for all tests of a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from .tiny import write_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model") / "tiny.gguf")
