"""Dataflow: what runs when a cell resolves.

A resolved cell only puts its waiters into one ready queue, which `drain` empties; so a chain of a
million cells needs no stack. Knows nothing of programs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from edvac.core.label import Label
from edvac.core.value import Cell, Operand, Value, settle, steered


class Flow:
    """The ready queue. `waiting` counts the actions that still wait for a cell."""

    def __init__(self) -> None:
        self._ready: deque[Callable[[], None]] = deque()
        self._draining = False
        self.waiting = 0

    @property
    def quiet(self) -> bool:
        """Is nothing left that could run now?"""
        return not self._ready and not self._draining

    def drain(self) -> None:
        """Run what is ready until nothing is. A call from inside returns at once: the outer one
        goes on."""
        if self._draining:
            return
        self._draining = True
        try:
            while self._ready:
                self._ready.popleft()()
        finally:
            self._draining = False

    def when(self, cells: Iterable[Cell], action: Callable[[], None]) -> None:
        """Run `action` from the queue as soon as all the cells are resolved."""
        pending = {id(cell): cell for cell in cells if cell.value is None}
        if not pending:
            self._ready.append(action)
            return
        self.waiting += 1
        left = len(pending)

        def tick(_: Value) -> None:
            nonlocal left
            left -= 1
            if not left:
                self.waiting -= 1
                self._ready.append(action)

        for cell in pending.values():
            cell.when_resolved(tick)

    def defer(self, cells: Iterable[Cell], compute: Callable[[], Operand]) -> Cell:
        """A cell for what `compute` returns once all of `cells` are resolved."""
        out = Cell()
        self.when(cells, lambda: self.forward(compute(), out))
        return out

    def forward(self, source: Operand, out: Cell, decider: Label | None = None) -> None:
        """Make `out` become what `source` is or will be, raised by `decider`."""
        here = settle(source)
        if isinstance(here, Cell):
            self.when([here], lambda: self.forward(here, out, decider))
        else:
            out.resolve(here if decider is None else steered(here, decider))

    def raised(self, operand: Operand, decider: Label) -> Operand:
        """`operand` under a decision labelled `decider` (rule 1), now or when it is known; a
        pending step keeps its identity."""
        if is_neutral(decider):
            return operand
        here = settle(operand)
        if not isinstance(here, Cell):
            return steered(here, decider)
        out = Cell(here.origin)
        self.when([here], lambda: self.forward(here, out, decider))
        return out


def is_neutral(decider: Label) -> bool:
    """Does a decision with this label change nothing in what it decides?"""
    silent = not (decider.sources or decider.steered or decider.bits)
    return silent and decider.readers is None
