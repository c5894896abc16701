"""What the evaluator and the control unit say to each other.

The evaluator announces steps and undecided regions in program order of reaching them; the control
unit answers with cells. Knows nothing of how either side works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from edvac.core.label import Label
from edvac.core.schema import Type
from edvac.core.signature import Access, Signature
from edvac.core.value import Cell, Failed, Operand, Value
from edvac.program.options import NONE, Options

Order: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepCall:
    """One call of a device that the program has reached.

    Attributes:
        slot: identity within the run; the same whenever and in whatever order the call is reached.
        args: operands by parameter name, defaults filled in; they may be or contain pending cells.
        types: the types given for parameters of role TYPE.
        result: type of what the step returns.
        branch: label of the decisions under which the call is reached.
        order: sorts as the calls would be made one after another.
        address: how a person names the step, ``invoices[17]``.
        static: what the call may touch, known without the value of any operand.
        place: in the outermost loop around it, from 0; None outside of loops.
        options: what the program says of how it is done.
    """

    slot: str
    op: str
    signature: Signature
    args: dict[str, Operand]
    types: dict[str, Type]
    result: Type
    branch: Label
    order: Order
    line: int
    address: str
    static: Access
    place: int | None = None
    options: Options = NONE

    @property
    def time_limit(self) -> float:
        """Seconds that one attempt may take."""
        return self.options.timeout_s or self.signature.timeout_s


@dataclass(frozen=True, slots=True)
class Unreached:
    """Something that was never done, though no name need show it: calls whose decision failed, or
    (with no `ops`) a change that was refused when its types became known."""

    failed: Failed
    ops: tuple[str, ...]
    order: Order
    line: int


class Beyond(Protocol):
    """An evaluation of what lies on one side of an undecided condition."""

    def resolve(self, slot: str, value: Value) -> None:
        """The outcome of a step that it has announced to its own host."""
        ...

    def settle(self) -> None:
        """Go on with what has become known to the evaluation that it came from."""
        ...


@dataclass(frozen=True, slots=True)
class Condition:
    """One evaluation of the condition of an `if`.

    Attributes:
        site: identity in the text, the same in every run.
        key: identity within the run, as a step has its slot.
        order: sorts with those of steps.
    """

    site: str
    key: str
    order: Order


@dataclass(frozen=True, slots=True)
class Branch:
    """A condition that is not known yet.

    Attributes:
        likely: how likely its first side is, judged by the text alone.
        beyond: evaluates one side, and as much of what follows in the same block as depends on it,
            under a guess; its steps are announced to another host.
    """

    condition: Condition
    likely: float
    beyond: Callable[[bool, Host], Beyond]


class Host(Protocol):
    """Implemented by the control unit. None of these may call back into the evaluator."""

    def step(self, call: StepCall) -> Cell:
        """A call was reached. The cell may already be resolved, as in a replay."""
        ...

    def open_region(self, order: Order, access: Access) -> int:
        """Steps within `access` may still appear under `order` until the region is closed."""
        ...

    def close_region(self, token: int) -> None: ...

    def passed(self, order: Order, access: Access, decider: Label) -> None:
        """Steps within `access` do not appear after `order` that might have: `decider` decided."""
        ...

    def undecided(self, branch: Branch) -> bool | None:
        """A condition waits for a step. The side to go on with as if it were known; None waits."""
        ...

    def decided(self, condition: Condition, taken: bool | None) -> None:
        """A condition of which steps depend is known now, or has failed: None."""
        ...

    def handled(self, failed: Failed) -> None:
        """A failure was accepted by ``attempt`` or ``ok``."""
        ...
