"""The seams: the few outside things that code reaches only through an object handed to it.

Clock and randomness here; the model's seam is `edvac.processor`'s protocol, the disk's is the
database's file layer, the network's the HTTP transport. Each has a real and a simulated version, so
that one seed replays one run.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
import time
from typing import Protocol


class Clock(Protocol):
    """Time. `now` is seconds of a clock that never goes back; `wall` is UTC seconds and may
    jump."""

    def now(self) -> float: ...
    def wall(self) -> float: ...


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


class ManualClock:
    """A clock that moves only when told; for tests and simulation."""

    def __init__(self, start: float = 1_000_000_000.0) -> None:
        self._now = 0.0
        self._wall = start

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._wall += seconds

    def jump(self, seconds: float) -> None:
        """Move only the wall clock, as an administrator or NTP may."""
        self._wall += seconds


class Contacts:
    """The network's seam as far as it is remembered: which endpoints were really connected to.

    Whoever opens connections notes each here when it is there, and when a request goes over it.
    """

    def __init__(self) -> None:
        self._noted: dict[str, None] = {}

    def note(self, endpoint: str) -> None:
        """A connection to `endpoint` (scheme, host and port) was made or used."""
        self._noted[endpoint] = None

    def take(self) -> list[str]:
        """The endpoints noted since the last time, in the order of the first contact."""
        found, self._noted = list(self._noted), {}
        return found


def iso_date(wall: float) -> str:
    """UTC date of a wall-clock reading, YYYY-MM-DD."""
    return dt.datetime.fromtimestamp(wall, dt.UTC).date().isoformat()


class Entropy(Protocol):
    """Randomness for names and seeds; never for security decisions inside a simulation."""

    def token(self, size: int) -> str: ...


class SystemEntropy:
    def token(self, size: int) -> str:
        """`size` random bytes as lower-case hex."""
        return secrets.token_hex(size)


class CountingEntropy:
    """Predictable names for tests."""

    def __init__(self) -> None:
        self._count = 0

    def token(self, size: int) -> str:
        self._count += 1
        return f"{self._count:0{size * 2}x}"


_TRIGGER = os.environ.get("EDVAC_KILL_AT", "")
_trigger_left = [int(_TRIGGER.rpartition(":")[2] or 1)] if _TRIGGER else [0]


def durability_point(name: str) -> None:
    """A named place where a crash is interesting. ``EDVAC_KILL_AT=name:n`` kills the process at its
    n-th pass.

    Free in production: one comparison with an empty string.
    """
    if _TRIGGER and _TRIGGER.rpartition(":")[0] == name:
        _trigger_left[0] -= 1
        if _trigger_left[0] == 0:
            os.kill(os.getpid(), 9)
