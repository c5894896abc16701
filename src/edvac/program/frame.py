"""Where the evaluator is: names, the label of the branches taken, the path and the order.

Knows nothing of syntax.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from edvac.core.label import PUBLIC, Label
from edvac.core.value import Operand
from edvac.program.host import Order


class Orders:
    """Hands out places in program order. What is under one place sorts between it and the next, so
    a region that unfolds late still lies where it was met."""

    __slots__ = ("_next", "prefix")

    def __init__(self, prefix: Order = ()) -> None:
        self.prefix = prefix
        self._next = 0

    @property
    def last(self) -> Order:
        """The place that was taken last."""
        return (*self.prefix, self._next)

    def take(self) -> Order:
        self._next += 1
        return (*self.prefix, self._next)


@dataclass(slots=True)
class Frame:
    """One body being evaluated.

    Attributes:
        names: the current version of each name; shared by the arms and iterations of a body that
            runs without waiting.
        pc: label of the decisions under which this body runs (rule 2).
        path: identity of the calls and iterations around it.
        within: address of the call of a user function around it.
        indices: position in each loop around it, ``[3][0]``, for addresses.
    """

    names: dict[str, Operand]
    orders: Orders
    pc: Label = PUBLIC
    path: bytes = b""
    within: str = ""
    indices: str = ""
    function: str = ""

    @property
    def place(self) -> int | None:
        """Where in the outermost loop; None outside of loops."""
        return int(self.indices[1 : self.indices.index("]")]) if self.indices else None

    def under(self, decider: Label) -> Frame:
        """The same names and order, below one more decision."""
        pc = self.pc.steer(decider)
        return self if pc is self.pc else replace(self, pc=pc)

    def split(self, order: Order, names: Iterable[str] | None = None) -> Frame:
        """A copy for code that runs later, at `order`: it sees the names as they are now."""
        kept = (
            dict(self.names)
            if names is None
            else {name: self.names[name] for name in names if name in self.names}
        )
        return replace(self, names=kept, orders=Orders(order))
