"""A dry run on made-up values: finds the faults that types alone do not show.

Every step of the program is answered at once with a value of its type; answers come in turn full
and with every optional field absent. What pure code makes of them must not fail, and has to fit the
steps that it is given to: an unguarded comparison with None, a column that does not exist, a record
read like a dict, a number where a text is written. What a made-up text leads to proves nothing,
since a real one would be JSON, a date or a table with other columns: texts carry a label, and a
failure that carries it is passed over. A file that is written twice and not read in between is a
fault too: what stood in it first would be lost. Nothing is read, written or asked of a model.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from decimal import Decimal
from typing import Any

from edvac.core.errors import OperandError, ProgramError
from edvac.core.label import Label
from edvac.core.schema import (
    Choice,
    DictOf,
    ListOf,
    Maybe,
    Plain,
    Quoted,
    Record,
    TupleOf,
    Type,
)
from edvac.core.signature import Access
from edvac.core.value import (
    Cell,
    Failed,
    Instance,
    Operand,
    Scalar,
    Value,
    completed,
    first_failure,
    lift,
    open_cells,
    plain,
    settle,
)
from edvac.program import Evaluator, Fuel, Program, StepCall
from edvac.program.operands import misfit

MAX_STEPS = 400
_DATE = dt.date(2026, 1, 15)
_MADE_UP = "made up"  # a source of made-up texts
_STANDS_IN = "stands in"  # and of everything that an answer brings
_TEXT = "name,amount\nfirst line of a text,10\nsecond line of a text,20\n"


def rehearse(program: Program) -> None:
    """Run it on made-up values.

    Raises:
        ProgramError: `plan_fails`, with the line and what went wrong there.
    """
    stage = _Stage(program)
    stage.run()
    if stage.fault is not None:
        raise stage.fault


class _Stage:
    """The host of a rehearsal."""

    def __init__(self, program: Program) -> None:
        self.fault: ProgramError | None = None
        self._calls: deque[tuple[StepCall, Cell]] = deque()
        self._count = 0
        self._touched: list[tuple[StepCall, bool, str]] = []  # step, does it write, path
        self._evaluator = Evaluator(program, self, {}, _DATE, Fuel())

    def run(self) -> None:
        self._evaluator.start()
        waiting: list[tuple[StepCall, Cell]] = []
        while self._calls and self.fault is None and self._count < MAX_STEPS:
            call, cell = self._calls.popleft()
            if any(open_cells(operand) for operand in call.args.values()):
                waiting.append((call, cell))
            else:
                self._look(call.args.values())
                self._check(call)
                self._note(call)
                self._count += 1
                self._evaluator.resolve(call.slot, _answer(call, self._count))
                self._calls.extend(waiting)
                waiting = []
        self._look(self._evaluator.bindings().values())
        self.fault = self.fault or self._lost()

    def step(self, call: StepCall) -> Cell:
        cell = Cell(call.slot)
        self._calls.append((call, cell))
        return cell

    def open_region(self, order: tuple[int, ...], access: Access) -> int:
        return 0

    def close_region(self, token: int) -> None:
        return

    def handled(self, failed: Failed) -> None:
        return

    def _look(self, operands: Any) -> None:
        for operand in operands:
            here: Operand = settle(operand)
            if isinstance(here, Cell) or open_cells(here):
                continue
            found = first_failure(here)
            if found is not None and _MADE_UP not in found.label.sources:
                self.fault = self.fault or _fails(found)

    def _check(self, call: StepCall) -> None:
        """Would the step take its operands?"""
        operands = {name: completed(one) for name, one in call.args.items()}
        if self.fault is None and not any(map(first_failure, operands.values())):
            wrong = misfit(call, operands)
            self.fault = None if wrong is None else _refuses(wrong)

    def _note(self, call: StepCall) -> None:
        """Which paths the step reads and writes, as far as the program itself spells them."""
        signature = call.signature
        for writes, names in ((False, signature.reads), (True, signature.writes)):
            for name in names:
                operand = call.args.get(name)
                path = settle(operand) if operand is not None else None
                if not isinstance(path, Scalar):
                    self._touched.append((call, False, ""))  # a list of files: may be any
                elif _STANDS_IN not in path.label.sources:
                    self._touched.append((call, writes, str(path.data)))

    def _lost(self) -> ProgramError | None:
        """The first write, in the program's order, over what nothing has read."""
        unread: set[str] = set()
        for call, writes, path in sorted(self._touched, key=lambda one: one[0].order):
            if not writes:
                unread = unread - {path} if path else set()
            elif path in unread:
                return _overwrites(call, path)
            else:
                unread.add(path)
        return None


def _overwrites(call: StepCall, path: str) -> ProgramError:
    return ProgramError(
        "plan_fails",
        f"{call.op} writes {path} again, and what stood in it is lost",
        "Each write replaces the whole file.",
        'Put the parts together first, as in "\\n".join(parts), and write once, after the loop.',
        line=call.line,
    )


def _fails(found: Failed) -> ProgramError:
    return ProgramError(
        "plan_fails",
        found.what,
        "It fails on values that the steps may return, such as None for an optional field.",
        "Guard it, for example with `is not None`.",
    )


def _refuses(wrong: OperandError) -> ProgramError:
    why = "The step fails on a value that others may return or code may make of it."
    return ProgramError("plan_fails", wrong.what, why, wrong.fix, line=wrong.line)


_GIVEN = Label.of([_STANDS_IN])


def _answer(call: StepCall, number: int) -> Value:
    if call.op == "files.list":
        return lift([f"folder/{name}.txt" for name in ("one", "two", "three", "four")], _GIVEN)
    if call.op == "llm.choose":
        options = plain(completed(call.args["options"]))
        return lift(options[number % len(options)] if options else "", _GIVEN)
    return _value(call.result, number)


def _value(kind: Type, number: int) -> Value:
    """A value of a type; odd numbers leave out what may be left out."""
    match kind:
        case Record():
            fields = {part.name: _value(part.type, number) for part in kind.fields}
            return Instance(kind.name, fields, _GIVEN)
        case Quoted():
            quoted = {"value": _value(kind.item, number), "quote": lift("text", _GIVEN)}
            return Instance("Quoted", quoted, _GIVEN)
        case Maybe():
            return lift(None, _GIVEN) if number % 2 else _value(kind.item, number)
        case Choice():
            return lift(kind.options[number % len(kind.options)], _GIVEN)
        case ListOf():
            return lift([_value(kind.item, number + place) for place in range(2)], _GIVEN)
        case TupleOf():
            return lift(tuple(_value(item, number) for item in kind.items), _GIVEN)
        case DictOf():
            return lift({"key": _value(kind.item, number)}, _GIVEN)
        case Plain() if kind.name in _ATOMS:
            return lift(_ATOMS[kind.name], _GIVEN)
    return lift(_TEXT, Label.of([_STANDS_IN, _MADE_UP]))


_ATOMS: dict[str, Any] = {
    "None": None,
    "bool": True,
    "int": 3,
    "float": 2.5,
    "Decimal": Decimal("12.50"),
    "date": _DATE,
}
