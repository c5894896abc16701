"""What is known of the programs that are served: when each came, what it does now, what it will
read again.

Programs say so by hints, at best effort; of those that say nothing it is guessed from their
requests. From it follow the order of programs and the claims on what lies in memory. A hint can
make nothing wrong, only early or late, and what hints can claim is bounded. It sees token ids and
names, no text, no tensors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from edvac.core.seams import Clock
from edvac.engine.job import Job
from edvac.engine.protocol import STEPS, Hint
from edvac.engine.retention import Gap, History, Keep, Policy, policy
from edvac.engine.sequences import Prefix

_MOST: Final = 512  # programs
_MOST_SHARED: Final = 16  # prefixes of one program that it can name
_LONGEST_NAME: Final = 128  # characters of a tool's name
_LONGEST: Final = 600.0  # seconds that any lease can have
_LEASE: Final = 60.0  # seconds for which a program is remembered after its last request
_UNNAMED: Final = "\0"  # begins the names of programs that gave none
_BETWEEN: Final = 0.05  # seconds between two looks at all programs
_WORD: Final = 0.25  # seconds within which a program that gives hints says what it does next


class Claims(Protocol):
    """Where claims are kept: see `edvac.engine.kv.tree`."""

    def keep(self, owner: str, prefix: Prefix, keep: Keep) -> None: ...
    def renew(self, owner: str, keep: Keep) -> None: ...
    def unclaim(self, owner: str) -> None: ...
    def expire(self, now: float) -> None: ...
    def is_claimed(self, owner: str) -> bool: ...
    def prefetch(self, owner: str) -> None: ...
    def give_up(self, prefix: Prefix) -> None: ...


@dataclass(slots=True)
class Program:
    """
    Attributes:
        order: of its first arrival among all programs.
        until: time after which it is forgotten unless it is heard of.
        active: requests that are waiting or running.
        tells: it gives hints.
        awaited: until when it is expected to say what comes after its last answer; 0 if it is not.
        steps: its requests do not go on from one another.
        last: what its last request read and wrote; its first `asked` tokens are the request.
        shared: prefixes that its requests share, by digest.
    """

    name: str
    order: int
    until: float
    active: int = 0
    turns: int = 0
    tells: bool = False
    awaited: float = 0.0
    steps: bool = False
    gap: Gap | None = None
    last: Prefix | None = None
    asked: int = 0
    shared: OrderedDict[str, Prefix] = field(default_factory=OrderedDict)

    def owner_of(self, digest: str) -> str:
        return f"{self.name}\0{digest}"


class Programs:
    """
    Args:
        back: seconds to have so many tokens again, once they are lost.
    """

    def __init__(
        self, clock: Clock, claims: Claims, back: Callable[[int], float], retention: str = "told"
    ) -> None:
        self._clock, self._claims, self._back = clock, claims, back
        self._policy: Policy = policy(retention)
        self._programs: OrderedDict[str, Program] = OrderedDict()
        self._count = 0
        self._looked = 0.0
        self.history = History.empty()

    # --- requests ------------------------------------------------------------------------------

    def arrived(self, job: Job) -> None:
        """A request; it gets the name of its program where it has none."""
        program = self._of(job)
        job.program = program.name
        program.active += 1
        now = self._clock.now()
        gap, program.gap = program.gap, None
        if gap is not None and not program.steps:
            self.history.durations.add(gap.tool, max(0.0, now - gap.started))
            self._claims.renew(program.name, Keep(now, now + _LONGEST, holds=True))

    def admitted(self, job: Job) -> None:
        """A request begins; what it waited for a context that was lost is remembered."""
        program = self._programs[job.program]
        known = 0 if program.last is None or program.steps else len(program.last[1])
        if job.cached < known // 2:
            self.history.waits.append(job.admitted - job.arrived)

    def left(self, job: Job, *, kept: bool) -> None:
        """A request is over; where its keys and values are `kept` they may be claimed."""
        program = self._programs[job.program]
        program.active -= 1
        now = self._clock.now()
        program.until = max(program.until, now + _LEASE)
        if not kept:
            self._claims.renew(program.name, Keep(now, now + _LEASE))
            return
        program.turns += 1
        for digest, length in job.shared.items():
            program.shared[digest] = (job.reader_class, job.tokens[:length])
            program.shared.move_to_end(digest)
            if len(program.shared) > _MOST_SHARED:
                self._claims.unclaim(program.owner_of(program.shared.popitem(last=False)[0]))
        if program.steps:  # others of them begin alike, probably soon
            longest = max(job.shared, key=lambda one: job.shared[one], default="")
            self._claim_shared(program, longest, now)
            return
        program.last = (job.reader_class, job.tokens[: job.computed])
        program.asked = job.prompt
        # Its word on what comes next is on its way: until then nobody is let in to its place.
        known = _WORD if program.tells else None
        program.awaited = now + _WORD if program.tells else 0.0
        program.gap = Gap("", job.computed, now, known, sure=program.tells)
        self._claim(program, now)

    def order(self, job: Job) -> tuple[int, int]:
        """Programs whose context is claimed go first, then in the order of their first arrival."""
        if not self._policy.program_order:
            return 0, job.order
        return 0 if self._claims.is_claimed(job.program) else 1, self._programs[job.program].order

    # --- hints ---------------------------------------------------------------------------------

    def hint(self, hint: Hint) -> None:
        """Take a program's word."""
        now = self._clock.now()
        if hint.kind == "close":
            found = self._programs.get(hint.program)
            if found is not None:
                self._close(found)
            return
        program = self._named(hint.program)
        program.tells = True
        program.until = max(program.until, now + min(max(hint.lease, 0.0), _LONGEST))
        detail = hint.detail[:_LONGEST_NAME]
        if hint.kind == "open":
            program.steps = detail == STEPS
        elif hint.kind == "tool_started":
            self._tool_started(program, detail, hint.after)
        elif hint.kind == "tool_ended":
            self._tool_ended(program)
        elif hint.kind == "next_use":
            self._claim_shared(program, detail, now + min(max(hint.after, 0.0), _LONGEST))
        elif hint.kind == "drop":
            self._drop(program, detail)

    def _tool_started(self, program: Program, tool: str, seconds: float) -> None:
        now, program.awaited = self._clock.now(), 0.0
        known = min(seconds, _LONGEST) if seconds > 0 else None
        size = 0 if program.last is None else len(program.last[1])
        if program.steps and not program.active:
            program.gap = Gap(tool, size, now, known)
            due = now + (known or self.history.durations.remaining(tool, 0.0))
            self._renew_shared(program, due)
        elif program.last is not None:
            program.gap = Gap(tool, size, now, known, sure=True)
            self._claim(program, now)

    def _tool_ended(self, program: Program) -> None:
        """It is going to read again: what was spilled begins to come back."""
        now, gap = self._clock.now(), program.gap
        if program.steps:
            if gap is not None:
                self.history.durations.add(gap.tool, max(0.0, now - gap.started))
            program.gap = None
            self._renew_shared(program, now)
            for digest in program.shared:
                self._claims.prefetch(program.owner_of(digest))
            return
        if gap is not None:
            program.gap = replace(gap, known=now - gap.started)
            self._renew(program, now)
        self._claims.prefetch(program.name)

    def _renew_shared(self, program: Program, due: float) -> None:
        for digest in program.shared:
            self._claims.renew(program.owner_of(digest), Keep(due, program.until))

    def _renew(self, program: Program, now: float) -> None:
        keep = self._keep(program, now)
        if keep is not None:
            self._claims.renew(program.name, keep)

    def _drop(self, program: Program, digest: str) -> None:
        """What the program will not read again."""
        prefix = program.shared.pop(digest, None) if digest else program.last
        self._claims.unclaim(program.owner_of(digest) if digest else program.name)
        if prefix is not None:
            self._claims.give_up(prefix)
        if not digest:
            program.last = program.gap = None

    def tend(self) -> None:
        """Renew what is known of the programs that do something else, and forget those that were
        not heard of for long."""
        now = self._clock.now()
        if now - self._looked < _BETWEEN and self._looked:
            return
        self._looked = now
        for program in list(self._programs.values()):
            if not program.active and program.until < now:
                self._close(program)
            elif program.gap is not None and not program.steps:
                if 0 < program.awaited < now:  # it said nothing
                    program.awaited = 0.0
                    program.gap = replace(program.gap, known=None, sure=False)
                    self._claim(program, now)
                self._renew(program, now)
        self._claims.expire(now)

    def _claim_shared(self, program: Program, digest: str, due: float) -> None:
        prefix = program.shared.get(digest)
        if prefix is not None and self._policy.program_order:
            owner = program.owner_of(digest)
            self._claims.keep(owner, prefix, Keep(due, program.until))

    def forget(self) -> None:
        """Give up what programs have read and what they claim of it."""
        for program in self._programs.values():
            self._let_go(program)

    # --- within --------------------------------------------------------------------------------

    def _let_go(self, program: Program) -> None:
        self._claims.unclaim(program.name)
        for digest in program.shared:
            self._claims.unclaim(program.owner_of(digest))
        program.gap = program.last = None
        program.shared.clear()

    def _claim(self, program: Program, now: float) -> None:
        """What the program read last, as long as the policy says."""
        keep = self._keep(program, now)
        if keep is None or program.last is None:
            self._claims.unclaim(program.name)
        else:
            self._claims.keep(program.name, program.last, keep)

    def _keep(self, program: Program, now: float) -> Keep | None:
        gap = program.gap
        if gap is None:
            return None
        return self._policy.keep(gap, now, self._back(gap.tokens), self.history)

    def _of(self, job: Job) -> Program:
        """The program of a request. One without a name belongs to the one that it goes on from."""
        if job.program:
            return self._named(job.program)
        for program in self._programs.values():
            if program.name.startswith(_UNNAMED) and program.last is not None:
                reader_class, tokens = program.last
                asked = tokens[: program.asked]
                if reader_class == job.reader_class and job.tokens[: len(asked)] == asked:
                    return program
        return self._named(_UNNAMED + job.id)

    def _named(self, name: str) -> Program:
        found = self._programs.get(name)
        if found is None:
            self._bound()
            self._count += 1
            until = self._clock.now() + _LEASE
            found = self._programs[name] = Program(name, self._count, until)
        self._programs.move_to_end(name)
        return found

    def _bound(self) -> None:
        """Make room for one more: forget those that were not heard of for the longest time."""
        if len(self._programs) >= _MOST:
            for program in [one for one in self._programs.values() if not one.active]:
                if len(self._programs) < _MOST:
                    return
                self._close(program)

    def _close(self, program: Program) -> None:
        """It reads nothing again."""
        if program.turns and not program.steps:
            self.history.turns.append(program.turns)
        self._let_go(program)
        program.turns = 0
        if not program.active:
            del self._programs[program.name]
