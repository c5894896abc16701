"""Pure operations on operands that may be pending or failed, and the labels of their results.

One place decides when an operation can run, what a failed operand does to it, what an error in it
becomes, and which label its result has (rules 3, 4 and 8). Knows nothing of syntax.
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from edvac.core.errors import FuelError, OperandError
from edvac.core.label import UNBOUNDED, Label, combine
from edvac.core.schema import DATE, capacity
from edvac.core.value import (
    Cell,
    Failed,
    Operand,
    Scalar,
    Value,
    completed,
    settle,
    total_label,
)
from edvac.program.containers import elements
from edvac.program.data import Survey, python, shown, value
from edvac.program.flow import Flow
from edvac.program.fuel import Fuel
from edvac.program.native import Mode, Native, Raised, Work

Compute = Callable[[list[Any], Label], Operand]

CODES: tuple[tuple[type[Exception], str], ...] = (
    (ZeroDivisionError, "division_by_zero"),
    (decimal.InvalidOperation, "number_unfit"),
    (OverflowError, "number_too_large"),
    (ArithmeticError, "number_unfit"),
    (KeyError, "key_missing"),
    (IndexError, "index_out_of_range"),
    (LookupError, "key_missing"),
    (TypeError, "operand_misfit"),
    (AttributeError, "operand_misfit"),
    (ValueError, "value_unfit"),
)


class Blocked(Exception):
    """A callback met a failure: the operation that called it gives that failure on."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.what)
        self.failed = failed


class Apply:
    """Runs pure operations.

    Args:
        fuel_label: label of everything that could have decided how much fuel is left.
        handled: told of each failure that a lenient function accepts.
    """

    def __init__(
        self,
        flow: Flow,
        fuel: Fuel,
        fuel_label: Callable[[], Label],
        handled: Callable[[Failed], None],
    ) -> None:
        self.flow = flow
        self.fuel = fuel
        self._fuel_label = fuel_label
        self._handled = handled

    def strict(self, operands: list[Operand], line: int, compute: Compute) -> Operand:
        """`compute(values, label)` once everything inside the operands is known and well."""
        here = [settle(operand) for operand in operands]
        if all(type(one) is Scalar for one in here):
            label = combine([one.label for one in here])  # type: ignore[union-attr]
            return self.guarded(self._charged(1, line, lambda: compute(here, label)), label, line)
        survey = Survey(here)
        if survey.pending:
            return self.flow.defer(survey.pending, lambda: self.strict(here, line, compute))
        if survey.deep:
            return self.too_deep(here, line)
        label = combine(total_label(one) for one in here if not isinstance(one, Cell))
        if survey.failed is not None:
            return given_on(survey.failed, label)
        run = self._charged(survey.size, line, lambda: compute([completed(o) for o in here], label))
        return self.guarded(run, label, line)

    def shallow(self, operands: list[Operand], line: int, compute: Compute) -> Operand:
        """`compute(values, label)` once the outermost part of each operand is known and well."""
        here = [settle(operand) for operand in operands]
        pending = [one for one in here if isinstance(one, Cell)]
        if pending:
            return self.flow.defer(pending, lambda: self.shallow(here, line, compute))
        label = combine(one.label for one in here if not isinstance(one, Cell))
        failed = next((one for one in here if isinstance(one, Failed)), None)
        if failed is not None:
            return given_on(failed, label)
        return self.guarded(self._charged(1, line, lambda: compute(here, label)), label, line)

    def lenient(self, operands: list[Operand], line: int, compute: Compute) -> Operand:
        """`compute(values, label)` once everything is known, failed or not."""
        here = [settle(operand) for operand in operands]
        survey = Survey(here)
        if survey.pending:
            return self.flow.defer(survey.pending, lambda: self.lenient(here, line, compute))
        if survey.deep:
            return self.too_deep(here, line)
        label = combine(total_label(one) for one in here if not isinstance(one, Cell))
        run = self._charged(survey.size, line, lambda: compute([completed(o) for o in here], label))
        return self.guarded(run, label, line)

    def data(self, operands: list[Operand], line: int, compute: Callable[..., Any]) -> Operand:
        """A function of plain data: its result is labelled with everything that went in."""

        def run(values: list[Any], label: Label) -> Operand:
            return self.lifted(compute(*[python(one) for one in values]), label, line)

        return self.strict(operands, line, run)

    def lifted(self, made: Any, label: Label, line: int) -> Value:
        """A result with its label, charged for its size."""
        if isinstance(made, str):
            self.fuel.make(len(made), line)
        elif isinstance(made, list | tuple | dict):
            self.fuel.make(16 * len(made), line)
        return value(made, label.cap(bits_of(made)))

    def native(self, found: Native, operands: list[Operand], call: NativeCall) -> Operand:
        """Apply a registered function; `call` builds its arguments from the known operands."""
        line = call.line

        def run(values: list[Any], label: Label) -> Operand:
            work = Work(self.fuel, line, label, self._handled)
            args, words = call.arguments(values)
            if found.mode is Mode.DATA:
                args = [_plain(one) for one in args]
                words = {key: _plain(one) for key, one in words.items()}
                return self.lifted(found.run(work, *args, **words), label, line)
            made = found.run(work, *args, **words)
            if isinstance(made, Raised):
                return self.flow.raised(made.operand, label)
            return made  # type: ignore[no-any-return]

        match found.mode:
            case Mode.SHAPE:
                return self.shallow(operands, line, run)
            case Mode.LENIENT:
                return self.lenient(operands, line, run)
        return self.strict(operands, line, run)

    def visited(self, value: Value, line: int) -> list[Operand] | Failed:
        """What a loop over the value visits, or why it cannot be looped over."""
        if isinstance(value, Failed):
            return value
        items: list[Operand] = []

        def look() -> Operand:
            items.extend(elements(value))
            return value

        looked = self.guarded(look, value.label, line)
        return looked if isinstance(looked, Failed) else items

    def guarded(self, run: Callable[[], Operand], label: Label, line: int) -> Operand:
        """What `run` returns, or its error as a failed value with `label`."""
        try:
            return run()
        except Blocked as blocked:
            return given_on(blocked.failed, label)
        except FuelError as problem:
            return self.out_of_fuel(problem)
        except OperandError as problem:
            text = " ".join(part for part in (f"{problem.what}.", problem.why, problem.fix) if part)
            return Failed("", problem.code, f"line {line}: {text}", label)
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as problem:
            return Failed("", _code(problem), f"line {line}: {_said(problem)}", label)

    def out_of_fuel(self, problem: FuelError) -> Failed:
        """The failed value of whatever could not be computed any more."""
        place = "" if problem.line is None else f"line {problem.line}: "
        text = f"{place}{problem.what}. {problem.fix}"
        return Failed("", problem.code, text, self._fuel_label())

    def too_deep(self, operands: Iterable[Operand], line: int) -> Failed:
        """The failed value of an operation on containers nested beyond the limit."""
        what = f"line {line}: containers are nested too deeply. Keep parts in a flat list."
        return Failed("", "value_too_deep", what, self._fuel_label())

    def _charged(self, size: int, line: int, run: Callable[[], Operand]) -> Callable[[], Operand]:
        def charged() -> Operand:
            self.fuel.spend(size, line)
            return run()

        return charged


@dataclass(frozen=True, slots=True)
class Known:
    """The place of an operand that must be known, among those that are waited for."""

    at: int


@dataclass(frozen=True, slots=True)
class NativeCall:
    """The operands of a call: those that must be known by place, the others as they are."""

    line: int
    args: list[Any]
    words: dict[str, Any]

    def arguments(self, values: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments with the known operands in their places."""

        def become(one: Any) -> Any:
            return values[one.at] if isinstance(one, Known) else one

        return list(map(become, self.args)), {k: become(v) for k, v in self.words.items()}


def given_on(failed: Failed, label: Label) -> Failed:
    """The failure as the result of something that needed the failed value."""
    return replace(failed, label=label, origin=None)


def bits_of(made: Any) -> float:
    """How many bits of choice a plain result can carry: that there is none is one, too."""
    match made:
        case None | bool():
            return 1
        case dt.date():
            return capacity(DATE)
    return UNBOUNDED


def _plain(one: Any) -> Any:
    return one if callable(one) else python(one)


def _code(problem: Exception) -> str:
    return next(code for kind, code in CODES if isinstance(problem, kind))


def _said(problem: Exception) -> str:
    match problem:
        case KeyError(args=(key, *_)):
            return f"there is no key {shown(key)}"
        case ZeroDivisionError():
            return "division by zero"
        case decimal.DecimalException():
            return "this is not a number that can be computed with"
    return str(problem) or type(problem).__name__
