"""What came back from disk in fewer bits is known as that, and never given to who asked for exact
answers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from edvac.core.seams import SystemClock
from edvac.engine import _native
from edvac.engine.assembly import disk_codec
from edvac.engine.digest import file_digest
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.kv.codecs import kv_type_named
from edvac.engine.kv.disk import BlockCodec
from edvac.engine.kv.kept import KeptPrefixes
from edvac.engine.kv.nodes import Node, line
from edvac.engine.kv.pages import BLOCK, block_shape
from edvac.engine.kv.spill import Keeping, SpillFile
from edvac.engine.loader import LoadOptions, load
from edvac.engine.protocol import Generate
from edvac.engine.sequences import common_prefix

from .test_engine import LIMITS, PROMPTS, ask, drain
from .test_kv import CONFIG, POOL, SLOTS, TOKENS, Memory, Sequences, short
from .tiny import write_tiny


class Marking(BlockCodec):
    """Says on each number that it was here, once, and on each block where it stands."""

    def __init__(self) -> None:
        super().__init__(kv_type_named("int8", 16), 16)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], shape[-1] * 2 + 2)

    def encode(self, contents: torch.Tensor, first: int) -> torch.Tensor:
        marked = torch.where(contents % 1 == 0, contents + 0.5, contents).contiguous()
        where = torch.full((*contents.shape[:-1], 1), first, dtype=torch.int16)
        return torch.cat([marked.view(torch.uint8), where.view(torch.uint8)], dim=-1)

    def decode(self, coded: torch.Tensor, first: int, target: torch.Tensor) -> None:
        where = coded[..., -2:].contiguous().view(torch.int16)
        assert bool((where == first).all()), "it stands elsewhere"
        target.copy_(coded[..., :-2].contiguous().view(torch.float16))


def is_marked(contents: torch.Tensor) -> bool:
    return bool((contents % 1 != 0).any())


class LossyMemory(Memory):
    """What is computed behind a marked number is marked."""

    def __init__(self, spill: SpillFile | None, pool: int = POOL) -> None:
        super().__init__(spill, pool)
        self.lossy_from: dict[int, int | None] = {}

    def stored(self, tokens: list[int], position: int) -> torch.Tensor:
        found = super().stored(tokens, position)
        return found % 512 if found[0] > 0 else found

    def shown(self, slot: int, count: int) -> torch.Tensor:
        """Of a row's first tokens the first layer, (tokens, items)."""
        blocks = self.arena.raw(0)[slot].view(torch.float16).transpose(0, 1)
        return blocks.reshape(-1, blocks.shape[-1])[:count]

    def compute(self, slot: int, start: int, tokens: list[int]) -> None:
        super().compute(slot, start, tokens)
        if start and is_marked(self.shown(slot, start)):
            for position in range(start, len(tokens)):
                block = self.arena._rows[slot][position // BLOCK]
                self.arena.contents(block)[:, :, :, position % BLOCK] += 0.5

    def begin(
        self, slot: int, reader: str, tokens: list[int], source: int = -1, exact: bool = False
    ) -> int:
        """As scheduler and engine begin a row."""
        self.tree.recall(reader, tokens, exact=exact)
        most = len(tokens) - 1
        cached, lossy = min(self.tree.match(reader, tokens, exact=exact), most), None
        if source >= 0:
            cached, lossy = common_prefix(tokens, self.rows[source][1]), self.lossy_from[source]
            cached = min(cached, most, most if not exact or lossy is None else lossy)
            self.arena.copy(source, slot, cached)
        elif cached:
            lossy = self.tree.exact(reader, tokens)
        lossy = None if exact or lossy is None or lossy >= cached else lossy
        if source < 0 and cached:
            with self.tree.pinned([]):
                self.tree.use(reader, tokens, exact=exact)
                self.tree.lend(reader, tokens, cached, slot, exact=lossy is None)
        self.compute(slot, cached, tokens)
        self.rows[slot], self.lossy_from[slot] = (reader, list(tokens)), lossy
        return cached

    def finish(self, slot: int) -> None:
        reader, tokens = self.rows.pop(slot)
        lossy_from = self.lossy_from.pop(slot)
        before = self.exact_blocks()
        self.tree.insert(reader, tokens, slot, lossy_from)
        for of, there in before:
            assert self.tree.match(of, there, exact=True) == len(there), "exact before lossy"
        whole = tokens[: len(tokens) // BLOCK * BLOCK]
        if lossy_from is None and whole:
            assert self.tree.match(reader, whole, exact=True) == len(whole), "promoted"
        self.arena.clear(slot)

    def exact_blocks(self) -> list[tuple[str, list[int]]]:
        found = []
        for reader, root in self.tree._roots.items():
            stack = list(root.children.values())
            while stack:
                node = stack.pop()
                stack += node.children.values()
                path = sequence(node)
                if all(one.block is not None and not one.lossy for one in line(node)):
                    found.append((reader, path))
        return [one for one in found if len(one[1]) >= 16]

    def check(self, slot: int, tokens: list[int]) -> None:
        """Each number is what was computed, or marked; where the row says that it is exact, and
        nowhere else, it is not."""
        row, lossy = self.shown(slot, len(tokens)), self.lossy_from.get(slot)
        wanted = torch.stack([self.stored(tokens, at) for at in range(len(tokens))])
        exact = len(tokens) if lossy is None else lossy
        assert torch.equal(row[:exact], wanted[:exact])
        assert torch.equal(row[exact:], wanted[exact:] + 0.5)


def sequence(node: Node) -> list[int]:
    return [token for one in line(node) for token in one.tokens]


class LossySequences(Sequences):
    """The same under a file that keeps less, beside readers that ask for exactness."""

    def __init__(self) -> None:
        super().__init__()
        assert self.spill is not None
        self.spill.close()
        directory = Path(os.environ.get("TMPDIR", "/tmp"))
        codec = Marking()
        shape = block_shape(CONFIG)
        size = int(torch.Size(codec.shape(shape)).numel())
        self.memory.arena.close()
        self.spill = SpillFile(directory, shape, 8 * size, codec=codec)
        self.memory: LossyMemory = LossyMemory(self.spill)

    @precondition(lambda self: len(self.memory.rows) < SLOTS)
    @rule(parts=short, tail=st.integers(0, 35), reader=st.sampled_from("ab"), whose=st.integers())
    def begin_exact(self, parts: list[int], tail: int, reader: str, whose: int) -> None:
        slot = min(set(range(SLOTS)) - set(self.memory.rows))
        like = [at for at, (of, _) in self.memory.rows.items() if of == reader]
        source = like[whose % len(like)] if like and whose % 2 else -1
        self.memory.begin(slot, reader, self.tokens(parts, tail), source, exact=True)
        assert self.memory.lossy_from[slot] is None

    @rule(parts=short, tail=st.integers(0, 35), reader=st.sampled_from("ab"))
    def fetch_exactly(self, parts: list[int], tail: int, reader: str) -> None:
        tokens = self.tokens(parts, tail)
        self.memory.tree.fetch(reader, tokens, exact=True)
        tree = self.memory.tree
        assert tree.coming(reader, tokens, exact=True) <= tree.known(reader, tokens, exact=True)

    @rule()
    def press_much(self) -> None:
        self.memory.tree.evict(8)

    @invariant()
    def labels_tell_what_is_held(self) -> None:
        for node in self.memory.tree._nodes():
            if node.block is None:
                assert node.lossy, "so will it come back"
                continue
            held = self.memory.arena.contents(node.block)[:, :, :, : len(node.tokens)]
            assert is_marked(held) == node.lossy


TestLossySequences = LossySequences.TestCase
TestLossySequences.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@pytest.fixture
def memory(tmp_path: Path) -> LossyMemory:
    """What was computed of `TOKENS` is on disk alone."""
    spill = SpillFile(tmp_path, block_shape(CONFIG), 1 << 20, codec=Marking())
    return gone(LossyMemory(spill))


def gone(memory: LossyMemory, tokens: list[int] = TOKENS) -> LossyMemory:
    memory.begin(0, "a", tokens)
    memory.finish(0)
    while memory.tree.evict():
        pass
    return memory


def test_lossy_blocks_are_for_who_does_not_mind(memory: LossyMemory) -> None:
    tree = memory.tree
    assert tree.known("a", TOKENS) == 100
    assert tree.known("a", TOKENS, exact=True) == 0
    assert not tree.fetch("a", TOKENS, exact=True)
    assert memory.begin(0, "a", TOKENS) == 99
    assert memory.lossy_from[0] == 0
    memory.check(0, TOKENS)
    assert memory.begin(1, "a", TOKENS, exact=True) == 0
    assert memory.begin(2, "a", TOKENS, source=0, exact=True) == 0
    memory.check(2, TOKENS)


def test_a_block_is_coded_for_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, seen = Marking(), list[int]()
    encode = codec.encode

    def encoding(contents: torch.Tensor, first: int) -> torch.Tensor:
        seen.append(first)
        return encode(contents, first)

    monkeypatch.setattr(codec, "encode", encoding)
    gone(LossyMemory(SpillFile(tmp_path, block_shape(CONFIG), 1 << 20, codec=codec)))
    assert seen == [96, 64, 32, 0]


def test_an_exact_answer_takes_the_place_of_a_lossy_one_and_not_the_other_way(
    memory: LossyMemory,
) -> None:
    memory.begin(0, "a", TOKENS)
    memory.begin(1, "a", TOKENS[:96] + [5] * 30, exact=True)
    memory.finish(1)
    assert memory.tree.match("a", TOKENS, exact=True) == 96
    assert len(memory.tree._spill or ()) == 1, "copies of what was lossy went too"
    memory.finish(0)
    assert memory.tree.match("a", TOKENS, exact=True) == 96
    assert memory.begin(1, "a", TOKENS) == 99
    assert memory.lossy_from[1] == 96
    memory.check(1, TOKENS)


def test_what_is_computed_behind_a_lossy_beginning_is_lossy_wherever_it_goes(
    memory: LossyMemory,
) -> None:
    memory.begin(0, "a", [*TOKENS, *TOKENS[:40]])
    memory.finish(0)
    assert all(node.lossy for node in memory.tree._nodes())
    while memory.tree.evict():
        pass
    assert memory.begin(0, "a", [*TOKENS, *TOKENS[:40]]) == 139
    assert memory.lossy_from[0] == 0
    memory.check(0, [*TOKENS, *TOKENS[:40]])
    memory.finish(0)
    assert memory.tree.match("a", TOKENS, exact=True) == 0


def test_a_lossy_end_leaves_a_shorter_exact_one(tmp_path: Path) -> None:
    spill = SpillFile(tmp_path, block_shape(CONFIG), 1 << 20, codec=Marking())
    memory = gone(LossyMemory(spill), TOKENS[:64])
    assert memory.begin(0, "a", TOKENS) == 64
    memory.begin(1, "a", TOKENS[:80], exact=True)
    memory.finish(1)
    memory.finish(0)
    assert memory.tree.match("a", TOKENS, exact=True) == 80
    assert memory.tree.match("a", TOKENS) == 80


def test_of_two_ends_that_agree_as_long_the_exact_one_is_lent(memory: LossyMemory) -> None:
    memory.begin(0, "a", TOKENS[:64])
    memory.begin(1, "a", [*TOKENS[:45], *[9] * 10], exact=True)
    memory.finish(1)
    memory.finish(0)
    wanted = [*TOKENS[:45], 7, 7, 7]
    assert memory.begin(1, "a", wanted) == 45
    assert memory.lossy_from[1] is None
    memory.check(1, wanted)
    memory.finish(1)
    longer = [*TOKENS[:50], 7, 7, 7]
    assert memory.begin(1, "a", longer) == 50
    assert memory.lossy_from[1] == 32, "the other is lossy from where its block begins"
    memory.check(1, longer)
    assert memory.begin(2, "a", longer, exact=True) == 45
    memory.check(2, longer)


def test_what_is_about_to_be_lent_exactly_stays(memory: LossyMemory) -> None:
    memory.begin(0, "a", TOKENS[:64])
    memory.begin(1, "a", [*TOKENS[:45], *[9] * 10], exact=True)
    memory.finish(1)
    memory.finish(0)
    wanted = [*TOKENS[:50], 7, 7, 7]
    with memory.tree.pinned([]):
        memory.tree.use("a", wanted, exact=True)
        while memory.tree.evict():
            pass
        assert memory.tree.match("a", wanted, exact=True) == 45


def test_memory_goes_before_what_lies_on_disk_too(tmp_path: Path) -> None:
    keeping = Keeping("one", time.time())
    spill = SpillFile(tmp_path, block_shape(CONFIG), 1 << 20, keeping=keeping, codec=Marking())
    memory = LossyMemory(spill)
    memory.begin(0, "a", TOKENS)
    memory.finish(0)
    memory.tree.save(100)
    assert len(spill) == 3
    assert memory.begin(0, "a", TOKENS) == 99
    assert memory.lossy_from[0] is None
    memory.check(0, TOKENS)


def test_lossy_blocks_outlive_the_engine_as_that(tmp_path: Path) -> None:
    def engine() -> tuple[SpillFile, LossyMemory]:
        keeping = Keeping("one", time.time())
        spill = SpillFile(tmp_path, block_shape(CONFIG), 1 << 20, keeping=keeping, codec=Marking())
        return spill, LossyMemory(spill)

    spill, memory = engine()
    memory.begin(0, "a", TOKENS)
    memory.finish(0)
    memory.tree.save(100)
    spill.close()
    spill, memory = engine()
    assert memory.begin(0, "a", TOKENS, exact=True) == 0
    assert memory.begin(1, "a", TOKENS) == 96
    assert memory.lossy_from[1] == 0
    memory.check(1, TOKENS)
    spill.close()


class Gated(SpillFile):
    """Reads only when it is let."""

    gate = threading.Event()

    def read(self, place: int, target: torch.Tensor, first: int = 0) -> bool:
        self.gate.wait(10)
        return super().read(place, target, first)


def test_exact_blocks_overtake_lossy_ones_on_their_way(tmp_path: Path) -> None:
    spill = Gated(tmp_path, block_shape(CONFIG), 1 << 20, codec=Marking())
    memory = gone(LossyMemory(spill))
    assert memory.tree.fetch("a", TOKENS)
    assert memory.tree.coming("a", TOKENS) == 100
    assert memory.tree.coming("a", TOKENS, exact=True) == 0
    memory.compute(0, 0, TOKENS)
    memory.rows[0], memory.lossy_from[0] = ("a", TOKENS), None
    memory.finish(0)
    spill.gate.set()
    while memory.tree.loading:
        memory.tree.wait()
    assert memory.tree.match("a", TOKENS, exact=True) == 100
    assert len(spill) == 0


def test_a_damaged_lossy_block_is_computed_again(memory: LossyMemory) -> None:
    spill = memory.tree._spill
    assert spill is not None
    node = next(node for node in memory.tree._nodes() if node.tokens == tuple(TOKENS[32:64]))
    assert node.place is not None
    os.pwrite(spill._file, b"\xff\xff\xff", node.place * spill._size + 100)
    assert memory.begin(0, "a", TOKENS) == 32
    memory.check(0, TOKENS)


def test_a_full_disk_costs_what_was_to_be_coded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill = SpillFile(tmp_path, block_shape(CONFIG), 1 << 20, codec=Marking())
    memory = LossyMemory(spill)
    memory.begin(0, "a", TOKENS)
    memory.finish(0)
    monkeypatch.setattr(os, "pwrite", lambda *_: 5)
    assert memory.tree.evict()
    assert memory.tree.match("a", TOKENS, exact=True) == 96
    assert len(spill) == 0


Make = Callable[..., Engine]


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Engines of a tiny model, by what their disk holds."""
    native = _native.kernels()
    if native is None:
        pytest.skip("the compiled kernels are not installed (`make setup`)")
    directory = tmp_path_factory.mktemp("lossy")
    path = write_tiny(directory / "tiny.gguf", request.param, kinds=("Q8_0", "Q5_0", "Q4_1"))
    decoder, source = load(
        LoadOptions(path, file_digest(path), directory, False, lambda done, total: None)
    )
    shape = block_shape(source.config)

    def build(disk: str, kept: KeptPrefixes | None = None, name: str = "", **more: int) -> Engine:
        codec = disk_codec(disk, source, decoder)
        keeping = Keeping(name, time.time()) if name else None
        spill = SpillFile(directory, shape, 1 << 28, keeping=keeping, codec=codec)
        options = EngineOptions(replace(LIMITS, **more), native=native, spill=spill)
        return Engine(decoder, source.codec, options, SystemClock(), kept)

    return build


LONG = [prompt * 2 for prompt in PROMPTS]


def texts(engine: Engine, *, exact: bool) -> list[str]:
    asked = [
        ask(f"{number}{exact}", text, max_tokens=40, exact=exact)
        for number, text in enumerate(LONG)
    ]
    found = drain(engine, *asked)
    return [found[one.id].text for one in asked]


def forget_memory(engine: Engine) -> None:
    while engine._prefixes.evict(8):
        pass


@pytest.mark.parametrize("disk", ["int8", "int4"])
def test_exact_answers_are_the_same_whatever_lies_on_disk(make: Make, disk: str) -> None:
    wanted = texts(make("same"), exact=True)
    engine = make(disk)
    assert texts(engine, exact=False) == wanted, "nothing has left memory yet"
    forget_memory(engine)
    known = engine.counters.cached_tokens
    texts(engine, exact=False)
    assert engine.counters.cached_tokens > known, "lossy blocks are read on from"
    assert any(node.lossy and node.block is not None for node in engine._prefixes._nodes())
    known = engine.counters.cached_tokens
    assert texts(engine, exact=True) == wanted
    between = engine.counters.cached_tokens - known
    assert texts(engine, exact=True) == wanted
    assert engine.counters.cached_tokens - known - between > 2 * between, "promoted"


def test_exact_answers_beside_lossy_ones_with_little_memory(make: Make) -> None:
    wanted = texts(make("same"), exact=True)
    engine = make("int4", kv_tokens=220, slots=3)
    for _ in range(2):
        asked = [
            ask(f"{number}{exact}", text, max_tokens=40, exact=exact, cls="offline")
            for number, text in enumerate(LONG)
            for exact in (False, True)
        ]
        for one in asked[:5]:
            engine.submit(one)
        messages = [message for _ in range(12) for message in engine.step()]
        for one in asked[5:]:
            engine.submit(msgspec.structs.replace(one, cls="online"))
        while engine.busy:
            messages += engine.step()
        found = {getattr(one, "id", ""): getattr(one, "text", "") for one in messages}
        exact = [found[f"{number}True"] for number in range(len(LONG))]
        assert exact == wanted
        forget_memory(engine)


@pytest.mark.parametrize("disk", ["int8", "int4"])
def test_an_engine_reads_on_from_what_an_earlier_one_left(make: Make, disk: str) -> None:
    wanted = texts(make("same"), exact=True)
    name = f"{disk} {wanted}"
    first = make(disk, name=name)
    texts(first, exact=False)
    first.leave()
    assert first.options.spill is not None
    first.options.spill.close()
    second = make(disk, name=name)
    assert texts(second, exact=True) == wanted
    assert second.options.spill is not None
    second.options.spill.close()
    first = make(disk, name=name)
    texts(first, exact=False)
    assert first.counters.cached_tokens > 0


def test_lossy_beginnings_are_not_kept_for_other_engines(make: Make, tmp_path: Path) -> None:
    """They would take them for exact. What is read for them alone is computed again."""

    def kept(most: int, exact: bool = False) -> Generate:
        asked = ask("a", LONG[3], max_tokens=most, exact=exact)
        first, *rest = asked.segments
        return msgspec.structs.replace(
            asked, segments=[first, msgspec.structs.replace(rest[0], keep=True), rest[1]]
        )

    engine = make("int4", kept=KeptPrefixes(tmp_path, "one"))
    texts(engine, exact=False)
    forget_memory(engine)
    drain(engine, kept(5))
    assert engine.counters.cached_tokens > 0
    assert not list(tmp_path.iterdir())
    drain(engine, kept(0))
    assert len(list(tmp_path.iterdir())) == 1
    forget_memory(engine)
    known = engine.counters.cached_tokens
    drain(engine, kept(5, exact=True))
    assert engine.counters.cached_tokens > known, "an exact request is given what is kept"


def test_a_lossy_row_that_makes_room_stays_lossy(make: Make) -> None:
    engine = make("int4", slots=1)
    texts(engine, exact=False)
    forget_memory(engine)
    engine.submit(ask("offline", LONG[4], max_tokens=100, cls="offline"))
    before = engine.counters.decode_tokens
    while engine.counters.decode_tokens < before + 40:
        engine.step()
    engine.submit(ask("online", "another", max_tokens=5))
    engine.step()
    assert any(one.evicted for one in engine._scheduler.waiting)
    nodes = list(engine._prefixes._nodes())
    assert any(node.block is not None for node in nodes)
    assert all(node.lossy for node in nodes)
