"""The run's own files as devices see them: one question to the store, labels as they were
written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edvac.control import Record
from edvac.control.step import WrittenFile
from edvac.core.label import PROGRAM, UNBOUNDED, Label
from edvac.core.value import lift
from edvac.device import Version
from edvac.machine.ledger import Ledger
from edvac.machine.overlay import Overlay
from edvac.store import RunInfo, Store

COUNT = 40


def label_of(number: int) -> Label:
    return Label.of([f"file:inbox/{number}"], readers=["user"], bits=UNBOUNDED)


def written(ledger: Ledger, files: list[WrittenFile]) -> None:
    def begin(store: Store) -> Any:
        store.create_run(RunInfo("r", 0.0))
        return store.acquire("r", "me", 60.0, 0.0)

    lease = ledger.call_now(begin)
    record = Record("outcome", "slot", {"at": "x"}, lift("x", PROGRAM), tuple(files))
    asyncio.run(ledger.commit(lease, [record]))


def test_all_versions_are_one_call_and_each_label_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, labels = [0], [0]
    call, label = Ledger.call, Store.label

    async def counted_call(self: Ledger, function: Any) -> Any:
        calls[0] += 1
        return await call(self, function)

    def counted_label(self: Store, key: str) -> Label:
        labels[0] += 1
        return label(self, key)

    ledger = Ledger(lambda: Store(tmp_path))
    try:
        files = [WrittenFile(f"out/{n}", b"x", label_of(n % 5)) for n in range(COUNT)]
        written(ledger, [*files, WrittenFile("out/3", None, label_of(9))])
        monkeypatch.setattr(Ledger, "call", counted_call)
        monkeypatch.setattr(Store, "label", counted_label)
        overlay = Overlay(ledger, "r", {})
        found = asyncio.run(overlay.versions())
        assert found["out/7"] == Version(label_of(2)) and found["out/3"].removed
        assert found["out/3"].label is label_of(9), "of the removal, not of what was removed"
        assert list(found) == sorted(found) and len(found) == COUNT
        assert (calls[0], labels[0]) == (1, 6)
        assert asyncio.run(overlay.versions()) == found
        assert (calls[0], labels[0]) == (2, 6)
    finally:
        ledger.close()
