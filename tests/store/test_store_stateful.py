"""Any sequence of calls: the real store and the one in dicts stay alike, also across reopenings."""

from __future__ import annotations

from typing import Any

import pytest
from crash_harness import OneOwner, discard, dump, labels, scratch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from postgresql_server import Cluster

from edvac.core.errors import EdvacError
from edvac.core.label import Label
from edvac.core.seams import ManualClock
from edvac.store import (
    KINDS,
    STATES,
    ApplyEntry,
    FileVersion,
    Grant,
    MemoryStore,
    NewChannel,
    NewCheckpoint,
    NewRecord,
    NewWrites,
    RunInfo,
    Store,
    TaskWrite,
    Typed,
)

RUNS = st.sampled_from(["a", "ab", "b"])
PATHS = st.sampled_from(["x", "d/y", "d/z.csv"])
PAYLOADS = st.one_of(st.binary(max_size=40), st.integers(65_530, 65_550).map(bytes))
THREADS, SPACES, IDS = (st.sampled_from(names) for names in (["t", "u"], ["", "n"], "123456"))
_SHAPES = [b"\xa1a", b"\xc4\x50" + b"b" * 80, b"\xc5\x01\x00" + b"c" * 256]
ELEMENTS = st.lists(st.sampled_from(_SHAPES))
LABELS = st.builds(Label.of, st.lists(st.sampled_from("uvw"), max_size=2))


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = scratch()
        self.clock = ManualClock()
        self.owners = OneOwner()
        self.oracle = MemoryStore(clock=self.clock, owners=self.owners)
        self.store = self.open()
        self.leases: dict[str, list[Any]] = {}

    def open(self) -> Any:
        return Store(self.root, clock=self.clock, owners=self.owners)

    def both(self, call: Any) -> Any:
        """The same call on both: the same answer, or the same error."""
        answers: list[Any] = []
        for store in (self.store, self.oracle):
            try:
                answers.append(call(store))
            except EdvacError as error:
                answers.append((type(error), error.code, error.what))
        assert answers[0] == answers[1]
        return answers[0]

    def teardown(self) -> None:
        assert dump(self.store) == dump(self.oracle)
        assert self.store.verify() == []
        self.store.close()
        discard(self.root)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()
        assert dump(self.store) == dump(self.oracle)

    @rule(seconds=st.floats(-500, 500))
    def pass_time(self, seconds: float) -> None:
        self.clock.jump(seconds)

    @rule(run=RUNS)
    def create(self, run: str) -> None:
        self.both(lambda store: store.create_run(RunInfo(run, self.clock.wall(), task=run)))

    @rule(run=RUNS, owner=st.sampled_from(["me", "you"]), ttl=st.floats(0, 300))
    def acquire(self, run: str, owner: str, ttl: float) -> None:
        now = self.clock.wall()
        lease = self.both(lambda store: store.acquire(run, owner, ttl, now))
        if not isinstance(lease, tuple):
            self.leases.setdefault(run, []).append(lease)

    def lease(self, run: str, back: int) -> Any:
        held = self.leases.get(run)
        return held[max(0, len(held) - 1 - back)] if held else None

    @rule(run=RUNS, back=st.integers(0, 1))
    def release(self, run: str, back: int) -> None:
        lease = self.lease(run, back)
        if lease is not None:
            self.both(lambda store: store.release(lease))

    @rule(run=RUNS, back=st.integers(0, 1), ttl=st.floats(0, 300))
    def renew(self, run: str, back: int, ttl: float) -> None:
        lease, now = self.lease(run, back), self.clock.wall()
        if lease is not None:
            self.both(lambda store: store.renew(lease, ttl, now))

    @rule(
        run=RUNS,
        back=st.sampled_from([0, 0, 0, 1]),
        items=st.lists(
            st.tuples(st.sampled_from(KINDS), PAYLOADS, LABELS, st.integers(0, 8)),
            min_size=1,
            max_size=4,
        ),
        files=st.lists(st.tuples(PATHS, st.integers(1, 6), st.none() | PAYLOADS), max_size=2),
    )
    def append(self, run: str, back: int, items: list[Any], files: list[Any]) -> None:
        lease = self.lease(run, back)
        if lease is None:
            return

        def call(store: Any) -> int:
            records = [
                NewRecord(
                    f"slot-{number}",
                    kind,
                    payload,
                    labels(label),
                    (store.put_blob(payload[:5]),) if number == 7 else (),
                    (store.put_segment("s" * 9 * number),) if number % 2 else (),
                    f"key-{number}" if number < 6 else None,
                )
                for kind, payload, label, number in items
            ]
            versions = [
                FileVersion(path, version, "s", data, deleted=data is None)
                for path, version, data in files
            ]
            return int(store.append(lease, records, versions))

        self.both(call)

    @rule(run=RUNS, state=st.sampled_from(STATES), seconds=st.none() | st.floats(0, 9))
    def set_state(self, run: str, state: Any, seconds: float | None) -> None:
        lease = self.lease(run, 0)
        if lease is not None:
            self.both(lambda store: store.set_state(lease, state, seconds=seconds, closed=seconds))

    @rule(run=RUNS)
    def remove(self, run: str) -> None:
        if self.both(lambda store: store.remove_run(run)) is None:
            self.leases.pop(run, None)

    @rule(run=RUNS, kind=st.sampled_from(["kill", "answer"]), payload=st.binary(max_size=9))
    def post(self, run: str, kind: Any, payload: bytes) -> None:
        self.both(lambda store: store.post(run, kind, payload))

    @rule(run=RUNS, message=st.integers(1, 6))
    def ack(self, run: str, message: int) -> None:
        self.both(lambda store: store.ack(run, message))

    @rule(name=st.sampled_from("pq"), expires=st.none() | st.floats(0, 9))
    def grant(self, name: str, expires: float | None) -> None:
        self.both(lambda store: store.grant(Grant(name, "{}", "run", expires, 1.0)))

    @rule(name=st.sampled_from("pq"))
    def revoke(self, name: str) -> None:
        self.both(lambda store: store.revoke(name))

    @rule(run=RUNS, paths=st.sets(PATHS, min_size=1))
    def begin_apply(self, run: str, paths: set[str]) -> None:
        self.both(
            lambda store: store.begin_apply(
                run, "/", [ApplyEntry(path, store.put_blob(b"old"), "d") for path in paths]
            )
        )

    @rule(run=RUNS, path=st.none() | PATHS, how=st.sampled_from(["mark", "finish", "undo"]))
    def go_on_applying(self, run: str, path: str | None, how: str) -> None:
        if how == "mark":
            self.both(lambda store: store.mark_applied(run, path or "x"))
        elif how == "finish":
            self.both(lambda store: store.finish_apply(run))
        else:
            self.both(lambda store: store.mark_undone(run, path))

    @rule(prefix=st.none() | st.sampled_from(["", "a", "b", "x"]))
    def find(self, prefix: str | None) -> None:
        self.both(lambda store: store.find_run(prefix))

    @rule()
    def collect(self) -> None:
        self.store.gc(grace_s=0.0)  # must not change what is readable
        assert dump(self.store) == dump(self.oracle)

    @invariant()
    def lists_agree(self) -> None:
        assert self.store.runs() == self.oracle.runs()


class WithThreads(Machine):
    """And checkpoints of threads, which a store on a server does not keep."""

    @rule(
        thread=THREADS,
        space=SPACES,
        id_=IDS,
        parent=st.none() | IDS,
        items=ELEMENTS,
        version=st.integers(1, 3),
        changed=st.booleans(),
        bound=st.sampled_from([False, False, None, True]),
        run=st.none() | st.sampled_from("rs"),
    )
    def put_checkpoint(self, thread: str, space: str, id_: str, **given: Any) -> None:
        items, version = given["items"], given["version"]
        body = b"".join(items)
        values = {"x": Typed("msgpack", bytes([0x90 + min(len(items), 15)]) + body)}
        values["y"] = Typed("bytes", body * 300)
        channels = {
            name: NewChannel(version, lambda v=value: v, given["changed"])
            for name, value in values.items()
        }
        new = NewCheckpoint(
            thread, space, id_, b"p", channels, given["parent"], given["run"], given["bound"]
        )
        self.both(lambda store: store.put_checkpoint(new))

    @rule(thread=THREADS, space=SPACES, id_=IDS, index=st.integers(-2, 3), items=ELEMENTS)
    def put_writes(self, thread: str, space: str, id_: str, index: int, items: list[bytes]) -> None:
        value = Typed("msgpack", b"\xdc\x00\x10" + b"".join(items))
        writes = [TaskWrite("k", index, "x", value, "p"), TaskWrite("l", 0, "y", value)]
        self.both(lambda store: store.put_writes(NewWrites(thread, space, id_, writes)))

    @rule(keep=st.integers(0, 2), old=st.none() | st.floats(-300, 300))
    def prune(self, keep: int, old: float | None) -> None:
        before = None if old is None else self.clock.wall() + old
        self.both(lambda store: store.prune_threads(keep=keep, before=before))

    @rule(source=THREADS, copy=THREADS)
    def copy(self, source: str, copy: str) -> None:
        self.both(lambda store: store.copy_thread(source, copy))

    @rule(thread=THREADS, run=st.sampled_from("rs"), whole=st.booleans())
    def delete(self, thread: str, run: str, whole: bool) -> None:
        if whole:
            self.both(lambda store: store.delete_threads([thread]))
        else:
            self.both(lambda store: store.delete_checkpoints([run]))


class PostgresqlMachine(Machine):
    """The same on a server; each example is a store of its own."""

    server: Cluster
    url = ""

    def open(self) -> Any:
        from edvac.store.postgresql import PostgresqlStore

        self.url = self.url or self.server.url()
        return PostgresqlStore(self.url, self.root, clock=self.clock, owners=self.owners)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_on_postgresql(server: Cluster) -> None:
    PostgresqlMachine.server = server
    run_state_machine_as_test(
        PostgresqlMachine,
        settings=settings(
            max_examples=12,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


TestStateful = WithThreads.TestCase
TestStateful.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
