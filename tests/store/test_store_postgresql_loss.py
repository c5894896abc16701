"""The server goes away at any moment: nothing that was acknowledged is lost, nothing is doubled.

A caller repeats what failed with `store_unreachable`, and does no more than that.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import crash_harness as harness
import pytest
from postgresql_server import Cluster
from test_store_postgresql import HOUR, NOW, opened

from edvac.core.errors import DamageError, StoreError, UnreachableError
from edvac.core.seams import ManualClock
from edvac.store import ApplyEntry, FileVersion, Grant, MemoryStore, NewRecord, Offer, RunInfo

EVERY = int(os.environ.get("EDVAC_CUT_EVERY", "15"))  # 1 cuts at each statement


class Cut:
    """A connection that breaks at its `at`-th statement, counted over all connections: before the
    server got it, or after it was executed and only the answer was lost."""

    def __init__(self, real: Any, plan: Plan) -> None:
        self._real, self._plan = real, plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, sql: str, *given: Any, **options: Any) -> Any:
        import psycopg

        plan = self._plan
        plan.count += 1
        hit = plan.count == plan.at if plan.at else plan.matches(sql)
        if hit and not plan.after:
            self._real.close()
            raise psycopg.OperationalError("cut before the statement")
        found = self._real.execute(sql, *given, **options)
        if hit:
            self._real.close()
            plan.then()
            raise psycopg.OperationalError("cut after the statement")
        return found


class Plan:
    """Where the connection breaks: at a number, or once at the first statement like `text`."""

    def __init__(self, at: int = 0, after: bool = True, text: str = "") -> None:
        self.count, self.at, self.after, self._text = 0, at, after, text
        self.then: Callable[[], None] = lambda: None

    def matches(self, sql: str) -> bool:
        found = bool(self._text) and sql.startswith(self._text)
        if found:
            self._text = ""
        return found

    def next(self, text: str, after: bool = True) -> None:
        self._text, self.after = text, after


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    """Connections that are made from now on follow this plan."""
    pytest.importorskip("psycopg")
    from edvac.store.database_postgresql import PostgresqlDatabase

    plan, real = Plan(), PostgresqlDatabase.connect
    monkeypatch.setattr(
        PostgresqlDatabase,
        "connect",
        lambda self, *given, **more: Cut(real(self, *given, **more), plan),
    )
    yield plan


def insist(work: Callable[[], Any]) -> Any:
    """What a caller does: the same again, as long as it is said to be worth trying."""
    for _ in range(50):
        try:
            return work()
        except UnreachableError as error:
            assert error.retryable and not error.in_doubt, error
    raise AssertionError("it never worked")


def story(store: Any, again: Callable[[Callable[[], Any]], Any]) -> list[Any]:
    """One of each kind of change, and what it answered."""
    lease, messages = None, [0]

    def post() -> Any:
        nonlocal messages
        messages = store.post_all("r", "answer", [b"one", b"two"])
        return len(messages)

    def acquire() -> Any:
        nonlocal lease
        lease = store.acquire("r", "me", 60, NOW)
        return lease.expires

    def rich() -> Any:
        ref, segment = store.put_blob(b"b" * 100), store.put_segment("You are a part. " * 9)
        record = NewRecord(
            "rich", "outcome", b"p", harness.labels(harness.FILE_LABEL), (ref,), (segment,)
        )
        files = [FileVersion("a", 1, "rich", b"x")]
        return store.append(lease, [record], files, messages[:1])

    entries = [ApplyEntry("a", None, "d"), ApplyEntry("b", None, "")]
    changes: list[Callable[[], Any]] = [
        lambda: store.create_run(RunInfo("r", NOW)),
        acquire,
        post,
        lambda: store.append(lease, [NewRecord("a", "intent"), NewRecord("b", "outcome")]),
        rich,
        lambda: store.ack("r", messages[1]),
        lambda: store.post("r", "kill") > messages[1],
        lambda: store.grant(Grant("g", "{}", "run", None, 1.0)),
        lambda: store.begin_apply("r", "/", entries),
        lambda: store.mark_applied("r", "a"),
        lambda: store.finish_apply("r"),
        lambda: store.mark_undone("r"),
        lambda: store.set_state(lease, "done", seconds=2.0),
        lambda: [record.slot for record in store.records("r")],
        lambda: store.create_run(RunInfo("other", NOW)),
        lambda: store.remove_run("other"),
        lambda: store.gc(grace_s=0.0) and None,
        lambda: store.release(lease),
    ]
    return [again(change) for change in changes]


def content(store: Any) -> Any:
    """What the store holds, but for the numbers of runs and messages, which a transaction that was
    rolled back uses up, and the hashes, which cover a run's number; `verify` vouches for them."""
    runs, *rest = harness.dump(store)
    for _, records, _, inbox, _ in runs:
        records[:] = [(replace(one, hash=""), *named) for one, *named in records]
        inbox[:] = [replace(message, id=0) for message in inbox]
    assert store.verify() == []
    return runs, rest


def expected() -> tuple[list[Any], Any]:
    store = MemoryStore(clock=ManualClock(), owners=harness.OneOwner())
    return story(store, lambda change: change()), content(store)


def play(url: str, root: Path, cut: Plan) -> tuple[list[Any], Any]:
    store = insist(lambda: opened(url, root, clock=ManualClock()))
    try:
        answers = story(store, insist)
        cut.at = 0  # what is there is read undisturbed
        return answers, content(store)
    finally:
        store.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_connection_that_breaks_at_any_statement_changes_nothing(
    server: Cluster, tmp_path: Path, cut: Plan, after: bool
) -> None:
    truth = expected()
    cut.after = after
    assert play(server.url(), tmp_path, cut) == truth  # uncut
    cut.count = 0
    with opened(server.url(), tmp_path, clock=ManualClock()) as store:
        story(store, insist)
        total = cut.count
    assert total > 150
    for at in range(1 + after, total + 1, EVERY):
        cut.count, cut.at = 0, at
        assert play(server.url(), tmp_path, cut) == truth, f"cut at statement {at} of {total}"


def begin(store: Any) -> Any:
    store.create_run(RunInfo("r", NOW))
    return store.acquire("r", "me", HOUR, NOW)


def slots(store: Any) -> list[str]:
    return [record.slot for record in store.records("r")]


@pytest.mark.parametrize("after", [False, True], ids=["not stored", "stored"])
def test_a_commit_without_an_answer_is_looked_up(
    server: Cluster, tmp_path: Path, cut: Plan, after: bool
) -> None:
    with opened(server.url(), tmp_path) as store:
        begin(store)
        cut.next("COMMIT", after)
        if after:
            assert store.post("r", "kill") == 1
        else:
            with pytest.raises(UnreachableError, match="Nothing of it was stored") as error:
                store.post("r", "kill")
            assert error.value.code == "store_unreachable" and not error.value.in_doubt
            assert "posting a message" in error.value.what
        assert len(store.inbox("r")) == int(after)


def test_the_first_commit_of_a_connection_is_looked_up_too(
    server: Cluster, tmp_path: Path, cut: Plan
) -> None:
    url = server.url()
    opened(url, tmp_path).close()
    with opened(url, tmp_path) as store:
        store._db._sign_on("the test")
        cut.next("COMMIT")
        store.create_run(RunInfo("r", NOW))
        assert [info.id for info in store.runs()] == ["r"]


def test_a_commit_that_was_interrupted_is_not_taken_for_the_next_one(
    server: Cluster, tmp_path: Path, cut: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number stays its own, also where nobody learnt whether it was stored."""
    with opened(server.url(), tmp_path) as store:
        begin(store)
        real = store._db._send_commit

        def interrupted() -> None:
            real()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(store._db, "_send_commit", interrupted)
            store.post("r", "answer", b"first")
        cut.next("COMMIT", after=False)
        with pytest.raises(UnreachableError, match="Nothing of it was stored"):
            store.post("r", "answer", b"second")
        assert [message.payload for message in store.inbox("r")] == [b"first"]


def test_a_server_that_stays_away_leaves_an_append_in_doubt_which_is_stored_once(
    server: Cluster, tmp_path: Path, cut: Plan
) -> None:
    url = server.url()
    with opened(url, tmp_path, patience_s=0.1) as store:
        lease = begin(store)
        store.append(lease, [NewRecord("a", "outcome")])
        cut.then = server.stop
        cut.next("COMMIT")
        batch = [NewRecord("b", "outcome"), NewRecord("c", "outcome")]
        with pytest.raises(UnreachableError) as error:
            store.append(lease, batch)
        assert error.value.in_doubt and "in full or not at all" in error.value.why
        with pytest.raises(UnreachableError) as still:
            store.append(lease, batch)
        assert not still.value.in_doubt
        server.start()
        assert store.append(lease, batch) == 3 and slots(store) == ["a", "b", "c"]
        assert store.append(lease, batch) == 5  # said again on purpose, it counts


def test_a_transaction_that_is_still_running_is_waited_for(
    server: Cluster, tmp_path: Path, cut: Plan
) -> None:
    """The old connection's transaction holds its row until it has ended, and so does the answer."""
    import psycopg

    from edvac.store.database_postgresql import PostgresqlDatabase

    with opened(server.url(), tmp_path) as store:
        begin(store)
        db = store._db
        old: list[Any] = []

        def hang(self: Any, what: str) -> Any:
            """The commit is on its way, and the connection looks broken from this side."""
            connection, self._connection = self._connection._real, None
            old.append(connection)
            error = psycopg.OperationalError("the network is gone")
            thread = threading.Thread(target=late, args=(connection,))
            thread.start()
            stored = self._was_stored(error, what)
            thread.join()
            assert stored, "asked before the transaction had ended"

        def late(connection: Any) -> None:
            while not server.sql(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND query LIKE '%FROM writer%'"
            ):
                time.sleep(0.01)
            connection.execute("COMMIT")
            connection.close()

        real, PostgresqlDatabase._commit = PostgresqlDatabase._commit, hang  # type: ignore[method-assign]
        try:
            store.post("r", "kill")
        finally:
            PostgresqlDatabase._commit = real  # type: ignore[method-assign]
        assert old and db._confirmed == 3 and len(store.inbox("r")) == 1


def test_a_connection_that_lay_idle_over_a_restart_is_made_anew(
    server: Cluster, tmp_path: Path
) -> None:
    with opened(server.url(), tmp_path) as store:
        lease = begin(store)
        for mode in ("fast", "immediate"):
            server.restart(mode)
            assert store.run("r").last_seq == (0 if mode == "fast" else 1)
            server.restart(mode)
            store.append(lease, [NewRecord(mode, "outcome")])
            server.restart(mode)
            assert slots(store)[-1] == mode
        assert store.verify() == []


@pytest.mark.parametrize(
    "loss",
    [
        "UPDATE writer SET last = last - 1",
        "DELETE FROM writer",
        "DELETE FROM record WHERE id & 4294967295 = 2",
    ],
)
def test_a_server_that_has_lost_what_it_confirmed_is_not_used(
    server: Cluster, tmp_path: Path, cut: Plan, loss: str
) -> None:
    """Such as a standby that was behind when it took over."""
    url = server.url()
    with opened(url, tmp_path) as store:
        lease = begin(store)
        for name in "ab":
            store.append(lease, [NewRecord(name, "outcome")])
        server.sql(loss, url.rpartition("schema=")[2])
        store._db.suspect()
        for _ in range(2):
            with pytest.raises(DamageError) as error:
                store.append(lease, [NewRecord("c", "outcome")])
            assert error.value.code == "acknowledged_lost"


def test_a_run_that_somebody_removed_is_not_taken_for_lost(server: Cluster, tmp_path: Path) -> None:
    url = server.url()
    with opened(url, tmp_path) as store, opened(url, tmp_path) as other:
        store.release(begin(store))
        lease = store.acquire("r", "me", HOUR, NOW)
        store.append(lease, [NewRecord("a", "outcome")])
        other.release(lease)
        other.remove_run("r")
        store._db.suspect()
        assert store.runs() == []


def test_a_failed_statement_takes_the_transaction_with_it(server: Cluster, tmp_path: Path) -> None:
    """Its commit would be answered without an error."""
    import psycopg

    with opened(server.url(), tmp_path) as store:
        begin(store)
        with pytest.raises(StoreError) as error, store._db.write("the test") as execute:
            execute("UPDATE run SET title = 'changed'")
            try:
                execute("SELECT 1 / 0")
            except psycopg.Error:
                pass
            store._db._sign = lambda: None
        assert error.value.code == "store_failed"
        del store._db._sign
        assert store.run("r").title == ""


@pytest.mark.parametrize("after", [False, True], ids=["not stored", "stored"])
def test_the_queue_over_commits_without_an_answer(
    server: Cluster, tmp_path: Path, cut: Plan, after: bool
) -> None:
    from edvac.store.queue_postgresql import PostgresqlQueue

    with opened(server.url(), tmp_path) as store:
        lease, queue = begin(store), PostgresqlQueue(store)

        def over_a_cut(work: Callable[[], Any]) -> Any:
            cut.next("COMMIT", after)
            return insist(work)

        offers = [Offer(slot, b"") for slot in "abc"]
        assert len(over_a_cut(lambda: queue.offer(lease, offers))) == 3
        taken = over_a_cut(lambda: queue.take("w", 2, [], 60))
        assert [(one.slot, one.fence) for one in taken] == [("a", 1), ("b", 1)]
        over_a_cut(lambda: queue.finish(taken[0], b"done"))
        assert len(over_a_cut(lambda: queue.renew(taken, 90))) == 1
        assert [done.slot for done in queue.finished("r")] == ["a"]
        assert over_a_cut(lambda: queue.forget(lease, [taken[0].id])) == 1
        assert len(over_a_cut(lambda: queue.withdraw(lease))) == 2
        assert store._db.rows("SELECT count(*) FROM queue") == [(0,)]


RESTARTS = int(os.environ.get("EDVAC_RESTARTS", "3"))
APPENDS = 60 * RESTARTS


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_appends_while_the_server_is_restarted_over_and_over(
    server: Cluster, tmp_path: Path, mode: str
) -> None:
    done, restarts = threading.Event(), [0]

    def restart() -> None:
        while not done.wait(0.3):
            server.restart(mode)
            restarts[0] += 1

    with opened(server.url(), tmp_path, patience_s=120) as store:
        lease = begin(store)
        thread = threading.Thread(target=restart)
        thread.start()
        try:
            count = 0
            while count < APPENDS or restarts[0] < RESTARTS:
                records = [NewRecord(str(count), "outcome", b"%d" % count)]
                count += 1
                assert insist(lambda batch=records: store.append(lease, batch)) == count
        finally:
            done.set()
            thread.join()
        found = [record.payload for record in store.records("r")]
        assert found == [b"%d" % number for number in range(count)]
        assert store.verify() == []
