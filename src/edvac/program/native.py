"""Pure functions as the evaluator calls them: how operands arrive, what they are called with.

`Native` joins a Python function with its mode and its line of documentation; `Work` is what a
function may use besides its operands. Knows nothing of which functions exist.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from edvac.core.label import Label
from edvac.core.schema import ANY, Type
from edvac.core.value import Operand, Value
from edvac.program.fuel import Fuel


class Mode(enum.Enum):
    """How much of the operands must be known, and in what form they arrive."""

    DATA = "data"  # complete; plain Python data in, plain data out, one label over all
    VALUE = "value"  # complete values in and out; the function says what labels the result has
    SHAPE = "shape"  # only the outermost container is known; elements may be pending or failed
    LENIENT = "lenient"  # complete, but failures arrive instead of being passed on


@dataclass(slots=True)
class Work:
    """What a native function may use.

    Attributes:
        label: label of everything that went in: right for any result.
        handled: to be called for each failure that the function accepts.
    """

    fuel: Fuel
    line: int
    label: Label
    handled: Callable[[Any], None]
    data_label: Label | None = None

    def spend(self, steps: int) -> None:
        self.fuel.spend(steps, self.line)

    def make(self, size: int) -> None:
        self.fuel.make(size, self.line)


@dataclass(frozen=True, slots=True)
class Raised:
    """A result that leaves its container: to be raised by the label of what was read."""

    operand: Operand


ResultType: TypeAlias = Type | Callable[[Sequence[Type]], Type]


@dataclass(frozen=True, slots=True)
class Native:
    """One pure function or method.

    Attributes:
        run: takes `Work` and then the operands, as its Python signature says.
        calls: parameters that take a lambda or a function.
        lazy: parameters handed over as they are, pending or failed, because they are only stored.
        consumes: may be given an iterator (`zip`, a generator expression), used once.
        iterator: in Python the result is not a list but a "view" of something or a "stream".
    """

    name: str
    run: Callable[..., Any]
    doc: str
    mode: Mode = Mode.DATA
    result: ResultType = ANY
    calls: frozenset[str] = frozenset()
    lazy: frozenset[str] = frozenset()
    consumes: bool = False
    iterator: str = ""
    shape: inspect.Signature = field(default_factory=inspect.Signature)

    def result_type(self, args: Sequence[Type]) -> Type:
        return self.result(args) if callable(self.result) else self.result

    @property
    def text(self) -> str:
        """The signature as it is written in documentation."""
        return f"{self.name}{str(self.shape).partition(' -> ')[0]}"


class Registry(dict[str, Native]):
    """Native functions by name."""

    def add(
        self,
        name: str,
        doc: str,
        *,
        mode: Mode = Mode.DATA,
        result: ResultType = ANY,
        **marks: Any,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: put a function here. Its first parameter is the `Work`; `marks` are the
        remaining fields of `Native`."""

        def put(run: Callable[..., Any]) -> Callable[..., Any]:
            params = list(inspect.signature(run).parameters.values())[1:]
            bare = [param.replace(annotation=inspect.Parameter.empty) for param in params]
            for mark in ("calls", "lazy"):
                marks[mark] = frozenset(marks.get(mark, ()))
            self[name] = Native(
                name, run, doc, mode, result, shape=inspect.Signature(bare), **marks
            )
            return run

        return put


Callback: TypeAlias = Callable[..., Value]
