"""Identity: names for steps that do not depend on when or in what order they are reached.

A *path* is a hash that grows with each call and each loop that a step is inside of. Knows nothing
of programs' text beyond the keys handed to it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from edvac.core.value import Cell, Operand, digest, open_cells, settle

SIZE = 16  # bytes; 2**64 steps before two are likely to collide


def mix(*parts: bytes | str | int) -> bytes:
    """A hash of the parts and of where one ends and the next begins."""
    state = hashlib.blake2b(digest_size=SIZE)
    for part in parts:
        body = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        state.update(b"%d:" % len(body) + body)
    return state.digest()


def identity(operand: Operand) -> str | None:
    """What an element of a loop is: the step that returned it, or a hash of its data.

    None while that cannot be known: a derived value is pending. A pending step is known already.
    """
    if isinstance(operand, Cell) and operand.origin is not None:
        return operand.origin
    here = settle(operand)
    if isinstance(here, Cell):
        return here.origin
    if here.origin is not None:
        return here.origin
    return None if open_cells(here) else digest(here)


class Elements:
    """What a loop runs over, with a name for each element: its identity and its ordinal among
    equals. Elements are named once each, in order."""

    __slots__ = ("_seen", "items")

    def __init__(self, items: Sequence[Operand]) -> None:
        self.items = items
        self._seen: Counter[str] = Counter()

    def path(self, outer: bytes, index: int) -> bytes | None:
        """The path of an iteration inside `outer`; None while the element's identity is not
        known."""
        name = identity(self.items[index])
        if name is None:
            return None
        ordinal = self._seen[name]
        self._seen[name] += 1
        return mix(outer, name, ordinal)
