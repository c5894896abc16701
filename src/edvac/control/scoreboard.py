"""Hazards: which step must wait for which earlier step or undecided region of the program.

A *claim* is what an unfinished step, or a region whose steps are not known yet, may read and write.
A step may issue when no claim that comes earlier in the program conflicts with its own access (RAW,
WAR, WAW on paths; external effects
in order). Claims that touch nothing are not kept, so programs of pure model steps pay nothing.

Source of the technique: the CDC 6600 scoreboard (Thornton 1964), with glob patterns in place of
registers.
"""

from __future__ import annotations

import bisect
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from edvac.core.signature import Access

Order = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Claim:
    order: Order
    access: Access
    waiters: list[str] = field(default_factory=list)  # slots to look at again on release

    def __lt__(self, other: Claim) -> bool:
        return self.order < other.order


class Scoreboard:
    """Claims in program order, those that write apart from those that only read."""

    def __init__(self) -> None:
        self._writing: list[Claim] = []
        self._reading: list[Claim] = []

    def claim(self, order: Order, access: Access) -> Claim | None:
        """Enter a claim; None when the access is empty and nothing could wait for it."""
        if access.empty:
            return None
        made = Claim(order, access)
        bisect.insort(self._side(access), made)
        return made

    def narrow(self, claim: Claim, access: Access) -> list[str]:
        """Replace a pattern by what is now known; returns the slots that waited for the wider
        one."""
        self._remove(claim)
        woken, claim.waiters = claim.waiters, []
        claim.access = access
        if not access.empty:
            bisect.insort(self._side(access), claim)
        return woken

    def release(self, claim: Claim) -> list[str]:
        """The step or region is over; returns the slots to look at again."""
        self._remove(claim)
        return claim.waiters

    def hazard(self, order: Order, access: Access) -> Claim | None:
        """The earliest claim that a step at `order` must wait for."""
        if access.empty:
            return None
        for earlier in self._before(order, self._writing):
            if earlier.access.conflicts(access):
                return earlier
        if access.writes:
            for earlier in self._before(order, self._reading):
                if earlier.access.conflicts(access):
                    return earlier
        return None

    def __len__(self) -> int:
        return len(self._writing) + len(self._reading)

    def _side(self, access: Access) -> list[Claim]:
        return self._writing if access.writes or access.external else self._reading

    @staticmethod
    def _before(order: Order, claims: list[Claim]) -> Iterator[Claim]:
        for found in claims:
            if found.order >= order:
                return
            yield found

    def _remove(self, claim: Claim) -> None:
        side = self._side(claim.access)
        place = bisect.bisect_left(side, claim)
        while place < len(side) and side[place].order == claim.order:
            if side[place] is claim:
                del side[place]
                return
            place += 1


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
