"""Any mix of requests, classes, programs, hints and aborts: each answer is as it would be alone,
each request ends once, and nothing is left behind.

`make soak` runs ten thousand; the default is a few hundred.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest
import torch

from edvac.core.errors import EdvacError
from edvac.core.seams import SystemClock
from edvac.engine import _native
from edvac.engine.digest import file_digest
from edvac.engine.engine import Engine, EngineOptions
from edvac.engine.kv.kept import KeptPrefixes
from edvac.engine.kv.pages import block_shape
from edvac.engine.kv.spill import SpillFile
from edvac.engine.loader import LoadOptions, load
from edvac.engine.protocol import Done, Failed, Generate, Hint, Segment
from edvac.engine.scheduler import Limits
from edvac.engine.server import resident_bytes

from .test_engine import SCHEMA_TEXT, drain
from .test_speculation import LARK
from .tiny import write_tiny

REQUESTS = int(os.environ.get("EDVAC_SOAK", "400"))
LIMITS = Limits(slots=6, context=400, step_tokens=48, kv_tokens=1200, queue=40)
HALF = "\N{REPLACEMENT CHARACTER}"  # of a character that was cut off
HINTS = ("open", "tool_started", "tool_ended", "next_use", "drop", "close")


@dataclass
class World:
    """One engine that gets everything, and one that answers each request alone."""

    busy: Engine
    alone: Engine
    chance: random.Random
    wanted: dict[bytes, str] = field(default_factory=dict)
    asked: dict[str, Generate] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    refused: int = 0
    cancelled: int = 0

    def draw(self, name: str) -> Generate:
        """One of some hundred different requests, many of which begin alike."""
        chance = self.chance
        shared = "tell me of the hell and the " * chance.choice((1, 3, 6))
        segments = [Segment("<|user|>", True), Segment(shared, keep=chance.random() < 0.3)]
        segments += [Segment(chance.choice(("end", "hello", "lla", "x" * 60))),
                     Segment("<|assistant|>", True)]  # fmt: skip
        more = chance.choice(
            (
                {},
                {"schema": SCHEMA_TEXT},
                {"lark": LARK},
                {"temperature": 0.8, "seed": chance.randrange(3)},
                {"stop": ["e", "ll"]},
            )
        )
        base = Generate(id=name, segments=segments, max_tokens=chance.choice((1, 7, 30)))
        return msgspec.structs.replace(
            base,
            program=chance.choice(("", "p", "q")),
            cls=chance.choice(("online", "offline", "speculative")),
            reader_class=chance.choice(("x", "y")),
            stream=chance.random() < 0.5,
            **more,
        )

    def text_alone(self, request: Generate) -> str:
        plain = msgspec.structs.replace(
            request, id="alone", program="", cls="online", reader_class="x", stream=False
        )
        key = msgspec.msgpack.encode(plain)
        if key not in self.wanted:
            self.wanted[key] = drain(self.alone, plain)["alone"].text
            self.alone.forget()
        return self.wanted[key]

    def submit(self, number: int) -> None:
        request = self.draw(f"r{number}")
        try:
            self.busy.submit(request)
            self.asked[request.id] = request
        except EdvacError as error:
            assert error.code == "engine_overloaded"
            self.refused += 1

    def take(self, messages: list[object]) -> None:
        for message in messages:
            assert not isinstance(message, Failed), message
            if isinstance(message, Done):
                assert message.id not in self.ended, "it ends once"
                self.ended[message.id] = message.text
                wanted = self.text_alone(self.asked[message.id])
                if message.finish_reason == "cancelled":
                    assert wanted.startswith(message.text.rstrip(HALF))
                else:
                    assert message.text == wanted

    def disturb(self) -> None:
        """A cancellation, a hint, or memory that is taken away."""
        chance = self.chance
        running = [name for name in self.asked if name not in self.ended]
        what = chance.random()
        if what < 0.15 and running:
            self.cancelled += 1
            self.take([*self.busy.cancel(chance.choice(running))])
        elif what < 0.3:
            kind = chance.choice(HINTS)
            detail = chance.choice(("", "shell:ls", "steps"))
            program = chance.choice(("p", "q"))
            self.busy.hint(Hint(kind=kind, program=program, detail=detail, after=chance.random()))  # type: ignore[arg-type]
        elif what < 0.33:
            self.busy._prefixes.evict(chance.randrange(1, 9))
        elif what < 0.34:
            self.busy.forget()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    native = _native.kernels()
    if native is None:
        pytest.skip("the compiled kernels are not installed (`make setup`)")
    torch.set_num_threads(1)
    path = write_tiny(tmp_path / "tiny.gguf", "qwen2", kinds=("Q8_0", "Q5_0", "Q4_1"))
    nothing = LoadOptions(path, file_digest(path), tmp_path, False, lambda done, total: None)
    decoder, source = load(nothing)
    spill = SpillFile(tmp_path, block_shape(source.config), 1 << 22)
    options = EngineOptions(LIMITS, native=native, spill=spill)
    kept = KeptPrefixes(tmp_path, "soak", budget=1 << 20)
    busy = Engine(decoder, source.codec, options, SystemClock(), kept)
    plain = replace(options, spill=None, speculate=False, jump_ahead=False)
    alone = Engine(decoder, source.codec, plain, SystemClock())
    yield World(busy, alone, random.Random(5))
    spill.close()


@pytest.mark.timeout(3000)
def test_any_mix_answers_as_each_alone_and_leaves_nothing(world: World) -> None:
    chance, sent, resident = world.chance, 0, 0
    while sent < REQUESTS or world.busy.busy:
        for _ in range(chance.choice((0, 0, 0, 0, 0, 1, 2, 6)) if sent < REQUESTS else 0):
            world.submit(sent)
            sent += 1
        world.disturb()
        world.take([*world.busy.step()])
        if not resident and sent > REQUESTS // 4:
            resident = resident_bytes()
    assert set(world.ended) == set(world.asked)
    assert world.cancelled > REQUESTS // 40
    busy = world.busy
    while busy._prefixes.loading:
        busy._prefixes.wait()
    scheduler, pool = busy._scheduler, busy._arena.pool  # type: ignore[union-attr]
    assert not scheduler.running and not scheduler.waiting
    assert sorted(scheduler.free) == list(range(LIMITS.slots))
    assert pool.free + busy._prefixes.resident == pool.count
    busy.forget()
    assert (pool.free, busy._prefixes.resident) == (pool.count, 0)
    assert not busy._prefixes._claims
    assert resident_bytes() - resident < 48 << 20, "memory is flat"
