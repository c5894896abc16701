"""Text: Python's `str` methods that are pure, and the `text` namespace.

Lengths are checked before anything is made.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Callable
from typing import Any

from edvac.core.schema import BOOL, INT, STR, ListOf, Type
from edvac.program.limits import FORMAT_WIDTH, TEXT_CHARS
from edvac.program.native import Registry, Work
from edvac.program.operate import too_large

TEXT = Registry()
STRINGS = Registry()
_put = TEXT.add

_SIMPLE: dict[str, tuple[Type, str]] = {
    "upper": (STR, "In capitals."),
    "lower": (STR, "In small letters."),
    "casefold": (STR, "For comparing without regard to capitals."),
    "capitalize": (STR, "First letter large, the rest small."),
    "title": (STR, "Every word with a capital."),
    "swapcase": (STR, "Capitals and small letters exchanged."),
    "isdigit": (BOOL, "Only digits, and some?"),
    "isdecimal": (BOOL, "Only decimal digits, and some?"),
    "isnumeric": (BOOL, "Only numeric signs, and some?"),
    "isalpha": (BOOL, "Only letters, and some?"),
    "isalnum": (BOOL, "Only letters and digits, and some?"),
    "isspace": (BOOL, "Only white space, and some?"),
    "isupper": (BOOL, "All letters large, and some?"),
    "islower": (BOOL, "All letters small, and some?"),
    "istitle": (BOOL, "Every word with a capital?"),
    "isidentifier": (BOOL, "Could it be a name in a program?"),
}


def _simple(name: str) -> Callable[..., Any]:
    def run(work: Work, self: str, /) -> Any:
        return getattr(self, name)()

    return run


for _name, (_kind, _doc) in _SIMPLE.items():
    STRINGS.add(f"str.{_name}", _doc, result=_kind)(_simple(_name))

_method = STRINGS.add


@_method("str.strip", "Without white space, or the given signs, at both ends.", result=STR)
def _strip(work: Work, self: str, signs: str | None = None, /) -> str:
    return self.strip(signs)


@_method("str.lstrip", "Without white space at the start.", result=STR)
def _lstrip(work: Work, self: str, signs: str | None = None, /) -> str:
    return self.lstrip(signs)


@_method("str.rstrip", "Without white space at the end.", result=STR)
def _rstrip(work: Work, self: str, signs: str | None = None, /) -> str:
    return self.rstrip(signs)


@_method("str.split", "Parts between separators, or between white space.", result=ListOf(STR))
def _split(work: Work, self: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    work.make(len(self) * 2)
    return self.split(sep, maxsplit)


@_method("str.rsplit", "Parts between separators, from the end.", result=ListOf(STR))
def _rsplit(work: Work, self: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    work.make(len(self) * 2)
    return self.rsplit(sep, maxsplit)


@_method("str.splitlines", "The lines.", result=ListOf(STR))
def _splitlines(work: Work, self: str, keepends: bool = False) -> list[str]:
    work.make(len(self) * 2)
    return self.splitlines(keepends)


@_method("str.partition", "What is before, the separator, what is after.")
def _partition(work: Work, self: str, sep: str, /) -> tuple[str, str, str]:
    return self.partition(sep)


@_method("str.rpartition", "The same at the last separator.")
def _rpartition(work: Work, self: str, sep: str, /) -> tuple[str, str, str]:
    return self.rpartition(sep)


@_method("str.join", "The texts with this one between them.", result=STR, consumes=True)
def _join(work: Work, self: str, texts: list[str], /) -> str:
    size = sum(len(one) for one in texts if isinstance(one, str)) + len(self) * len(texts)
    _bound(work, size)
    return self.join(texts)


@_method("str.replace", "Every old text replaced by the new one.", result=STR)
def _replace(work: Work, self: str, old: str, new: str, count: int = -1, /) -> str:
    found = self.count(old) if count < 0 else min(self.count(old), count)
    _bound(work, len(self) + found * len(new))
    return self.replace(old, new, count)


@_method("str.startswith", "Does it begin with this, or with one of a tuple?", result=BOOL)
def _startswith(work: Work, self: str, prefix: Any, /) -> bool:
    return self.startswith(prefix)


@_method("str.endswith", "Does it end with this, or with one of a tuple?", result=BOOL)
def _endswith(work: Work, self: str, suffix: Any, /) -> bool:
    return self.endswith(suffix)


@_method("str.removeprefix", "Without this at the start.", result=STR)
def _removeprefix(work: Work, self: str, prefix: str, /) -> str:
    return self.removeprefix(prefix)


@_method("str.removesuffix", "Without this at the end.", result=STR)
def _removesuffix(work: Work, self: str, suffix: str, /) -> str:
    return self.removesuffix(suffix)


@_method("str.find", "Place of the first occurrence, or -1.", result=INT)
def _find(work: Work, self: str, part: str, start: int = 0, /) -> int:
    return self.find(part, start)


@_method("str.rfind", "Place of the last occurrence, or -1.", result=INT)
def _rfind(work: Work, self: str, part: str, /) -> int:
    return self.rfind(part)


@_method("str.index", "Place of the first occurrence; fails where there is none.", result=INT)
def _index(work: Work, self: str, part: str, start: int = 0, /) -> int:
    return self.index(part, start)


@_method("str.count", "Number of occurrences.", result=INT)
def _count(work: Work, self: str, part: str, /) -> int:
    return self.count(part)


@_method("str.zfill", "Filled with zeros on the left.", result=STR)
def _zfill(work: Work, self: str, width: int, /) -> str:
    return self.zfill(_width(width))


@_method("str.ljust", "Filled on the right.", result=STR)
def _ljust(work: Work, self: str, width: int, sign: str = " ", /) -> str:
    return self.ljust(_width(width), sign)


@_method("str.rjust", "Filled on the left.", result=STR)
def _rjust(work: Work, self: str, width: int, sign: str = " ", /) -> str:
    return self.rjust(_width(width), sign)


@_method("str.center", "Filled on both sides.", result=STR)
def _center(work: Work, self: str, width: int, sign: str = " ", /) -> str:
    return self.center(_width(width), sign)


def _width(width: int) -> int:
    if width > FORMAT_WIDTH:
        raise too_large("the padding")
    return width


def _bound(work: Work, size: int) -> None:
    if size > TEXT_CHARS:
        raise too_large("this text")
    work.make(size)


# -- the text namespace


@_put(
    "text.lines",
    "The lines that are not blank, each without white space at its ends.",
    result=ListOf(STR),
)
def _lines(work: Work, text: str, /) -> list[str]:
    work.make(len(text) * 2)
    return [line.strip() for line in text.splitlines() if line.strip()]


@_put("text.words", "The words: runs of letters, digits and apostrophes.", result=ListOf(STR))
def _words(work: Work, text: str, /) -> list[str]:
    work.make(len(text) * 2)
    return re.findall(r"[\w'’]+", text)


@_put("text.normalise", "One form for comparing: Unicode composed, white space single.", result=STR)
def _normalise(work: Work, text: str, /) -> str:
    work.make(len(text))
    return " ".join(unicodedata.normalize("NFC", text).split())


@_put(
    "text.truncate", "At most `size` characters, with `mark` where something was cut.", result=STR
)
def _truncate(work: Work, text: str, size: int, mark: str = "…") -> str:
    if len(text) <= size:
        return text
    return text[: max(size - len(mark), 0)] + mark[:size]


@_put("text.between", "What stands between two texts, or None where one is missing.")
def _between(work: Work, text: str, start: str, end: str, /) -> str | None:
    _, found, rest = text.partition(start)
    inner, closed, _ = rest.partition(end)
    return inner if found and closed else None


@_put("text.dedent", "Without the indentation that all lines share.", result=STR)
def _dedent(work: Work, text: str, /) -> str:
    work.make(len(text))
    return textwrap.dedent(text)


@_put("text.indent", "Every line with this before it.", result=STR)
def _indent(work: Work, text: str, prefix: str = "    ", /) -> str:
    _bound(work, len(text) + (text.count("\n") + 1) * len(prefix))
    return textwrap.indent(text, prefix)


@_put(
    "text.chunks",
    "Pieces of at most `size` characters, cut between lines or words where it can.",
    result=ListOf(STR),
)
def _chunks(work: Work, text: str, size: int, /) -> list[str]:
    if size < 1:
        raise ValueError("a chunk has at least one character")
    work.make(len(text) * 2)
    made: list[str] = []
    at = 0
    while at < len(text):
        end = min(at + size, len(text))
        if end < len(text):
            cut = max(text.rfind("\n", at, end), text.rfind(" ", at, end))
            end = cut + 1 if cut > at else end
        made.append(text[at:end])
        at = end
    return made
