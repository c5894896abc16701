"""How long a program's context is kept in memory while it does something else.

A policy is asked when a program stops reading: its context lies in memory, and comes back into use
when its tool is done. To compare them all are here: none (least recently used), a fixed time,
Continuum's formula (arXiv 2511.02230, section 4), what the program itself says, and one that
knows how long each tool takes. Policies see names of tools, counts and seconds.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final, Protocol

from edvac.core.errors import ConfigError

MOST_TOOLS: Final = 256
_SAMPLES: Final = 256  # of one tool
_ENOUGH: Final = 100  # samples from which Continuum believes a tool's own durations
_TRUST: Final = 4.0  # samples of a tool that weigh as much as what is known of all tools
_TYPICAL: Final = 1.0  # seconds, where nothing is known
_DEAR: Final = 0.5  # seconds for which it is better to wait than to have a context again
_LONGEST: Final = 600.0  # seconds for which anything can be kept


@dataclass(frozen=True, slots=True)
class Gap:
    """A program between two of its requests.

    Attributes:
        tool: what it does meanwhile, ``name`` or ``name:class of arguments``; empty if unsaid.
        tokens: of its context.
        started: when its last request ended.
        known: seconds that the program itself said it will take, or None.
        sure: the program said that it will come back.
    """

    tool: str
    tokens: int
    started: float
    known: float | None = None
    sure: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """What becomes of a context.

    Attributes:
        due: when it is expected to be read.
        until: when it is as good as any other again.
        holds: others are not let in to its place while anything runs.
        waits: nor when nothing runs: it is due too soon for that to be worth it.
    """

    due: float
    until: float
    holds: bool = False
    waits: bool = False


class Durations:
    """Seconds that tools took, by name and class of arguments; the longest unused are forgotten."""

    def __init__(self) -> None:
        self._tools: OrderedDict[str, _Sample] = OrderedDict()
        self.all = _Sample()

    def add(self, tool: str, seconds: float) -> None:
        self.all.add(seconds)
        for name in {tool, tool.partition(":")[0]} - {""}:
            self._tools.setdefault(name, _Sample()).add(seconds)
            self._tools.move_to_end(name)
        while len(self._tools) > MOST_TOOLS:
            self._tools.popitem(last=False)

    def of(self, tool: str) -> _Sample:
        return self._tools.get(tool) or _Sample()

    def remaining(self, tool: str, elapsed: float) -> float:
        """Seconds still to be expected after `elapsed`: the mean of what took longer, of the class
        of arguments, drawn to that of the tool, and that to the mean of all."""
        # What has taken longer than all before it may take as long again.
        expected = max(_TYPICAL, elapsed)
        for sample in (self.all, self.of(tool.partition(":")[0]), self.of(tool)):
            longer = sample.longer(elapsed)
            own = sum(longer) - len(longer) * elapsed
            expected = (own + _TRUST * expected) / (len(longer) + _TRUST)
        return expected


class _Sample:
    """The last durations of one kind, in their order of length too."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self.sorted: list[float] = []

    def __len__(self) -> int:
        return len(self.sorted)

    def add(self, seconds: float) -> None:
        if len(self._recent) == _SAMPLES:
            del self.sorted[bisect_right(self.sorted, self._recent.popleft()) - 1]
        self._recent.append(seconds)
        insort(self.sorted, seconds)

    def longer(self, elapsed: float) -> list[float]:
        return self.sorted[bisect_right(self.sorted, elapsed) :]

    def share_within(self, seconds: float) -> float:
        return bisect_right(self.sorted, seconds) / len(self.sorted)


@dataclass(slots=True)
class History:
    """What happened so far, of all programs.

    Attributes:
        turns: how many requests each ended program made.
        waits: seconds that programs queued on return when their context had been given up.
    """

    durations: Durations
    turns: deque[int]
    waits: deque[float]

    @classmethod
    def empty(cls) -> History:
        return cls(Durations(), deque(maxlen=_SAMPLES), deque(maxlen=_SAMPLES))

    def memoryfulness(self) -> float:
        """Continuum's eta: minus the correlation of turns done with turns left, over all turns of
        the programs that have ended. Near 1 where programs are of like length."""
        pairs = [(done, total - done) for total in self.turns for done in range(1, total + 1)]
        if len(pairs) < 3:
            return 1.0
        mean_done = sum(done for done, _ in pairs) / len(pairs)
        mean_left = sum(left for _, left in pairs) / len(pairs)
        both = sum((done - mean_done) * (left - mean_left) for done, left in pairs)
        dones = sum((done - mean_done) ** 2 for done, _ in pairs)
        lefts = sum((left - mean_left) ** 2 for _, left in pairs)
        return -both / math.sqrt(dones * lefts) if dones and lefts else 1.0


class Policy(Protocol):
    """
    Attributes:
        program_order: do programs go in the order of their first arrival (else requests of theirs)?
    """

    program_order: bool

    def keep(self, gap: Gap, now: float, back: float, history: History) -> Keep | None:
        """What becomes of the context; `back` are the seconds to have it again once it is lost."""
        ...


class LeastRecent:
    """Nothing is kept for anybody, and requests go first come, first served."""

    program_order = False

    def keep(self, gap: Gap, now: float, back: float, history: History) -> Keep | None:
        del gap, now, back, history
        return None


class FixedTime:
    """So many seconds for everybody; None for as long as the context would cost."""

    program_order = True

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def keep(self, gap: Gap, now: float, back: float, history: History) -> Keep | None:
        del now, history
        end = gap.started + (back if self._seconds is None else self._seconds)
        return Keep(end, end, holds=True) if end > gap.started else None


class Continuum:
    """The time that is worth most: argmax over t of P(tool ends within t) x (T eta + C) - t, with T
    the mean wait of those who lost their context, eta memoryfulness and C the cost of having it
    again."""

    program_order = True

    def keep(self, gap: Gap, now: float, back: float, history: History) -> Keep | None:
        del now
        waited = sum(history.waits) / len(history.waits) if history.waits else 0.0
        benefit = waited * history.memoryfulness() + back
        own = history.durations.of(gap.tool)
        sample = own if len(own) > _ENOUGH else history.durations.all
        if len(sample) > _ENOUGH:
            worth = {
                seconds: sample.share_within(seconds) * benefit - seconds
                for seconds in {0.0, *sample.sorted}
            }
            time = max(worth, key=lambda seconds: worth[seconds])
        else:  # durations Exp(1 s)
            time = max(0.0, math.log(benefit)) if benefit > 0 else 0.0
        end = gap.started + time
        return Keep(end, end, holds=True) if time > 0 else None


class Told:
    """What the program says of itself: whether it comes back, and sometimes when. How long its tool
    takes is estimated as it goes on. Who is expected last makes room first.

    A context that is lost costs the engine the time to have it again; the room of one that is kept
    costs nothing while others keep the engine busy. So nobody is let in to its place unless it
    comes back quickly, as from a disk, or nothing else runs and it is away for longer than that.
    """

    program_order = True

    def keep(self, gap: Gap, now: float, back: float, history: History) -> Keep | None:
        if gap.known is not None:
            due = gap.started + gap.known
        else:
            due = now + history.durations.remaining(gap.tool, max(0.0, now - gap.started))
        return _kept(due, gap.started + _LONGEST, now, back, sure=gap.sure)


class Oracle:
    """Knows how long each tool takes: `Gap.known` is the truth."""

    program_order = True

    def keep(self, gap: Gap, now: float, back: float, history: History) -> Keep | None:
        del history
        if gap.known is None:
            return None
        due = gap.started + gap.known
        return _kept(due, due + _LONGEST, now, back, sure=True)


def _kept(due: float, until: float, now: float, back: float, *, sure: bool) -> Keep:
    """Who is overdue by as much is not waited for either."""
    holds = sure and back > _DEAR
    return Keep(due, until, holds, holds and abs(due - now) < back)


def policy(name: str) -> Policy:
    """The policy of a name: lru, ttl=SECONDS, ttl=cost, continuum, told or oracle.

    Raises:
        ConfigError: there is none of this name.
    """
    plain: dict[str, Policy] = {
        "lru": LeastRecent(),
        "ttl=cost": FixedTime(None),
        "continuum": Continuum(),
        "told": Told(),
        "oracle": Oracle(),
    }
    if name in plain:
        return plain[name]
    try:
        seconds = float(name.removeprefix("ttl="))
        if name.startswith("ttl=") and seconds >= 0:
            return FixedTime(min(seconds, _LONGEST))
    except ValueError:
        pass
    raise ConfigError(
        "retention_unknown",
        f"there is no retention {name!r}",
        "",
        "Choose lru, ttl=SECONDS, ttl=cost, continuum, told or oracle.",
    )
