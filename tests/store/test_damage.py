"""Bytes that change behind the store's back are refused or told of, never returned."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import damage_harness as harness
import pytest


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    root = tmp_path_factory.mktemp("damage") / "whole"
    return root, harness.build(root)


@pytest.mark.parametrize("name", harness.DAMAGES)
def test_a_change_is_noticed(whole: tuple[Path, object], tmp_path: Path, name: str) -> None:
    shutil.copytree(whole[0], tmp_path / "copy")
    harness.DAMAGES[name](tmp_path / "copy")
    assert harness.seen(tmp_path / "copy", whole[1]) in ("refused", "told")


@pytest.mark.slow
def test_no_flipped_byte_comes_back_as_data(whole: tuple[Path, object], tmp_path: Path) -> None:
    """A byte in free space harms nothing; any other is refused or told of."""
    rng = random.Random(4)
    data = (whole[0] / ".edvac/store.db").read_bytes()
    shutil.copytree(whole[0], tmp_path / "copy")
    found = {"clean": 0, "told": 0, "refused": 0, "lied": 0}
    for _ in range(400):
        at = rng.randrange(len(data))
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        (tmp_path / "copy/.edvac/store.db").write_bytes(bytes(changed))
        answer = harness.seen(tmp_path / "copy", whole[1])
        found[answer] += 1
        assert answer != "lied", f"byte {at}"
    assert found["refused"] + found["told"] > 60
