"""Dates, paths and numbers: the `date`, `path` and `math` namespaces.

Paths are texts; nothing here looks at a disk. Dates are read, never taken from a clock.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import math
import posixpath
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from edvac.core.errors import OperandError
from edvac.core.schema import BOOL, DATE, FLOAT, INT, STR
from edvac.program.data import shown
from edvac.program.native import Registry, Work
from edvac.program.operate import bound_written

PLACES = Registry()
_put = PLACES.add
MONTHS = {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
    )
}


@_put(
    "date.parse",
    "A date of text: 2026-03-04, 4 March 2026, March 4, 2026; for 04/03/2026 say day_first.",
    result=DATE,
)
def _parse(work: Work, text: str, day_first: bool | None = None) -> dt.date:
    bare = text.strip()
    found = re.fullmatch(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})", bare[:20])
    if found:
        return dt.date(int(found[1]), int(found[2]), int(found[3]))
    found = re.fullmatch(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})", bare[:20])
    if found:
        first, second, year = int(found[1]), int(found[2]), int(found[3])
        if day_first is None and first <= 12 and second <= 12 and first != second:
            raise OperandError(
                "date_ambiguous",
                f"{shown(bare)} may be two dates",
                "Day and month cannot be told apart.",
                "Write date.parse(text, day_first=True) or False.",
            )
        day, month = (first, second) if day_first or first > 12 else (second, first)
        return dt.date(year, month, day)
    return _named(bare)


def _named(text: str) -> dt.date:
    words = re.findall(r"[A-Za-z]+|\d+", text[:40])
    months = [MONTHS[w[:3].lower()] for w in words if w[:3].lower() in MONTHS and not w.isdigit()]
    numbers = [int(word) for word in words if word.isdigit()]
    years = [number for number in numbers if number > 31]
    days = [number for number in numbers if number <= 31]
    if len(months) != 1 or len(years) != 1 or len(days) != 1:
        raise OperandError(
            "date_unreadable",
            f"{shown(text)} is not a date that can be read",
            "",
            "Write it as 2026-03-04.",
        )
    return dt.date(years[0], months[0], days[0])


@_put("date.iso", "The date as 2026-03-04.", result=STR)
def _iso(work: Work, day: dt.date, /) -> str:
    return day.isoformat()


@_put("date.of", "The date of year, month and day.", result=DATE)
def _of(work: Work, year: int, month: int, day: int, /) -> dt.date:
    return dt.date(year, month, day)


@_put(
    "date.add",
    "The date some days, months or years later; the last day of a month stays inside it.",
    result=DATE,
)
def _add(work: Work, day: dt.date, days: int = 0, months: int = 0, years: int = 0) -> dt.date:
    at = day.year * 12 + day.month - 1 + months + years * 12
    year, month = divmod(at, 12)
    last = (dt.date(year + month // 11, (month + 1) % 12 + 1, 1) - dt.timedelta(days=1)).day
    return dt.date(year, month + 1, min(day.day, last)) + dt.timedelta(days=days)


@_put("date.days", "Number of days from one date to another.", result=INT)
def _days(work: Work, start: dt.date, end: dt.date, /) -> int:
    return (end - start).days


for _name, _doc in {
    "isoformat": "As 2026-03-04.",
    "weekday": "0 is Monday.",
    "isoweekday": "1 is Monday.",
}.items():

    def _method(work: Work, self: dt.date, /, name: str = _name) -> Any:
        return getattr(self, name)()

    _put(f"date:{_name}", _doc, result=STR if _name == "isoformat" else INT)(_method)


@_put("date:strftime", "The date in a form like %d.%m.%Y.", result=STR)
def _strftime(work: Work, self: dt.date, form: str, /) -> str:
    known = {
        "Y": f"{self.year:04}",
        "m": f"{self.month:02}",
        "d": f"{self.day:02}",
        "y": f"{self.year % 100:02}",
        "j": f"{self.timetuple().tm_yday:03}",
        "%": "%",
        "B": _MONTH_NAMES[self.month - 1],
        "b": _MONTH_NAMES[self.month - 1][:3],
        "A": _DAY_NAMES[self.weekday()],
        "a": _DAY_NAMES[self.weekday()][:3],
    }
    made = re.sub(r"%(.)", lambda sign: known.get(sign[1], ""), form[:200])
    if any(sign not in known for sign in re.findall(r"%(.)", form[:200])):
        raise ValueError("this form has a part that is not known; use %Y %m %d %y %j %B %b %A %a")
    return made


_MONTH_NAMES = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAY_NAMES = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


# -- paths


def inside(path: str) -> str:
    """The path in one form; refuses those that climb out.

    Raises:
        OperandError: a part is ``..``, the path is absolute or holds a NUL.
    """
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise OperandError(
            "path_escapes",
            f"{shown(path)} leads out of the folder",
            "A path here stays inside the roots that were granted.",
            "Use a path without a leading / and without `..`.",
        )
    return posixpath.normpath(path) if path else path


def _put_path(name: str, doc: str, run: Callable[[str], str]) -> None:
    def call(work: Work, path: str, /) -> str:
        return run(inside(path))

    _put(f"path.{name}", doc, result=STR)(call)


_put_path("name", "Last part of a path.", posixpath.basename)
_put_path(
    "stem",
    "Last part without its suffix.",
    lambda path: posixpath.splitext(posixpath.basename(path))[0],
)
_put_path(
    "suffix", "Suffix of the last part, with its point.", lambda path: posixpath.splitext(path)[1]
)
_put_path("parent", "Path without its last part.", posixpath.dirname)


@_put("path.join", "The parts as one path.", result=STR)
def _join(work: Work, *parts: str) -> str:
    return inside("/".join(inside(part) for part in parts if part))


@_put("path.with_suffix", "The path with another suffix.", result=STR)
def _with_suffix(work: Work, path: str, suffix: str, /) -> str:
    if suffix and not re.fullmatch(r"\.[\w.-]+", suffix[:50]):
        raise ValueError(f'{shown(suffix)} is not a suffix; write for example ".md"')
    return posixpath.splitext(inside(path))[0] + suffix


@_put("path.matches", "Does the path match a pattern with * and ?", result=BOOL)
def _matches(work: Work, path: str, pattern: str, /) -> bool:
    if pattern.count("*") > 8:
        raise ValueError("a path pattern has at most 8 stars")
    return fnmatch.fnmatchcase(inside(path), pattern)


# -- numbers

_MATH: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "sqrt": (math.sqrt, FLOAT, "Square root."),
    "floor": (math.floor, INT, "Largest whole number not above."),
    "ceil": (math.ceil, INT, "Smallest whole number not below."),
    "trunc": (math.trunc, INT, "Whole part."),
    "log": (math.log, FLOAT, "Natural logarithm, or to a base."),
    "log2": (math.log2, FLOAT, "Logarithm to base 2."),
    "log10": (math.log10, FLOAT, "Logarithm to base 10."),
    "exp": (math.exp, FLOAT, "e to the power."),
    "hypot": (math.hypot, FLOAT, "Length of the vector."),
    "isclose": (math.isclose, BOOL, "Nearly equal?"),
    "isnan": (math.isnan, BOOL, "Not a number?"),
    "isfinite": (math.isfinite, BOOL, "Neither infinite nor NaN?"),
    "gcd": (math.gcd, INT, "Greatest common divisor."),
    "sin": (math.sin, FLOAT, "Sine."),
    "cos": (math.cos, FLOAT, "Cosine."),
    "tan": (math.tan, FLOAT, "Tangent."),
    "atan2": (math.atan2, FLOAT, "Angle of the point."),
    "radians": (math.radians, FLOAT, "Degrees as radians."),
    "degrees": (math.degrees, FLOAT, "Radians as degrees."),
}


def _put_math(name: str, run: Callable[..., Any], result: Any, doc: str) -> None:
    def call(work: Work, *numbers: Any) -> Any:
        for number in numbers:
            bound_written(number)
        return run(*numbers)

    _put(f"math.{name}", doc, result=result)(call)


for _key, (_run, _kind, _text) in _MATH.items():
    _put_math(_key, _run, _kind, _text)


@_put("math.mean", "Mean of the numbers; decimals stay decimals.", consumes=True)
def _mean(work: Work, numbers: list[Any], /) -> Any:
    if not numbers:
        raise ValueError("there is no mean of nothing")
    work.spend(len(numbers))
    return sum(numbers) / len(numbers)


@_put("math.median", "Middle of the numbers in order.", consumes=True)
def _median(work: Work, numbers: list[Any], /) -> Any:
    ranked = sorted(numbers)
    if not ranked:
        raise ValueError("there is no median of nothing")
    half = len(ranked) // 2
    return ranked[half] if len(ranked) % 2 else (ranked[half - 1] + ranked[half]) / 2


@_put("Decimal:quantize", "Rounded, half to even, to the places of another decimal.")
def _quantize(work: Work, self: Decimal, exp: Decimal, /) -> Decimal:
    return self.quantize(exp)
