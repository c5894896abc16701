"""The parts of a line that can be looked for in other texts, and when two texts say the same.

Numbers are compared as numbers, so that 1,234.50 in a document is the 1234.5 of a table. Knows
nothing of runs.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

_NUMBER = re.compile(r"-?\d+(?:[.,'\u00a0\u202f ]\d+)*")
_PLAIN = re.compile(r"-?\d{1,40}(?:\.\d{1,40})?")
DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Needle:
    """A text to look for, on its own: not as a part of a longer word or number."""

    text: str

    def __bool__(self) -> bool:
        return bool(self.text.strip())


def row_of(path: str, text: str, line: int) -> list[str] | None:
    """The cells of the row of a table to which the line (from 1) belongs; None in another text."""
    delimiters = DELIMITERS.get(path[path.rfind(".") :].lower())
    if not delimiters:
        return None
    head = text.partition("\n")[0]
    delimiter = max(delimiters, key=head.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return next(row for row in rows if rows.line_num >= line)
    except (csv.Error, StopIteration):
        return None


def same(value: str, shown: str) -> bool:
    """Does a file that shows this show that value?"""
    if value == shown or value == shown.removeprefix("'"):
        return True
    left = _decimal(value)
    return left is not None and left == _decimal(shown)


def holds(text: str, needle: Needle) -> bool:
    """Does the text hold the needle on its own? Numbers are found however they are written."""
    wanted = needle.text.strip()
    if not wanted:
        return False
    at = text.find(wanted)
    while at >= 0:
        before, after = text[at - 1 : at] if at else "", text[at + len(wanted) :][:1]
        if not (_joined(before, wanted[0]) or _joined(wanted[-1], after)):
            return True
        at = text.find(wanted, at + 1)
    number = _decimal(wanted)
    if number is None:
        return False
    return any(number in readings(found.group()) for found in _NUMBER.finditer(text))


def readings(text: str) -> set[Decimal]:
    """What a written number may mean: with the last point or comma as the decimal sign, or with
    none."""
    digits = re.sub(r"[^\d-]", "", text)
    found = {_decimal(digits)}
    at = max(text.rfind("."), text.rfind(","))
    if at >= 0:
        found.add(_decimal(f"{re.sub(r'[^0-9-]', '', text[:at])}.{text[at + 1 :]}"))
    return {number for number in found if number is not None}


def _decimal(text: str) -> Decimal | None:
    if not _PLAIN.fullmatch(text):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _joined(left: str, right: str) -> bool:
    return left.isalnum() and right.isalnum()
