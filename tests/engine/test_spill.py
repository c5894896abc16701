"""What leaves memory comes back, to this engine and to the next one, or is not there at all."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest
import torch

from edvac.engine.kv.pages import BLOCK, block_shape
from edvac.engine.kv.spill import Keeping, SpillFile
from edvac.engine.kv.tree import PrefixTree
from edvac.engine.retention import Keep

from .test_kv import CONFIG, TOKENS, Memory, remembering

BUDGET = 1 << 20
TOO_LONG = [*TOKENS, *range(5)]


def named(
    directory: Path, identity: str = "one", budget: int = BUDGET, days: float = 0.0
) -> SpillFile:
    keeping = Keeping(identity, time.time() + days * 86_400)
    return SpillFile(directory, block_shape(CONFIG), budget, keeping=keeping)


def leave(directory: Path, tokens: list[int] = TOKENS, most: int = 100) -> None:
    """An engine that computed these tokens and ended."""
    spill = named(directory)
    memory = remembering(spill, tokens)
    memory.tree.save(most)
    spill.close()


def names(directory: Path, identity: str) -> list[Path]:
    stem = hashlib.sha256(identity.encode()).hexdigest()[:24]
    return [directory / f"{stem}.spill", directory / f"{stem}.spill.index"]


def found(directory: Path, reader: str = "a", identity: str = "one") -> int:
    """How many tokens of them the next engine need not compute; they are checked."""
    spill = named(directory, identity)
    memory = Memory(spill)
    cached = memory.begin(0, reader, TOO_LONG)
    memory.check(0, TOO_LONG)
    spill.close()
    return cached


def test_whole_blocks_survive_the_engine(tmp_path: Path) -> None:
    leave(tmp_path)
    assert found(tmp_path) == 96
    names = {path.suffix: path for path in tmp_path.iterdir()}
    assert {path.stat().st_mode & 0o777 for path in names.values()} == {0o600}
    written = b"".join(path.read_bytes() for path in names.values())
    for kind in ("q", "i", "h"):
        plain = torch.tensor(TOKENS[:32], dtype={"q": torch.int64, "i": torch.int32,
                                                 "h": torch.int16}[kind])  # fmt: skip
        assert plain.numpy().tobytes() not in written, "tokens are not told"


def test_they_are_only_for_the_same_reader_class_and_model(tmp_path: Path) -> None:
    leave(tmp_path)
    assert found(tmp_path, reader="b") == 0
    assert found(tmp_path, identity="two") == 0
    assert found(tmp_path) == 96
    for mine, other in zip(names(tmp_path, "one"), names(tmp_path, "two"), strict=True):
        mine.replace(other)
    assert found(tmp_path, identity="two") == 0, "whatever a file is called"


def test_what_the_next_engine_does_not_ask_for_is_left_to_the_one_after(tmp_path: Path) -> None:
    leave(tmp_path)
    leave(tmp_path, [9, *TOKENS])
    assert found(tmp_path) == 96
    with_other = named(tmp_path)
    assert len(with_other) == 6


@pytest.mark.parametrize("most", [0, 2])
def test_a_beginning_is_left_before_what_follows(tmp_path: Path, most: int) -> None:
    leave(tmp_path, most=most)
    assert found(tmp_path) == 0, "the last block is of no use alone, so none of the three is left"
    leave(tmp_path, TOKENS[:64], most=2)
    assert found(tmp_path) == 64


def test_an_index_that_is_older_than_the_file_does_no_harm(tmp_path: Path) -> None:
    """As after a kill: blocks were written in places that the index still names."""
    leave(tmp_path)
    spill = named(tmp_path)
    memory = remembering(spill, [7, *TOKENS])
    for place in list(spill._left.values()):
        spill.free(place)
    spill._left.clear()
    while memory.tree.evict():
        pass
    spill.close()  # and no save
    assert found(tmp_path) < 96


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "swap"])
def test_damage_costs_what_was_left_and_nothing_else(tmp_path: Path, damage: str) -> None:
    leave(tmp_path)
    index = next(tmp_path.glob("*.index"))
    raw = bytearray(index.read_bytes())
    if damage == "cut":
        raw = raw[:-3]
    elif damage == "flip":
        raw[40] ^= 1
    elif damage == "empty":
        raw = bytearray()
    else:
        data = index.with_suffix("")
        contents = data.read_bytes()
        half = len(contents) // 3
        data.write_bytes(contents[half:] + contents[:half])
    index.write_bytes(raw)
    assert found(tmp_path) == 0


def test_old_blocks_are_not_brought_back(tmp_path: Path) -> None:
    leave(tmp_path)
    late = named(tmp_path, days=8)
    assert len(late) == 0
    late.close()
    assert len(named(tmp_path, days=6)) == 3


def test_two_engines_do_not_share_a_file(tmp_path: Path) -> None:
    first, second = named(tmp_path), named(tmp_path)
    assert first.named and not second.named
    memory = remembering(second, TOKENS)
    memory.tree.save(100)
    assert not list(tmp_path.glob("*.index"))
    first.close()
    assert named(tmp_path).named, "the name is free again"


def test_an_earlier_engines_blocks_make_room(tmp_path: Path) -> None:
    leave(tmp_path)
    size = 2 * 2 * BLOCK * 16 * 2
    spill = named(tmp_path, budget=3 * size)
    assert len(spill) == 3
    memory = remembering(spill, [8, *TOKENS][:96])
    while memory.tree.evict():
        pass
    assert len(spill) == 3
    assert memory.begin(0, "a", [8, *TOKENS][:99]) == 96


def test_forgetting_leaves_nothing(tmp_path: Path) -> None:
    leave(tmp_path)
    spill = named(tmp_path)
    memory = remembering(spill, TOKENS)
    while memory.tree.evict():
        pass
    memory.tree.forget()
    assert list(tmp_path.iterdir()) == []
    memory.tree.save(100)
    assert list(tmp_path.iterdir()) == []
    assert memory.begin(0, "a", TOKENS) == 0
    assert len(spill) == 0


def test_a_full_disk_leaves_no_half_written_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path)
    before = next(tmp_path.glob("*.index")).read_bytes()
    spill = named(tmp_path)
    memory = remembering(spill, [5, *TOKENS])

    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    memory.tree.save(100)
    assert next(tmp_path.glob("*.index")).read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


class SlowSpill(SpillFile):
    """Reads only when it is let."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, block_shape(CONFIG), BUDGET)
        self.gate = threading.Event()
        self.reads = 0

    def read(self, place: int, target: torch.Tensor, first: int = 0) -> bool:
        self.gate.wait(10)
        self.reads += 1
        return super().read(place, target, first)


def slow(tmp_path: Path) -> tuple[SlowSpill, Memory]:
    spill = SlowSpill(tmp_path)
    memory = remembering(spill, TOKENS)
    while memory.tree.evict():
        pass
    return spill, memory


def test_what_is_on_its_way_has_one_owner(tmp_path: Path) -> None:
    spill, memory = slow(tmp_path)
    tree = memory.tree
    assert tree.fetch("a", TOKENS)
    assert tree.fetch("a", TOKENS), "a second one waits for the first"
    assert (tree.match("a", TOKENS), tree.coming("a", TOKENS)) == (0, 100)
    spill.gate.set()
    tree.recall("a", TOKENS)
    assert (tree.match("a", TOKENS), spill.reads) == (100, 4)


def test_what_is_given_up_on_its_way_is_freed_when_it_arrives(tmp_path: Path) -> None:
    spill, memory = slow(tmp_path)
    memory.tree.fetch("a", TOKENS)
    memory.tree.forget()
    assert memory.arena.pool.free == memory.arena.pool.count - 4, "it is still being written to"
    spill.gate.set()
    while memory.tree.loading:
        memory.tree.wait()
    assert memory.arena.pool.free == memory.arena.pool.count
    assert (memory.tree.resident, len(spill)) == (0, 0)


def test_rows_get_their_room_from_what_is_on_its_way(tmp_path: Path) -> None:
    """Blocks that are being filled cannot be taken, but waited for."""
    spill, memory = slow(tmp_path)
    memory.tree.fetch("a", TOKENS)
    threading.Timer(0.05, spill.gate.set).start()
    for slot in range(3):
        memory.begin(slot, "b", [slot, *TOKENS, *TOKENS][:160])
    for slot in range(3):
        memory.check(slot, memory.rows[slot][1])


def test_what_is_quicker_to_compute_is_not_read(tmp_path: Path) -> None:
    spill, memory = slow(tmp_path)
    spill.gate.set()
    memory.tree.worth_loading = lambda tokens, blocks: False
    assert not memory.tree.fetch("a", TOKENS)
    assert spill.reads == 0


def claims(tree: PrefixTree, **due: float) -> None:
    for owner, when in due.items():
        tree.keep(owner, (owner, TOKENS), Keep(when, when + 100, holds=True))


def resident(memory: Memory) -> list[str]:
    return [reader for reader in "abc" if memory.tree.match(reader, TOKENS)]


def three() -> Memory:
    """Three sequences of four blocks each; the first is the longest unused."""
    memory = Memory(None)
    for reader in "abc":
        memory.begin(0, reader, TOKENS)
        memory.finish(0)
    return memory


def test_who_is_due_last_makes_room_first() -> None:
    memory = three()
    claims(memory.tree, a=5, b=9)
    memory.tree.evict(4)
    gone = []
    for _ in range(3):
        gone += [one for one in "abc" if one not in resident(memory) and one not in gone]
        for _ in range(4):
            memory.tree.evict()
    assert gone == ["c", "b", "a"][: len(gone)] and len(gone) >= 2
    assert not resident(memory)


def test_claims_end() -> None:
    memory = three()
    claims(memory.tree, a=5)
    assert (memory.tree.held("b"), memory.tree.held("a")) == (128, 0)
    memory.tree.expire(104)
    assert memory.tree.is_claimed("a")
    memory.tree.expire(105)
    assert not memory.tree.is_claimed("a")
    assert memory.tree.held("b") == 0
    for _ in range(4):
        memory.tree.evict()
    assert resident(memory) == ["b", "c"], "the longest unused"


def test_claims_yield_the_latest_first() -> None:
    memory = three()
    claims(memory.tree, a=5, b=9)
    assert memory.tree.yield_claim() and memory.tree.held("c") == 128
    assert memory.tree.yield_claim() and memory.tree.held("c") == 0
    assert not memory.tree.yield_claim()


def test_claims_have_a_bound() -> None:
    memory = three()
    memory.tree._most_claimed = 8
    claims(memory.tree, a=5, b=9, c=7)
    assert [owner for owner in "abc" if memory.tree.is_claimed(owner)] == ["a", "c"]


def test_a_prefix_that_is_given_up_keeps_what_others_begin_with() -> None:
    memory = remembering(None, TOKENS)
    memory.begin(0, "a", [*TOKENS[:64], 9, 9, 9])
    memory.finish(0)
    memory.tree.give_up(("a", TOKENS))
    assert memory.tree.match("a", TOKENS) == 64
    assert memory.tree.match("a", [*TOKENS[:64], 9, 9, 9]) == 67
