"""Checkpoints of threads: what comes back, what is removed, and what it costs on the disk."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from crash_harness import OneOwner
from hypothesis import given
from hypothesis import strategies as st

from edvac.core.errors import DamageError, EdvacError, UsageError
from edvac.core.seams import ManualClock
from edvac.store import NewChannel, NewCheckpoint, NewWrites, Store, TaskWrite, Typed, schema
from edvac.store.cuts import LARGEST, cuts, head_size


def packed(*items: bytes) -> Typed:
    """A MessagePack array of binaries."""
    head = b"\xdd" + len(items).to_bytes(4, "big")
    return Typed("msgpack", head + b"".join(map(element, items)))


def element(data: bytes) -> bytes:
    return b"\xc6" + len(data).to_bytes(4, "big") + data


def must_not_be_asked() -> Typed:
    raise AssertionError("the value was asked for")


def put(store: Any, id_: str, parent: str | None = None, **more: Any) -> None:
    """A checkpoint of thread t; `values` by channel, `kept` the versions of unchanged channels."""
    values: dict[str, Typed] = more.pop("values", {})
    kept: dict[str, int] = more.pop("kept", {})
    channels = {name: NewChannel(int(id_), lambda v=v: v) for name, v in values.items()}
    channels |= {name: NewChannel(at, must_not_be_asked, False) for name, at in kept.items()}
    thread, space = more.pop("thread", "t"), more.pop("space", "")
    store.put_checkpoint(
        NewCheckpoint(thread, space, id_, f"state {id_}".encode(), channels, parent, **more)
    )


def ids(store: Any, *where: Any, **more: Any) -> list[str]:
    return [info.id for info in store.checkpoints(*where, **more)]


def test_a_checkpoint_comes_back_with_its_values_and_writes(kit: Any) -> None:
    values = {"a": Typed("null", b""), "b": packed(b"x" * 300), "c": Typed("bytes", b"z" * 200_000)}
    put(kit.store, "1", values=values, run="r")
    write = TaskWrite("task", 0, "b", packed(b"y" * 400), "path")
    kit.store.put_writes(NewWrites("t", "", "1", [write]))
    store = kit.reopen()
    found = store.checkpoint("t")
    assert found == store.checkpoint("t", "", "1")
    assert (found.channels, found.writes) == (values, (write,))
    info = found.info
    assert (info.thread, info.namespace, info.id, info.parent) == ("t", "", "1", None)
    assert (info.payload, info.run, info.bound) == (b"state 1", "r", False)
    assert info.created == kit.clock.wall()
    assert store.verify() == []


def test_what_is_not_there_is_none(kit: Any) -> None:
    assert kit.store.checkpoint("t") is None and ids(kit.store) == []
    kit.store.put_writes(NewWrites("t", "", "1", [TaskWrite("task", 0, "a", Typed("null", b""))]))
    assert kit.store.checkpoint("t") is None, "writes alone are no checkpoint"
    put(kit.store, "1")
    assert kit.store.checkpoint("t", "", "2") is None
    assert kit.store.checkpoint("t", "other") is None and kit.store.checkpoint("u") is None
    assert len(kit.store.checkpoint("t").writes) == 1, "they came before it"


def test_an_unchanged_channel_is_not_asked_for(kit: Any) -> None:
    big, small = packed(*[b"x" * 100] * 9), Typed("msgpack", b"\x07")
    put(kit.store, "1", values={"big": big, "small": small})
    put(kit.store, "2", "1", values={"new": small}, kept={"big": 1, "small": 1})
    put(kit.store, "3", "2", kept={"big": 1, "new": 2})
    store = kit.reopen()
    assert store.checkpoint("t").channels == {"big": big, "new": small}
    assert store.checkpoint("t", "", "2").channels == {"new": small, "big": big, "small": small}


@pytest.mark.parametrize("parent", [None, "0", "1"])
def test_it_is_asked_for_where_the_parent_has_another_version_or_is_not_there(
    kit: Any, parent: str | None
) -> None:
    put(kit.store, "1", values={"a": packed(b"old")})
    given_ = {"a": NewChannel(7, lambda: packed(b"new"), changed=False)}
    kit.store.put_checkpoint(NewCheckpoint("t", "", "2", b"", given_, parent))
    assert kit.store.checkpoint("t").channels == {"a": packed(b"new")}
    assert kit.store.checkpoint("t", "", "1").channels == {"a": packed(b"old")}


def test_a_value_that_cannot_be_made_leaves_nothing_behind(kit: Any) -> None:
    channels = {
        "a": NewChannel(1, lambda: packed(b"x" * 200)),
        "b": NewChannel(1, must_not_be_asked),
    }
    with pytest.raises(AssertionError, match="asked"):
        kit.store.put_checkpoint(NewCheckpoint("t", "", "1", b"", channels))
    assert kit.store.checkpoint("t") is None and kit.store.verify() == []


def test_what_is_put_together_is_there_together(kit: Any) -> None:
    def new(id_: str, value: Any = None) -> NewCheckpoint:
        channels = {"a": NewChannel(1, value or (lambda: packed(id_.encode() * 300)))}
        return NewCheckpoint("t", "", id_, b"", channels, str(int(id_) - 1))

    writes = NewWrites("t", "", "2", [TaskWrite("k", 0, "a", packed(b"w" * 300))])
    kit.store.put_together([new("1"), writes, new("2")])
    with pytest.raises(AssertionError, match="asked"):
        kit.store.put_together([new("3"), new("4", must_not_be_asked)])
    store = kit.reopen()
    assert ids(store) == ["2", "1"] and len(store.checkpoint("t").writes) == 1
    assert store.verify() == []


def test_a_put_of_the_same_id_replaces(kit: Any) -> None:
    put(kit.store, "1", values={"a": packed(b"x" * 100)})
    put(kit.store, "2", "1", values={"a": packed(b"x" * 100, b"y" * 100)})
    began = kit.clock.wall()
    kit.clock.advance(60)
    put(kit.store, "2", "1", values={"a": packed(b"x" * 100, b"z" * 100)})
    found = kit.reopen().checkpoint("t")
    assert found.channels == {"a": packed(b"x" * 100, b"z" * 100)}
    assert found.info.created == began and ids(kit.store) == ["2", "1"]
    assert kit.store.verify() == []


def test_the_latest_is_the_one_with_the_largest_id_not_the_one_put_last(kit: Any) -> None:
    for id_ in "2413":
        put(kit.store, id_)
    assert kit.reopen().checkpoint("t").info.id == "4" and kit.store.verify() == []


def test_branches_of_one_state_do_not_touch_each_other(kit: Any) -> None:
    base = [b"base" * 50]
    put(kit.store, "1", values={"a": packed(*base)})
    for id_, word in (("2", b"left"), ("3", b"right")):
        put(kit.store, id_, "1", values={"a": packed(*base, word * 50)})
    put(kit.store, "4", "2", values={"a": packed(*base, b"left" * 50, b"more" * 50)})
    put(kit.store, "5", "3", values={"a": packed(*base, b"right" * 50, b"less" * 50)})
    store = kit.reopen()
    assert store.checkpoint("t").channels["a"] == packed(*base, b"right" * 50, b"less" * 50)
    assert store.checkpoint("t", "", "4").channels["a"] == packed(*base, b"left" * 50, b"more" * 50)
    assert store.checkpoint("t", "", "2").channels["a"] == packed(*base, b"left" * 50)
    assert store.verify() == []


def test_first_writes_stay_and_special_ones_are_replaced(kit: Any) -> None:
    put(kit.store, "1")

    def write(index: int, word: bytes, task: str = "b", path: str = "") -> TaskWrite:
        return TaskWrite(task, index, "c", packed(word), path)

    kit.store.put_writes(NewWrites("t", "", "1", [write(0, b"first"), write(-1, b"first")]))
    kit.store.put_writes(NewWrites("t", "", "1", [write(0, b"second"), write(-1, b"second")]))
    kit.store.put_writes(NewWrites("t", "", "1", [write(1, b"late"), write(0, b"other", "a", "z")]))
    kit.store.put_writes(
        NewWrites("t", "", "1", [write(0, b"another", "a"), write(0, b"early", "c")])
    )
    assert kit.reopen().checkpoint("t").writes == (
        write(-1, b"second"),
        write(0, b"first"),
        write(1, b"late"),
        write(0, b"early", "c"),
        write(0, b"other", "a", "z"),
    )


def test_lists_are_ordered_and_limited(kit: Any) -> None:
    for thread, space, id_ in [("t", "", "2"), ("u", "", "1"), ("t", "n", "3"), ("t", "", "1")]:
        put(kit.store, id_, thread=thread, space=space)
    store = kit.reopen()
    assert ids(store) == ["3", "2", "1", "1"]
    assert [info.thread for info in store.checkpoints()] == ["t", "t", "t", "u"]
    assert ids(store, "t") == ["3", "2", "1"] and ids(store, "t", "") == ["2", "1"]
    assert ids(store, None, "n") == ["3"] and ids(store, "x") == []
    assert ids(store, "t", "", "2") == ["1"] and ids(store, before="3") == ["2", "1", "1"]


def test_long_lists_come_in_parts_and_leave_out_what_goes_meanwhile(kit: Any) -> None:
    for number in range(100, 300):
        put(kit.store, str(number), run="old" if number < 120 else None)
    reading = kit.store.checkpoints("t")
    assert next(reading).id == "299"
    if kit.kind == "sqlite":  # the store in dicts reads all at once
        kit.store.delete_checkpoints(["old"])
        assert len(list(reading)) == 179
    assert len(ids(kit.store)) == (180 if kit.kind == "sqlite" else 200)


def history(store: Any, count: int = 5, **more: Any) -> None:
    for number in range(1, count + 1):
        items = [bytes([n]) * 200 for n in range(number)]
        put(store, str(number), str(number - 1) or None, values={"a": packed(*items)}, **more)
        store.put_writes(
            NewWrites("t", "", str(number), [TaskWrite("k", 0, "a", packed(items[-1]))])
        )


@pytest.mark.parametrize(
    ("keep", "age", "left"),
    [
        (1, None, ["5"]),
        (2, None, ["5", "4"]),
        (9, None, ["5", "4", "3", "2", "1"]),
        (1, 25, ["5", "4"]),
        (4, 15, ["5", "4", "3", "2"]),
        (0, 15, ["5"]),
        (0, 0, []),
        (0, None, []),
    ],
)
def test_pruning_keeps_the_latest_and_the_young(
    kit: Any, keep: int, age: float | None, left: list[str]
) -> None:
    for number in range(1, 6):
        put(kit.store, str(number), values={"a": packed(bytes([number]) * 200)})
        kit.store.put_writes(
            NewWrites("t", "", str(number), [TaskWrite("k", 0, "a", packed(b"w" * 99))])
        )
        kit.clock.advance(10)  # the latest is 10 s old in the end
    before = None if age is None else kit.clock.wall() - age
    assert kit.store.prune_threads(["t", "x"], keep=keep, before=before) == 5 - len(left)
    store = kit.reopen()
    assert ids(store) == left and store.verify() == []
    for id_ in left:
        found = store.checkpoint("t", "", id_)
        assert found.channels == {"a": packed(bytes([int(id_)]) * 200)} and len(found.writes) == 1
    assert store.prune_threads(["t"], keep=keep, before=before) == 0


def test_pruning_looks_at_each_namespace_and_spares_other_threads(kit: Any) -> None:
    for thread, space in (("t", ""), ("t", "n"), ("u", "")):
        for id_ in "123":
            put(kit.store, id_, thread=thread, space=space)
    assert kit.store.prune_threads([]) == 0 and kit.store.prune_threads(["t"]) == 4
    assert ids(kit.store, "t") == ["3", "3"] and ids(kit.store, "u") == ["3", "2", "1"]
    assert kit.store.prune_threads() == 2 and ids(kit.store) == ["3", "3", "3"]


def test_what_a_kept_checkpoint_needs_is_kept(kit: Any) -> None:
    for id_, bound in (("1", False), ("2", False), ("3", True), ("4", None), ("5", None)):
        put(kit.store, id_, str(int(id_) - 1), bound=bound, run=f"run {id_}")
    with pytest.raises(UsageError) as error:
        kit.store.delete_checkpoints(["run 1", "run 4"])
    assert error.value.code == "checkpoint_needed" and len(ids(kit.store)) == 5
    assert kit.store.prune_threads(keep=1) == 1
    assert ids(kit.store) == ["5", "4", "3", "2"]
    assert kit.store.delete_checkpoints(["run 4", "run 5"]) == 2


def test_the_checkpoints_of_runs_go_with_their_writes(kit: Any) -> None:
    for id_, run, space in [("1", "r", ""), ("2", "s", ""), ("3", None, ""), ("1", "r", "n")]:
        put(kit.store, id_, space=space, run=run)
        kit.store.put_writes(
            NewWrites("t", space, id_, [TaskWrite("k", 0, "a", packed(b"w" * 99))])
        )
    assert kit.store.delete_checkpoints([]) == 0 == kit.store.delete_checkpoints(["none"])
    assert kit.store.delete_checkpoints(["r", "s"]) == 3
    assert ids(kit.store) == ["3"] and kit.store.verify() == []
    put(kit.store, "1")
    assert kit.store.checkpoint("t", "", "1").writes == (), "those of the removed one are gone"


def test_a_thread_goes_with_everything(kit: Any) -> None:
    history(kit.store)
    put(kit.store, "1", thread="u", values={"a": packed(b"\0" * 200)})
    put(kit.store, "1", space="n")
    assert kit.store.delete_threads(["t", "none"]) == 6 and kit.store.delete_threads(["t"]) == 0
    store = kit.reopen()
    assert ids(store) == ["1"] and store.verify() == []
    assert store.checkpoint("u").channels == {"a": packed(b"\0" * 200)}, "its value was shared"


def test_a_copy_stands_on_its_own(kit: Any) -> None:
    history(kit.store, 3)
    put(kit.store, "1", space="n", values={"a": Typed("bytes", b"z" * 999)})
    assert kit.store.copy_thread("none", "u") == 0 and ids(kit.store, "u") == []
    assert kit.store.copy_thread("t", "u") == 4
    with pytest.raises(UsageError) as error:
        kit.store.copy_thread("t", "u")
    assert error.value.code == "thread_exists"
    store = kit.reopen()
    before = [store.checkpoint("t", i.namespace, i.id) for i in store.checkpoints("t")]
    after = [store.checkpoint("u", i.namespace, i.id) for i in store.checkpoints("u")]
    assert [(c.channels, c.writes, c.info.payload) for c in after] == [
        (c.channels, c.writes, c.info.payload) for c in before
    ]
    grown = packed(b"\0" * 200, b"\1" * 200, b"\2" * 200, b"new" * 50)
    put(store, "4", "3", thread="u", values={"a": grown})
    store.delete_threads(["t"])
    assert store.checkpoint("u").channels == {"a": grown} and store.verify() == []
    assert ids(store, "u") == ["4", "3", "2", "1", "1"]


# What only the real one does.


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path, clock=ManualClock(), owners=OneOwner()) as made:
        yield made


def bytes_used(store: Store) -> int:
    """Bytes of the values alone."""
    found: int = store._db.rows("SELECT coalesce(sum(length(packed)), 0) FROM chunk")[0][0]
    return found + int(store._db.rows("SELECT coalesce(sum(length(data)), 0) FROM piece")[0][0])


def test_a_growing_list_costs_what_it_grows_by(store: Store) -> None:
    items: list[bytes] = []
    for number in range(1, 101):
        items.append(os.urandom(1000))
        put(store, f"{number:03}", f"{number - 1:03}", values={"a": packed(*items)})
        store.put_writes(
            NewWrites("t", "", f"{number:03}", [TaskWrite("k", 0, "a", packed(items[-1]))])
        )
    assert store.checkpoint("t").channels["a"] == packed(*items)
    assert bytes_used(store) < 1.01 * sum(map(len, items)) + 100 * 10
    assert store._db.rows("SELECT count(*) FROM piece") == [(100 + 100,)], "one list, 100 writes"
    assert store.verify() == []


@pytest.mark.parametrize("how", ["front gone", "middle changed", "other namespace", "two at once"])
def test_what_is_alike_is_stored_once(store: Store, how: str) -> None:
    items = [os.urandom(1000) for _ in range(50)]
    put(store, "1", values={"a": packed(*items)})
    new = os.urandom(1000)
    space = "child" if how == "other namespace" else ""
    if how == "two at once":
        for task, word in (("a", new), ("b", items[0][::-1])):
            store.put_writes(NewWrites("t", "", "1", [TaskWrite(task, 0, "a", packed(word))]))
        changed = [*items, new, items[0][::-1]]
    else:
        changed = {"front gone": [*items[10:], new], "other namespace": [*items, new]}.get(
            how, [*items[:20], new, *items[21:]]
        )
    put(store, "2", "1", values={"a": packed(*changed)}, space=space)
    assert store.checkpoint("t", space).channels["a"] == packed(*changed)
    assert bytes_used(store) < 53_000 and store.verify() == []


def test_text_is_compressed_and_noise_is_not(store: Store) -> None:
    put(store, "1", values={"a": packed(b"word " * 1000, os.urandom(5000))})
    assert 5000 < bytes_used(store) < 5300


def test_removed_values_leave_no_bytes_behind(tmp_path: Path) -> None:
    secret, kept = os.urandom(3000), os.urandom(3000)
    with Store(tmp_path, owners=OneOwner()) as store:
        put(store, "1", values={"a": packed(secret), "b": packed(kept)})
        put(store, "2", "1", kept={"b": 1})
        assert store.prune_threads(["t"]) == 1
        assert [len(store._db.rows(f"SELECT * FROM {name}")) for name in ("piece", "chunk")] == [
            1,
            1,
        ]
        assert store.verify() == []
    data = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert secret[100:200] not in data and kept[100:200] in data


def test_pruning_gives_the_room_back(tmp_path: Path) -> None:
    def size() -> int:
        return sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())

    with Store(tmp_path, owners=OneOwner()) as store:
        for number in range(10):
            put(store, str(number), values={"a": Typed("bytes", os.urandom(200_000))})
        full = size()
        store.prune_threads()
        shared = (tmp_path / ".edvac/store.db-shm").stat().st_size
        assert size() - shared < full / 4


def test_a_stream_is_cut_back_to_what_is_used(store: Store) -> None:
    put(store, "1", values={"a": packed(b"a" * 200)})
    put(store, "3", "1", values={"a": packed(b"a" * 200, b"b" * 200)}, run="gone")
    assert store.delete_checkpoints(["gone"]) == 1
    assert store._db.rows("SELECT count(*) FROM piece") == [(1,)]
    put(store, "4", "1", values={"a": packed(b"a" * 200, b"c" * 200)})
    assert store._db.rows("SELECT count(DISTINCT stream) FROM piece") == [(1,)], (
        "it went on with the stream"
    )
    assert store.checkpoint("t").channels["a"] == packed(b"a" * 200, b"c" * 200)
    assert store.verify() == []


def test_a_store_of_the_format_before_gets_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        kept = {at: step for at, step in schema.MIGRATIONS.items() if at < 4}
        before.setattr(schema, "MIGRATIONS", kept)
        before.setattr(schema, "FORMAT", 4)
        before.setattr("edvac.store.database.FORMAT", 4)
        Store(tmp_path, owners=OneOwner()).close()
    with Store(tmp_path, owners=OneOwner()) as store:
        assert store._db.rows("PRAGMA user_version") == [(schema.FORMAT,)]
        history(store)
        assert ids(store) == ["5", "4", "3", "2", "1"] and store.verify() == []


def test_writes_that_vanish_are_told_of(tmp_path: Path) -> None:
    with Store(tmp_path, owners=OneOwner()) as store:
        history(store)
    made = apsw.Connection(str(tmp_path / ".edvac/store.db"))
    made.execute("DELETE FROM task WHERE checkpoint = '5'")
    made.close()
    with Store(tmp_path, owners=OneOwner()) as store:
        assert [problem.code for problem in store.verify()] == ["thread_damaged"]


def test_one_damaged_value_harms_no_other(tmp_path: Path) -> None:
    with Store(tmp_path, owners=OneOwner()) as store:
        for id_ in "123":
            put(store, id_, values={"a": packed(os.urandom(300))})
    made = apsw.Connection(str(tmp_path / ".edvac/store.db"))
    made.execute("UPDATE chunk SET packed = zeroblob(305) WHERE id = 2")
    made.close()
    with Store(tmp_path, owners=OneOwner()) as store:
        assert {problem.code for problem in store.verify()} == {"value_damaged", "thread_damaged"}
        with pytest.raises(DamageError) as error:
            store.checkpoint("t", "", "2")
        assert error.value.code == "value_damaged"
        assert store.checkpoint("t") is not None and store.checkpoint("t", "", "1") is not None


def test_a_checkpoint_lost_by_the_disk_is_not_passed_over(store: Store) -> None:
    put(store, "1")
    store._db.rows("DELETE FROM checkpoint")
    store._db.suspect()
    with pytest.raises(DamageError) as error:
        store.runs()
    assert error.value.code == "acknowledged_lost"


def test_a_thread_removed_by_its_owner_is_no_loss(store: Store) -> None:
    put(store, "1")
    store.delete_threads(["t"])
    store._db.suspect()
    assert store.checkpoint("t") is None


# Cutting.


@given(st.binary(max_size=600), st.booleans(), st.integers(0, 40))
def test_pieces_of_anything_join_to_it(data: bytes, is_packed: bool, start: int) -> None:
    start = min(start, len(data))
    ends = list(cuts(data, start, packed=is_packed))
    assert ends == sorted(set(ends)) and all(start < end <= len(data) for end in ends)
    assert (ends[-1] if ends else start) == len(data)


def test_large_values_are_cut_by_size_too() -> None:
    for data, is_packed in ((element(os.urandom(300_000)), True), (os.urandom(300_000), False)):
        ends = [0, *cuts(data, 0, packed=is_packed)]
        assert ends[-1] == len(data)
        assert max(end - at for at, end in itertools.pairwise(ends)) <= LARGEST


def test_cuts_lie_behind_elements_whatever_they_are() -> None:
    """Each kind of element, large enough for a cut of its own or followed by one that is."""
    pad = element(b"p" * 200)
    shapes = [
        b"\x07", b"\xff", b"\xc0", b"\xc3", b"\xcc\x80", b"\xcd\x01\x02", b"\xce" + bytes(4),
        b"\xcf" + bytes(8), b"\xd0\x80", b"\xd1\x80\x00", b"\xd2" + bytes(4), b"\xd3" + bytes(8),
        b"\xca" + bytes(4), b"\xcb" + bytes(8), b"\xa3abc", b"\xd9\x03abc", b"\xda\x00\x03abc",
        b"\xdb\x00\x00\x00\x03abc", b"\xc4\x02ab", b"\xc5\x00\x02ab", b"\xc6\x00\x00\x00\x02ab",
        b"\xd4\x01a", b"\xd5\x01ab", b"\xd6\x01abcd", b"\xd7\x01" + bytes(8),
        b"\xd8\x01" + bytes(16), b"\xc7\x02\x01ab", b"\xc8\x00\x02\x01ab",
        b"\xc9\x00\x00\x00\x02\x01ab", b"\x90", b"\x80", b"\x92\x01\x02", b"\x81\xa1k\x90",
        b"\xdc\x00\x02\x01\x02", b"\xdd\x00\x00\x00\x01\x91\x90", b"\xde\x00\x01\x01\x02",
        b"\xdf\x00\x00\x00\x01\x01\x02",
    ]  # fmt: skip
    body = b"".join(shape + pad for shape in shapes)
    ends = [0, *cuts(body, 0, packed=True)]
    pieces = [body[at:end] for at, end in itertools.pairwise(ends)]
    assert pieces == [shape + pad for shape in shapes]


@pytest.mark.parametrize(
    ("head", "keys"),
    [
        (b"\x92", 0), (b"\xdc\x00\x02", 0), (b"\xdd\x00\x00\x00\x02", 0),
        (b"\x82", 1), (b"\xde\x00\x02", 1), (b"\xdf\x00\x00\x00\x02", 1),
    ],
)  # fmt: skip
def test_an_element_with_elements_stays_whole(head: bytes, keys: int) -> None:
    whole = head + (b"\xa1k" * keys + element(b"v" * 200)) * 2
    body = whole + element(b"p" * 200) + whole
    assert list(cuts(body, 0, packed=True)) == [len(whole), len(whole) + 205, len(body)]


def test_a_large_element_is_cut_inside() -> None:
    inner = [element(bytes([n]) * 3000) for n in range(20)]
    body = b"\x81\xa1k\xdc\x00\x14" + b"".join(inner) + b"\x01"
    ends = list(cuts(body, 0, packed=True))
    assert len(ends) == 21 and ends[0] == 6 + len(inner[0])


def test_a_million_numbers_are_not_looked_at_one_by_one() -> None:
    body = b"\x07" * 1_000_000
    assert len(list(cuts(body, 0, packed=True))) == 20_000 // 128 + -(-980_032 // LARGEST)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"", 0), (b"\x07", 0), (b"\xcd\x01\x02", 0), (b"\x93\x01\x02\x03", 1),
        (b"\x81\x01\x02", 1),
        (b"\xa2ab", 1), (b"\xdc\x00\x01\x07", 3), (b"\xdd\x00\x00\x00\x01\x07", 5),
        (b"\xc7\x01\x05a", 3), (b"\xda", 1),
    ],
)  # fmt: skip
def test_a_head_says_how_long_a_value_is(data: bytes, size: int) -> None:
    assert head_size(data) == size


def test_any_change_of_a_value_is_read_back(store: Store) -> None:
    """Lists that are appended to, cut, edited and replaced at random, each on any earlier one."""
    rng = random.Random(7)
    states: dict[str, list[bytes]] = {"000": []}
    put(store, "000", values={"a": packed()})
    for number in range(1, 150):
        parent = rng.choice(list(states)[-4:])
        items = list(states[parent])
        match rng.randrange(6):
            case 0 if items:
                items.pop(rng.randrange(len(items)))
            case 1 if items:
                items[rng.randrange(len(items))] = rng.randbytes(rng.randrange(300))
            case 2:
                items.insert(rng.randrange(len(items) + 1), rng.randbytes(150))
            case _:
                items += [rng.randbytes(rng.choice([5, 70, 900])) for _ in range(rng.randrange(4))]
        states[f"{number:03}"] = items
        put(store, f"{number:03}", parent, values={"a": packed(*items)})
        if number % 50 == 0:
            store.prune_threads(keep=20)
            states = dict(list(states.items())[-20:])
    for id_, items in states.items():
        found = store.checkpoint("t", "", id_)
        assert found is not None and found.channels["a"] == packed(*items)
    assert store.verify() == []
    assert len(ids(store)) == len(states)


def test_errors_of_the_store_are_typed(tmp_path: Path) -> None:
    """A row that passes its seal but is no list is damage, not a decoding error."""
    from edvac.store.threads import unpack

    with pytest.raises(EdvacError) as error:
        unpack(b"\xc1")
    assert error.value.code == "store_damaged"
