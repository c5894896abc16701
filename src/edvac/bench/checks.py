"""Checks on the files that a run has written.

A check looks at what a user would look at: the rows of a table whatever the order of its columns, a
number however it is spelt, the words of a text. What the task left open is not held against a
program: further columns, the order of rows where none was asked for, capitals.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

Check = Callable[[Mapping[str, str]], list[str]]

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")


def read_check(spec: Mapping[str, Any]) -> Check:
    """A check as a task's file declares it; its first key says what kind it is.

    Raises:
        ValueError: there is no such check, or it has an unknown setting.
    """
    kinds: dict[str, Callable[..., Check]] = {
        "table": _table,
        "text": _text,
        "lines": _lines,
        "numbers": _numbers,
        "files": _files,
    }
    settings = dict(spec)
    for kind, make in kinds.items():
        if kind in settings:
            return make(settings.pop(kind), **settings)
    raise ValueError(f"no such check: {sorted(spec)}")


def _missing(files: Mapping[str, str], path: str) -> list[str]:
    near = [found for found in files if found.rpartition("/")[2] == path.rpartition("/")[2]]
    return [f"{path} is missing" + (f" ({near[0]} is there)" if near else "")]


# -- tables --------------------------------------------------------------------------------------


def _table(
    path: str,
    *,
    rows: str,
    ordered: bool = False,
    ordered_by: str = "",
    digits: int = 6,
    near: int = 0,
    unsigned: bool = False,
    named: bool = True,
) -> Check:
    """The wanted columns hold the wanted rows.

    Args:
        ordered: in this order; `ordered_by` only this column's values have to be in it.
        digits: places after the point that are compared.
        near: how far a whole number may be off.
        unsigned: a number and its negative are the same.
        named: where the task leaves open what columns are called, their places count.
    """

    def cell(text: str) -> str:
        return _cell(text, digits, unsigned)

    columns, wanted = _rows(rows, cell)
    names = [_name(column) for column in columns]

    def check(files: Mapping[str, str]) -> list[str]:
        if path not in files:
            return _missing(files, path)
        try:
            header, found = _rows(files[path], cell)
        except csv.Error as error:
            return [f"{path} is not CSV: {error}"]
        called = header if named else columns[: len(header)]
        places = {_name(column): place for place, column in enumerate(called)}
        absent = [c for c, name in zip(columns, names, strict=True) if name not in places]
        if absent:
            return [f"{path} has no column {', '.join(absent)} but {', '.join(header) or 'none'}"]
        taken = [tuple(row[places[name]] for name in names) for row in found]
        if ordered:
            return [] if _same(taken, wanted, near) else [_difference(path, taken, wanted)]
        if not _same(sorted(taken), sorted(wanted), near):
            return [_difference(path, taken, wanted)]
        if ordered_by:
            at = columns.index(ordered_by)
            if [row[at] for row in taken] != [row[at] for row in wanted]:
                return [f"{path} is not in the order of {ordered_by}"]
        return []

    return check


def _rows(text: str, cell: Callable[[str], str]) -> tuple[list[str], list[tuple[str, ...]]]:
    lines = [row for row in csv.reader(io.StringIO(text.strip())) if row]
    if not lines:
        return [], []
    width = len(lines[0])
    padded = [row + [""] * (width - len(row)) for row in lines[1:]]
    return lines[0], [tuple(cell(text) for text in row) for row in padded]


def _name(column: str) -> str:
    return re.sub(r"[\W_]+", "", column).casefold()


def _cell(text: str, digits: int, unsigned: bool) -> str:
    plain = " ".join(text.split()).casefold()
    if plain in ("none", "null", "n/a"):
        return ""
    if plain in ("yes", "no"):
        return "true" if plain == "yes" else "false"
    try:
        number = Decimal(plain.replace(",", "")).quantize(Decimal(1).scaleb(-digits)).normalize()
    except InvalidOperation:
        return plain
    return f"{abs(number) if unsigned else number + 0:f}"


def _same(left: list[tuple[str, ...]], right: list[tuple[str, ...]], near: int) -> bool:
    if not near:
        return left == right
    return len(left) == len(right) and all(
        a == b or (a.isdigit() and b.isdigit() and abs(int(a) - int(b)) <= near)
        for one, other in zip(left, right, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def _difference(path: str, found: list[tuple[str, ...]], wanted: list[tuple[str, ...]]) -> str:
    have, want = Counter(found), Counter(wanted)
    parts = [f"without {_shown(row)}" for row in want - have]
    parts += [f"with {_shown(row)}" for row in have - want]
    return f"{path}: {'; '.join(parts[:4]) or 'wrong order'}"


def _shown(row: tuple[str, ...]) -> str:
    return json.dumps(row, ensure_ascii=False)


# -- texts and files -----------------------------------------------------------------------------


def _text(path: str, *, has: list[str], lacks: list[str] | None = None) -> Check:
    """These texts occur, those do not; capitals do not count."""

    def check(files: Mapping[str, str]) -> list[str]:
        if path not in files:
            return _missing(files, path)
        text = " ".join(files[path].split()).casefold()
        problems = [f"{path} does not say {one!r}" for one in has if one.casefold() not in text]
        return problems + [f"{path} says {one!r}" for one in lacks or [] if one.casefold() in text]

    return check


def _lines(path: str, *, are: list[str], sort: bool = False) -> Check:
    """These are the lines that are not blank, list marks aside; with `sort`, in any order."""

    def form(lines: list[str]) -> list[str]:
        plain = [" ".join(_MARK.sub("", line).split()).casefold() for line in lines]
        found = [line for line in plain if line]
        return sorted(found) if sort else found

    def check(files: Mapping[str, str]) -> list[str]:
        if path not in files:
            return _missing(files, path)
        found = form(files[path].splitlines())
        return [] if found == form(are) else [f"{path} holds {found[:6]}"]

    return check


def _numbers(path: str, *, are: list[str]) -> Check:
    """These are the numbers in the text, however they are spelt."""
    wanted = [Decimal(one) for one in are]

    def check(files: Mapping[str, str]) -> list[str]:
        if path not in files:
            return _missing(files, path)
        found = [Decimal(one.replace(",", "")) for one in _NUMBER.findall(files[path])]
        return [] if found == wanted else [f"{path} holds the numbers {list(map(str, found))[:6]}"]

    return check


def _files(pattern: str, *, names: list[str]) -> Check:
    """Exactly these files match the pattern."""

    def check(files: Mapping[str, str]) -> list[str]:
        found = {path for path in files if fnmatch.fnmatchcase(path, pattern)}
        problems = [f"{name} is missing" for name in names if name not in found]
        return problems + [f"{name} is too much" for name in sorted(found - set(names))]

    return check
