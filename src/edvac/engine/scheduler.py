"""Decides what each step computes. No I/O, no tensors: jobs and counts in, a plan out, time from
an injected clock.

One unified step: running answers first, then prompts already begun, then new ones, all under one
token budget. What is online goes before what nobody waits for, which fills the gaps as far as
online answers are not slowed beyond a step's target, and makes room where an online request needs
it. Programs go in the order of their first arrival (`programs.py`), requests that nobody waits for
in the order in which their beginnings are read once (`cluster.py`). A prompt whose beginning is
just being computed for another, or on its way from disk, waits for it instead of computing it
twice; keys and values are shared only inside one reader class. It knows token ids but never what
they say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from edvac.core.errors import OperandError, ProcessorError
from edvac.core.seams import Clock
from edvac.engine.cluster import Asked, grouped
from edvac.engine.job import Job
from edvac.engine.pace import Pace
from edvac.engine.programs import Claims, Programs
from edvac.engine.sequences import common_prefix

_FETCHES: Final = 3  # times that one prompt is sent for, should it leave memory again meanwhile
_WORTH_WAITING: Final = 16  # tokens of a common prefix below which waiting costs more than it saves
_PATIENCE: Final = 60.0  # seconds after which one of a lower class goes first
_TURN: Final = 30.0  # seconds after which a request goes before fresh ones of earlier programs
_MOST_EVICTED: Final = 3  # times that one job makes room for others
_LEAST_ROWS: Final = 8  # of a prompt that nobody waits for: fewer are not worth a step's pass
_RANK: Final = {"online": 0, "offline": 1, "speculative": 2}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds: rows of KV memory, tokens per row, per step and in all, and the queue.

    Attributes:
        step_seconds: what a step of online answers may take because of requests that nobody waits
            for.
    """

    slots: int = 32
    context: int = 4096
    step_tokens: int = 256
    kv_tokens: int = 65_536
    queue: int = 4096
    step_seconds: float = 0.1

    def __post_init__(self) -> None:
        if self.step_tokens < self.slots:
            raise ValueError("a step must hold a token of every running answer")


class PrefixStore(Claims, Protocol):
    """Finished sequences: how many leading tokens of a prompt they could supply, now and soon."""

    def match(self, reader_class: str, tokens: list[int], *, exact: bool) -> int: ...
    def exact(self, reader_class: str, tokens: list[int]) -> int: ...
    def use(self, reader_class: str, tokens: list[int], *, exact: bool) -> None: ...
    def coming(self, reader_class: str, tokens: list[int], *, exact: bool) -> int: ...
    def fetch(self, reader_class: str, tokens: list[int], *, exact: bool) -> bool: ...
    def held(self, owner: str) -> int: ...
    def yield_claim(self) -> bool: ...


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

    @property
    def answers(self) -> bool:
        """Do its rows belong to an answer (else to a prompt)? A chunk has only one kind."""
        return self.start >= self.job.prompt


@dataclass(frozen=True, slots=True)
class Eviction:
    """A job that made room; its row `slot` holds `computed` tokens, from `lossy_from` on lossy."""

    job: Job
    slot: int
    computed: int
    lossy_from: int | None = None


@dataclass(slots=True)
class StepPlan:
    """Evictions come before admissions; chunks of answers before those of prompts.

    It `pauses` where nothing can be computed until a program comes back for what it has claimed.
    """

    evictions: list[Eviction] = field(default_factory=list)
    admissions: list[Admission] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    pauses: bool = False

    @property
    def rows(self) -> int:
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def answering(self) -> int:
        return sum(chunk.rows for chunk in self.chunks if chunk.answers)


class Scheduler:
    """The queue, the running set and the rule that picks from them."""

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        prefixes: PrefixStore,
        programs: Programs,
        pace: Pace,
    ) -> None:
        self.limits = limits
        self._clock, self._prefixes, self._pace = clock, prefixes, pace
        self.programs = programs
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.free = set(range(limits.slots))
        self._held: dict[int, list[int]] = {}  # what rows held last, the latest of them at the end
        self._count = self._steps = self._promised = 0
        self._let_in: dict[int, float] = {}  # when one of a lower rank was admitted last
        self._places: dict[str, int] = {}  # of offline jobs in the order of their groups
        self._placed: frozenset[str] = frozenset()

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
        self.programs.arrived(job)
        self.waiting.append(job)

    def plan(self) -> StepPlan:
        """What the next step computes; nothing is counted as done until `commit`."""
        self.programs.tend()
        self._steps += 1
        self._promised = 0
        plan = StepPlan()
        budget = self.limits.step_tokens - self._answers(plan)
        for job in self._readers():
            admitted = job.slot >= 0
            allowed = self._allowed(plan, job, budget)
            taken = self._chunk(plan, job, allowed) if admitted else self._admit(plan, job, allowed)
            if taken is None:
                break  # nobody overtakes: the next finished answer makes room
            budget -= taken
        plan.chunks.sort(key=lambda chunk: not chunk.answers)
        for chunk in plan.chunks:
            chunk.job.served = self._steps
        return plan

    def commit(self, plan: StepPlan) -> None:
        for chunk in plan.chunks:
            chunk.job.computed = chunk.start + chunk.count

    def finish(self, job: Job, *, kept: bool = False) -> None:
        """Take a job out, running or waiting; doing so twice is harmless. What it computed is
        `kept` or lost."""
        if job in self.running:
            self.running.remove(job)
            self._release(job)
        elif job in self.waiting:
            self.waiting.remove(job)
        else:
            return
        self.programs.left(job, kept=kept)

    def forget(self) -> None:
        """Give up what is known of jobs that have ended."""
        self._held.clear()
        self.programs.forget()

    def _release(self, job: Job) -> None:
        self.free.add(job.slot)
        self._held.pop(job.slot, None)
        self._held[job.slot] = job.tokens

    # --- a step --------------------------------------------------------------------------------

    def _answers(self, plan: StepPlan) -> int:
        """Rows of running answers: every online one; of the others those whose turn it is, as many
        as the target leaves room for and at least one."""
        answers = [job for job in self.running if not job.prefilling]
        online = [job for job in answers if not self._rank(job)]
        others = sorted((job for job in answers if self._rank(job)), key=lambda job: job.served)
        chosen = online + others
        if online:
            most = len(chosen)
            while most > len(online) + 1 and self._pace.answering(most) > self.limits.step_seconds:
                most -= 1
            chosen = chosen[:most]
        rows = 0
        for left, job in enumerate(chosen):
            room = self.limits.step_tokens - rows - (len(chosen) - left - 1)
            rows += self._chunk(plan, job, room)
        return rows

    def _allowed(self, plan: StepPlan, job: Job, budget: int) -> int:
        """Rows for a prompt: those of one that nobody waits for must not slow online answers."""
        if not self._rank(job) or not any(
            chunk.answers and not self._rank(chunk.job) for chunk in plan.chunks
        ):
            return budget
        rows = self._pace.rows_within(
            self.limits.step_seconds - self._pace.answering(plan.answering)
        )
        used = sum(chunk.rows for chunk in plan.chunks if not chunk.answers)
        return budget if rows is None else min(budget, max(rows, _LEAST_ROWS) - used)

    def _chunk(self, plan: StepPlan, job: Job, budget: int) -> int:
        count = min(job.pending, budget)
        if job.prefilling:  # rows of a prompt and of its answer are computed in different ways
            count = min(count, job.prompt - job.computed)
        if count > 0:
            samples = count == job.pending
            drafted = min(len(job.draft), budget - count) if samples else 0
            plan.chunks.append(Chunk(job, job.computed, count, samples, drafted))
            return count + drafted
        return 0

    # --- admission -----------------------------------------------------------------------------

    def _readers(self) -> list[Job]:
        """Whose prompts are read next: those that somebody waits for, then the others; in either
        case those under way before new ones."""
        self._place()
        overdue = self._overdue()
        jobs = [job for job in self.running if job.prefilling]
        jobs += overdue
        jobs += sorted((job for job in self.waiting if job not in overdue), key=self._key)
        for job in overdue:
            job.stays = True
        return sorted(jobs, key=lambda job: self._rank(job) > 0 and not job.stays)

    def _admit(self, plan: StepPlan, job: Job, rows: int) -> int | None:
        """Rows of a new job, none if it waits for a beginning that is coming; None where there is
        no room for it."""
        if rows <= 0 or not self._makes_room(plan, job):
            return None
        source, cached, coming = self._common(job)
        if coming - cached < _WORTH_WAITING and job.fetched < _FETCHES:
            job.fetched += self._prefixes.fetch(job.reader_class, job.tokens, exact=job.exact)
            source, cached, coming = self._common(job)
        if coming - cached >= _WORTH_WAITING:
            self._promise(job, cached)
            return 0
        self.waiting.remove(job)
        self._prefixes.use(job.reader_class, job.tokens, exact=job.exact)
        job.lossy_from = self._lossy_from(job, source, cached)
        self._start(job, cached)
        plan.admissions.append(Admission(job, source, cached))
        return self._chunk(plan, job, rows)

    def _promise(self, job: Job, cached: int) -> None:
        """Where it waits for the disk, nobody who comes after takes the room that it will need, nor
        what has come already."""
        prompt, exact = (job.reader_class, job.tokens), job.exact
        if self._prefixes.coming(*prompt, exact=exact) > cached:
            self._promised += job.reserved
            self._prefixes.use(*prompt, exact=exact)

    def _lossy_from(self, job: Job, source: int, cached: int) -> int | None:
        """Where the first lossy one of a row's first `cached` tokens stands, if there is one."""
        if job.exact:
            return None
        found: int | None
        if source >= 0:
            found = next(one.lossy_from for one in self.running if one.slot == source)
        else:
            found = self._prefixes.exact(job.reader_class, job.tokens)
        return found if found is not None and found < cached else None

    def _start(self, job: Job, cached: int) -> None:
        job.slot, job.computed = self._row(job), cached
        self.free.remove(job.slot)
        self._let_in[self._rank(job)] = self._clock.now()
        self.running.append(job)
        if not job.evicted:
            job.cached, job.admitted = cached, self._clock.now()
            self.programs.admitted(job)

    def _row(self, job: Job) -> int:
        """The free row that held most of the job's beginning, where it need not be mapped again;
        else the one that was used least lately."""
        used = {slot: at for at, slot in enumerate(self._held, 1)}

        def cost(slot: int) -> tuple[int, int, int]:
            return -common_prefix(job.tokens, self._held.get(slot, [])), used.get(slot, 0), slot

        return min(self.free, key=cost)

    def _makes_room(self, plan: StepPlan, job: Job) -> bool:
        """Whether there is a row for the job and memory to its end, if need be by taking them from
        jobs that nobody waits for, or from claims where nobody else would make room."""
        while not self._has_room(job):
            if self._evict(plan, job):
                continue
            busy = bool(self.running or self._promised)
            if busy or not self._prefixes.yield_claim():
                plan.pauses = not busy
                return False
        return True

    def _has_room(self, job: Job, less: int = 0) -> bool:
        reserved = sum(one.reserved for one in self.running) + self._promised - less
        held = self._prefixes.held(job.program)
        return bool(self.free or less) and reserved + held + job.reserved <= self.limits.kv_tokens

    def _evict(self, plan: StepPlan, job: Job) -> bool:
        """Take the youngest of those out that nobody waits for, if enough of them are there."""
        needed = {admission.source_slot for admission in plan.admissions}
        needed |= {admission.job.slot for admission in plan.admissions}
        victims = [
            one
            for one in self.running
            if self._rank(one) and one.slot not in needed and not one.stays
        ]
        if self._rank(job) or not self._has_room(job, sum(one.reserved for one in victims)):
            return False
        victim = max(victims, key=lambda one: (one.admitted, one.order))
        plan.evictions.append(Eviction(victim, victim.slot, victim.computed, victim.lossy_from))
        plan.chunks = [chunk for chunk in plan.chunks if chunk.job is not victim]
        self.running.remove(victim)
        self._release(victim)
        victim.slot, victim.computed, victim.fetched, victim.draft = -1, 0, 0, []
        victim.evicted += 1
        victim.stays = victim.evicted == _MOST_EVICTED
        self.waiting.append(victim)
        return True

    @staticmethod
    def _rank(job: Job) -> int:
        """Zero where somebody waits."""
        return _RANK.get(job.cls, 0)

    def _key(self, job: Job) -> tuple[int, int, int, int, int]:
        """Program order, except that nobody waits for ever: a program that sends a request for each
        answer would always be the first."""
        waited = self._clock.now() - job.arrived
        order = (0, 0) if waited > _TURN else self.programs.order(job)
        return self._rank(job), self._places.get(job.id, 0), *order, job.order

    def _overdue(self) -> list[Job]:
        """The first of each lower rank, if none of that rank was let in for too long."""
        now = self._clock.now()
        found = []
        for rank in set(_RANK.values()) - {0}:
            jobs = [job for job in self.waiting if self._rank(job) == rank]
            since = max(
                self._let_in.get(rank, 0.0), min((job.arrived for job in jobs), default=now)
            )
            if now - since > _PATIENCE:
                found.append(min(jobs, key=self._key))
        return found

    def _place(self) -> None:
        """Order what waits offline by groups, where that is another set than the last time."""
        jobs = [job for job in self.waiting if job.cls == "offline"]
        names = frozenset(job.id for job in jobs)
        if names - self._placed:
            groups = grouped([Asked(job.tokens, job.max_tokens) for job in jobs])
            order = [member for group in groups for member in group.members]
            self._places = {jobs[member].id: at for at, member in enumerate(order, 1)}
        self._placed = names

    def _common(self, job: Job) -> tuple[int, int, int]:
        """Slot to copy from (-1: parked), tokens available now, tokens available soon."""
        most = len(job.tokens) - 1  # one row must be computed, or there is nothing to sample
        kept, prompt, exact = self._prefixes, (job.reader_class, job.tokens), job.exact
        source, cached = -1, min(kept.match(*prompt, exact=exact), most)
        coming = max(cached, min(kept.coming(*prompt, exact=exact), most))
        for other in self.running:
            if other.reader_class != job.reader_class:
                continue
            soon = self._rank(other) <= self._rank(job)  # else it may be held up by others
            shared = min(common_prefix(job.tokens, other.tokens), most)
            if exact and other.lossy_from is not None:
                shared = min(shared, other.lossy_from)
            ready = min(shared, other.computed)
            if ready > cached:
                source, cached = other.slot, ready
            coming = max(coming, min(shared, other.prompt) if soon else ready)
        return source, cached, coming
