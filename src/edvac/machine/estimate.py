"""What a program will take, before it runs: steps, tokens, time and money, each as a range.

The program is evaluated on its real file names and sizes, but on made-up contents and answers: no
file is opened, no model asked. What a program does with contents (a branch, a row of a table) is
guessed from the sizes, so every figure is a range, and an estimate says where it had to guess.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edvac.compiler.brief import read_brief
from edvac.compiler.rehearsal import Stage, text_of
from edvac.core.errors import DeviceError
from edvac.core.label import PROGRAM
from edvac.core.schema import STR, Choice, ListOf, Maybe, Quoted, Record, Type
from edvac.core.signature import Effect, Role
from edvac.core.value import Scalar, Value, completed, first_failure, lift, plain
from edvac.device import Roots
from edvac.machine.rates import Rates
from edvac.processor import Price
from edvac.program import Program, StepCall

_ELEMENTS = 200  # of a listing that are gone through; the rest is scaled up
_ROWS = 2_000  # of a table; the rest is scaled up
_ROW = 300  # bytes that a row of a database takes, its indexes and what is left free included
_STEPS = 5_000
_TEXT = 200_000  # characters made up for one file
_CHARACTERS = 3.6  # of a token
_PROMPT = 90  # tokens of a prompt beside its data, once its shared beginning is cached
_WRITTEN = {"llm.write": (40.0, 400.0), "llm.choose": (6.0, 12.0)}  # tokens of an answer


@dataclass(frozen=True, slots=True)
class Range:
    low: float
    high: float


@dataclass(slots=True)
class Estimate:
    """Attributes:
    steps: by op, rounded where a listing was scaled up.
    read, written: tokens of model steps; what is read again from the cache is left out.
    guessed: what happens depends on contents that nobody has looked at yet.
    """

    steps: Counter[str] = field(default_factory=Counter)
    read: Range = Range(0, 0)
    written: Range = Range(0, 0)
    guessed: bool = False

    @property
    def asks_model(self) -> bool:
        return self.written.high > 0

    def seconds(self, rates: Rates | None) -> Range | None:
        """How long the model steps take; None where nothing has been measured."""
        if rates is None:
            return None
        low = rates.seconds(self.read.low, self.written.low) / rates.spread
        return Range(low, rates.seconds(self.read.high, self.written.high) * rates.spread)

    def cost(self, price: Price) -> Range:
        """What the tokens cost, in the currency of the prices."""
        read, written = float(price.input) / 1e6, float(price.output) / 1e6
        low = self.read.low * read + self.written.low * written
        return Range(low, self.read.high * read + self.written.high * written)


def estimate(
    program: Program,
    roots: Mapping[str, Path],
    settings: Mapping[str, Value] | None = None,
    task: str = "",
) -> Estimate:
    """Go through the program; see the module."""
    with Roots(dict(roots)) as opened:
        survey = _Survey(program, opened, settings or {}, task)
        survey.run()
    return survey.result()


class _Survey(Stage):
    """A rehearsal with the real names and sizes of files."""

    def __init__(
        self, program: Program, roots: Roots, settings: Mapping[str, Value], task: str
    ) -> None:
        super().__init__(program, read_brief(task), steady=True, most=_STEPS, settings=settings)
        self._roots = roots
        self._task = task
        self._scale = 1.0
        self._made: Counter[str] = Counter()
        self._tokens = [0.0, 0.0, 0.0, 0.0]  # read and written, low and high
        self._blocked = False
        self._tables_guessed = False

    def answer(self, call: StepCall) -> Value:
        if any(first_failure(completed(operand)) for operand in call.args.values()):
            self._blocked = True  # by what a made-up text does not hold
            return super().answer(call)
        factor = self._scale if call.place is not None else 1.0
        self._made[call.op] += factor  # type: ignore[assignment]
        if call.signature.device == "llm":
            self._count_tokens(call, factor)
        path = text_of(call, "pattern") if call.op == "files.list" else text_of(call, "path")
        if path is not None and call.op == "files.list":
            return self._listing(path)
        if path is not None and call.op == "sql.query":
            return self._table(path, text_of(call, "query") or "")
        if path is not None and call.result == STR and call.signature.effect is Effect.READ:
            return self._content(call, path)
        return super().answer(call)

    def _listing(self, pattern: str) -> Value:
        try:
            names = [path for path, _ in self._roots.matching(pattern).found]
        except DeviceError:
            return lift([], PROGRAM)
        if len(names) > _ELEMENTS:
            self._scale = max(self._scale, len(names) / _ELEMENTS)
            names = names[:: math.ceil(len(names) / _ELEMENTS)]
        return lift(names, PROGRAM)

    def _table(self, path: str, query: str) -> Value:
        """As many rows as a file of its size may have, if the query gives all of them."""
        try:
            count = self._roots.stat(path).size // _ROW
        except DeviceError:
            count = 0
        self._tables_guessed = True
        self._scale = max(self._scale, count / _ROWS)
        columns = selected(query)
        texts = dict.fromkeys(columns, "x" * (_ROW // 2 // max(1, len(columns))))
        return lift([texts | {"id": number} for number in range(min(count, _ROWS))], PROGRAM)

    def _content(self, call: StepCall, path: str) -> Value:
        """As much text as the file has bytes."""
        sample = super().answer(call)
        try:
            size = self._roots.stat(path).size
        except DeviceError:
            return sample
        return Scalar(_grown(str(plain(sample)), min(size, _TEXT)), sample.label)

    def _count_tokens(self, call: StepCall, factor: float) -> None:
        data = 0
        for param in call.signature.params:
            if param.role is Role.DATA and param.name in call.args:
                data += len(str(plain(completed(call.args[param.name]))))
        read = _PROMPT + data / _CHARACTERS
        low, high = _WRITTEN.get(call.op) or _filled(call.result)
        for place, tokens in enumerate((read * 0.6, read * 1.3, low, high)):
            self._tokens[place] += tokens * factor

    def result(self) -> Estimate:
        read_low, read_high, low, high = self._tokens
        steps = Counter({op: round(count) for op, count in self._made.items()})
        guessed = self._blocked or self.unseen or self._tables_guessed
        return Estimate(steps, Range(read_low, read_high), Range(low, high), guessed)


def selected(query: str) -> list[str]:
    """The names of the columns that a query gives, as far as its text says them."""
    found = re.search(r"(?is)\bselect\s+(?:distinct\s+)?(.*?)(?:\bfrom\b|$)", query)
    plain = found[1] if found else ""
    while re.search(r"\([^()]*\)", plain):
        plain = re.sub(r"\([^()]*\)", " ", plain)
    names = [re.findall(r"\w+", part) for part in plain.split(",")]
    return [words[-1] for words in names if words]


def _grown(text: str, size: int) -> str:
    """A made-up text of about so many characters: more rows of a table, more elements of a list."""
    if text.startswith("["):
        items = json.loads(text)
        return json.dumps(items * max(1, size // len(text)))
    head, _, body = text.partition("\n")
    rows = body.splitlines()
    average = max(1, len(body) // max(1, len(rows)))
    count = max(1, (size - len(head)) // average)
    return "\n".join([head, *(rows[place % len(rows)] for place in range(count))]) + "\n"


def _filled(kind: Type) -> tuple[float, float]:
    """Tokens of an answer of a type, from and to."""
    match kind:
        case Record():
            parts = [_filled(part.type) for part in kind.fields]
            names = 6 * len(parts)
            return names + sum(low for low, _ in parts), names + sum(high for _, high in parts)
        case ListOf():
            low, high = _filled(kind.item)
            return low, 10 * high
        case Maybe():
            return 1, _filled(kind.item)[1]
        case Quoted():
            low, high = _filled(kind.item)
            return low + 8, high + 60
        case Choice():
            return 2, 6
    return 3, 25
