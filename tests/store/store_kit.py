"""One kind of store with its seams, for tests that every kind has to pass."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from crash_harness import OneOwner

from edvac.core.seams import ManualClock
from edvac.store import MemoryStore, Store


class Kit:
    """One kind of store with its seams; `reopen` is what a new process would see."""

    def __init__(self, kind: str, root: Path, url: str = "") -> None:
        self.kind, self.root, self.url = kind, root, url
        self.clock = ManualClock()
        self.owners = OneOwner()
        self._memory = MemoryStore(clock=self.clock, owners=self.owners)
        self.store: Any = self._open()

    def _open(self) -> Any:
        if self.kind == "memory":
            return self._memory
        if self.kind == "postgresql":
            from edvac.store.postgresql import PostgresqlStore

            return PostgresqlStore(self.url, self.root, clock=self.clock, owners=self.owners)
        return Store(self.root, clock=self.clock, owners=self.owners)

    def reopen(self) -> Any:
        self.store.close()
        self.store = self._open()
        return self.store

    def close(self) -> None:
        self.store.close()


def elsewhere(work: Any) -> Any:
    """What a call on another thread gives or raises."""
    found: list[Any] = []

    def call() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return found[0]
