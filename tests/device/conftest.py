from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sandbox"))
sys.path.insert(0, str(Path(__file__).parent))

from sandbox_kit import skip_without_bubblewrap


def pytest_runtest_setup(item: pytest.Item) -> None:
    skip_without_bubblewrap(item)
    if item.get_closest_marker("ocr") and shutil.which("tesseract") is None:
        pytest.skip("needs tesseract")
