"""Fixtures of the store's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from crash_harness import OneOwner

from edvac.core.seams import ManualClock
from edvac.store import MemoryStore, Store


class Kit:
    """One kind of store with its seams; `reopen` is what a new process would see."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind, self.root = kind, root
        self.clock = ManualClock()
        self.owners = OneOwner()
        self._memory = MemoryStore(clock=self.clock, owners=self.owners)
        self.store: Any = self._open()

    def _open(self) -> Any:
        if self.kind == "memory":
            return self._memory
        return Store(self.root, clock=self.clock, owners=self.owners)

    def reopen(self) -> Any:
        self.store.close()
        self.store = self._open()
        return self.store

    def close(self) -> None:
        self.store.close()


@pytest.fixture(params=["sqlite", "memory"])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kit]:
    made = Kit(request.param, tmp_path)
    yield made
    made.close()
