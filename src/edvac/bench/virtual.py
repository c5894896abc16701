"""The engine's own scheduler, programs and prefix tree on a clock that is moved by hand.

No model runs: a step takes what a step of so many rows took on a real machine, and tokens are
numbers. So hundreds of tasks under every way of keeping contexts take seconds, and the number of
tokens that are computed is exact. What is left out: the time of everything that is no step.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch

from edvac.bench.report import Document, Figure
from edvac.core.seams import ManualClock
from edvac.engine.job import Job
from edvac.engine.kv.tree import PrefixTree
from edvac.engine.pace import Pace
from edvac.engine.programs import Programs
from edvac.engine.protocol import Hint
from edvac.engine.scheduler import Limits, Scheduler, StepPlan
from edvac.engine.sequences import common_prefix

BLOCK: Final = 32
_PAUSE: Final = 0.05  # seconds between two looks at work that waits for others


@dataclass(frozen=True, slots=True)
class Machine:
    """Seconds of steps: `answer` for one row of answers, `row` for each further one, `read` for
    each row of a prompt. As measured with Qwen2.5-Coder-0.5B on two cores
    (docs/benchmarks/engine.md).
    """

    answer: float = 0.0115
    row: float = 0.0016
    read: float = 1 / 1300

    def seconds(self, plan: StepPlan) -> float:
        answers = plan.answering
        first = self.answer + self.row * (answers - 1) if answers else 0.0
        return first + self.read * (plan.rows - answers)


class _Blocks:
    """Blocks by number, shared between rows and the tree; nothing is in them."""

    pooled = True

    def __init__(self, count: int) -> None:
        self.count, self.used = count, 0
        self._holders: dict[int, int] = {}
        self._names = itertools.count()
        self.rows: dict[int, list[int]] = {}
        self.make_room: Callable[[], bool] = lambda: False

    def _take(self) -> int:
        while len(self._holders) >= self.count and self.make_room():
            pass
        name = next(self._names)
        self._holders[name] = 1
        return name

    def touch(self, slot: int, end: int) -> None:
        row = self.rows.setdefault(slot, [])
        while len(row) * BLOCK < end:
            row.append(self._take())

    def clear(self, slot: int) -> None:
        for block in self.rows.pop(slot, []):
            self.release(block)

    def harvest(self, slot: int, index: int) -> int:
        block = self.rows[slot][index]
        self._holders[block] += 1
        return block

    def release(self, block: int) -> None:
        self._holders[block] -= 1
        if not self._holders[block]:
            del self._holders[block]

    def is_used(self, block: int) -> bool:
        return self._holders[block] > 1

    def lend(self, slot: int, block: int, count: int) -> None:
        row = self.rows.setdefault(slot, [])
        if count == BLOCK:
            self._holders[block] += 1
            row.append(block)
        else:
            row.append(self._take())

    def make(self, contents: torch.Tensor) -> int | None:
        del contents
        return self._take()

    def reserve(self) -> int | None:
        return self._take()

    def contents(self, block: int) -> torch.Tensor:
        del block
        return torch.empty(0)


@dataclass(slots=True)
class Counted:
    """Tokens of prompts that were computed, and that were there already."""

    computed: int = 0
    cached: int = 0


class VirtualEngine:
    """
    Args:
        on_done: is called when a job's answer is complete.
    """

    def __init__(
        self, limits: Limits, retention: str, on_done: Callable[[Job], None], machine: Machine
    ) -> None:
        self.clock = ManualClock()
        self._machine, self._on_done = machine, on_done
        self._blocks = _Blocks(limits.kv_tokens // BLOCK + limits.slots)
        self._tree = PrefixTree(self._blocks, BLOCK, None, limits.kv_tokens // BLOCK)
        self._blocks.make_room = lambda: self._tree.evict(8)
        pace = Pace()
        self._pace = pace
        programs = Programs(self.clock, self._tree, pace.reading, retention)
        self.scheduler = Scheduler(limits, self.clock, self._tree, programs, pace)
        self.counted = Counted()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, work: Callable[[], None]) -> None:
        """Do something at a time of the clock."""
        heapq.heappush(self._events, (when, next(self._order), work))

    def hint(self, hint: Hint) -> None:
        self.scheduler.programs.hint(hint)

    def run(self) -> None:
        """Until nothing is left to do."""
        while True:
            while self._events and self._events[0][0] <= self.clock.now():
                heapq.heappop(self._events)[2]()
            if not self._step():
                if not self._events and not self.scheduler.waiting:
                    return
                wait = self._events[0][0] - self.clock.now() if self._events else _PAUSE
                self.clock.advance(max(0.0, min(wait, _PAUSE) if self.scheduler.waiting else wait))

    def _step(self) -> bool:
        with self._tree.pinned([]):
            plan = self.scheduler.plan()
            for eviction in plan.evictions:
                job = eviction.job
                self._tree.insert(job.reader_class, job.tokens[: eviction.computed], eviction.slot)
                self._blocks.clear(eviction.slot)
            for one in plan.admissions:
                self._admit(one.job, one.source_slot, one.cached)
        if not plan.chunks:
            return False
        for chunk in plan.chunks:
            self._blocks.touch(chunk.job.slot, chunk.start + chunk.rows)
        seconds = self._machine.seconds(plan)
        self.clock.advance(seconds)
        self._pace.note(plan.answering, plan.rows - plan.answering, seconds)
        self.counted.computed += plan.rows - plan.answering
        self.scheduler.commit(plan)
        for chunk in plan.chunks:
            if chunk.samples:
                self._advance(chunk.job)
        return True

    def _admit(self, job: Job, source: int, cached: int) -> None:
        self.counted.cached += cached
        if source >= 0:
            for index in range(-(-cached // BLOCK)):
                count = min(BLOCK, cached - index * BLOCK)
                self._blocks.lend(job.slot, self._blocks.rows[source][index], count)
        elif cached:
            self._tree.lend(job.reader_class, job.tokens, cached, job.slot)

    def _advance(self, job: Job) -> None:
        job.tokens.append(_ANSWERED + job.order)
        if len(job.tokens) - job.prompt < job.max_tokens:
            return
        self._tree.insert(job.reader_class, job.tokens[: job.computed], job.slot)
        self._blocks.clear(job.slot)
        self.scheduler.finish(job, kept=True)
        self._on_done(job)


_ANSWERED: Final = 1 << 20  # above all tokens of prompts


@dataclass(slots=True)
class Grouped:
    """How many tokens of prompts are computed in one order, and in the best there is."""

    arrival: int = 0
    ours: int = 0
    least: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


def batch(count: int, degree: int, prefix: int, own: int, seed: int) -> list[list[int]]:
    """Prompts in any order, `degree` of them with each prefix; half of a prefix is all groups'
    too."""
    draw = random.Random(seed)  # noqa: S311
    common = [draw.randrange(50_000) for _ in range(prefix // 2)]
    found = []
    for group in range(count // degree):
        head = [*common, *(draw.randrange(50_000) for _ in range(prefix - len(common)))]
        for _ in range(degree):
            found.append([*head, *(draw.randrange(50_000) for _ in range(own))])
        del group
    draw.shuffle(found)
    return found


def measure_grouping(document: Document) -> None:
    """256 prompts by how many share a prefix and how long it is, with room for eight of them."""
    for degree in (2, 8, 32):
        for prefix in (512, 2048):
            prompts = batch(256, degree, prefix, 100, seed=degree)
            found = grouping(prompts, 16, 8 * (prefix + 116), Machine())
            label = f"{degree} share {prefix} tokens: tokens of prompts computed"
            figures = (("as they come", found.arrival), ("the least there is", found.least))
            for peer, theirs in figures:
                document.figures.append(
                    Figure(label, found.ours, "tokens", "lower", None, peer, theirs)
                )
            late, soon = found.seconds["online"], found.seconds["offline"]
            label = f"{degree} share {prefix} tokens: time, on the virtual clock"
            document.figures.append(Figure(label, soon, "s", "lower", None, "as they come", late))


def grouping(prompts: list[list[int]], answer: int, room: int, machine: Machine) -> Grouped:
    """The same prompts as online requests in the order in which they come, and as offline ones.

    Args:
        room: tokens of memory for keys and values.
    """
    ordered = sorted(prompts)
    shared = sum(common_prefix(one, other) for one, other in itertools.pairwise(ordered))
    found = Grouped(least=sum(map(len, prompts)) - shared)
    for cls in ("online", "offline"):
        longest = max(map(len, prompts)) + answer
        limits = Limits(slots=8, context=longest, step_tokens=256, kv_tokens=room, queue=1 << 20)
        engine = VirtualEngine(limits, "lru", lambda job: None, machine)
        for number, tokens in enumerate(prompts):
            job = Job(f"{number}", "batch", cls, "user", list(tokens), answer)
            engine.scheduler.add(job)
        engine.run()
        found.seconds[cls] = engine.clock.now()
        if cls == "online":
            found.arrival = engine.counted.computed
        else:
            found.ours = engine.counted.computed
    return found
