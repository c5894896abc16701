"""What a task says by itself, read by code: its files and folders, the columns of its tables.

Only what is said plainly is taken ("totals.csv with the columns vendor and total"). It is shown to
the model in a line of its own, given to the rehearsal as the shape of the files that the program
will meet, and held against the plan in the review.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LONGEST = 8_000  # characters of a task that are looked at
_KINDS = "csv|tsv|md|txt|json|html|xml|log|eml|mbox|pdf|docx|xlsx"
_FILE = re.compile(rf"(?<![\w/.-])[\w-]+(?:/[\w-]+)*\.(?:{_KINDS})\b")
_FOLDER = re.compile(r"(?<![\w/.-])([\w-]+(?:/[\w-]+)*)/(?![\w])")
_ITEM = r"[`\"']?[A-Za-z_][\w-]*[`\"']?(?: \([^()]*\))?"
_SEVERAL = rf"(?:{_ITEM}(?:, {_ITEM})*,? and {_ITEM}|{_ITEM}(?:, {_ITEM})+)"
_LIST = rf"(?:{_SEVERAL}|{_ITEM})"
_COLUMNS = re.compile(rf"\b(?:columns?|fields?)(?: are)?:? ({_LIST})", re.IGNORECASE)
_OBJECTS = re.compile(rf"\b(?:objects?|entries|records) (?:with|of) ({_LIST})")
_HAS = re.compile(rf"\.(?:{_KINDS})\b has ({_LIST})")
_WRITE = re.compile(
    rf"\b(?:write|put|note|list|save) ({_SEVERAL}) (?:of|for|to|in|into)\b", re.IGNORECASE
)
_NAMES_FILES = re.compile(r"\bfile names?\b|\bnames? of (?:the |its |their )?(?:files?|notes?)\b")
_NO_NAMES = frozenset(
    {"the", "a", "an", "all", "its", "their", "each", "every", "this", "these", "which"}
    | {"in", "of", "from", "to", "with", "that", "as", "for", "are", "is", "by", "on"}
    | {"matter", "must", "should"}
)
_SENTENCE = re.compile(r"(?<=[.;:!?])\s+(?=[A-Z])")
_PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b")
_MARK = re.compile(r"\b[A-Z]{3,}\b")


@dataclass(frozen=True, slots=True)
class Brief:
    """Attributes:
    files, folders: as the task spells them, in its order; folders without the last slash.
    columns: of a table (or the fields of the objects in a JSON file), by file.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    inputs: tuple[str, ...] = ()  # files that the task describes as there
    names_files: bool = False  # does it ask for names of files, rather than paths?
    marks: tuple[str, ...] = ()  # words in capitals, such as ERROR: likely to stand in the files

    def sample(self, path: str = "", columns: tuple[str, ...] = ()) -> str:
        """A made-up text for a file: of these columns, or just a few lines."""
        if path.endswith(".json"):
            return json.dumps([{name: _cell(name, row) for name in columns} for row in range(3)])
        if columns:
            rows = [",".join(str(_cell(name, row)) for name in columns) for row in range(3)]
            return "\n".join([",".join(columns), *rows]) + "\n"
        marks = " ".join(self.marks)
        about = f"{path} {marks}".strip()
        lines = [f"first line of a text {about},10", f"second line of a text {about},20"]
        return "\n".join(["name,amount", *lines]) + "\n"

    def line(self) -> str:
        """For the prompt; empty where the task says nothing of the kind."""
        said = [f"{name} has the columns {', '.join(own)}" for name, own in self.columns.items()]
        return f"Columns: {'; '.join(said)}." if said else ""


@functools.lru_cache(maxsize=64)
def read_brief(task: str) -> Brief:
    """What is said in the first part of the task; nobody says his columns after thousands of
    words."""
    task = task[:LONGEST]
    files = tuple(dict.fromkeys(_FILE.findall(task)))
    folders = tuple(
        dict.fromkeys(
            found
            for found in _FOLDER.findall(task)
            if not any(_PLACEHOLDER.fullmatch(part) for part in found.split("/"))
        )
    )
    columns: dict[str, tuple[str, ...]] = {}
    for sentence in _SENTENCE.split(task):
        for pattern in (_COLUMNS, _OBJECTS, _HAS, _WRITE):
            for found in pattern.finditer(sentence):
                name = _table_of(sentence, found, after=pattern is _WRITE)
                names = _names(found.group(1))
                if name and names and name not in columns:
                    columns[name] = names
    spelled = " ".join((*files, *folders))
    marks = [mark for mark in _MARK.findall(task) if mark not in spelled]
    inputs = tuple(name for name in files if _is_there(name, task))
    by_name = _NAMES_FILES.search(task) is not None
    return Brief(files, folders, columns, inputs, by_name, tuple(dict.fromkeys(marks)))


def _is_there(name: str, task: str) -> bool:
    """Does the task speak of the file as of one that it starts from?"""
    spelled = re.escape(name)
    told = rf"{spelled},? (?:has|have|holds?|contains?|is an?|are)\b"
    taken = (
        rf"(?:\bfrom|\bsplit|\bread|\bthrough|\b(?:rows?|lines?|content) (?:of|in|from)) {spelled}"
    )
    return re.search(f"{told}|{taken}", task, re.IGNORECASE) is not None


NOTHING_SAID: Final = Brief((), (), {})


def is_named(name: str, path: str) -> bool:
    """Is it the file that a task calls so? ``people/NAME.csv`` stands for all of its kind."""
    return fnmatch.fnmatchcase(path, _PLACEHOLDER.sub("*", name))


def placeholder(path: str) -> str:
    """The word in capitals that stands for each of something, if the path has one."""
    found = _PLACEHOLDER.search(path)
    return found.group() if found else ""


def _cell(column: str, row: int) -> float | int | str:
    """Something that could stand in such a column."""
    if _DAY.search(column):
        return f"2026-01-{15 + row}"
    whole = (2, 45, 6000)[row % 3]  # so far apart that a bound of the task lies between them
    if _COUNT.search(column):
        return whole
    return whole + 0.5 if _AMOUNT.search(column) else f"{column} {row % 2}"


def _one_of(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:\b|_)(?:{words})(?:\b|_)", re.IGNORECASE)


# How the amounts are recognised that `_cell` makes up.
FRACTION: Final = re.compile(r"\b(?:2|45|6000)\.5\b")
_DAY = re.compile(r"date|day|due|until|since|when|deadline", re.IGNORECASE)
_COUNT = _one_of("count|number|age|stars|pieces|year|visits|quantity|n|id|points|units|stock")
_AMOUNT = _one_of(
    "amount|price|sum|total|hours|minutes|score|value|cost|rate|size|weight|rating|percent|income"
    "|spent|fee|km"
)


def _table_of(sentence: str, found: re.Match[str], *, after: bool) -> str:
    """The table that a list of columns belongs to: the last one before it, or the next one."""
    tables = [one for one in _FILE.finditer(sentence) if one.group().endswith(_TABLES)]
    before = [one.group() for one in tables if one.start() < found.start(1)]
    behind = [one.group() for one in tables if one.start() > found.end(1)]
    if after:
        return behind[0] if behind else ""
    return (before[-1:] or behind[:1] or [""])[0]


_TABLES = (".csv", ".tsv", ".json")


def _names(text: str) -> tuple[str, ...]:
    bare = re.sub(r" \([^()]*\)", "", text)
    names = [name.strip("`\"' ") for name in re.split(r",? and |, ", bare)]
    return () if _NO_NAMES & set(names) or not all(names) else tuple(names)
