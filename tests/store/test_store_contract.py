"""What every store does, asked of the real one and of the one in dicts."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from crash_harness import FILE_LABEL, OneOwner, labels

from edvac.core.codec import INLINE_LIMIT, label_key
from edvac.core.errors import DamageError, InternalError, LeaseError, StoreError, UsageError
from edvac.core.label import USER
from edvac.store import (
    KINDS,
    ApplyEntry,
    FileVersion,
    Grant,
    NewRecord,
    QueuedRun,
    RunInfo,
    RunQueue,
    Schedule,
)

NOW = 1_000_000_000.0


def begin(kit: Any, run: str = "run-1") -> Any:
    kit.store.create_run(RunInfo(run, NOW, task="sum it up", program="abc", title="Sums"))
    return kit.store.acquire(run, "me", 60, NOW)


def test_records_come_back_in_order_with_everything_they_named(kit: Any) -> None:
    lease = begin(kit)
    store = kit.store
    segment, blob = store.put_segment("prompt"), store.put_blob(b"b" * 10)
    full = NewRecord(
        "invoices[17]", "outcome", b"\x93", labels(USER, FILE_LABEL), (blob,), (segment,), "key"
    )
    assert store.append(lease, [NewRecord("a", "intent"), full]) == 2
    assert store.append(lease, [NewRecord("b", kind) for kind in KINDS]) == 2 + len(KINDS)
    store = kit.reopen()
    found = list(store.records("run-1"))
    assert [r.seq for r in found] == list(range(1, 12))
    assert [r.kind for r in found[2:]] == list(KINDS)
    second = found[1]
    assert (second.slot, second.payload, second.epoch) == ("invoices[17]", b"\x93", 1)
    assert second.labels == (label_key(USER), label_key(FILE_LABEL))
    assert [store.label(key) for key in second.labels] == [USER, FILE_LABEL]
    assert (second.blobs, second.segments) == ((blob,), (segment,))
    assert store.segment(segment) == "prompt" and store.get_blob(blob) == b"b" * 10
    assert store.reuse_get("key") == second and store.reuse_get("other") is None
    assert store.verify() == []


@pytest.mark.parametrize("text", ["", "17", "ä" * 39, "ab" * 19, "ab" * 20, "x" * 40, "y" * 5000])
def test_a_segment_comes_back_whatever_its_length(kit: Any, text: str) -> None:
    lease, store = begin(kit), kit.store
    names = (store.put_segment(text), store.put_segment("z" * 100), store.put_segment(text))
    store.append(lease, [NewRecord("a", "outcome", segments=names)])
    store = kit.reopen()
    (record,) = store.records("run-1")
    assert record.segments == names
    assert [store.segment(name) for name in names] == [text, "z" * 100, text]
    assert store.verify() == [] and store.gc(grace_s=-1.0).segments == 0
    assert store.segment(names[0]) == text


def test_the_newest_run_with_a_reuse_key_answers(kit: Any) -> None:
    store = kit.store
    for run in ("one", "two"):
        lease = begin(kit, run)
        store.append(lease, [NewRecord(slot, "outcome", reuse_key="k") for slot in ("a", "b")])
        store.release(lease)
    found = store.reuse_get("k")
    assert (found.run, found.slot) == ("two", "b")
    store.remove_run("two")
    found = store.reuse_get("k")
    assert (found.run, found.slot) == ("one", "b")
    store.remove_run("one")
    assert store.reuse_get("k") is None


def test_records_can_be_filtered_and_read_on(kit: Any) -> None:
    lease = begin(kit)
    for number in range(600):
        kind = "intent" if number % 2 else "outcome"
        kit.store.append(lease, [NewRecord(str(number), kind, b"p" * 10)])
    assert [r.seq for r in kit.store.records("run-1", after=597)] == [598, 599, 600]
    assert sum(1 for _ in kit.store.records("run-1", kinds={"intent"})) == 300
    reading = kit.store.records("run-1", after=598)
    next(reading)
    kit.store.append(lease, [NewRecord("late", "closed")])  # reading holds nothing back
    assert [r.seq for r in kit.store.records("run-1", kinds=["closed"])] == [601]


def test_large_payloads_come_back_whole(kit: Any) -> None:
    lease = begin(kit)
    sizes = [INLINE_LIMIT - 1, INLINE_LIMIT, INLINE_LIMIT + 1, 1_000_000]
    kit.store.append(lease, [NewRecord(str(size), "outcome", b"z" * size) for size in sizes])
    assert [len(r.payload) for r in kit.reopen().records("run-1")] == sizes


@pytest.mark.parametrize(
    "records",
    [[], [NewRecord("a", "guess")], [NewRecord("a", "intent", labels={"00" * 8: USER})]],  # type: ignore[arg-type]
)
def test_malformed_batches_are_refused_whole(kit: Any, records: list[NewRecord]) -> None:
    lease = begin(kit)
    with pytest.raises(InternalError):
        kit.store.append(lease, records)
    assert list(kit.store.records("run-1")) == []


def test_a_batch_that_names_a_missing_blob_or_segment_is_refused_whole(kit: Any) -> None:
    lease = begin(kit)
    good = NewRecord("a", "intent", labels=labels(USER))
    with pytest.raises(StoreError, match="not in the store"):
        kit.store.append(lease, [good, NewRecord("b", "outcome", blobs=("ab" * 20,))])
    with pytest.raises(InternalError, match="segment"):
        kit.store.append(lease, [good, NewRecord("b", "outcome", segments=("ab" * 20,))])
    assert list(kit.store.records("run-1")) == []
    with pytest.raises(DamageError):
        kit.store.label(label_key(USER))  # not interned either


def test_runs_are_listed_newest_first_and_found_by_prefix(kit: Any) -> None:
    with pytest.raises(UsageError, match="no runs"):
        kit.store.find_run()
    for name in ("ab-1", "ab-2", "cd", "ab"):
        kit.store.create_run(RunInfo(name, NOW - len(name)))  # the clock goes back
    store = kit.reopen()
    assert [r.id for r in store.runs()] == ["ab", "cd", "ab-2", "ab-1"]
    assert [r.id for r in store.runs(limit=2)] == ["ab", "cd"]
    assert store.find_run().id == "ab" == store.find_run("ab").id
    assert store.find_run("c").id == "cd" and store.run("ab-1").created == NOW - 4
    with pytest.raises(UsageError, match="several"):
        store.find_run("a")
    for missing in ("x", "ab-1x"):
        with pytest.raises(UsageError, match="no run"):
            store.find_run(missing)
    with pytest.raises(UsageError, match="no run"):
        store.run("a")
    with pytest.raises(UsageError, match="already"):
        store.create_run(RunInfo("cd", NOW))
    with pytest.raises(InternalError):
        store.create_run(RunInfo("../x", NOW))


def test_the_state_of_a_run(kit: Any) -> None:
    lease = begin(kit)
    kit.store.set_state(lease, "partial", closed=NOW + 5, seconds=5.0, counts={"llm": 3})
    info = kit.reopen().run("run-1")
    assert (info.state, info.closed, info.seconds) == ("partial", NOW + 5, 5.0)
    assert info.counts == {"llm": 3} and info.title == "Sums" and info.owner == "me"
    kit.store.set_state(lease, "open")
    info = kit.store.run("run-1")
    assert (info.state, info.closed, info.seconds) == ("open", None, 5.0)
    assert [r.id for r in kit.store.runs(states=["open"])] == ["run-1"]
    assert kit.store.runs(states=["done", "failed"]) == []


def test_a_second_owner_waits_for_the_lease_or_the_owners_death(kit: Any) -> None:
    first = begin(kit)
    other = OneOwner(2)
    real, kit.store._owners = kit.store._owners, other
    other.alive = lambda process: True  # type: ignore[method-assign]
    with pytest.raises(LeaseError, match="me"):
        kit.store.acquire("run-1", "you", 60, NOW + 59)
    other.alive = lambda process: None  # type: ignore[method-assign]
    with pytest.raises(LeaseError):  # another machine: only the lease's end counts
        kit.store.acquire("run-1", "you", 60, NOW + 59)
    other.alive = lambda process: False  # type: ignore[method-assign]
    second = kit.store.acquire("run-1", "you", 60, NOW + 1)
    assert second.epoch == first.epoch + 1
    kit.store._owners = real
    third = kit.store.acquire("run-1", "me", 60, NOW + 62)  # its time is over
    assert third.epoch == 3


def test_a_stale_lease_writes_nothing(kit: Any) -> None:
    stale = begin(kit)
    fresh = kit.store.acquire("run-1", "me", 60, NOW)
    files = [FileVersion("a", 1, "s", b"x")]
    for change in (
        lambda: kit.store.append(stale, [NewRecord("a", "intent", labels=labels(USER))], files),
        lambda: kit.store.set_state(stale, "done"),
        lambda: kit.store.renew(stale, 60, NOW),
    ):
        with pytest.raises(LeaseError, match="another owner"):
            change()
    kit.store.release(stale)  # harmless
    assert list(kit.store.records("run-1")) == [] == kit.store.file_versions("run-1")
    assert kit.store.run("run-1").state == "open" and kit.store.run("run-1").owner == "me"
    assert kit.store.append(fresh, [NewRecord("a", "intent")]) == 1
    kit.store.release(fresh)
    with pytest.raises(LeaseError):
        kit.store.append(fresh, [NewRecord("b", "intent")])
    assert kit.store.run("run-1").owner is None


def test_a_list_names_no_owner_that_is_dead_or_out_of_time(kit: Any) -> None:
    kit.store.create_run(RunInfo("run-1", NOW))
    kit.store.acquire("run-1", "me", 60, kit.clock.wall())
    assert kit.store.find_run().owner == "me"
    kit.owners.die()
    assert [info.owner for info in kit.store.runs()] == [None]
    kit.store.acquire("run-1", "another", 60, kit.clock.wall())
    assert kit.store.run("run-1").owner == "another"
    kit.clock.advance(61)
    assert kit.store.run("run-1").owner is None


def test_a_clock_that_goes_back_harms_no_lease(kit: Any) -> None:
    lease = begin(kit)
    renewed = kit.store.renew(lease, 60, NOW - 5000)
    assert renewed.expires == NOW + 60  # the latest time seen counts
    assert kit.store.append(renewed, [NewRecord("a", "intent")]) == 1
    kit.store.release(renewed)
    again = kit.store.acquire("run-1", "you", 10, NOW - 9000)
    assert again.epoch == 2 and again.expires == NOW + 10


def test_removing_a_run(kit: Any) -> None:
    lease = begin(kit)
    kit.clock.jump(0)
    kit.store.append(
        lease, [NewRecord("a", "outcome", reuse_key="k")], [FileVersion("f", 1, "a", b"x")]
    )
    kit.store.post("run-1", "kill")
    with pytest.raises(LeaseError):
        kit.store.remove_run("run-1")
    kit.store.release(lease)
    kit.store.remove_run("run-1")
    store = kit.reopen()
    assert store.runs() == [] and store.reuse_get("k") is None and store.verify() == []
    with pytest.raises(UsageError):
        list(store.records("run-1"))
    kit.store.create_run(RunInfo("run-1", NOW))  # the name is free, and the new run empty
    assert list(store.records("run-1")) == [] == store.inbox("run-1")


def test_reuse_finds_the_latest_run_that_is_still_here(kit: Any) -> None:
    for run in ("one", "two"):
        lease = begin(kit, run)
        kit.store.append(lease, [NewRecord(run, "outcome", run.encode(), reuse_key="k")])
        kit.store.release(lease)
    assert kit.store.reuse_get("k").payload == b"two"
    kit.store.remove_run("two")
    assert kit.store.reuse_get("k").payload == b"one"


def test_files_are_versioned(kit: Any) -> None:
    lease = begin(kit)
    large = b"large" * 20_000
    given = kit.store.put_blob(b"in a blob")
    files = [
        FileVersion("out/a.csv", 1, "s", b"one", label="l"),
        FileVersion("out/b.csv", 1, "s", large),
        FileVersion("c.txt", 1, "s", blob=given, size=9),
        FileVersion("out/deep/d.csv", 1, "s", b""),
    ]
    seq = kit.store.append(lease, [NewRecord("s", "outcome")], files)
    later = [FileVersion("out/a.csv", 2, "t", b"two"), FileVersion("c.txt", 2, "t", deleted=True)]
    kit.store.append(lease, [NewRecord("t", "outcome")], later)
    store = kit.reopen()
    first = store.file_latest("run-1", "out/b.csv")
    assert (first.size, first.seq, first.version) == (len(large), seq, 1)
    assert store.read_file("run-1", "out/a.csv") == b"two"
    assert store.read_file("run-1", "out/a.csv", 1) == b"one"
    assert store.read_file("run-1", "out/b.csv") == large
    assert store.read_file("run-1", "c.txt", 1) == b"in a blob"
    assert store.file_latest("run-1", "c.txt").deleted
    assert store.file_latest("run-1", "none") is None
    assert [(v.path, v.version) for v in store.file_versions("run-1")][:3] == [
        ("c.txt", 1),
        ("c.txt", 2),
        ("out/a.csv", 1),
    ]
    listed = {
        glob: [v.path for v in store.list_files("run-1", glob)]
        for glob in ("**", "*", "out/*.csv", "**/*.csv", "out/?.csv")
    }
    assert listed == {
        "**": ["out/a.csv", "out/b.csv", "out/deep/d.csv"],
        "*": [],
        "out/*.csv": ["out/a.csv", "out/b.csv"],
        "**/*.csv": ["out/a.csv", "out/b.csv", "out/deep/d.csv"],
        "out/?.csv": ["out/a.csv", "out/b.csv"],
    }
    for path, version in (("c.txt", None), ("none", None), ("out/a.csv", 3)):
        with pytest.raises(UsageError, match="no file"):
            store.read_file("run-1", path, version)


def test_an_old_or_malformed_file_version_takes_the_batch_with_it(kit: Any) -> None:
    lease = begin(kit)
    kit.store.append(lease, [NewRecord("s", "outcome")], [FileVersion("a", 2, "s", b"x")])
    for bad in (
        FileVersion("a", 2, "s", b"y"),
        FileVersion("a", 1, "s", b"y"),
        FileVersion("a", 3, "s"),
        FileVersion("a", 3, "s", b"y", deleted=True),
    ):
        with pytest.raises(InternalError):
            kit.store.append(lease, [NewRecord("t", "outcome")], [bad])
    assert kit.store.run("run-1").last_seq == 1


def test_an_apply_can_be_finished_or_undone_after_a_crash(kit: Any) -> None:
    begin(kit)
    assert kit.store.applied("run-1") is None
    with pytest.raises(UsageError):
        kit.store.finish_apply("run-1")
    before = kit.store.put_blob(b"old")
    entries = [ApplyEntry("b", None, "d2"), ApplyEntry("a", before, "d1", 0o600)]
    assert kit.store.begin_apply("run-1", "/work", entries) == 1
    kit.store.mark_applied("run-1", "a")
    plan = kit.reopen().applied("run-1")
    assert (plan.root, plan.phase, plan.round) == ("/work", "begun", 1)
    assert [(e.path, e.before, e.mode, e.state) for e in plan.entries] == [
        ("a", before, 0o600, "applied"),
        ("b", None, 0o644, "planned"),
    ]
    with pytest.raises(StoreError, match="interrupted"):
        kit.store.begin_apply("run-1", "/work", entries)
    kit.store.finish_apply("run-1")
    assert kit.store.applied("run-1").phase == "finished"
    assert kit.store.begin_apply("run-1", "/work", [ApplyEntry("c", None, "d")]) == 2
    kit.store.mark_undone("run-1", "c")
    assert kit.store.applied("run-1").entries[0].state == "undone"
    kit.store.mark_undone("run-1")
    assert kit.store.applied("run-1").round == 1  # undo goes back one round at a time
    kit.store.mark_undone("run-1")
    assert kit.store.applied("run-1") is None
    with pytest.raises(StoreError):
        kit.store.begin_apply("run-1", "/", [ApplyEntry("c", "ab" * 20, "d")])


def test_what_was_applied_is_known_by_place_and_content_also_without_its_run(kit: Any) -> None:
    lease = begin(kit)
    gone = ApplyEntry("gone", kit.store.put_blob(b"old"), None)
    kit.store.begin_apply("run-1", "/work", [ApplyEntry("a", None, "d1"), gone])
    kit.store.finish_apply("run-1")
    kit.store.begin_apply(
        "run-1", "/work", [ApplyEntry("a", None, "d2"), ApplyEntry("b", None, "d")]
    )
    kit.store.mark_undone("run-1", "b")
    places = [
        (root, path, digest)
        for root in ("/work", "/w")
        for path in "ab"
        for digest in ("d", "d1", "d2")
    ]

    def known() -> list[tuple[str, ...]]:
        return [place for place in places if kit.store.was_applied(*place)]

    assert known() == [("/work", "a", "d1"), ("/work", "a", "d2")]
    kit.store.mark_undone("run-1")
    assert known() == [("/work", "a", "d1")]
    kit.store.release(lease)
    kit.store.remove_run("run-1")
    kit.reopen()
    assert known() == [("/work", "a", "d1")] and kit.store.verify() == []


def test_whose_content_was_put_where(kit: Any) -> None:
    lease = begin(kit)
    ((key, _),) = (known := labels(USER)).items()
    files = [FileVersion(path, 1, "s", path.encode(), label=key) for path in "ab"]
    kit.store.append(lease, [NewRecord("s", "outcome", labels=known)], files)
    digests = {one.path: one.digest for one in kit.store.file_versions("run-1")}
    kit.store.begin_apply("run-1", "/work", [ApplyEntry(p, None, digests[p]) for p in "ab"])
    kit.store.finish_apply("run-1")
    kit.store.mark_undone("run-1", "b")
    kit.reopen()
    look = kit.store.applied_labels
    assert kit.store.applied_roots() == ["/work"]
    assert look("/work", "a", digests["a"]) == look("/work", "a", "") == [key]
    assert look("/work", "a", digests["b"]) == look("/w", "a", "") == look("/work", "b", "") == []


def test_a_message_is_taken_once(kit: Any) -> None:
    begin(kit)
    kit.clock.advance(7)
    first = kit.store.post("run-1", "answer", b"yes")
    second = kit.store.post("run-1", "kill")
    store = kit.reopen()
    assert [(m.id, m.kind, m.payload) for m in store.inbox("run-1")] == [
        (first, "answer", b"yes"),
        (second, "kill", b""),
    ]
    assert store.inbox("run-1")[0].posted == kit.clock.wall()
    assert [m.id for m in store.inbox("run-1", after=first)] == [second]
    assert store.ack("run-1", first) and not store.ack("run-1", first)
    assert [m.id for m in store.inbox("run-1")] == [second]
    assert store.post("run-1", "signal") > second
    with pytest.raises(UsageError):
        store.post("none", "kill")
    with pytest.raises(InternalError):
        store.post("run-1", "hello")


def test_permissions_are_kept_listed_and_revoked(kit: Any) -> None:
    for_ever = Grant("a", '{"op":"shell"}', "program", None, 1.0)
    short = Grant("b", "{}", "run-1", 50.0, 2.0)
    kit.store.grant(short)
    kit.store.grant(for_ever)
    store = kit.reopen()
    assert store.grants() == [for_ever, short]
    assert store.grants(now_wall=50.0) == [for_ever]
    assert store.revoke("a") and not store.revoke("a")
    assert store.grants() == [short]


def test_blobs_are_named_by_content(kit: Any) -> None:
    store = kit.store
    ref = store.put_blob(b"hello")
    assert store.put_blob(b"hello") == ref and len(ref) == 40
    assert store.put_blob_stream(iter([b"he", b"llo"])) == (ref, 5)
    assert store.put_blob_stream([]) == (store.put_blob(b""), 0)
    assert kit.reopen().get_blob(ref) == b"hello"
    with kit.store.open_blob(ref) as file:
        assert file.read(2) == b"he" and file.seek(0, io.SEEK_END) == 5
    for missing in ("00" * 20, "../../x", ""):
        with pytest.raises(DamageError):
            kit.store.get_blob(missing)


def test_a_stream_that_breaks_leaves_nothing(kit: Any) -> None:
    def broken() -> Any:
        yield b"half"
        raise FileNotFoundError("the source is gone")

    with pytest.raises(FileNotFoundError, match="source"):
        kit.store.put_blob_stream(broken())
    assert kit.store.gc(grace_s=-10_000_000_000.0).blobs == 0
    assert kit.store.put_blob(b"still works")


def test_gc_keeps_what_is_named_or_young_or_under_a_live_lease(kit: Any) -> None:
    lease = begin(kit)
    store = kit.store
    kept, loose = store.put_blob(b"kept"), store.put_blob(b"loose")
    filed, planned = store.put_blob(b"filed"), store.put_blob(b"planned")
    record = NewRecord("a", "outcome", b"p" * 70_000, labels(USER), (kept,))
    store.append(lease, [record], [FileVersion("f", 1, "a", blob=filed, size=5)])
    store.begin_apply("run-1", "/", [ApplyEntry("x", planned, None)])
    old = -10_000_000_000.0  # a grace that makes everything old
    assert store.gc().blobs == 0  # young
    if kit.kind == "sqlite":
        assert store.gc(grace_s=old).blobs == 0  # a lease lives since before it was put
    store.release(lease)
    swept = store.gc(grace_s=old)
    assert (swept.blobs, swept.blob_bytes) == (1, 5)
    with pytest.raises(DamageError):
        store.get_blob(loose)
    assert [len(r.payload) for r in store.records("run-1")] == [70_000]
    assert store.read_file("run-1", "f") == b"filed" and store.get_blob(planned) == b"planned"
    assert store.get_blob(kept) == b"kept" and store.verify() == []
    store.remove_run("run-1")
    swept = store.gc(grace_s=old)
    assert swept.blobs == 4 and swept.labels == 1
    assert store.verify() == []


def test_an_append_takes_messages_out_with_it_or_leaves_them(kit: Any) -> None:
    lease, store = begin(kit), kit.store
    first, second, third = store.post_all("run-1", "answer", [b"a", b"b", b"c"])
    store.append(lease, [NewRecord("a", "outcome")], (), [first, third])
    assert [m.id for m in store.inbox("run-1")] == [second]
    stale = replace(lease, epoch=lease.epoch + 1)
    with pytest.raises(LeaseError):
        store.append(stale, [NewRecord("a", "outcome")], (), [second])
    assert [m.id for m in kit.reopen().inbox("run-1")] == [second]


def test_schedules_are_kept_replaced_and_dropped(kit: Any) -> None:
    first = Schedule("a", "{}", 1.0, "2026-05-01")
    second = Schedule("b", "{}", 2.0, "2026-05-01", "run", "why")
    kit.store.keep_schedule(second)
    kit.store.keep_schedule(first)
    store = kit.reopen()
    assert store.schedules() == [first, second]
    again = replace(first, fired="2026-05-02")
    store.keep_schedule(again)
    assert store.schedules() == [again, second]
    assert store.drop_schedule("b") and not store.drop_schedule("b")
    assert kit.reopen().schedules() == [again]


def queued(queue: str = "q", **more: Any) -> QueuedRun:
    return QueuedRun(0, queue, "{}", **more)


def test_queues_are_kept_replaced_and_dropped(kit: Any) -> None:
    store = kit.store
    store.keep_queue(RunQueue("q", "{}", 1.0))
    store.keep_queue(RunQueue("a", "{}", 2.0))
    made = store.enqueue(queued(), 10)
    store.keep_queue(RunQueue("q", '{"at_once":2}', 9.0))
    store = kit.reopen()
    assert store.queues() == [RunQueue("q", '{"at_once":2}', 1.0), RunQueue("a", "{}", 2.0)]
    assert store.queued("q") == [made], "what is in it stays"
    assert store.drop_queue("q") and not store.drop_queue("q")
    assert store.queued("q") == [] and len(kit.reopen().queues()) == 1


def test_a_queue_gives_what_is_in_it_in_its_order(kit: Any) -> None:
    store = kit.store
    store.keep_queue(RunQueue("q", "{}", 1.0))
    ids = [store.enqueue(queued(priority=p), 10).id for p in (0, 2, 0, 1)]
    assert [one.id for one in store.queued("q")] == [ids[1], ids[3], ids[0], ids[2]]
    done = replace(store.queued("q")[0], state="done", run="r", said="ü", ended=3.5)
    assert store.keep_queued(done)
    assert kit.reopen().queued("q", ("done",)) == [done]
    assert len(kit.store.queued("q", ("waiting", "dead"))) == 3
    assert kit.store.drop_queued(ids[0]) and not kit.store.drop_queued(ids[0])
    assert not kit.store.keep_queued(replace(done, id=ids[0]))
    assert ids[0] not in [one.id for one in kit.store.queued("q")]
    assert kit.store.enqueue(queued(), 10).id > max(ids), "a number is never given again"


def test_a_key_gets_into_a_queue_once(kit: Any) -> None:
    store = kit.store
    for name in ("q", "other"):
        store.keep_queue(RunQueue(name, "{}", 1.0))
    first = store.enqueue(queued(key="k"), 10)
    assert store.enqueue(queued(key="k", priority=5), 10) == first
    assert store.enqueue(queued("other", key="k"), 10) != first
    assert len({store.enqueue(queued(), 10).id for _ in range(3)}) == 3, "no key is no key"


def test_a_full_queue_and_one_that_there_is_not(kit: Any) -> None:
    store = kit.store
    store.keep_queue(RunQueue("q", "{}", 1.0))
    held = store.enqueue(queued(key="k"), 2)
    store.enqueue(queued(), 2)
    with pytest.raises(UsageError) as caught:
        store.enqueue(queued(), 2)
    assert caught.value.code == "queue_full"
    assert store.enqueue(queued(key="k"), 2) == held, "what is known is named all the same"
    store.keep_queued(replace(held, state="running"))
    store.enqueue(queued(), 2)
    with pytest.raises(UsageError) as caught:
        store.enqueue(queued("none"), 2)
    assert caught.value.code == "queue_unknown"


def test_one_that_replaces_takes_the_place_of_what_is_not_due(kit: Any) -> None:
    store = kit.store
    store.keep_queue(RunQueue("q", "{}", 1.0))
    first = store.enqueue(queued(key="k", added=1.0, due=9.0), 1, replaces=True)
    later = replace(queued(key="k", added=5.0, due=20.0, priority=2), spec='{"a":1}')
    second = store.enqueue(later, 1, replaces=True)
    assert second == replace(first, spec='{"a":1}', due=20.0, priority=2)
    assert kit.reopen().queued("q") == [second]
    third = kit.store.enqueue(queued(key="k", added=20.0, due=30.0), 2, replaces=True)
    assert third.id != first.id, "that one may have begun"
    begun = replace(second, state="running", run="r")  # as who serves it has read it
    assert kit.store.keep_queued(begun)
    assert kit.reopen().queued("q") == [replace(begun, key=""), third]
