"""Work beside work: answers that somebody waits for, while documents are read that nobody waits
for, or long prompts arrive.

What counts for the first is the time between two pieces of text, at the median and where it is
worst (the 95th of a hundred); for the second, how much of it is done meanwhile. Each arm has
engines of its own, one after the other.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from edvac.bench.engine import words
from edvac.bench.report import Document, Figure
from edvac.engine.client import EngineClient, EngineSpec, connect_or_start
from edvac.engine.protocol import Generate, RequestClass, Segment
from edvac.engine.split import SplitClient, connect_split

Client = EngineClient | SplitClient


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is asked; `seconds` of each scene."""

    seconds: float = 40.0
    streams: int = 2
    documents: int = 6  # at a time
    document: int = 600  # tokens
    prompt: int = 3000  # tokens of the long ones
    every: float = 8.0  # seconds between two of them


QUICK: Final = Sizes(seconds=4.0, document=200, prompt=400, every=2.0)
_LINKS: Final = 3  # prompts that are handed over with nothing else to do


@dataclass(slots=True)
class Went:
    """What one scene showed."""

    name: str
    gaps: list[float] = field(default_factory=list)  # seconds between two pieces of text
    firsts: list[float] = field(default_factory=list)  # until the first piece of a long prompt
    read: int = 0  # tokens of documents

    @property
    def gap(self) -> float:
        return statistics.median(self.gaps) * 1000

    @property
    def worst(self) -> float:
        return sorted(self.gaps)[len(self.gaps) * 95 // 100] * 1000


class _Scene:
    """Streams, and what goes on beside them, until the time is over."""

    def __init__(self, client: Client, sizes: Sizes, went: Went) -> None:
        self._client, self._sizes, self._went = client, sizes, went
        self._names = itertools.count(1)
        self._end = time.perf_counter() + sizes.seconds

    @property
    def over(self) -> bool:
        return time.perf_counter() > self._end

    async def stream(self, number: int) -> None:
        """Answers one after the other, as to somebody who reads along."""
        while not self.over:
            last = 0.0

            def heard(_text: str, _tokens: int) -> None:
                nonlocal last
                now = time.perf_counter()
                if last and not self.over:
                    self._went.gaps.append(now - last)
                last = now

            asked = f"{words(30, 100 * number + next(self._names))}\nA story about it:"
            await self._client.generate(self._request(asked, 64), heard)

    async def documents(self, cls: RequestClass) -> None:
        """Documents that are read and answered in a word."""
        while not self.over:
            text = words(self._sizes.document, 10_000 + next(self._names))
            done = await self._client.generate(self._request(text, 8, cls))
            if not self.over:
                self._went.read += done.prompt_tokens - done.cached_tokens

    async def prompts(self) -> None:
        """Long prompts, at fixed times whether the last one was answered or not."""

        async def one() -> None:
            start = time.perf_counter()
            first: list[float] = []
            text = words(self._sizes.prompt, 50_000 + next(self._names))
            request = self._request(text, 8)
            await self._client.generate(
                request, lambda *_: first.append(time.perf_counter() - start)
            )
            self._went.firsts += first[:1]

        async with asyncio.TaskGroup() as tasks:
            while not self.over:
                tasks.create_task(one())
                await asyncio.sleep(self._sizes.every)

    def _request(self, text: str, tokens: int, cls: RequestClass = "online") -> Generate:
        name = str(next(self._names))
        return Generate(id=name, segments=[Segment(text)], cls=cls, max_tokens=tokens)


@asynccontextmanager
async def _client(model: Path, threads: int, *, apart: bool) -> AsyncIterator[Client]:
    with tempfile.TemporaryDirectory(prefix="edvac-bench-") as root:
        spec = EngineSpec(model, threads=threads, kv_mb=2048, runtime=Path(root))
        spec = replace(spec, idle_seconds=1.0, extra=("--kv-disk", "none"))
        client = await (connect_split(spec) if apart else connect_or_start(spec))
        try:
            yield client
        finally:
            await client.shutdown()
            await client.close()


@dataclass(frozen=True, slots=True)
class Link:
    """Seconds of one prompt: to read it, to write what was read to the directory that both engines
    share, and to take it from there."""

    read: float
    written: float
    taken: float


async def link(client: SplitClient, tokens: int, seed: int) -> Link:
    """Hand one prompt over, with nothing beside it."""
    ask = Generate(id="", segments=[Segment(words(tokens, seed), keep=True)], max_tokens=0)

    async def seconds(engine: EngineClient, request: Generate, name: str) -> float:
        start = time.perf_counter()
        await engine.generate(msgspec.structs.replace(request, id=f"{name}{seed}"))
        return time.perf_counter() - start

    before = set(client.handover.iterdir())
    read = await seconds(client.reads, ask, "read")
    for made in set(client.handover.iterdir()) - before:
        made.unlink()
    written = await seconds(client.reads, ask, "written")
    known = await seconds(client.reads, ask, "known")
    one = msgspec.structs.replace(ask, max_tokens=1)
    taken = await seconds(client.writes, one, "taken")
    there = await seconds(client.writes, one, "there")
    return Link(read, written - known, taken - there)


async def measure(
    document: Document, model: Path, threads: int, sizes: Sizes, say: Callable[[str], None]
) -> None:
    """Add the figures of one model."""
    name = model.name.partition("-q4")[0]
    scenes: tuple[tuple[str, RequestClass | None, bool, bool], ...] = (
        ("streams alone", None, False, False),
        ("documents online", "online", False, False),
        ("documents offline", "offline", False, False),
        ("prompts, one engine", None, True, False),
        ("prompts, two engines", None, True, True),
    )
    went: dict[str, Went] = {}
    for label, cls, prompts, apart in scenes:
        found = went[label] = Went(label)
        async with _client(model, threads, apart=apart) as client:
            warm = Generate(id="warm", segments=[Segment(words(300, 1))], max_tokens=8)
            await client.generate(warm)
            scene = _Scene(client, sizes, found)
            async with asyncio.TaskGroup() as tasks:
                for number in range(sizes.streams):
                    tasks.create_task(scene.stream(number))
                for _ in range(sizes.documents if cls is not None else 0):
                    tasks.create_task(scene.documents(cls or "online"))
                if prompts:
                    tasks.create_task(scene.prompts())
            if isinstance(client, SplitClient):
                links = [await link(client, sizes.prompt, 90_000 + at) for at in range(_LINKS)]
        say(f"{name}: {_line(found, sizes)}")
        document.notes.append(f"{name}, {_line(found, sizes)}")
    _figures(document, name, went, sizes)
    document.notes.append(_said(name, links, sizes.prompt))
    say(document.notes[-1])


def _figures(document: Document, name: str, went: dict[str, Went], sizes: Sizes) -> None:
    alone, online, offline = (
        went[one] for one in ("streams alone", "documents online", "documents offline")
    )
    one, two = went["prompts, one engine"], went["prompts, two engines"]
    beside, rate = "piece of text beside offline documents, p95", sizes.seconds
    firsts = [statistics.median(each.firsts) for each in (two, one)]
    rows = [
        (beside, "ms", offline.worst, "documents online", online.worst),
        (beside, "ms", offline.worst, "no documents", alone.worst),
        ("documents meanwhile", "tokens/s", offline.read / rate, "online", online.read / rate),
        ("piece beside long prompts, two engines, p95", "ms", two.worst, "one engine", one.worst),
        ("first piece of a long prompt, two engines", "s", firsts[0], "one engine", firsts[1]),
    ]
    for what, unit, mine, peer, theirs in rows:
        better = "higher" if unit == "tokens/s" else "lower"
        figure = Figure(f"{name}: {what}", mine, unit, better, None, peer, theirs)
        document.figures.append(figure)


def _said(name: str, links: list[Link], tokens: int) -> str:
    read, written, taken = (
        statistics.median(getattr(one, what) for one in links) * 1000
        for what in ("read", "written", "taken")
    )
    return (
        f"{name}, a prompt of {tokens:,} tokens handed over with nothing beside it: written in "
        f"{written:.0f} ms and taken in {taken:.0f} ms, {(written + taken) / read:.1%} of the "
        f"{read / 1000:.1f} s that reading it took"
    )


def _line(went: Went, sizes: Sizes) -> str:
    text = f"{went.name}: a piece every {went.gap:.0f} ms (p95 {went.worst:.0f} ms)"
    if went.read:
        text += f", {went.read / sizes.seconds:.0f} tokens of documents a second"
    if went.firsts:
        text += f", long prompts answered after {statistics.median(went.firsts):.1f} s"
    return text
