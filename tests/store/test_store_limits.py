"""What the store does when the system refuses: room, files, and each single operation in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crash_harness import OneOwner
from small_disk import PAGE, mounted
from store_kit import elsewhere

from edvac.core.errors import DamageError, InternalError, StoreError
from edvac.store import NewRecord, RunInfo, Store
from edvac.store.files import SystemFiles

NOW = 1_000_000_000.0


def test_a_large_value_is_read_from_whatever_thread_needs_it(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        ref = store.put_blob(b"large" * 20_000)
        assert elsewhere(lambda: store.get_blob(ref)) == b"large" * 20_000
        assert isinstance(elsewhere(lambda: store.get_blob("0" * 40)), DamageError)
        assert isinstance(elsewhere(store.runs), InternalError)
    with pytest.raises(InternalError, match="closed"):
        store.get_blob(ref)


def test_a_disk_that_fails_another_thread_is_distrusted_by_the_stores_own(tmp_path: Path) -> None:
    class Failing(SystemFiles):
        broken = False

        def open(self, path: Path) -> Any:
            if self.broken:
                raise OSError(5, "Input/output error")
            return super().open(path)

    files = Failing()
    with Store(tmp_path, files=files, owners=OneOwner()) as store:
        store.create_run(RunInfo("r", NOW))
        lease = store.acquire("r", "me", 60, NOW)
        ref = store.put_blob(b"x")
        store.append(lease, [NewRecord("a", "intent")])
        files.broken, before = True, store._db._connection
        error = elsewhere(lambda: store.get_blob(ref))
        assert isinstance(error, StoreError) and error.code == "store_io_failed"
        files.broken = False
        assert store.append(lease, [NewRecord("b", "intent")]) == 2
        assert store._db._connection is not before, "it went on without verifying itself"
        assert store.verify() == []


def test_opening_on_a_full_disk_says_so_and_harms_nothing() -> None:
    refused = 0
    with mounted(1 << 20) as disk:
        with Store(disk.root, owners=OneOwner()) as store:
            store.create_run(RunInfo("r", NOW))
        for pages in range(12):
            disk.leave(pages * PAGE)
            try:
                Store(disk.root, owners=OneOwner()).close()
            except StoreError as error:
                assert error.code == "disk_full" and error.fix
                refused += 1
            disk.make_room()
            with Store(disk.root, owners=OneOwner()) as store:
                assert [run.id for run in store.runs()] == ["r"] and store.verify() == []
        assert refused
