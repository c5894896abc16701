"""How many threads a step may use: as many as there are cores that nobody else is busy on.

Threads of a step that spin while they wait for each other make it a third shorter, but only if each
has a core of its own; with one core too few a step takes eight times as long
(docs/benchmarks/linear.md). So the engine looks at what other processes use and leaves them their
cores. It knows no requests and no tensors.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_WINDOW: Final = 0.4  # seconds between two looks; a tick of the kernel's count is a hundredth
_TOLERATED: Final = 0.4  # cores that others may use before a thread makes room for them
_STAT: Final = Path("/proc/stat")


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds so far: of the wall, of all processes on the cores allowed to us, of our own."""

    wall: float
    busy: float
    own: float


Look = Callable[[], Usage]


def can_look() -> bool:
    """Whether this system tells what its cores do."""
    return _STAT.is_file() and hasattr(os, "sched_getaffinity")


def look() -> Usage:
    allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for line in _STAT.read_text(encoding="ascii").splitlines():
        name, *counts = line.split()
        if name in allowed:
            user, nice, system, _idle, _wait, *rest = map(int, counts[:8])
            ticks += user + nice + system + sum(rest)  # rest: interrupts, and what a host took
    return Usage(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())


class Cores:
    """The number of threads for the steps to come.

    Args:
        most: threads where nobody else is busy.
        cores: cores that this process may run on.
    """

    def __init__(self, most: int, cores: int, look: Look = look) -> None:
        self._most, self._cores, self._look = most, cores, look
        self._last = look()
        self.threads = most

    def adapt(self) -> bool:
        """Look again, if the last look is long enough ago; true where `threads` has changed."""
        if time.monotonic() - self._last.wall < _WINDOW:
            return False
        last, now = self._last, self._look()
        self._last = now
        passed = max(now.wall - last.wall, 1e-3)
        others = (now.busy - last.busy - (now.own - last.own)) / passed
        before = self.threads
        self.threads = max(1, min(self._most, int(self._cores - others + _TOLERATED)))
        return self.threads != before
