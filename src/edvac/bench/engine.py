"""The engine beside llama.cpp's server: reading, writing, sharing, by the same questions.

Each arm gets a process of its own, alone on the machine, and the questions in one order. What a
machine could do at most is measured too, so that each figure of ours has its distance from it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edvac.bench.arms import Arm, Took, engine_arm, line_arm, llamacpp_arm
from edvac.bench.report import Document, Figure
from edvac.bench.roof import Work
from edvac.core.errors import UsageError

TURNS, PROGRAMS = 3, 4
STREAMS = 8
_DOCUMENTS_AT_ONCE = 32  # answers that an engine has rows for, as it is started
_WORDS = (
    *("river", "stone", "lamp", "paper", "window", "garden", "bridge", "clock", "market"),
    *("winter", "harbour", "silver", "letter", "forest", "engine", "copper", "mirror", "valley"),
    *("candle", "summer", "ladder", "orange", "basket", "thunder", "village", "pocket"),
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is asked."""

    prompts: tuple[int, ...] = (512, 4096)
    repeats: int = 3
    answer: int = 64
    context: int = 4096
    documents: int = 200


QUICK = Sizes(prompts=(512,), repeats=1, answer=24, context=512, documents=12)


@dataclass(slots=True)
class Went:
    """What one arm did, by figure: the median, in the figure's unit."""

    name: str
    values: dict[str, float] = field(default_factory=dict)
    work: dict[str, Work] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def words(count: int, seed: int) -> str:
    """About `count` tokens of text that no other seed begins with."""
    at, found = seed * 7 + 1, [f"Note {seed}:"]
    for _ in range(count - 4):
        at = (at * 1103515245 + 12345) % (1 << 31)
        found.append(_WORDS[(at >> 8) % len(_WORDS)])
    return " ".join(found)


async def ask(arm: Arm, sizes: Sizes) -> Went:
    """Every question to one arm."""
    went = Went(arm.name)
    await arm.complete(words(40, 1), 4)  # whatever is done only once
    for size in sizes.prompts:
        took = [await arm.complete(words(size, 10 * size + n), 1) for n in range(sizes.repeats)]
        went.values[f"read {size}"] = rate = statistics.median(
            one.prompt / one.whole for one in took
        )
        went.work[f"read {size}"] = Work(size / rate, read=size, past=size / 2)
    await _writing(arm, sizes, went)
    if arm.together:
        await _together(arm, sizes, went)
        await _turns(arm, sizes, went)
        await _documents(arm, sizes, went)
    return went


async def _writing(arm: Arm, sizes: Sizes, went: Went) -> None:
    story = "Write a long story about a lighthouse keeper who finds a letter. Once upon a time"
    took = [await arm.complete(f"{n}. {story}", sizes.answer) for n in range(sizes.repeats)]
    went.values["write, one"] = statistics.median(one.decoding for one in took)
    took = []
    for n in range(sizes.repeats):
        rows = [f'  {{"id": {n}{at}, "city": "{_WORDS[(at + n) % 26]}", "open": true}},'
                for at in range(8)]  # fmt: skip
        text = "\n".join(rows)
        asked = f"A list:\n{text}\n\nThe same list with false instead of true:\n{rows[0][:12]}"
        took.append(await arm.complete(asked, sizes.answer))
    went.values["write, an edit"] = statistics.median(one.decoding for one in took)
    for what in ("write, one", "write, an edit"):
        went.work[what] = Work(1 / went.values[what], answers=1)


async def _together(arm: Arm, sizes: Sizes, went: Went) -> None:
    """Several answers at a time; what counts is the time from the first token on."""
    rates = []
    for repeat in range(sizes.repeats):
        asked = [
            arm.complete(f"{words(30, 1000 * repeat + n)}\nA story about it:", sizes.answer)
            for n in range(STREAMS)
        ]
        start = time.perf_counter()
        took: list[Took] = await asyncio.gather(*asked)
        seconds = time.perf_counter() - start
        rates.append(sum(one.tokens for one in took) / (seconds - min(one.first for one in took)))
    went.values[f"write, {STREAMS} at once"] = rate = statistics.median(rates)
    went.work[f"write, {STREAMS} at once"] = Work(STREAMS / rate, answers=STREAMS, at_once=STREAMS)


async def _turns(arm: Arm, sizes: Sizes, went: Went) -> None:
    """Programs that take turns, each with a long past of its own."""
    pasts = [words(sizes.context - 300, 5000 + number) for number in range(PROGRAMS)]
    waits, missed = [], 0
    for turn in range(TURNS):
        for number in range(PROGRAMS):
            took = await arm.complete(pasts[number], 8, f"p{number}")
            if turn:
                waits.append(took.first)
                missed += took.prompt - took.cached
            pasts[number] += took.text + f"\nThe tool says: {words(30, 100 * turn + number)}\n"
    went.values["next turn, first token"] = wait = statistics.median(waits)
    went.work["next turn, first token"] = Work(
        wait, read=missed / len(waits), past=sizes.context, answers=1
    )
    went.notes.append(f"{went.name}: read {missed / len(waits):.0f} tokens a later turn")


async def _documents(arm: Arm, sizes: Sizes, went: Went) -> None:
    """One long instruction, many documents, all handed over at once."""
    rule = "Give the third word of the note and nothing else. " + words(500, 77)
    asked = [
        arm.complete(f"{rule}\n\n{words(90, 9000 + n)}\nAnswer:", 12)
        for n in range(sizes.documents)
    ]
    start = time.perf_counter()
    took: list[Took] = await asyncio.gather(*asked)
    seconds = time.perf_counter() - start
    went.values["documents"] = sum(one.prompt + one.tokens for one in took) / seconds
    read, past = (
        sum(one.prompt - one.cached for one in took),
        statistics.mean(one.cached for one in took),
    )
    answers = sum(one.tokens for one in took)
    went.work["documents"] = Work(seconds, read, past, answers, min(len(took), _DOCUMENTS_AT_ONCE))


UNITS = {"next turn, first token": ("s", "lower")}
TARGETS = {
    "read 512": 8.0,
    "read 4096": 8.0,
    "write, one": 1.0,
    "write, an edit": 1.8,
    f"write, {STREAMS} at once": 2.5,
    "next turn, first token": 10.0,
    "documents": 2.0,
}
# How many times as fast as other peers than llama.cpp's wheel, where that is another aim.
BESIDE = {"read 512": 1.2, "read 4096": 1.2}


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Args:
        python: of an environment that holds xllamacpp; None measures edvac alone.
        others: the peers, where it is not only xllamacpp with one slot and with several: that with
            several, a `llama-server` that was built for this machine, ``openvino`` and
            ``transformers`` of the same environment.
    """

    model: Path
    python: str | None
    threads: int
    sizes: Sizes = field(default_factory=Sizes)
    others: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.model.name.partition("-q4")[0]

    @property
    def label(self) -> str:
        """Of its figures."""
        return f"{self.name}, {self.threads} thread{'s' * (self.threads > 1)}"


async def measure(
    document: Document, wanted: Wanted, say: Callable[[str], None]
) -> dict[str, Work]:
    """Add the figures of one model, and give what they asked of our engine without drafts; `say`
    is told which arm is done."""
    model, threads, python = wanted.model, wanted.threads, wanted.python

    async def edvac(label: str, *extra: str) -> Went:
        async with engine_arm(label, model, threads, extra) as arm:
            return await ask(arm, wanted.sizes)

    async def llamacpp(slots: int) -> Went:
        label = f"llama.cpp, {slots} slot{'s' * (slots > 1)}"
        async with llamacpp_arm(label, python or "", model, threads, slots) as arm:
            return await ask(arm, wanted.sizes)

    arms: list[Callable[[], Awaitable[Went]]] = []
    arms += [lambda: edvac("edvac"), lambda: edvac("no drafts", "--no-speculation")]
    if python is not None and not wanted.others:
        arms += [lambda: llamacpp(1), lambda: llamacpp(STREAMS)]
    if python is not None:
        arms += [partial(_other, wanted, name) for name in wanted.others]
    went = []
    for arm in arms:
        try:
            went.append(await arm())
            say(f"{wanted.name}: {went[-1].name} done")
        except UsageError as error:  # what is said of a peer that cannot be measured
            document.notes.append(f"{wanted.name}: {error.what} ({error.why})")
            say(document.notes[-1])
    _figures(document, wanted.label, went)
    return went[1].work


async def _other(wanted: Wanted, name: str) -> Went:
    """A peer that was named."""
    opened: AbstractAsyncContextManager[Arm]
    if "llama-server" in name:
        label = f"llama.cpp built here, {STREAMS} slots"
        opened = llamacpp_arm(label, name, wanted.model, wanted.threads, STREAMS)
    elif name == "xllamacpp":
        label = f"llama.cpp's wheel, {STREAMS} slots"
        opened = llamacpp_arm(label, wanted.python or "", wanted.model, wanted.threads, STREAMS)
    else:
        script = f"{name}_lines.py"
        opened = line_arm(name, wanted.python or "", script, wanted.model, wanted.threads)
    async with opened as arm:
        return await ask(arm, wanted.sizes)


def _figures(document: Document, name: str, went: list[Went]) -> None:
    ours = went[0]
    for question, value in ours.values.items():
        unit, better = UNITS.get(question, ("tokens/s", "higher"))
        label = f"{name}: {question}"
        if len(went) == 1:
            document.figures.append(Figure(label, value, unit, better))
        for peer in went[1:]:
            if question not in peer.values:
                continue
            theirs = peer.values[question]
            target = None if peer.name == "no drafts" else _target(question, peer.name, theirs)
            document.figures.append(Figure(label, value, unit, better, target, peer.name, theirs))
    document.notes += [note for one in went for note in one.notes]


def _target(question: str, peer: str, theirs: float) -> float:
    factor = TARGETS.get(question, 1.0)
    if not peer.startswith(("llama.cpp,", "llama.cpp's wheel")):
        factor = BESIDE.get(question, factor)
    return theirs / factor if UNITS.get(question) else theirs * factor
