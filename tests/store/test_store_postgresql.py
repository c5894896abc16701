"""A store on PostgreSQL where it differs: its URL, what it asks of a server, leases between
machines, large blobs, and bytes that somebody changed in the tables."""

from __future__ import annotations

import importlib
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import damage_harness as damage
import pytest
from crash_harness import OneOwner, labels
from postgresql_server import Cluster
from store_kit import elsewhere

from edvac.core.codec import label_form, label_key
from edvac.core.errors import (
    DamageError,
    InternalError,
    LeaseError,
    StoreError,
    UnreachableError,
    UsageError,
)
from edvac.core.label import Label
from edvac.core.seams import ManualClock
from edvac.store import NewRecord, RunInfo, Store, open_store, schema
from edvac.store.chain import content_digest
from edvac.store.files import SystemFiles

NOW = 1_000_000_000.0
HOUR = 3600.0


def opened(url: str, root: Path, **seams: Any) -> Any:
    from edvac.store.postgresql import PostgresqlStore

    seams.setdefault("owners", OneOwner())
    return PostgresqlStore(url, root, **seams)


# opening


def test_a_path_opens_sqlite_and_a_url_postgresql(server: Cluster, tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        assert type(store) is Store and (tmp_path / ".edvac/store.db").exists()
    with open_store(str(tmp_path)) as store:
        assert type(store) is Store
    url = server.url()
    with open_store(url, tmp_path) as store:
        store.create_run(RunInfo("r", NOW))
        assert store.workspace == tmp_path and (tmp_path / ".edvac").is_dir()
    with pytest.raises(StoreError, match="no directory"):
        open_store(url, tmp_path / "none")
    with open_store(url, tmp_path) as store:
        assert [info.id for info in store.runs()] == ["r"]
    with open_store(server.url(), tmp_path) as store:
        assert store.runs() == []  # another schema, another store


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@host:bad/db",
        "postgresql://me:s3cret@host/db?nonsense=1",
        "postgresql://me:s3cret@host/db?schema",
        "postgresql://me:s3cret@host/db?schema=No%20Name",
        "postgresql://me:s3cret@host/db?schema=pg_mine",
        "postgresql://me:s3cret@host/db?blobs=here",
        "postgresql://me:s3cret@host/db?unsafe=yes",
        "postgresql://me:s3cret@[host/db",
        "mysql://me:s3cret@host/db",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(url: str, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(UsageError) as error:
        open_store(url, tmp_path)
    assert error.value.code in ("store_url_malformed", "store_url_unknown")
    shown: BaseException | None = error.value
    while shown is not None:  # nor by what a traceback prints
        assert "s3cret" not in f"{shown!r} {shown}"
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


def test_a_password_is_never_shown(server: Cluster, tmp_path: Path) -> None:
    from edvac.store.address import parse

    server.sql("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    server.sql("GRANT CREATE ON DATABASE postgres TO guarded")
    with open_store(server.url(user="guarded:right"), tmp_path) as store:
        assert store.verify() == []
    secret = "wr/ng p%ss"
    for given in ("wr%2Fng%20p%25ss", "wr%2fng%20p%25ss"):
        url = server.url(user=f"guarded:{given}")
        address = parse(url)
        assert address.parameters["password"] == secret and "wr" not in repr(address)
        assert "***" in address.scrub(f"no {secret} here") and given not in address.scrub(given)
        with pytest.raises(StoreError) as error:
            open_store(url, tmp_path)
        assert error.value.code == "store_refused"
        assert "ng p" not in f"{error.value} {error.value.__cause__}"


def test_without_the_driver_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UsageError, match=r"edvac\[scale\]") as error:
        open_store("postgresql://me@host/db", tmp_path)
    assert error.value.code == "scale_missing"


def test_a_server_that_is_away_is_an_error_to_try_again(server: Cluster, tmp_path: Path) -> None:
    url = f"postgresql://edvac@/postgres?host={server.root}&port=1"
    with pytest.raises(UnreachableError) as error:
        opened(url, tmp_path, patience_s=0)
    found = error.value
    assert (found.code, found.retryable, found.exit_code) == ("store_unreachable", True, 3)
    assert "opening the store" in found.what and str(server.root) in found.what


def test_commits_wait_for_the_disk_whatever_the_default_is(server: Cluster, tmp_path: Path) -> None:
    assert server.sql("SHOW synchronous_commit") == [("off",)]
    with opened(server.url(), tmp_path) as store:
        assert store._db.rows("SHOW synchronous_commit") == [("on",)]


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_may_lose_what_it_confirms_is_refused(
    server: Cluster, tmp_path: Path, setting: str
) -> None:
    def switch(value: str) -> None:
        server.sql(f"ALTER SYSTEM SET {setting} = {value}")
        server.sql("SELECT pg_reload_conf()")
        while server.sql(f"SHOW {setting}") != [(value,)]:
            time.sleep(0.01)

    switch("off")
    try:
        with pytest.raises(StoreError, match=setting) as error:
            opened(server.url(), tmp_path)
        assert error.value.code == "store_not_durable"
        opened(server.url(unsafe="1"), tmp_path).close()
    finally:
        switch("on")
    opened(server.url(), tmp_path).close()


def test_a_schema_of_another_program_is_left_alone(server: Cluster, tmp_path: Path) -> None:
    server.sql("CREATE SCHEMA theirs; CREATE TABLE theirs.run (x int)")
    with pytest.raises(StoreError) as error:
        opened(server.url("theirs"), tmp_path)
    assert error.value.code == "store_foreign"
    tables = server.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'theirs'")
    assert tables == [("run",)]


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (f"UPDATE store SET format = {schema.FORMAT + 1}", "store_newer"),
        ("UPDATE store SET tables = tables + 1", "store_newer"),
        ("UPDATE store SET format = 1", "store_older"),
    ],
)
def test_a_format_that_it_does_not_know_is_refused(
    server: Cluster, tmp_path: Path, change: str, refusal: str
) -> None:
    url = server.url()
    opened(url, tmp_path).close()
    server.sql(change, url.rpartition("schema=")[2])
    with pytest.raises(StoreError) as error:
        opened(url, tmp_path)
    assert error.value.code == refusal


def test_a_store_of_an_older_format_gets_its_tables(
    server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as first:
        first.setattr(schema, "MIGRATIONS", {0: schema.MIGRATIONS[0]})
        first.setattr(schema, "FORMAT", 2)
        opened(server.url("older"), tmp_path).close()
    with opened(server.url("older"), tmp_path) as store:
        assert store.schedules() == [] == store.verify()
    assert server.sql("SELECT format FROM store", "older") == [(schema.FORMAT,)]


def test_tables_that_were_changed_are_told_of(server: Cluster, tmp_path: Path) -> None:
    with opened(server.url("changed"), tmp_path) as store:
        server.sql(
            "ALTER TABLE label ADD extra int; ALTER TABLE run ALTER title TYPE varchar(9)",
            "changed",
        )
        found = store.verify()
        assert [(one.code, one.where) for one in found] == [
            ("schema_changed", "column label.extra"),
            ("schema_changed", "column run.title"),
        ]
        assert store.runs() == []  # the look was taken aside


def test_two_open_one_new_store_at_once(server: Cluster, tmp_path: Path) -> None:
    url = server.url()
    found: list[Any] = []

    def work(number: int) -> None:
        with opened(url, tmp_path) as store:
            store.create_run(RunInfo(f"r{number}", NOW))
            found.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with opened(url, tmp_path) as store:
        assert sorted(info.id for info in store.runs()) == [f"r{n}" for n in sorted(found)]
        assert len(found) == 6


# leases between machines


def on_machine(name: str, boot: str = "boot") -> OneOwner:
    owners = OneOwner()
    owners._me = replace(owners._me, machine=name, boot=boot)
    return owners


def test_a_lease_ends_by_the_databases_clock_alone(server: Cluster, tmp_path: Path) -> None:
    url = server.url()
    there, here = on_machine("one", "b1"), on_machine("two", "b2")
    with opened(url, tmp_path, owners=there) as one, opened(url, tmp_path, owners=here) as two:
        one.create_run(RunInfo("r", NOW))
        first = one.acquire("r", "one", HOUR, time.time() - 10 * HOUR)  # its clock is wrong
        (now,) = server.sql("SELECT extract(epoch FROM clock_timestamp())::float8")[0]
        assert first.expires == pytest.approx(now + HOUR, abs=60)
        with pytest.raises(LeaseError) as error:
            two.acquire("r", "two", HOUR, time.time() + 10 * HOUR)  # and so is this one's
        assert error.value.code == "run_owned"
        assert two.run("r").owner == "one"
        short = one.renew(first, 0.2, 0.0)
        assert short.expires < first.expires
        while True:
            try:
                second = two.acquire("r", "two", HOUR, 0.0)
                break
            except LeaseError:
                time.sleep(0.02)
        (now,) = server.sql("SELECT extract(epoch FROM clock_timestamp())::float8")[0]
        assert now >= short.expires and second.epoch == first.epoch + 1
        with pytest.raises(LeaseError) as late:
            one.append(short, [NewRecord("late", "outcome")])
        assert late.value.code == "lease_stale"
        two.append(second, [NewRecord("a", "outcome")])
        assert [record.slot for record in one.records("r")] == ["a"]


def test_a_copied_machine_is_not_taken_for_one_that_was_started_again(
    server: Cluster, tmp_path: Path
) -> None:
    class Copied(OneOwner):
        def alive(self, process: Any) -> bool | None:  # as the real one answers
            return False if process.boot != self._me.boot else process == self._me

    url, mine = server.url(), Copied()
    mine._me = replace(mine._me, boot="another boot")
    with opened(url, tmp_path) as one, opened(url, tmp_path, owners=mine) as two:
        one.create_run(RunInfo("r", NOW))
        one.acquire("r", "one", HOUR, 0.0)
        with pytest.raises(LeaseError):
            two.acquire("r", "two", HOUR, 0.0)
    with opened(url, tmp_path) as here:  # on the machine itself, a dead owner is known to be dead
        here._owners._owners.die()
        assert here.acquire("r", "three", HOUR, 0.0).epoch == 2


def waiting(server: Cluster) -> bool:
    """Does somebody wait for a lock?"""
    found = server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    return bool(found[0][0])


def test_an_append_waits_for_a_takeover_that_is_under_way_and_then_fails(
    server: Cluster, tmp_path: Path
) -> None:
    url = server.url()
    with opened(url, tmp_path, clock=ManualClock()) as store:
        store.create_run(RunInfo("r", NOW))
        lease = store.acquire("r", "me", 60, NOW)
        found: list[Any] = []

        def append() -> None:
            with opened(url, tmp_path, clock=ManualClock()) as other:
                try:
                    found.append(other.append(lease, [NewRecord("late", "outcome")]))
                except LeaseError as error:
                    found.append(error.code)

        with store._db.write("taking over") as execute:
            from edvac.store.runs import check_epoch
            from edvac.store.seal import reseal

            check_epoch(execute, store._number("r"), lease)
            thread = threading.Thread(target=append)
            thread.start()
            while not waiting(server) and not found:
                time.sleep(0.01)
            execute("UPDATE head SET epoch = epoch + 1, owner = 'you'")
            reseal(execute, "head", "1 = 1", ())
        thread.join()
        assert found == ["lease_stale"] and list(store.records("r")) == []


def test_messages_are_numbered_in_the_order_in_which_they_can_be_read(
    server: Cluster, tmp_path: Path
) -> None:
    url = server.url()
    with opened(url, tmp_path) as store:
        store.create_run(RunInfo("r", NOW))
        found: list[int] = []

        def post() -> None:
            with opened(url, tmp_path) as other:
                found.append(other.post("r", "answer", b"second"))

        with store._db.write("posting") as execute:
            from edvac.store.part import lock_run

            lock_run(execute, "r", store._number("r"))
            first = store._post(execute, store._number("r"), "answer", b"first")
            thread = threading.Thread(target=post)
            thread.start()
            while not waiting(server) and not found:
                time.sleep(0.01)
            assert store.inbox("r")[0].id == first and not found
        thread.join()
        assert [message.id for message in store.inbox("r")] == [first, *found]


@pytest.mark.parametrize("what", ["label", "segment"])
def test_writers_of_the_same_names_never_wait_in_a_ring(
    server: Cluster, tmp_path: Path, what: str
) -> None:
    """This one has written the first name and goes on to the second; the other comes between, and
    names both the other way round."""
    made = [Label.of(sources=[f"file:{number}"]) for number in range(2)]
    first, second = sorted(made, key=label_key)
    texts = sorted(("a" * 50, "b" * 50), key=lambda text: content_digest(text.encode()))
    url, found = server.url(), []

    def insert(execute: Any, at: int) -> None:
        if what == "label":
            label = (first, second)[at]
            execute("INSERT INTO label VALUES (?,?)", (label_key(label), label_form(label)))
        else:
            data = texts[at].encode()
            values = (bytes.fromhex(content_digest(data)), zlib.compress(data), NOW)
            execute("INSERT INTO segment (hash, packed, touched) VALUES (?,?,?)", values)

    def append() -> None:
        with opened(url, tmp_path) as other:
            other.create_run(RunInfo("r", NOW))
            lease = other.acquire("r", "me", 60, NOW)
            names = [(), ()]
            if what == "segment":
                names = [(other.put_segment(text),) for text in reversed(texts)]
            records = [
                NewRecord("s", "outcome", labels=labels(label), segments=name)
                for label, name in zip((second, first), names, strict=True)
            ]
            found.append(other.append(lease, records))

    with opened(url, tmp_path) as store:
        with store._db.write("the test") as execute:
            insert(execute, 0)
            thread = threading.Thread(target=append)
            thread.start()
            while not waiting(server) and not found:
                time.sleep(0.01)
            insert(execute, 1)
        thread.join()
        assert found == [2] and len(list(store.records("r"))) == 2
        assert store.verify() == []


# blobs


def test_large_blobs_lie_in_the_shared_folder(
    server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edvac.store.blobs_postgresql.LARGEST", 3_000_000)
    folder = tmp_path / "shared"
    small, edge, large = b"s" * 9, bytes(3_000_000), b"l" * 3_000_001
    url = server.url("large")
    with opened(url, tmp_path) as store:
        assert store.get_blob(store.put_blob(edge)) == edge
        for put in (store.put_blob, lambda data: store.put_blob_stream([data])):
            with pytest.raises(StoreError) as error:
                put(large)
            assert error.value.code == "blob_too_large" and "blobs=" in error.value.fix
    with pytest.raises(StoreError) as missing:
        opened(server.url("large", blobs=str(folder)), tmp_path)
    assert missing.value.code == "blob_folder_missing"
    folder.mkdir()
    with opened(server.url("large", blobs=str(folder)), tmp_path) as store:
        halves = [large[:1_500_000], large[1_500_000:]]
        refs = [store.put_blob(small), store.put_blob_stream(halves)[0]]
        assert store.put_blob(large) == refs[1]
        assert [store.get_blob(ref) for ref in refs] == [small, large]
        with store.open_blob(refs[1]) as file:
            assert file.read() == large
        files = [path for path in (folder / "blobs").rglob("*") if path.is_file()]
        assert [path.stat().st_size for path in files] == [len(large)]
        store.create_run(RunInfo("r", NOW))
        lease = store.acquire("r", "me", 60, NOW)
        store.append(lease, [NewRecord("a", "outcome", blobs=tuple(refs))])
        store.release(lease)
        assert store.gc(grace_s=-HOUR).blobs == 1  # the one of the right size for the database
        assert store.verify() == []
        files[0].write_bytes(b"L" + large[1:])
        with pytest.raises(DamageError):
            store.get_blob(refs[1])
        assert [problem.code for problem in store.verify()] == ["blob_damaged"]


def test_a_blob_in_pieces_comes_back_whole_and_heals(server: Cluster, tmp_path: Path) -> None:
    data = bytes(range(256)) * 12_000  # three pieces
    with opened(server.url("pieces"), tmp_path) as store:
        ref = store.put_blob(data)
    assert server.sql("SELECT count(*) FROM blob_piece", "pieces") == [(3,)]
    with opened(server.url("pieces"), tmp_path) as store:
        assert store.get_blob(ref) == data
        server.sql("DELETE FROM blob_piece WHERE place = 1", "pieces")
        with pytest.raises(DamageError):
            store.get_blob(ref)
        assert [problem.code for problem in store.verify()] == ["blob_damaged"]
    with opened(server.url("pieces"), tmp_path) as store:
        assert store.put_blob(data) == ref and store.get_blob(ref) == data
        assert store.verify() == []


def test_a_blob_can_be_read_from_whatever_thread_needs_it(server: Cluster, tmp_path: Path) -> None:
    with opened(server.url(), tmp_path) as store:
        ref = store.put_blob(b"large" * 20_000)
        with store._db.write("elsewhere") as execute:  # a transaction of its own thread's
            execute("SELECT 1")
            assert elsewhere(lambda: store.get_blob(ref)) == b"large" * 20_000
        assert isinstance(elsewhere(lambda: store.get_blob("0" * 40)), DamageError)
        assert isinstance(elsewhere(store.runs), InternalError)
        server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'edvac'"
        )
        assert elsewhere(lambda: store.get_blob(ref)) == b"large" * 20_000
        assert store.get_blob(ref) == b"large" * 20_000
    with pytest.raises(InternalError, match="closed"):
        store.get_blob(ref)


def test_writers_in_one_folder_do_not_clean_up_after_one_another(
    server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each machine's processes have the same numbers; only the machine tells them apart."""
    monkeypatch.setattr("edvac.store.blobs_postgresql.LARGEST", 10)
    (tmp_path / "shared").mkdir()
    url = server.url("folder", blobs=str(tmp_path / "shared"))
    there, here = on_machine("one", "b1"), on_machine("two", "b2")
    here.die()  # no process of this machine has the number of that one's

    class Slow(SystemFiles):
        def rename(self, source: Path, target: Path) -> None:
            opened(url, tmp_path, owners=here).close()
            super().rename(source, target)

    with opened(url, tmp_path, owners=there, files=Slow()) as store:
        ref = store.put_blob(b"more than ten bytes")
        assert store.get_blob(ref) == b"more than ten bytes"


def test_gc_keeps_what_was_put_since_a_live_lease_was_taken(
    server: Cluster, tmp_path: Path
) -> None:
    clock = ManualClock()
    with opened(server.url(), tmp_path, clock=clock) as store:
        store.create_run(RunInfo("r", NOW))
        before = store.put_blob(b"before")
        clock.advance(5)
        lease = store.acquire("r", "me", 60, clock.wall())
        clock.advance(5)
        since = store.put_blob(b"since")
        assert store.gc(grace_s=0.0).blobs == 1
        with pytest.raises(DamageError):
            store.get_blob(before)
        assert store.get_blob(since) == b"since"
        assert store.append(lease, [NewRecord("a", "outcome", blobs=(since,))]) == 1


def test_a_run_that_is_forgotten_leaves_no_row(server: Cluster, tmp_path: Path) -> None:
    url = server.url()
    with opened(url, tmp_path, clock=ManualClock()) as store:
        damage.build_by(lambda: opened(url, tmp_path, clock=ManualClock()), threads=False)
        for run in ("r1", "r2"):
            store._owners._owners.die()
            store.forget_run(run)
        assert store.runs() == [] == store.verify()
        loose = store.put_blob(b"loose" * 100)  # which no run has named
        for table in ("record", "label", "segment", "file", "inbox", "applied", "head", "queue"):
            assert store._db.rows(f"SELECT count(*) FROM {table}") == [(0,)], table
        assert list(store._blobs.all()) == [loose]


def test_gc_waits_for_an_append_that_is_under_way(server: Cluster, tmp_path: Path) -> None:
    url = server.url()
    with opened(url, tmp_path) as store:
        ref = store.put_blob(b"loose")
        found: list[Any] = []

        def collect() -> None:
            with opened(url, tmp_path) as other:
                found.append(other.gc(grace_s=-HOUR))

        with store._db.write("appending"):
            thread = threading.Thread(target=collect)
            thread.start()
            while not waiting(server) and not found:
                time.sleep(0.01)
            assert found == [] and store._blobs.size(ref) == 5
        thread.join()
        assert found[0].blobs == 1


def test_a_text_with_a_nul_is_refused_and_nothing_else_harmed(
    server: Cluster, tmp_path: Path
) -> None:
    with opened(server.url(), tmp_path) as store:
        with pytest.raises(StoreError) as error:
            store.create_run(RunInfo("r", NOW, task="a\0b"))
        assert error.value.code == "store_failed" and "NUL" in error.value.why
        store.create_run(RunInfo("r", NOW, task="ab"))
        assert [info.task for info in store.runs()] == ["ab"]
