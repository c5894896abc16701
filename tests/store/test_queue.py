"""The queue of steps: the one in the database and the one in dicts alike, also when workers die."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from crash_harness import OneOwner
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from postgresql_server import Cluster

from edvac.core.errors import DamageError, EdvacError, InternalError, LeaseError
from edvac.core.seams import ManualClock
from edvac.store import Enlisted, MemoryQueue, MemoryStore, Offer, RunInfo

NOW = 1_000_000_000.0


class QueueKit:
    """A store with its queue, on a clock of the test's."""

    def __init__(self, url: str, root: Path) -> None:
        self.clock = ManualClock()
        self.url, self.root = url, root
        self.store: Any = MemoryStore(clock=self.clock, owners=OneOwner())
        self.queue: Any = MemoryQueue(self.store, self.clock)
        if url:
            self.store, self.queue = self.another()

    def another(self) -> tuple[Any, Any]:
        """What another process has."""
        if not self.url:
            return self.store, self.queue
        from edvac.store.postgresql import PostgresqlStore
        from edvac.store.queue_postgresql import PostgresqlQueue

        store = PostgresqlStore(self.url, self.root, clock=self.clock, owners=OneOwner())
        return store, PostgresqlQueue(store)

    def begin(self, run: str = "r") -> Any:
        self.store.create_run(RunInfo(run, NOW))
        return self.store.acquire(run, "me", 1e6, NOW)

    def close(self) -> None:
        if self.url:
            self.queue.close()
        self.store.close()


@pytest.fixture(params=["memory", "postgresql"])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QueueKit]:
    url = request.getfixturevalue("server").url() if request.param == "postgresql" else ""
    made = QueueKit(url, tmp_path)
    yield made
    made.close()


def offers(*slots: str, **given: Any) -> list[Offer]:
    return [Offer(slot, slot.encode() * 3, **given) for slot in slots]


def slots(steps: Any) -> list[str]:
    return [step.slot for step in steps]


def test_a_step_is_offered_taken_finished_and_forgotten_once(kit: QueueKit) -> None:
    lease, queue = kit.begin(), kit.queue
    first, second = queue.offer(lease, offers("a", "b"))
    assert queue.offer(lease, offers("b", "a")) == [second, first]
    (taken,) = queue.take("w1", 1, [], 60)
    assert (taken.id, taken.run, taken.slot, taken.payload) == (first, "r", "a", b"aaa")
    assert (taken.worker, taken.fence, taken.expires) == ("w1", 1, NOW + 60)
    assert slots(queue.take("w2", 9, [], 60)) == ["b"] and queue.take("w3", 9, [], 60) == []
    assert queue.finished("r") == []
    queue.finish(taken, b"done")
    queue.finish(taken, b"done")  # a second time, since the first answer may be lost
    with pytest.raises(LeaseError):
        queue.finish(taken, b"something else")
    (done,) = queue.finished("r")
    assert (done.id, done.slot, done.outcome, done.worker) == (first, "a", b"done", "w1")
    assert queue.offer(lease, offers("a")) == [first], "it is finished, not to be done again"
    assert queue.forget(lease, [first, second]) == 1, "one that is not finished stays"
    assert queue.finished("r") == [] and queue.expired("r") == []
    (again,) = queue.offer(lease, offers("a", attempt=2))
    assert slots(queue.take("w1", 9, [], 60)) == ["a"] and again > second


def test_a_lease_that_ended_is_taken_over_once_and_its_holder_refused(kit: QueueKit) -> None:
    lease, queue = kit.begin(), kit.queue
    queue.offer(lease, offers("a", "b"))
    held = queue.take("w1", 2, [], 60)
    kit.clock.advance(59)
    assert queue.take("w2", 2, [], 60) == [] == queue.expired("r")
    (kept,) = queue.renew([held[1]], 60)
    assert kept.expires == NOW + 59 + 60
    kit.clock.advance(1)
    assert queue.expired("r") == [held[0].id]
    (other,) = queue.take("w2", 9, [], 60)
    assert (other.slot, other.fence, other.worker) == ("a", 2, "w2")
    assert queue.take("w3", 9, [], 60) == [] == queue.expired("r")
    assert queue.renew(held, 60) == [replace(kept, expires=NOW + 120)]
    with pytest.raises(LeaseError) as error:
        queue.finish(held[0], b"late")
    assert error.value.code == "step_lease_lost"
    queue.finish(other, b"in time")
    with pytest.raises(LeaseError):
        queue.finish(held[0], b"late")
    assert [(done.outcome, done.worker) for done in queue.finished("r")] == [(b"in time", "w2")]


def test_a_lease_that_ended_and_was_not_taken_still_counts(kit: QueueKit) -> None:
    queue = kit.queue
    queue.offer(kit.begin(), offers("a"))
    (held,) = queue.take("w1", 1, [], 5)
    kit.clock.advance(50)
    assert len(queue.renew([held], 60)) == 1 and queue.expired("r") == []
    kit.clock.advance(61)
    queue.finish(held, b"done")
    assert queue.take("w2", 1, [], 5) == [] and len(queue.finished("r")) == 1


def test_a_step_that_is_handed_back_is_anybodys_at_once(kit: QueueKit) -> None:
    queue = kit.queue
    queue.offer(kit.begin(), offers("a", "b"))
    first = queue.take("w1", 2, [], 60)
    assert queue.hand_back(first[:1]) == 1 and queue.hand_back(first[:1]) == 0
    with pytest.raises(LeaseError):
        queue.finish(first[0], b"after all")
    (again,) = queue.take("w2", 9, [], 60)
    assert (again.slot, again.fence) == ("a", 2)
    assert queue.hand_back(first) == 1, "what another has taken is not this worker's to give"
    assert queue.renew([again], 60) == [again]
    queue.finish(again, b"done")
    assert slots(queue.finished("r")) == ["a"] and queue.finished("r", [again.id]) == []


def test_workers_are_listed_as_long_as_they_are_heard_of(kit: QueueKit) -> None:
    queue = kit.queue
    queue.enlist(Enlisted("1", "b", "h", "v", ("y", "x"), 4, 1, started=5.0))
    queue.enlist(Enlisted("2", "a"))
    kit.clock.advance(20)
    queue.enlist(Enlisted("2", "a", doing=3, capabilities=("z",)))
    first, second = queue.workers()
    assert (first.name, first.doing, first.capabilities, first.silent_s) == ("a", 3, ("z",), 0.0)
    assert (second.name, second.seen, second.silent_s) == ("b", NOW, 20.0)
    kit.clock.advance(10)
    assert [one.name for one in queue.workers()] == ["a"]
    queue.dismiss("2")
    assert queue.workers() == []


def test_a_worker_gets_only_what_it_can_do(kit: QueueKit) -> None:
    lease, queue = kit.begin(), kit.queue
    queue.offer(lease, offers("gpu", needs=frozenset({"cuda", "python"})))
    queue.offer(lease, offers("any"))
    queue.offer(lease, offers("py", needs=frozenset({"python"})))
    assert slots(queue.take("w", 9, [], 60)) == ["any"]
    assert slots(queue.take("w", 9, ["python", "shell"], 60)) == ["py"]
    assert slots(queue.take("w", 9, ["python", "cuda"], 60)) == ["gpu"]


def test_only_the_owner_of_a_run_changes_its_queue(kit: QueueKit) -> None:
    stale, queue = kit.begin(), kit.queue
    queue.offer(stale, offers("a", "b"))
    fresh = kit.store.acquire("r", "me", 60, NOW)
    for change in (
        lambda: queue.offer(stale, offers("c")),
        lambda: queue.withdraw(stale),
        lambda: queue.forget(stale, [1]),
    ):
        with pytest.raises(LeaseError, match="another owner"):
            change()
    (held,) = queue.take("w", 1, [], 60)
    other = kit.begin("other")
    queue.offer(other, offers("a"))
    assert len(queue.withdraw(fresh)) == 2
    assert queue.renew([held], 60) == []
    with pytest.raises(LeaseError):
        queue.finish(held, b"late")
    assert [(one.run, one.slot) for one in queue.take("w", 9, [], 60)] == [("other", "a")]
    with pytest.raises(InternalError):
        queue.offer(fresh, offers("x", "x"))


def test_a_run_that_is_removed_takes_its_steps_along(kit: QueueKit) -> None:
    lease = kit.begin()
    kit.queue.offer(lease, offers("a"))
    kit.store.release(lease)
    kit.store.remove_run("r")
    assert kit.queue.take("w", 1, [], 60) == []
    fresh = kit.begin()
    assert kit.queue.finished("r") == [] and len(kit.queue.offer(fresh, offers("a"))) == 1


class Machine(RuleBasedStateMachine):
    """Any sequence of calls gives the same answers from both."""

    server: Cluster
    root: Path

    def __init__(self) -> None:
        super().__init__()
        self.real = QueueKit(self.server.url(), self.root)
        self.plain = QueueKit("", self.root)
        self.plain.clock = self.plain.queue._clock = self.plain.store._clock = self.real.clock
        self.leases = {run: [self.both("begin", run)] for run in ("r", "s")}
        self.held: list[Any] = []

    def both(self, what: str, *given: Any) -> Any:
        answers: list[Any] = []
        for kit in (self.real, self.plain):
            target = kit if what == "begin" else kit.queue
            try:
                answers.append(getattr(target, what)(*given))
            except EdvacError as error:
                answers.append((type(error), error.code, error.what))
        assert answers[0] == answers[1], what
        return answers[0]

    @rule(
        run=st.sampled_from("rs"),
        back=st.sampled_from([0, 0, 0, 1]),
        steps=st.lists(
            st.builds(
                Offer,
                st.sampled_from(["a", "b", "c", "d"]),
                st.binary(max_size=5),
                st.frozensets(st.sampled_from("xy")),
                st.integers(1, 2),
            ),
            max_size=4,
        ),
    )
    def offer(self, run: str, back: int, steps: list[Offer]) -> None:
        held = self.leases[run]
        self.both("offer", held[max(0, len(held) - 1 - back)], steps)

    @rule(
        worker=st.sampled_from(["w1", "w2"]),
        count=st.integers(0, 3),
        can=st.sets(st.sampled_from("xy")),
        ttl=st.sampled_from([0.5, 5, 50]),
    )
    def take(self, worker: str, count: int, can: set[str], ttl: float) -> None:
        self.held += self.both("take", worker, count, can, ttl)

    @rule(which=st.integers(0, 30), count=st.integers(1, 3), ttl=st.sampled_from([1, 20]))
    def renew(self, which: int, count: int, ttl: float) -> None:
        self.both("renew", self.held[which % 9 : which % 9 + count], ttl)

    @rule(which=st.integers(0, 30), outcome=st.sampled_from([b"", b"one", b"two"]))
    def finish(self, which: int, outcome: bytes) -> None:
        if self.held:
            self.both("finish", self.held[which % len(self.held)], outcome)

    @rule(which=st.integers(0, 30), count=st.integers(1, 3))
    def hand_back(self, which: int, count: int) -> None:
        self.both("hand_back", self.held[which % 9 : which % 9 + count])

    @rule(
        name=st.sampled_from("pq"),
        able=st.sets(st.sampled_from("xy")),
        doing=st.integers(0, 3),
        ended=st.booleans(),
    )
    def enlist(self, name: str, able: set[str], doing: int, ended: bool) -> None:
        about = Enlisted(name, name * 2, "host", "1", tuple(sorted(able)), 3, doing, 5.0)
        self.both("dismiss", name) if ended else self.both("enlist", about)

    @rule(run=st.sampled_from("rs"), steps=st.lists(st.integers(1, 12), max_size=4))
    def forget(self, run: str, steps: list[int]) -> None:
        self.both("forget", self.leases[run][-1], steps)

    @rule(
        run=st.sampled_from("rs"),
        steps=st.none() | st.lists(st.integers(1, 12), max_size=4),
    )
    def withdraw(self, run: str, steps: list[int] | None) -> None:
        self.both("withdraw", self.leases[run][-1], steps)

    @rule(run=st.sampled_from("rs"))
    def change_owner(self, run: str) -> None:
        both = [kit.store.acquire(run, "me", 1e6, NOW) for kit in (self.real, self.plain)]
        assert both[0] == both[1]
        self.leases[run].append(both[0])

    @rule(seconds=st.sampled_from([0.5, 4, 30]))
    def pass_time(self, seconds: float) -> None:
        self.real.clock.advance(seconds)

    @invariant()
    def lists_agree(self) -> None:
        for run in "rs":
            self.both("finished", run)
            self.both("finished", run, [1, 2, 3])
            self.both("expired", run)
        self.both("workers")

    def teardown(self) -> None:
        self.real.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_any_sequence_of_calls_is_answered_alike(server: Cluster, tmp_path: Path) -> None:
    Machine.server, Machine.root = server, tmp_path
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_takers_at_once_never_get_the_same_step(server: Cluster, tmp_path: Path) -> None:
    kit = QueueKit(server.url(), tmp_path)
    lease = kit.begin()
    kit.queue.offer(lease, offers(*(f"s{number}" for number in range(120))))
    found: list[list[Any]] = [[] for _ in range(4)]

    def work(mine: list[Any]) -> None:
        store, queue = kit.another()
        while taken := queue.take("w", 3, [], 60):
            mine += taken
        store.close()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [one for mine in found for one in mine]
    assert sorted(one.id for one in taken) == list(range(1, 121))
    assert {one.fence for one in taken} == {1}
    kit.close()


def test_a_taker_passes_over_what_another_is_taking(server: Cluster, tmp_path: Path) -> None:
    kit = QueueKit(server.url(), tmp_path)
    kit.queue.offer(kit.begin(), offers("a", "b"))
    store, queue = kit.another()
    with kit.store._db.write("taking") as execute:
        execute("SELECT 1 FROM queue WHERE slot = 'a' FOR UPDATE")
        assert slots(queue.take("w", 9, [], 60)) == ["b"]
    store.close()
    kit.close()


@pytest.mark.parametrize("column", ["payload", "slot", "outcome"])
def test_changed_steps_are_refused(server: Cluster, tmp_path: Path, column: str) -> None:
    url = server.url()
    kit = QueueKit(url, tmp_path)
    kit.queue.offer(kit.begin(), offers("a", "b"))
    assert kit.store.verify() == []
    value = "'other'" if column == "slot" else r"'\x00'"
    if column == "outcome":
        kit.queue.finish(kit.queue.take("w", 1, [], 60)[0], b"done")
    server.sql(f"UPDATE queue SET {column} = {value} WHERE id = 1", url.rpartition("schema=")[2])
    with pytest.raises(DamageError) as error:
        assert [problem.code for problem in kit.store.verify()] == ["step_damaged"]
        kit.queue.take("w", 1, [], 60) if column != "outcome" else kit.queue.finished("r")
    assert error.value.code == "step_damaged"
    kit.close()


def test_an_offer_and_a_finish_wake_who_waits(server: Cluster, tmp_path: Path) -> None:
    kit = QueueKit(server.url(), tmp_path)
    lease = kit.begin()
    store, queue = kit.another()
    assert queue.wait(0)  # the first time it looks again in any case
    assert not queue.wait(0.01), "nobody called"
    kit.queue.offer(lease, offers("a"))
    assert queue.wait(60)
    assert not queue.wait(0.01), "one call for one offer"
    kit.queue.finish(kit.queue.take("w", 1, [], 60)[0], b"done")
    assert queue.wait(60)
    server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'edvac'"
    )
    assert queue.wait(60), "a lost connection is a reason to look"
    assert queue.wait(60), "the new one may have missed something"
    assert not queue.wait(0.01)
    queue.close()
    store.close()
    kit.close()


STEPS = 150


@pytest.mark.slow
def test_three_workers_of_which_one_is_killed_finish_each_step_once(
    server: Cluster, tmp_path: Path
) -> None:
    from edvac.store.postgresql import PostgresqlStore
    from edvac.store.queue_postgresql import PostgresqlQueue

    url = server.url()
    script = str(Path(__file__).parent / "queue_worker.py")
    with PostgresqlStore(url, tmp_path) as store:
        queue = PostgresqlQueue(store)
        store.create_run(RunInfo("r", NOW))
        lease = store.acquire("r", "me", 3600, NOW)
        names = [f"s{number}" for number in range(STEPS)]
        queue.offer(lease, offers(*names, needs=frozenset({"python"})))

        def start(number: int) -> Any:
            return subprocess.Popen(
                [sys.executable, script, url, f"w{number}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
            )

        victim = start(0)
        lines = [victim.stdout.readline()]  # it is at work before the others are
        workers = [victim, start(1), start(2)]
        lines += [victim.stdout.readline() for _ in range(8)]  # it did some, and holds more
        victim.kill()
        while len(queue.finished("r")) < STEPS:
            assert all(worker.poll() is None for worker in workers[1:]), "a worker ended early"
            queue.wait(0.2)
        rest = victim.stdout.read()  # `communicate` would skip what is buffered
        said = [worker.communicate("")[0] for worker in workers]
        said[0] = "".join(lines) + rest
        assert [worker.returncode for worker in workers] == [-9, 0, 0]
        events = [line.split() for text in said for line in text.splitlines()]
        done = queue.finished("r")
        queue.close()
    assert sorted(one.slot for one in done) == sorted(names)
    assert all(one.outcome == f"{one.slot} by {one.worker}".encode() for one in done)
    finished = [(int(id_), int(fence)) for what, id_, fence in events if what == "finished"]
    counted = {(one.id, one.fence): one.worker for one in done}
    assert len(finished) == len(set(finished)), "a worker was told twice that it finished"
    assert set(finished) <= set(counted), "an outcome that was accepted does not count"
    unsaid = set(counted) - set(finished)  # the victim's last, killed before it could say so
    assert len(unsaid) <= 1 and all(counted[one] == "w0" for one in unsaid)
    taken_over = [one for one in done if one.fence > 1]
    held = {
        int(id_)
        for what, id_, _ in (line.split() for line in said[0].splitlines())
        if what == "took"
    }
    lost = held - {one.id for one in done if one.worker == "w0"}
    assert lost and lost <= {one.id for one in taken_over}
    assert {one.worker for one in taken_over} <= {"w1", "w2"}


def test_finishing_over_a_lost_connection_counts_once(server: Cluster, tmp_path: Path) -> None:
    kit = QueueKit(server.url(), tmp_path)
    kit.queue.offer(kit.begin(), offers("a"))
    (held,) = kit.queue.take("w", 1, [], 60)
    server.restart("immediate")
    kit.queue.finish(held, b"done")
    server.restart("immediate")
    assert [done.outcome for done in kit.queue.finished("r")] == [b"done"]
    kit.close()
