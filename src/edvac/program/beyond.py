"""A look beyond an undecided condition: one side, and what follows, evaluated under a guess.

It has names, fuel and cells of its own and announces its steps to a host of its own, so that
nothing of it is seen by the evaluation that it came from. What it gets wrong (the guess, or a name
that has another version by then) costs time and no more: steps are told by slot and operands, and
who uses the result of one compares both.
"""

from __future__ import annotations

import decimal
from dataclasses import replace
from typing import TYPE_CHECKING

from edvac.core.label import PROGRAM
from edvac.core.value import Scalar
from edvac.program.evaluate import Evaluator
from edvac.program.frame import Orders
from edvac.program.fuel import Fuel
from edvac.program.operate import ARITHMETIC
from edvac.program.tree import assigned

if TYPE_CHECKING:
    import datetime as dt

    from edvac.program.evaluate import Undecided
    from edvac.program.facts import Facts
    from edvac.program.frame import Frame
    from edvac.program.host import Host
    from edvac.program.program import Program

FOLLOWED = 64  # statements after the condition that are looked at
FUEL = Fuel(steps=100_000, memory=64 << 20)


class LookAhead(Evaluator):
    """One side of a condition, and what follows."""

    def __init__(self, base: Evaluator, host: Host) -> None:
        self._base = base
        date: dt.date = base._on.constants["run.date"].data  # type: ignore[union-attr, assignment]
        super().__init__(base.program, host, base._params, date, replace(FUEL))
        self._on.constants = base._on.constants
        self._started = True

    def _facts_of(self, program: Program) -> Facts:
        return self._base._on.facts

    def settle(self) -> None:
        """Go on with what has become known to the evaluation that it came from."""
        with decimal.localcontext(ARITHMETIC):
            self._flow.drain()

    def look(self, at: Undecided, guess: bool) -> None:
        """Evaluate one side, and what follows from it."""
        names = self._top.names
        names.update(self._base._top.names)
        if at.frame.function:
            names = dict(at.frame.names)
        else:
            names.update(at.frame.names)
        frame = replace(at.frame, names=names, orders=Orders(at.frame.orders.prefix))
        with decimal.localcontext(ARITHMETIC):
            self._decided(at.stmt, Scalar(guess, PROGRAM), frame, self._arms(at.stmt))
            self._follow(at, frame)
            self._flow.drain()

    def _follow(self, at: Undecided, frame: Frame) -> None:
        """Evaluate what depends on the condition; other names are as they have become."""
        changed = set(assigned([at.stmt], self._outside))
        block, start = at.after
        for place in range(start, min(start + FOLLOWED, len(block))):
            stmt = block[place]
            made = assigned([stmt], self._outside)
            if not changed.isdisjoint(self._on.facts.names(stmt)):
                changed.update(made)
                self._run(block[place : place + 1], frame)
            elif all(name in at.live.names for name in made):
                frame.names.update({name: at.live.names[name] for name in made})
            else:
                return


def look_beyond(base: Evaluator, at: Undecided, guess: bool, host: Host) -> LookAhead:
    """Begin a look at one side of a condition; its steps are announced to `host`."""
    made = LookAhead(base, host)
    made.look(at, guess)
    return made
