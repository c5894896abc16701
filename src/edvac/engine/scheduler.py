"""Decides what each step computes. No I/O, no tensors: jobs and counts in, a plan out, time from
an injected clock.

One unified step: running answers first, then prompts already begun, then new ones, all under one
token budget. New ones come in program order: online before offline before speculative, then by
the first arrival of their program, then by their own. A prompt whose beginning is just being
computed for another waits for it instead of computing it twice; keys and values are shared only
inside one reader class. Who has waited long goes by its own arrival, whatever its program. It knows
token ids but never what they say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from edvac.core.errors import OperandError, ProcessorError
from edvac.core.seams import Clock

_WORTH_WAITING: Final = 16  # tokens of a common prefix below which waiting costs more than it saves
_PATIENCE: Final = 60.0  # seconds after which a lower class waits like an online request
_TURN: Final = 10.0  # seconds after which a request goes before fresh ones of earlier programs
_RANK: Final = {"online": 0, "offline": 1, "speculative": 2}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds: rows of KV memory, tokens per row, per step and in all, and the queue."""

    slots: int = 32
    context: int = 4096
    step_tokens: int = 256
    kv_tokens: int = 65_536
    queue: int = 4096

    def __post_init__(self) -> None:
        if self.step_tokens < self.slots:
            raise ValueError("a step must hold a token of every running answer")


@dataclass(slots=True, eq=False)
class Job:
    """One request as the scheduler sees it: tokens wanted and tokens computed.

    `draft` holds guesses at what comes next; they are computed where there is room.
    """

    id: str
    program: str
    cls: str
    reader_class: str
    tokens: list[int]
    max_tokens: int
    draft: list[int] = field(default_factory=list)
    prompt: int = 0
    computed: int = 0
    cached: int = 0
    slot: int = -1
    arrived: float = 0.0
    admitted: float = 0.0
    order: int = 0

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.computed

    @property
    def prefilling(self) -> bool:
        return self.computed < self.prompt

    @property
    def reserved(self) -> int:
        return self.prompt + self.max_tokens


class PrefixStore(Protocol):
    """Parked prefixes: how many leading tokens of a prompt it could supply."""

    def match(self, reader_class: str, tokens: list[int]) -> int: ...


@dataclass(frozen=True, slots=True)
class Admission:
    """A job that starts now; its first `cached` tokens are in a slot, or parked (-1)."""

    job: Job
    source_slot: int
    cached: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens of one job to compute in this step; `samples` says that they reach the end.

    `drafted` guesses follow the `count` tokens.
    """

    job: Job
    start: int
    count: int
    samples: bool
    drafted: int = 0

    @property
    def rows(self) -> int:
        return self.count + self.drafted


@dataclass(slots=True)
class StepPlan:
    admissions: list[Admission] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(chunk.rows for chunk in self.chunks)


class Scheduler:
    """The queue, the running set and the rule that picks from them."""

    def __init__(self, limits: Limits, clock: Clock, prefixes: PrefixStore) -> None:
        self.limits = limits
        self._clock, self._prefixes = clock, prefixes
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.free = list(range(limits.slots))
        self._programs: dict[str, int] = {}
        self._count = 0

    def add(self, job: Job) -> None:
        """Queue a job, or say at once why it can never run."""
        if len(self.waiting) >= self.limits.queue:
            raise ProcessorError(
                "engine_overloaded",
                "the engine's queue is full",
                f"{len(self.waiting)} requests are waiting.",
                "Try again when some of them are done.",
            )
        job.prompt = len(job.tokens)
        room = min(self.limits.context, self.limits.kv_tokens)
        fix = "Give the step less data, such as one of text.chunks(text, size)."
        if room < self.limits.context:
            fix = "Allow more memory for keys and values (kv_mb in edvac.toml). " + fix
        if not job.tokens or job.reserved > room:
            raise OperandError(
                "operand_too_large",
                f"the prompt ({job.prompt} tokens) and its answer do not fit the model's context",
                f"{job.prompt} + {job.max_tokens} tokens are wanted and {room} are there.",
                fix,
            )
        self._count += 1
        job.order, job.arrived = self._count, self._clock.now()
        self._programs.setdefault(job.program, self._count)
        self.waiting.append(job)

    def plan(self) -> StepPlan:
        """What the next step computes; nothing is counted as done until `commit`."""
        plan = StepPlan()
        budget = self.limits.step_tokens
        answers = [job for job in self.running if not job.prefilling]
        for left, job in enumerate(answers):
            others = len(answers) - left - 1
            budget -= self._chunk(plan, job, budget - others)
        for job in [job for job in self.running if job.prefilling]:
            budget -= self._chunk(plan, job, budget)
        self._admit(plan, budget)
        return plan

    def commit(self, plan: StepPlan) -> None:
        for chunk in plan.chunks:
            chunk.job.computed = chunk.start + chunk.count

    def finish(self, job: Job) -> None:
        """Take a job out, running or waiting; doing so twice is harmless."""
        if job in self.running:
            self.running.remove(job)
            self.free.append(job.slot)
            self.free.sort()
        elif job in self.waiting:
            self.waiting.remove(job)
        if not any(one.program == job.program for one in (*self.running, *self.waiting)):
            self._programs.pop(job.program, None)

    def _chunk(self, plan: StepPlan, job: Job, budget: int) -> int:
        count = min(job.pending, budget)
        if count > 0:
            samples = count == job.pending
            drafted = min(len(job.draft), budget - count) if samples else 0
            plan.chunks.append(Chunk(job, job.computed, count, samples, drafted))
            return count + drafted
        return 0

    def _admit(self, plan: StepPlan, budget: int) -> None:
        reserved = sum(job.reserved for job in self.running)
        for job in sorted(self.waiting, key=self._key):
            if budget <= 0 or not self.free:
                return
            if reserved + job.reserved > self.limits.kv_tokens:
                return  # nobody overtakes: the next finished answer makes room
            source, cached, coming = self._common(job)
            if coming - cached >= _WORTH_WAITING:
                continue
            self.waiting.remove(job)
            job.slot, job.computed, job.cached = self.free.pop(0), cached, cached
            job.admitted = self._clock.now()
            self.running.append(job)
            reserved += job.reserved
            plan.admissions.append(Admission(job, source, cached))
            budget -= self._chunk(plan, job, budget)

    def _key(self, job: Job) -> tuple[int, int, int]:
        """Program order, except that nobody waits for ever: a program that sends a request for each
        answer would always be the first."""
        waited = self._clock.now() - job.arrived
        rank = 0 if waited > _PATIENCE else _RANK.get(job.cls, 0)
        return rank, 0 if waited > _TURN else self._programs[job.program], job.order

    def _common(self, job: Job) -> tuple[int, int, int]:
        """Slot to copy from (-1: parked), tokens available now, tokens available soon."""
        most = job.prompt - 1  # at least one row must be computed, or there is nothing to sample
        source, cached = -1, min(self._prefixes.match(job.reader_class, job.tokens), most)
        coming = cached
        for other in self.running:
            if other.reader_class != job.reader_class:
                continue
            shared = min(common_prefix(job.tokens, other.tokens), most)
            ready = min(shared, other.computed)
            if ready > cached:
                source, cached = other.slot, ready
            coming = max(coming, min(shared, other.prompt))
        return source, cached, coming


def common_prefix(one: list[int], other: list[int]) -> int:
    """Length of the longest common prefix."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:  # one[:low] is equal, one[:high] is not
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
