"""Hazards: which step must wait for which earlier step or undecided region of the program.

A *claim* is what an unfinished step, or a region whose steps are not known yet, may read and write.
A step may issue when no claim that comes earlier in the program conflicts with its own access: RAW,
WAR and WAW on paths; signals and events by name; external effects in order; a wait for a time
before all that is not pure. Claims that touch nothing are not kept, so programs
of pure model steps pay nothing; claims on plain paths are found by their path, so a thousand writes
of different files do not look at each other.

Source of the technique: the CDC 6600 scoreboard (Thornton 1964), with glob patterns in place of
registers.
"""

from __future__ import annotations

import bisect
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edvac.core.signature import Access, overlap

Order = tuple[int, ...]
_LAST: Order = (1 << 62,)  # after every place of a program


@dataclass(slots=True, eq=False)
class Claim:
    order: Order
    access: Access
    waiters: list[str] = field(default_factory=list)  # slots to look at again on release

    def __lt__(self, other: Claim) -> bool:
        return self.order < other.order


class Scoreboard:
    """Claims in program order, by what they touch."""

    def __init__(self) -> None:
        self._writes = _Paths(lambda claim: claim.access.writes)
        self._reads = _Paths(lambda claim: claim.access.reads)
        self._names = _Paths(lambda claim: claim.access.names)
        self._external: list[Claim] = []
        self._barriers: list[Claim] = []
        self._size = 0

    def claim(self, order: Order, access: Access) -> Claim | None:
        """Enter a claim; None when the access is empty and nothing could wait for it."""
        if access.empty:
            return None
        made = Claim(order, access)
        self._add(made)
        return made

    def narrow(self, claim: Claim, access: Access) -> list[str]:
        """Replace a pattern by what is now known; returns the slots that waited for the wider
        one."""
        if access == claim.access:
            return []
        self._remove(claim)
        woken, claim.waiters = claim.waiters, []
        claim.access = access
        self._add(claim)
        return woken

    def release(self, claim: Claim) -> list[str]:
        """The step or region is over; returns the slots to look at again."""
        self._remove(claim)
        return claim.waiters

    def hazard(self, order: Order, access: Access) -> Claim | None:
        """An earlier claim that a step at `order` must wait for: of those on patterns the latest,
        because steps mostly become ready in order and are then looked at only once."""
        if access.outside and self._barriers:
            found = _last_before(order, self._barriers)
            if found is not None:
                return found
        if access.empty:
            return None
        if access.external:
            found = _last_before(order, self._external)
            if found is not None:
                return found
        for name in access.names:
            found = self._names.meeting(order, name)
            if found is not None:
                return found
        for path in access.reads:
            found = self._writes.meeting(order, path)
            if found is not None:
                return found
        for path in access.writes:
            found = self._writes.meeting(order, path) or self._reads.meeting(order, path)
            if found is not None:
                return found
        return None

    def conflicts(self, access: Access) -> bool:
        """Is there any claim, wherever it stands, that does not go with this access?"""
        return self.hazard(_LAST, access) is not None

    def __len__(self) -> int:
        return self._size

    def _add(self, claim: Claim) -> None:
        self._size += 1
        for table in (self._writes, self._reads, self._names):
            table.add(claim)
        for claims in self._lists(claim.access):
            bisect.insort(claims, claim)

    def _remove(self, claim: Claim) -> None:
        self._size -= 1
        for table in (self._writes, self._reads, self._names):
            table.remove(claim)
        for claims in self._lists(claim.access):
            _take_out(claims, claim)

    def _lists(self, access: Access) -> Iterator[list[Claim]]:
        if access.external:
            yield self._external
        if access.barrier:
            yield self._barriers


class _Paths:
    """Claims by the paths that they read, or by those that they write."""

    def __init__(self, paths: Callable[[Claim], tuple[str, ...]]) -> None:
        self._of = paths
        self._at: dict[str, list[Claim]] = {}  # claims on exactly this path
        self._below: dict[str, list[Claim]] = {}  # claims on a path inside this directory
        self._patterns: list[Claim] = []

    def add(self, claim: Claim) -> None:
        for path in self._of(claim):
            if is_pattern(path):
                bisect.insort(self._patterns, claim)
                continue
            bisect.insort(self._at.setdefault(path, []), claim)
            for directory in _parents(path):
                bisect.insort(self._below.setdefault(directory, []), claim)

    def remove(self, claim: Claim) -> None:
        for path in self._of(claim):
            if is_pattern(path):
                _take_out(self._patterns, claim)
                continue
            _take_from(self._at, path, claim)
            for directory in _parents(path):
                _take_from(self._below, directory, claim)

    def meeting(self, order: Order, path: str) -> Claim | None:
        """A claim before `order` on a path that may be the same as `path`, or hold it, or lie in
        it."""
        for claim in _before(order, self._patterns):
            if any(overlap(other, path) for other in self._of(claim)):
                return claim
        if is_pattern(path):
            return self._meeting_pattern(order, path)
        found = _last_before(order, self._at.get(path, ()))
        found = found or _last_before(order, self._below.get(path, ()))
        for directory in _parents(path) if found is None else ():
            found = found or _last_before(order, self._at.get(directory, ()))
        return found

    def _meeting_pattern(self, order: Order, pattern: str) -> Claim | None:
        for path, claims in self._at.items():
            found = _last_before(order, claims)
            if found is not None and overlap(path, pattern):
                return found
        return None


def is_pattern(path: str) -> bool:
    return "*" in path or "?" in path or "[" in path


def _parents(path: str) -> Iterator[str]:
    place = path.rfind("/")
    while place > 0:
        yield path[:place]
        place = path.rfind("/", 0, place)


def _before(order: Order, claims: list[Claim]) -> Iterator[Claim]:
    """Claims before `order`, the latest first."""
    for place in range(bisect.bisect_left(claims, order, key=_order) - 1, -1, -1):
        yield claims[place]


def _last_before(order: Order, claims: list[Claim] | tuple[()]) -> Claim | None:
    place = bisect.bisect_left(claims, order, key=_order)
    return claims[place - 1] if place else None


def _order(claim: Claim) -> Order:
    return claim.order


def _take_from(table: dict[str, list[Claim]], key: str, claim: Claim) -> None:
    _take_out(table[key], claim)
    if not table[key]:
        del table[key]


def _take_out(claims: list[Claim], claim: Claim) -> None:
    place = bisect.bisect_left(claims, claim)
    while claims[place] is not claim:
        place += 1
    del claims[place]


class OpenOrders:
    """Which places of the program are unfinished; knows the earliest one at once."""

    def __init__(self) -> None:
        self._heap: list[Order] = []
        self._closed: Counter[Order] = Counter()
        self._size = 0

    def add(self, order: Order) -> None:
        heapq.heappush(self._heap, order)
        self._size += 1

    def remove(self, order: Order) -> None:
        self._closed[order] += 1
        self._size -= 1

    def earliest(self) -> Order:
        """The least open order; the empty tuple, which is before everything, when none is open."""
        while self._heap and self._closed[self._heap[0]]:
            order = heapq.heappop(self._heap)
            self._closed[order] -= 1
        return self._heap[0] if self._heap else ()

    def __len__(self) -> int:
        return self._size
