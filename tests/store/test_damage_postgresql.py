"""A PostgreSQL database whose bytes were changed, and one that refuses: both are told of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import damage_harness as damage
import pytest
from postgresql_server import Cluster
from test_store_postgresql import NOW, opened

from edvac.core.errors import StoreError
from edvac.core.seams import ManualClock
from edvac.store import RunInfo

MORE = {
    "piece flipped": "UPDATE blob_piece SET data = set_byte(data, 9, get_byte(data, 9) # 1)",
    "piece cut": "UPDATE blob_piece SET data = substring(data FOR length(data) - 1)",
    "piece lost": "DELETE FROM blob_piece",
    "blob lost": "DELETE FROM blob",
}


def for_postgresql(sql: str) -> str:
    sql = re.sub(r"(?<![\w'])x'", r"'\\x", sql.replace("zeroblob(16)", "x'00'"))
    sql = sql.replace("0xffffffff", str(0xFFFFFFFF))
    return sql.replace("(2 <<", "(2::bigint <<").replace("(1 <<", "(1::bigint <<")


@pytest.mark.parametrize("name", [*damage.SQL, *MORE])
def test_a_change_behind_the_stores_back_is_noticed(
    server: Cluster, tmp_path: Path, name: str
) -> None:
    url = server.url()
    schema_name = url.rpartition("schema=")[2]

    def make() -> Any:
        return opened(url, tmp_path, clock=ManualClock())

    truth = damage.build_by(make, threads=False)
    assert damage.seen_by(make, truth) == "clean"
    change = for_postgresql(damage.SQL[name]) if name in damage.SQL else MORE[name]
    server.sql(change, schema_name)
    assert damage.seen_by(make, truth) in ("refused", "told")


@pytest.mark.parametrize(
    ("state", "code", "retryable"),
    [
        ("53100", "disk_full", False),
        ("58030", "store_io_failed", False),
        ("XX001", "store_damaged", False),
        ("40P01", "store_busy", False),
        ("42501", "store_unwritable", False),
        ("57P01", "store_unreachable", True),
        ("22012", "store_failed", False),
    ],
)
def test_what_the_server_says_has_a_typed_error(
    server: Cluster, tmp_path: Path, state: str, code: str, retryable: bool
) -> None:
    says = f"DO $$ BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = '{state}'; END $$"
    with opened(server.url(), tmp_path) as store:
        with pytest.raises(StoreError) as error, store._db.write("it") as execute:
            execute(says)
        assert (error.value.code, error.value.retryable) == (code, retryable)
        store.create_run(RunInfo("r", NOW))
        assert [info.id for info in store.runs()] == ["r"]


def test_a_server_that_only_reads_is_said_to_be_so(server: Cluster, tmp_path: Path) -> None:
    url = server.url()
    opened(url, tmp_path).close()
    with opened(f"{url}&options=-cdefault_transaction_read_only%3Don", tmp_path) as store:
        assert store.runs() == []
        with pytest.raises(StoreError) as error:
            store.create_run(RunInfo("r", NOW))
        assert error.value.code == "store_unwritable" and "standby" in error.value.fix
