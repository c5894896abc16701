"""A dry run on made-up values: finds the faults that types alone do not show.

Every step of the program is answered at once with a value of its type; answers come in turn full
and with every optional field absent. What pure code makes of them must not fail, and has to fit the
steps that it is given to: an unguarded comparison with None, a column that does not exist, a record
read like a dict, a number where a text is written. What a made-up text leads to proves nothing,
since a real one would be JSON, a date or a table with other columns: texts carry a label, and a
failure that carries it is passed over. A file that is written twice and not read in between is a
fault too: what stood in it first would be lost.

What the task says plainly is held against the rehearsal: a table that it describes is made up with
those columns, so that a wrong name is found; a table that it asks for must come out with them.
Nothing is read, written or asked of a model.
"""

from __future__ import annotations

import datetime as dt
import re
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from edvac.compiler.brief import FRACTION, NOTHING_SAID, Brief, is_named, placeholder
from edvac.core.errors import OperandError, ProgramError
from edvac.core.label import Label
from edvac.core.schema import (
    STR,
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
from edvac.core.signature import Access, Effect, Role
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
    total_label,
)
from edvac.program import Evaluator, Fuel, Program, StepCall
from edvac.program.host import Branch, Condition
from edvac.program.operands import misfit

MAX_STEPS = 400
_FOLDER = "folder"  # where made-up files lie
_LISTED = [f"{_FOLDER}/{name}.txt" for name in ("one", "two", "three", "four")]
_NAMES = frozenset(
    part for path in _LISTED for part in (path, path.split("/")[1], path.split("/")[1][:-4])
)
_DATE = dt.date(2026, 1, 15)
_MADE_UP = "made up"  # a source of made-up texts
_DESCRIBED = "described"  # and of those whose columns the task says
_UNTYPED = "untyped"  # of those the ones whose cells may be texts or numbers
STANDS_IN = "stands in"  # and of everything that an answer brings


def rehearse(program: Program, brief: Brief = NOTHING_SAID) -> None:
    """Run it on made-up values.

    Raises:
        ProgramError: `plan_fails`, with the line and what went wrong there.
    """
    stage = Stage(program, brief)
    stage.run()
    if stage.fault is not None:
        raise stage.fault


class Stage:
    """The host of a rehearsal.

    Args:
        steady: answers depend on the data of a step alone, not on when it comes; faults are passed
            over.
        most: steps that are answered.
        settings: of the program's parameters.
    """

    def __init__(
        self,
        program: Program,
        brief: Brief = NOTHING_SAID,
        *,
        steady: bool = False,
        most: int = MAX_STEPS,
        settings: Mapping[str, Value] | None = None,
    ) -> None:
        self.fault: ProgramError | None = None
        self.written: dict[str, str] = {}
        self._steady = steady
        self._typed = "csv.table(" in program.text  # cells may be numbers, whatever is made up
        self._brief = brief
        self._reads = False
        self._tables: set[str] = set()  # made-up texts of tables that the task describes
        self._by_row: dict[str, str | None] = {}  # texts of files that are named after cells
        self._calls: deque[tuple[StepCall, Cell]] = deque()
        self._count = 0
        self._touched: list[tuple[StepCall, bool, str]] = []  # step, does it write, path
        self._most = most
        self._evaluator = Evaluator(program, self, dict(settings or {}), _DATE, Fuel())

    def run(self) -> None:
        self._evaluator.start()
        waiting: list[tuple[StepCall, Cell]] = []
        while self._calls and self._count < self._most and (self._steady or self.fault is None):
            call, cell = self._calls.popleft()
            if any(open_cells(operand) for operand in call.args.values()):
                waiting.append((call, cell))
            else:
                self._look(call.args.values())
                self._check(call)
                self._note(call)
                self._count += 1
                self._evaluator.resolve(call.slot, self.answer(call))
                self._calls.extend(waiting)
                waiting = []
        self._look(self._evaluator.bindings().values())
        for branch in self._evaluator.unreached:  # because its test failed
            if not _proves_nothing(branch.failed):
                self.fault = self.fault or _fails(branch.failed)
        self.fault = self.fault or self._lost()

    @property
    def unseen(self) -> bool:
        """Did made-up contents keep a part of the program from being gone through?"""
        return bool(self._evaluator.unreached) or bool(self._calls)

    def step(self, call: StepCall) -> Cell:
        cell = Cell(call.slot)
        self._calls.append((call, cell))
        return cell

    def open_region(self, order: tuple[int, ...], access: Access) -> int:
        return 0

    def close_region(self, token: int) -> None:
        return

    def passed(self, order: tuple[int, ...], access: Access, decider: Label) -> None:
        return

    def undecided(self, branch: Branch) -> None:
        return

    def decided(self, condition: Condition, taken: bool | None) -> None:
        return

    def handled(self, failed: Failed) -> None:
        return

    def _look(self, operands: Any) -> None:
        for operand in operands:
            here: Operand = settle(operand)
            if isinstance(here, Cell) or open_cells(here):
                continue
            found = first_failure(here)
            if found is not None and not _proves_nothing(found):
                self.fault = self.fault or _fails(found)

    def answer(self, call: StepCall) -> Value:
        """What the step gives."""
        path, text = text_of(call, "path"), text_of(call, "text")
        if call.op == "files.write" and path is not None:
            self.written[path] = text or ""
        pattern = text_of(call, "pattern")
        if call.op == "files.list" and pattern is not None and not set(pattern) & set("*?["):
            return lift([pattern], _GIVEN)
        if call.result == STR and call.signature.effect is Effect.READ and path is not None:
            columns = next(
                (own for name, own in self._brief.columns.items() if is_named(name, path)), ()
            )
            made = self._brief.sample(path, columns)
            if columns:
                self._tables.add(made)
            if columns and (self._typed or path.endswith((".json", ".jsonl"))):
                return lift(made, _UNTYPED_DESCRIPTION)
            described = columns or path in self._brief.lines
            return lift(made, _DESCRIPTION if described else _FICTION)
        return _answer(call, _fingerprint(call) if self._steady else self._count)

    def _check(self, call: StepCall) -> None:
        """Would the step take its operands?"""
        operands = {name: completed(one) for name, one in call.args.items()}
        if self.fault is None and not any(map(first_failure, operands.values())):
            wrong = misfit(call, operands)
            self.fault = None if wrong is None else _refuses(wrong)
            self.fault = self.fault or self.unlike(call) or self._about_nothing(call)

    def unlike(self, call: StepCall) -> ProgramError | None:
        """Is what is written something else than the task asks for, or than a file should hold?"""
        if call.op == "llm.extract" and _DESCRIBED in _sources(call, "data"):
            text = text_of(call, "data")
            if text is not None and text in self._tables:
                return misshapen(call, "a table is read by code, row by row, not by a model", _ROWS)
        path, text = text_of(call, "path"), text_of(call, "text")
        if path is not None and set(path) & set("*?"):
            return misshapen(call, f"{call.op} takes one path, not {path}", _EACH)
        if call.op in ("llm.choose", "llm.extract") and _is_name(call.args.get("data")):
            return misshapen(call, "a model is shown the name of a file alone", "Pass doc.text(p).")
        if call.op != "files.write" or path is None:
            return None
        if set(path) & set("{}[]"):
            return misshapen(call, f"{path!r} is no name of a file", "Put one field into it.")
        if _DESCRIBED in _sources(call, "path") and self._by_row.setdefault(path, text) != text:
            what = f"{path} is written for each row, and what stood in it before is lost"
            return misshapen(call, what, _BY_NAME)
        there = self._brief.folders or self._brief.inputs
        if there and STANDS_IN not in _sources(call, "text"):
            what = f"{path} is written without anything that was read"
            return misshapen(call, what, f"Read {', '.join(there)} first.")
        if not text and self._picks(call):
            what = f"{path} would be empty: no line passes the test"
            return misshapen(call, what, self._brief.line())
        if not text:
            return None
        stands = placeholder(path)
        if stands and path in self._brief.files:
            fix = f"Write an f-string with a name in the place of {stands}."
            return misshapen(call, f"{stands} in {path} stands for each of them", fix)
        if self._brief.names_files and f"{_FOLDER}/" in text:
            return misshapen(call, f"{path} would hold whole paths", "A name is path.name(p).")
        if text.startswith(("[{", "{'", "['", "[Decimal", "[(")) and not path.endswith(
            (".json", ".jsonl")
        ):
            return misshapen(call, f"{path} would hold a list as Python writes it", _AS_LINES)
        if not path.endswith((".csv", ".tsv")):
            return None
        if _LIST_IN_CELL.search(text):
            fix = 'Declare the field as bool or str, or join it: ", ".join(...).'
            return misshapen(call, f"a cell of {path} would hold a list", fix)
        header = [name.strip() for name in text.split("\n", 1)[0].split(",")]
        for name, columns in self._brief.columns.items():
            missing = [column for column in columns if column not in header]
            if is_named(name, path) and missing:
                what = f"{name} lacks the column {', '.join(missing)}; it has {', '.join(header)}"
                fix = f"Give the rows exactly: {', '.join(columns)}."
                if missing == ["file"]:
                    fix = "Write rows.append(row_of(found, file=path.name(p)))."
                return misshapen(call, what, fix)
        return None

    def _picks(self, call: StepCall) -> bool:
        """Does the text come from lines whose words the task describes, some of which it names?"""
        return bool(
            self._brief.lines and self._brief.marks and _DESCRIBED in _sources(call, "text")
        )

    def _about_nothing(self, call: StepCall) -> ProgramError | None:
        """Is a model asked about what the program itself says, though it has read something?"""
        there = self._reads or self._brief.folders or self._brief.inputs
        if call.op not in ("llm.choose", "llm.extract") or not there:
            self._reads |= call.signature.effect is Effect.READ
            return None
        data = [p.name for p in call.signature.params if p.role is Role.DATA]
        given = [completed(call.args[name]) for name in data if name in call.args]
        if any(STANDS_IN in total_label(one).integrity for one in given):
            return None
        what = f"{call.op} is given nothing that was read"
        return ProgramError("plan_fails", what, "", "Pass the text or the rows.", line=call.line)

    def _note(self, call: StepCall) -> None:
        """Which paths the step reads and writes, as far as the program itself spells them."""
        signature = call.signature
        for writes, names in ((False, signature.reads), (True, signature.writes)):
            for name in names:
                operand = call.args.get(name)
                path = settle(operand) if operand is not None else None
                if not isinstance(path, Scalar):
                    self._touched.append((call, False, ""))  # a list of files: may be any
                elif STANDS_IN not in path.label.sources:
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


_BY_NAME = "Write for name in unique([...]), and put all rows of a name into its file."
_LIST_IN_CELL = re.compile(r'(?:^|,)(?:"\[""|\[\](?:,|$))', re.MULTILINE)
_ROWS = "Write csv.load(text) or json.load(text), and ask a model about one row at most."
_EACH = "Write for p in files.list(pattern), and use p."
_AS_LINES = 'Use csv.dump(rows), or "\\n".join of one text for each.'


def misshapen(call: StepCall, what: str, fix: str) -> ProgramError:
    return ProgramError("plan_fails", what, "", fix, line=call.line)


_UNKNOWN = ("key_missing", "field_missing")
_RECKONS = re.compile(  # what fails with texts and not with numbers, or the other way round
    r"supported between|unsupported operand|multiply sequence|concatenate|cannot be summed"
    r"|go together|added"
)
_MISTYPED = (
    "operand_misfit",
    "row_unfit",
    "sum_unfit",
    "record_lacks",
)  # whatever a text says, it is no row and no number, and a record has the fields it has


def _proves_nothing(found: Failed) -> bool:
    """Is it due to a made-up text? A column that the task does not name is due to the program, and
    so is a whole number where an amount stands, or a text where a row is wanted."""
    sources = found.label.integrity
    of_cells = _UNTYPED in sources and _RECKONS.search(found.what) is not None
    if found.code in _MISTYPED and not of_cells:
        return False
    wrong = found.code in _UNKNOWN or FRACTION.search(found.what) is not None
    return _MADE_UP in sources and not (_DESCRIBED in sources and wrong)


def _fingerprint(call: StepCall) -> int:
    """A number made of what a step is given."""
    given = [completed(one) for one in call.args.values() if not open_cells(one)]
    return zlib.crc32(repr([plain(one) for one in given if not first_failure(one)]).encode())


def _is_name(operand: Operand | None) -> bool:
    """Is it the name of a file, or does it hold nothing else?"""
    texts = [*_texts(plain(completed(operand)))] if operand is not None else []
    return bool(texts) and all(text in _NAMES for text in texts)


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, list | tuple):
        for one in data:
            yield from _texts(one)
    elif data is not None:
        yield str(data)


def _sources(call: StepCall, name: str) -> frozenset[str]:
    operand = call.args.get(name)
    return total_label(completed(operand)).integrity if operand is not None else frozenset()


def text_of(call: StepCall, name: str) -> str | None:
    """An operand that is a text and known."""
    operand = call.args.get(name)
    here = settle(operand) if operand is not None else None
    return here.data if isinstance(here, Scalar) and isinstance(here.data, str) else None


def _overwrites(call: StepCall, path: str) -> ProgramError:
    return ProgramError(
        "plan_fails",
        f"{call.op} writes {path} again, and what stood in it is lost",
        "Each write replaces the whole file.",
        'Put the parts together first, as in "\\n".join(parts), and write once, after the loop.',
        line=call.line,
    )


class Fault(ProgramError):
    """What went wrong with values; `kind` is the failure's code, and quotes none of them."""

    kind = ""


def _fault(kind: str, what: str, why: str, fix: str, line: int | None = None) -> Fault:
    made = Fault("plan_fails", what, why, fix, line=line)
    made.kind = kind
    return made


def _fails(found: Failed) -> Fault:
    why = "It fails on values that the steps may return, such as None for an optional field."
    fix = "Guard it, for example with `is not None`."
    if FRACTION.search(found.what):
        fix = "Read amounts with Decimal(...)."
    elif found.code in (*_UNKNOWN, "record_lacks"):
        fix = "Use the names that the rows have, or give them that one first."
    return _fault(found.code, found.what, why, fix)


def _refuses(wrong: OperandError) -> Fault:
    why = "The step fails on a value that others may return or code may make of it."
    return _fault(wrong.code, wrong.what, why, wrong.fix, wrong.line)


_GIVEN = Label.of([STANDS_IN])
_FICTION = Label.of([STANDS_IN, _MADE_UP])
_DESCRIPTION = Label.of([STANDS_IN, _MADE_UP, _DESCRIBED])
_UNTYPED_DESCRIPTION = Label.of([STANDS_IN, _MADE_UP, _DESCRIBED, _UNTYPED])


def _answer(call: StepCall, number: int) -> Value:
    if call.op == "files.list":
        # That there are files is given; which parts their names have is made up.
        return lift([Scalar(path, _FICTION) for path in _LISTED], _GIVEN)
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
        case Plain() if kind.name in _NUMBERS:
            return lift(_NUMBERS[kind.name][number // 2 % 2], _GIVEN)
        case Plain() if kind.name in _ATOMS:
            return lift(_ATOMS[kind.name], _GIVEN)
    return lift(NOTHING_SAID.sample(), _FICTION)


_NUMBERS: dict[str, Any] = {  # so far apart that a bound of the task lies between them
    "int": (3, 5000),
    "float": (2.5, 5000.5),
    "Decimal": (Decimal("12.50"), Decimal("5000.50")),
}
_ATOMS: dict[str, Any] = {
    "None": None,
    "bool": True,
    "date": _DATE,
}
