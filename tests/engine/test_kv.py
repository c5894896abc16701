"""Keys and values in blocks: what a row shows is what was computed for its tokens, whoever shares
it, whatever was evicted, spilled and brought back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edvac.core.errors import InternalError, ProcessorError
from edvac.core.seams import SystemClock
from edvac.engine import _native
from edvac.engine.catalogue import resolve
from edvac.engine.config import ModelConfig
from edvac.engine.digest import file_digest
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.kv import pages
from edvac.engine.kv.codecs import F16, KV_TYPES, KVType, kv_type_named
from edvac.engine.kv.kept import KeptPrefixes
from edvac.engine.kv.pages import BLOCK, PagedArena, Pool, block_shape, token_bytes
from edvac.engine.kv.spill import SpillFile
from edvac.engine.kv.tree import LEAST, PrefixTree
from edvac.engine.loader import LoadOptions, load
from edvac.engine.retention import Keep
from edvac.engine.sequences import common_prefix

from .test_engine import LIMITS, PROMPTS, ask, drain
from .tiny import write_tiny

CONFIG = ModelConfig("qwen2", 2, 16, 16, 1, 1, 16, 10, 512, 1e4, 1e-6)
SLOTS, CAPACITY, POOL = 3, 160, 16  # one block more than full rows hold


def mark(tokens: list[int]) -> float:
    """What is stored for the last of these tokens: it depends on all of them."""
    found = 1
    for token in tokens:
        found = (found * 31 + token + 1) % 2039
    return float(found)


@cache
def stored(kv: KVType, number: float) -> torch.Tensor:
    head = torch.arange(16) % 3 + number
    coded = (kv.keys.encode(head), kv.values.encode(-head))
    return torch.cat(coded).view(kv.dtype)


class Memory:
    """An arena whose numbers say for which tokens they were computed."""

    def __init__(self, spill: SpillFile | None, pool: int = POOL, kv: KVType = F16) -> None:
        self.arena = PagedArena(CONFIG, SLOTS, CAPACITY, pool, kv)
        self.tree = PrefixTree(self.arena, BLOCK, spill)
        self.arena.make_room = self.tree.evict
        self.rows: dict[int, tuple[str, list[int]]] = {}

    def compute(self, slot: int, start: int, tokens: list[int]) -> None:
        self.arena.touch(slot, len(tokens))
        for position in range(start, len(tokens)):
            block = self.arena._rows[slot][position // BLOCK]
            self.arena.contents(block)[:, :, :, position % BLOCK] = self.stored(tokens, position)

    def stored(self, tokens: list[int], position: int) -> torch.Tensor:
        """What a head holds of this token in every layer: its mark as keys and as values."""
        return stored(self.arena.kv, mark(tokens[: position + 1]))

    def check(self, slot: int, tokens: list[int]) -> None:
        for layer in range(CONFIG.layers):
            blocks = self.arena.raw(layer)[slot].transpose(0, 1)
            row = blocks.reshape(-1, blocks.shape[-1])[: len(tokens)]
            wanted = [self.stored(tokens, at) for at in range(len(tokens))]
            assert torch.equal(row, torch.stack(wanted).view(torch.uint8))

    def begin(self, slot: int, reader: str, tokens: list[int], source: int = -1) -> int:
        """As the engine begins a row; how many tokens need not be computed."""
        self.tree.recall(reader, tokens)
        cached = min(self.tree.match(reader, tokens), len(tokens) - 1)
        if source >= 0:
            shared = common_prefix(tokens, self.rows[source][1])
            cached = min(shared, len(tokens) - 1)
            self.arena.copy(source, slot, cached)
        elif cached:
            with self.tree.pinned([(reader, tokens)]):
                self.tree.lend(reader, tokens, cached, slot)
        self.compute(slot, cached, tokens)
        self.rows[slot] = (reader, list(tokens))
        return cached

    def finish(self, slot: int) -> None:
        reader, tokens = self.rows.pop(slot)
        self.tree.insert(reader, tokens, slot)
        self.arena.clear(slot)


short = st.lists(st.integers(0, 2), min_size=1, max_size=3)


class Sequences(RuleBasedStateMachine):
    """Sequences that begin alike, end, leave memory and come back, against their own tokens."""

    spilling = True
    kv = F16

    def __init__(self) -> None:
        super().__init__()
        directory = Path(os.environ.get("TMPDIR", "/tmp"))
        most = 8 * BLOCK * token_bytes(CONFIG, self.kv)
        self.spill = None
        if self.spilling:
            self.spill = SpillFile(directory, block_shape(CONFIG, self.kv), most, self.kv.dtype)
        self.memory = Memory(self.spill, kv=self.kv)

    def teardown(self) -> None:
        while self.memory.tree.loading:
            self.memory.tree.wait()
        self.memory.arena.close()
        if self.spill is not None:
            self.spill.close()

    def tokens(self, parts: list[int], tail: int) -> list[int]:
        found: list[int] = []
        for part in parts:
            found += [(part * 7 + at) % 10 for at in range(23)]
        return found[: CAPACITY - 40 - tail] + [tail % 3] * tail

    @precondition(lambda self: len(self.memory.rows) < SLOTS)
    @rule(parts=short, tail=st.integers(0, 35), reader=st.sampled_from("ab"), whose=st.integers())
    def begin(self, parts: list[int], tail: int, reader: str, whose: int) -> None:
        slot = min(set(range(SLOTS)) - set(self.memory.rows))
        like = [at for at, (of, _) in self.memory.rows.items() if of == reader]
        source = like[whose % len(like)] if like and whose % 2 else -1
        tokens = self.tokens(parts, tail)
        cached = self.memory.begin(slot, reader, tokens, source)
        assert cached < len(tokens)

    @precondition(lambda self: self.memory.rows)
    @rule(which=st.integers(0), more=st.lists(st.integers(0, 9), min_size=1, max_size=20))
    def go_on(self, which: int, more: list[int]) -> None:
        slot = sorted(self.memory.rows)[which % len(self.memory.rows)]
        tokens = self.memory.rows[slot][1]
        start = len(tokens)
        tokens += more[: CAPACITY - start]
        self.memory.compute(slot, start, tokens)

    @precondition(lambda self: self.memory.rows)
    @rule(which=st.integers(0))
    def finish(self, which: int) -> None:
        self.memory.finish(sorted(self.memory.rows)[which % len(self.memory.rows)])

    @rule()
    def press(self) -> None:
        self.memory.tree.evict()

    @rule(parts=short, tail=st.integers(0, 35), reader=st.sampled_from("ab"))
    def fetch(self, parts: list[int], tail: int, reader: str) -> None:
        """It may still be on its way when something else happens to it."""
        self.memory.tree.fetch(reader, self.tokens(parts, tail))

    @rule()
    def settle(self) -> None:
        self.memory.tree.settle()

    @rule(
        owner=st.sampled_from("xyz"),
        parts=short,
        reader=st.sampled_from("ab"),
        due=st.integers(0, 9),
        holds=st.booleans(),
    )
    def claim(self, owner: str, parts: list[int], reader: str, due: int, holds: bool) -> None:
        prefix = (reader, self.tokens(parts, 0))
        self.memory.tree.keep(owner, prefix, Keep(due, due + 2, holds))

    @rule(now=st.integers(0, 12))
    def expire(self, now: int) -> None:
        self.memory.tree.expire(now)

    @rule(parts=short, tail=st.integers(0, 35), reader=st.sampled_from("ab"))
    def give_up(self, parts: list[int], tail: int, reader: str) -> None:
        self.memory.tree.give_up((reader, self.tokens(parts, tail)))

    @rule(parts=short, reader=st.sampled_from("ab"))
    def put(self, parts: list[int], reader: str) -> None:
        """A prefix that was kept on disk."""
        tokens = self.tokens(parts, 3)
        heads = [self.memory.stored(tokens, at) for at in range(len(tokens))]
        contents = torch.stack(heads).expand(2, 1, 1, -1, -1)
        self.memory.tree.put(reader, tokens, contents)

    @invariant()
    def rows_show_their_tokens(self) -> None:
        for slot, (_, tokens) in self.memory.rows.items():
            self.memory.check(slot, tokens)

    @invariant()
    def every_block_is_accounted_for(self) -> None:
        memory = self.memory
        held: dict[int, int] = {}
        for node in memory.tree._nodes():
            assert node.block is not None or node.place is not None, "somewhere"
            if node.block is not None:
                held[node.block] = held.get(node.block, 0) + 1
            assert all(node in claim.nodes for claim in node.claims)
        for one in memory.tree._loads:
            held[one.block] = held.get(one.block, 0) + 1
        assert memory.tree.resident == sum(held.values())
        nodes = set(memory.tree._nodes())
        for claim in memory.tree._claims.values():
            assert all(node in nodes and claim in node.claims for node in claim.nodes)
        for row in memory.arena._rows:
            for block in row:
                held[block] = held.get(block, 0) + 1
        pool = memory.arena.pool
        assert [pool.holders(block) for block in range(POOL)] == [
            held.get(block, 0) for block in range(POOL)
        ]
        assert pool.free == POOL - len(held)
        if self.spill is not None:
            places = [n.place for n in memory.tree._nodes() if n.place is not None]
            places += [one.place for one in memory.tree._loads if one.node is None]
            assert len(set(places)) == len(places) == len(self.spill)


class DroppedSequences(Sequences):
    spilling = False


class BytesInSequences(Sequences):
    kv = kv_type_named("int8", 16)


class MixedSequences(Sequences):
    kv = kv_type_named("k8v4", 16)


class NibblesInSequences(Sequences):
    kv = kv_type_named("int4", 16)


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDroppedSequences = DroppedSequences.TestCase
TestDroppedSequences.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestBytesInSequences = BytesInSequences.TestCase
TestMixedSequences = MixedSequences.TestCase
TestNibblesInSequences = NibblesInSequences.TestCase
few = settings(max_examples=15, stateful_step_count=40, deadline=None)
TestBytesInSequences.settings = few
TestMixedSequences.settings = few
TestNibblesInSequences.settings = few


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[SpillFile]:
    found = SpillFile(tmp_path, block_shape(CONFIG), 1 << 20)
    yield found
    found.close()


def remembering(spill: SpillFile | None, tokens: list[int]) -> Memory:
    memory = Memory(spill)
    memory.begin(0, "a", tokens)
    memory.finish(0)
    return memory


TOKENS = [at % 10 for at in range(100)]


def test_a_prefix_is_mapped_and_not_copied() -> None:
    memory = remembering(None, TOKENS)
    held = memory.arena.pool.count - memory.arena.pool.free
    assert memory.begin(1, "a", [*TOKENS[:97], 9, 9, 9]) == 97
    taken = memory.arena.pool.count - memory.arena.pool.free - held
    assert taken == 1, "three blocks are the same memory, the one that parts is copied"
    memory.check(1, [*TOKENS[:97], 9, 9, 9])
    assert memory.begin(2, "b", TOKENS) == 0, "another reader class shares nothing"


def test_short_prefixes_are_not_looked_after() -> None:
    memory = remembering(None, TOKENS[: LEAST - 1])
    assert memory.tree.match("a", TOKENS) == 0
    assert memory.arena.pool.free == POOL
    longer = remembering(None, TOKENS)
    assert longer.tree.match("a", [*TOKENS[: LEAST - 1], 9, 9, 9]) == 0
    assert longer.tree.match("a", [*TOKENS[:LEAST], 0, 0, 0]) == LEAST


def test_what_a_row_shows_is_not_evicted() -> None:
    memory = remembering(None, TOKENS[:64])
    memory.begin(0, "a", TOKENS)
    assert not memory.tree.evict(), "nothing would be won"
    memory.finish(0)
    assert memory.tree.evict()


def test_what_is_being_kept_does_not_make_room_for_itself() -> None:
    memory = Memory(None)
    for slot, count in ((0, 160), (1, 160), (2, 128)):
        memory.begin(slot, "a", [slot, *TOKENS, *TOKENS][:count])
    assert memory.arena.pool.free == 2
    memory.tree.put("b", TOKENS[:96], torch.zeros(2, 1, 1, 96, 32, dtype=torch.float16))
    assert memory.tree.match("b", TOKENS) == 64
    assert memory.tree.resident == 2


def test_a_longer_sequence_takes_the_place_of_its_beginning() -> None:
    memory = remembering(None, TOKENS[:40])
    memory.begin(0, "a", TOKENS)
    memory.finish(0)
    assert len(memory.tree) == 1
    assert memory.tree.resident == POOL - memory.arena.pool.free == 4


def test_spilled_blocks_come_back(spill: SpillFile, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = remembering(spill, TOKENS)
    while memory.tree.evict():
        pass
    assert memory.tree.resident == 0
    assert len(spill) == 4
    assert memory.tree.match("a", TOKENS) == 0
    assert memory.begin(0, "a", TOKENS) == 99
    memory.check(0, TOKENS)
    memory.finish(0)
    monkeypatch.setattr(spill, "put", None)
    while memory.tree.evict():
        pass  # what lies there already need not be written again
    assert memory.begin(0, "a", TOKENS) == 99
    memory.check(0, TOKENS)


def test_a_shorter_sequence_is_not_taken_for_what_is_spilled(spill: SpillFile) -> None:
    memory = remembering(spill, TOKENS[:64])
    memory.tree.evict()
    memory.compute(0, 0, TOKENS[:40])
    memory.rows[0] = ("a", TOKENS[:40])
    memory.finish(0)
    assert memory.begin(1, "a", TOKENS[:70]) == 64
    memory.check(1, TOKENS[:70])


def test_room_is_made_for_several_blocks(spill: SpillFile) -> None:
    memory = remembering(spill, TOKENS)
    memory.begin(0, "a", [9, *TOKENS])
    memory.finish(0)
    assert memory.tree.evict(8)
    assert memory.tree.resident == 0
    assert len(spill) == 8


def test_a_sequence_leaves_from_its_end_before_the_next_one_does(spill: SpillFile) -> None:
    memory = remembering(spill, TOKENS)
    memory.begin(0, "a", [9, *TOKENS])
    memory.finish(0)
    memory.tree.evict(5)
    assert memory.tree.match("a", TOKENS) == 0
    assert memory.tree.match("a", [9, *TOKENS]) == 96


def test_a_damaged_block_is_never_given_back(spill: SpillFile) -> None:
    memory = remembering(spill, TOKENS)
    while memory.tree.evict():
        pass
    node = next(node for node in memory.tree._nodes() if node.tokens == tuple(TOKENS[32:64]))
    assert node.place is not None
    at = node.place * spill._size + 100
    before = os.pread(spill._file, 1, at)
    os.pwrite(spill._file, bytes([before[0] ^ 1]), at)
    assert memory.begin(0, "a", TOKENS) == 32, "what is behind it is of no use without it"
    memory.check(0, TOKENS)


def test_a_full_disk_costs_what_was_to_be_spilled(
    spill: SpillFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = remembering(spill, TOKENS)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert memory.tree.evict()
    monkeypatch.setattr(os, "pwrite", lambda *_: 5)
    assert memory.tree.evict()
    assert memory.tree.match("a", TOKENS) == 64
    assert len(spill) == 0


def test_a_spill_has_its_bound(tmp_path: Path) -> None:
    spill = SpillFile(tmp_path, block_shape(CONFIG), 2 * 2 * 2 * BLOCK * 16 * 2)
    memory = remembering(spill, TOKENS)
    while memory.tree.evict():
        pass
    assert len(spill) == 2
    assert memory.begin(0, "a", TOKENS) == 64, "the beginning is worth more than the end"
    assert list(tmp_path.iterdir()) == [], "it has no name that could be left behind"


def test_a_pool_counts_its_holders() -> None:
    pool = Pool(2, 4096)
    first = pool.take()
    assert first is not None
    pool.share(first)
    pool.release(first)
    assert pool.free == 1
    pool.release(first)
    for wrong in (pool.release, pool.share):
        with pytest.raises(InternalError, match="block 0"):
            wrong(first)
    assert [pool.take(), pool.take(), pool.take()] == [0, 1, None]
    pool.close()


def test_rows_give_their_maps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def maps() -> int:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        return sum("edvac-kv" in line for line in lines)

    memory = remembering(None, TOKENS)
    memory.begin(1, "a", TOKENS)
    memory.finish(1)
    shown = maps()
    monkeypatch.setattr(pages, "_MOST_SHOWN", 3)
    for slot in (0, 1):
        assert memory.begin(slot, "a", TOKENS) == 99
        memory.check(slot, TOKENS)
        memory.finish(slot)
    assert maps() < shown
    assert memory.begin(0, "a", TOKENS) == 99
    memory.check(0, TOKENS)


def test_memory_that_cannot_be_mapped_is_a_typed_error() -> None:
    arena = PagedArena(CONFIG, SLOTS, CAPACITY, POOL)
    os.close(arena.pool.file)
    with pytest.raises(ProcessorError, match="could not be mapped"):
        arena.touch(0, 1)


@pytest.mark.parametrize("name", KV_TYPES)
@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_the_fast_setting_gives_the_same_text_however_work_is_cut(
    tmp_path: Path, architecture: str, name: str
) -> None:
    """With the kernels a row's numbers depend on its own tokens alone, however they are stored."""
    path = write_tiny(tmp_path / "tiny.gguf", architecture, kinds=("Q8_0", "Q5_0", "Q4_1"))
    same_however_cut(engines(path, tmp_path, name), tmp_path / "kept", [p * 2 for p in PROMPTS])


@pytest.mark.model
@pytest.mark.parametrize("name", KV_TYPES if "EDVAC_SOAK" in os.environ else ("f16", "k8v4"))
def test_a_real_model_gives_the_same_text_however_work_is_cut(tmp_path: Path, name: str) -> None:
    path = resolve("smollm2:135m")
    if path is None:
        pytest.skip("smollm2:135m is not installed: edvac model pull smollm2:135m")
    same_however_cut(engines(path, tmp_path, name), tmp_path / "kept", PROMPTS[:3])


def same_however_cut(make: Callable[..., Engine], kept: Path, prompts: list[str]) -> None:
    wanted = texts(make(), prompts)
    assert len(set(wanted)) > 1
    for changes in ({"step_tokens": 5}, {"slots": 1}, {"slots": 8, "step_tokens": 300}):
        assert texts(make(**changes), prompts) == wanted
    assert texts(make(speculate=False), prompts) == wanted
    assert texts(make(), prompts[::-1]) == wanted[::-1], "in other company"
    warm = make()
    texts(warm, prompts)
    assert texts(warm, prompts) == wanted
    assert warm.counters.cached_tokens > 0
    spill = warm.options.spill
    assert spill is not None
    while warm._prefixes.evict():
        pass
    assert len(spill) > 0
    cached = warm.counters.cached_tokens
    assert texts(warm, prompts) == wanted
    assert warm.counters.cached_tokens > cached
    narrow = make(kv_tokens=200)
    assert texts(narrow, prompts) == wanted
    assert texts(narrow, prompts) == wanted
    known = []
    for _ in range(2):  # the first engine keeps what the second begins with
        engine = make(kept=KeptPrefixes(kept, "a model"))
        assert texts(engine, prompts, keep=True) == wanted
        known.append(engine.counters.cached_tokens)
    assert known[0] < known[1]


def engines(path: Path, directory: Path, name: str) -> Callable[..., Engine]:
    """Engines of one model, that store keys and values by this name."""
    native = _native.kernels()
    if native is None:
        pytest.skip("the compiled kernels are not installed (`make setup`)")
    options = LoadOptions(
        *(path, file_digest(path), directory, False, lambda done, total: None),
        split_key_bias=name != "f16",
    )
    decoder, source = load(options)
    biased = decoder.layers[0].key_bias is not None
    kv = kv_type_named(name, source.config.head_dim, biased=biased)
    assert biased == (name != "f16" and source.has("blk.0.attn_k.bias"))

    def make(*, kept: KeptPrefixes | None = None, speculate: bool = True, **changes: int) -> Engine:
        spill = SpillFile(directory, block_shape(source.config, kv), 1 << 28, kv.dtype)
        options = EngineOptions(
            replace(LIMITS, **changes), native=native, kv=kv, spill=spill, speculate=speculate
        )
        return Engine(decoder, source.codec, options, SystemClock(), kept)

    return make


def texts(engine: Engine, prompts: list[str], *, keep: bool = False) -> list[str]:
    asked = []
    for number, text in enumerate(prompts):
        request = ask(str(number), text, max_tokens=40)
        if keep:
            first, *rest = request.segments
            request.segments[:] = [first, msgspec.structs.replace(rest[0], keep=True), rest[1]]
        asked.append(request)
    found = drain(engine, *asked)
    return [found[request.id].text for request in asked]
