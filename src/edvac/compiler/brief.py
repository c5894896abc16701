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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from edvac.compiler.columns import read_columns

LONGEST = 8_000  # characters of a task that are looked at
_KINDS = "csv|tsv|md|txt|jsonl|json|html|xml|log|eml|mbox|pdf|docx|xlsx"
_FILE = re.compile(rf"(?<![\w/.-])[\w-]+(?:/[\w-]+)*\.(?:{_KINDS})\b")
_FOLDER = re.compile(r"(?<![\w/.-])([\w-]+(?:/[\w-]+)*)/(?![\w])")
_LINES = re.compile(
    rf"\b[Ee](?:ach|very) (?:line|row) (?:of|in) (?P<file>{_FILE.pattern}) "
    r"(?:holds?|has|contains?) (?P<words>[^.;:]*?)"
    r"(?:,? (?:which are )?separated by (?P<mark>space|tab|comma|semicolon)s?)?(?=[.;:]|$)"
)
_MARKS = {"space": " ", "tab": "\t", "comma": ",", "semicolon": ";", None: " "}
_SEVERAL_CUES = (
    r"\b(?:one|a) row (?:per|for each|for every) (\w+)",
    r"\ball (?:the )?(\w+)s (?:from|in) (?:the|all) \w+",
    r"\b(thing|task|action item|to-do)s\b",
)
_FACTS = re.compile(r"\bthe (\w+)s of (?:all |the |every |each )+(\w+)\b", re.IGNORECASE)
_WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMBER_WORDS: Final = {word: number for number, word in enumerate(_WORDS, 1)}
_BOUND = re.compile(
    r"\b(?:above|below|over|under|exceed\w*|at least|at most|(?:more|fewer|less|longer|shorter"
    rf"|older|younger|larger|smaller|higher|lower) than) ({'|'.join(NUMBER_WORDS)}|[0-9][0-9,.]*)\b"
    rf"|\b({'|'.join(NUMBER_WORDS)}|[0-9][0-9,.]*)(?: \w+)? or (?:more|fewer|less|longer|shorter)\b"
    r"|\b(?:after|before|since|until) ([0-9]{4}-[0-9]{2}-[0-9]{2})\b",
    re.IGNORECASE,
)
CHOICE: Final = re.compile(r"(?P<name>\w+) \((?P<words>(?:[\w-]+, )*[\w-]+,? or [\w-]+)\)")
_NAMES_FILES = re.compile(r"\bfile names?\b|\bnames? of (?:the |its |their )?(?:files?|notes?)\b")
_SOME = re.compile(
    rf"\*|\.(?:{_KINDS})\b|\b(?:names?|named|called|start|begin|end)|\b(?:pdf|scan|picture)s?\b"
    r"|\b(?:text|csv|markdown|json|html|xml|log|word|excel)[ -]files?\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.;:!?])\s+(?=[A-Z])")
_PART = re.compile(r"(?<=[.;!?])\s+|;\s|\s[-*]\s|\n|, and (?=write|put|list|the |of )")
_PATTERN = re.compile(r"[A-Z_-]{4,}\.\w+")  # "named YEAR_KIND.txt" is no file
_PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b")
_MARK = re.compile(r"\b[A-Z]{3,}\b")


@dataclass(frozen=True, slots=True)
class Line:
    """What a line of a text holds: words by name, and what stands between them."""

    words: tuple[str, ...]
    mark: str

    def told(self, path: str) -> str:
        """For the prompt: where each word is."""
        last = len(self.words) - 1
        places = [f"[{at}{':' if at == last else ''}] {w}" for at, w in enumerate(self.words)]
        split = "split()" if self.mark == " " else f"split({self.mark!r})"
        return f"After line.{split}, a line of {path} has {', '.join(places)}."

    def sample(self, marks: tuple[str, ...]) -> str:
        """Lines in which the words in capitals of the task stand where a level or state would."""
        levels = [*marks, "INFO"]
        rows = [
            [levels[row % len(levels)] if _LEVEL.search(w) else _word(w, row) for w in self.words]
            for row in range(2 * len(levels))
        ]
        return "\n".join(self.mark.join(row) for row in rows) + "\n"


@dataclass(frozen=True, slots=True)
class Bound:
    """A number or day that something is compared with: "more than 8 hours". `file` is the one that
    the sentence speaks of, where it speaks of one."""

    value: str
    file: str


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
    bounds: tuple[Bound, ...] = ()
    facts: tuple[str, ...] = ()  # wanted of each document besides the columns
    several: str = ""  # what one text may hold more than one of
    lines: Mapping[str, Line] = field(default_factory=dict)  # what a line holds, by file
    made: tuple[str, ...] = ()  # files that the task surely wants written
    some: bool = True  # may only some of a folder's files be meant, by their names or endings?

    @property
    def results(self) -> tuple[str, ...]:
        """Files to write, as far as it is known which ones are there."""
        return tuple(name for name in self.files if name not in self.inputs)

    def sample(self, path: str = "", columns: tuple[str, ...] = ()) -> str:
        """A made-up text for a file: of these columns, or just a few lines."""
        if path in self.lines:
            return self.lines[path].sample(self.marks)
        if path.endswith((".json", ".jsonl")) and not columns:
            return "made up, and so no JSON"  # of any shape that a program might rightly expect
        if path.endswith((".json", ".jsonl")):
            objects = [dict(zip(columns, _cells(columns, row), strict=True)) for row in range(3)]
            if path.endswith(".json"):
                return json.dumps(objects)
            return "".join(f"{json.dumps(one)}\n" for one in objects)
        if columns:
            rows = [",".join(map(str, _cells(columns, row))) for row in range(3)]
            return "\n".join([",".join(columns), *rows]) + "\n"
        marks = " ".join(self.marks)
        about = f"{path} {marks}".strip()
        lines = [f"first line of a text {about},10", f"second line of a text {about},20"]
        return "\n".join(["name,amount", *lines]) + "\n"

    def line(self) -> str:
        """For the prompt; empty where the task says nothing of the kind."""
        said = [f"{name} has the columns {', '.join(own)}" for name, own in self.columns.items()]
        told = f"Columns: {'; '.join(said)}." if said else ""
        if self.facts:
            told += f" Wanted of each text, too: {', '.join(self.facts)}."
        if self.several:
            told += f" One text may hold several {self.several}s: give llm.extract list[...]."
        return " ".join([told, *(one.told(name) for name, one in self.lines.items())]).strip()


@functools.lru_cache(maxsize=64)
def read_brief(task: str) -> Brief:
    """What is said in the first part of the task; nobody says his columns after thousands of
    words."""
    task = task[:LONGEST]
    named = dict.fromkeys(_FILE.findall(task))
    files = tuple(name for name in named if not _PATTERN.fullmatch(name))
    folders = tuple(
        dict.fromkeys(
            found
            for found in _FOLDER.findall(task)
            if not any(_PLACEHOLDER.fullmatch(part) for part in found.split("/"))
        )
    )
    columns = read_columns(task)
    lines = {
        found["file"]: Line(words, _MARKS[found["mark"]])
        for found in _LINES.finditer(task)
        if len(words := _parts(found["words"])) > 1
    }
    spelled = " ".join((*files, *folders))
    marks = [mark for mark in _MARK.findall(task) if mark not in spelled]
    inputs = _inputs(task, files, folders)
    by_name = _NAMES_FILES.search(task) is not None
    marks = list(dict.fromkeys(marks))
    bounds = tuple(_bounds(task, inputs))
    facts, several = _facts(task, folders, columns), _several(task, folders)
    made = tuple(
        name for name in files if name not in inputs and _MAKING.search(task[: task.find(name)])
    )
    some = _SOME.search(_FILE.sub("", task)) is not None
    return Brief(
        files,
        folders,
        columns,
        inputs,
        by_name,
        tuple(marks),
        bounds,
        facts,
        several,
        lines,
        made,
        some,
    )


def words_about(task: str, name: str) -> str:
    """The part of the task in which a file is named first; empty where it is not."""
    parts = [part.strip(" -*") for part in _PART.split(task[:LONGEST])]
    return re.sub(r"\s+", " ", next((part for part in parts if name in part), ""))


def _bounds(task: str, inputs: tuple[str, ...]) -> Iterator[Bound]:
    for sentence in _SENTENCE.split(task):
        named = set(_FILE.findall(sentence))
        results = [name for name in named if name not in inputs]
        for value in bounds_in(sentence):
            yield Bound(value, results[0] if len(results) == 1 else "")


def bounds_in(text: str) -> list[str]:
    """Numbers and days that something is compared with, in digits."""
    found = []
    for over, least, day in _BOUND.findall(text):
        number = over or least
        value = str(NUMBER_WORDS.get(number.casefold(), number)).replace(",", "").rstrip(".")
        found.append(day or value)
    return found


def choices_in(task: str) -> list[tuple[str, tuple[str, ...]]]:
    """Of which words something is one: "topic (order, complaint or question)"."""
    found = CHOICE.finditer(task[:LONGEST])
    return [(one["name"], tuple(re.split(r",? or |, ", one["words"]))) for one in found]


def _facts(
    task: str, folders: tuple[str, ...], columns: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """ "The numbers of all bills": something to find out of each bill, where no column says so."""
    documents = {folder.rpartition("/")[2] for folder in folders}
    documents |= {f"{found}s" for found in re.findall(r"(\w+?)s? in [\w-]+/", task)}
    named = {name for own in columns.values() for name in own} | {"name", "row", "line", "path"}
    found = (fact.casefold() for fact, of in _FACTS.findall(task) if of.casefold() in documents)
    return tuple(dict.fromkeys(fact for fact in found if not {fact, f"{fact}s"} & named))


def _several(task: str, folders: tuple[str, ...]) -> str:
    """What the task wants all of, though it is no document itself; only of texts in folders."""
    documents = {"document", "file", "text", "page", *(name.rstrip("s") for name in folders)}
    documents |= {found.casefold() for found in re.findall(r"(\w+?)s? in [\w-]+/", task)}
    for cue in _SEVERAL_CUES if folders else ():
        for found in re.finditer(cue, task, re.IGNORECASE):
            if found.group(1).casefold() not in documents:
                return found.group(1).casefold()
    return ""


def _inputs(task: str, files: tuple[str, ...], folders: tuple[str, ...]) -> tuple[str, ...]:
    """Files of which the task speaks as of ones that it starts from."""
    first = min((task.find(name) for name in (*files, *folders)), default=0)
    found: list[str] = []
    others = bool(folders)  # is there something before it that is no such file?
    for name in sorted(files, key=task.find):
        at = task.find(name)
        before, behind = task[:at], task[at + len(name) :]
        taken = _TAKEN.search(before) is not None or _TAKEN_AFTER.match(behind) is not None
        beside = any(re.search(_BESIDE.format(re.escape(one)), before) for one in found)
        asked = _MADE.search(before) is not None
        told = not others and not asked and _TOLD.match(behind) is not None
        inside = not others and _IN.search(before) is not None and _INSIDE.match(behind) is not None
        begins = at == first and len(files) + len(folders) > 1 and name.endswith(_DATA)
        meant = _PLACEHOLDER.search(name) is None and _TO_BE.match(behind) is None
        if meant and (taken or beside or told or inside or (begins and not asked)):
            found.append(name)
        else:
            others = True
    return tuple(name for name in files if name in found)


_DATA = (".csv", ".tsv", ".json", ".jsonl", ".log")
_TAKEN = re.compile(
    r"\b(?:from|out of|split|through|read|take|turn|join|compare|hold|against|source is|sources?:?"
    r"|terms of|office has|I have|columns [\w, ]+ of"
    r"|(?:each|every|all|the|of)(?: \w+)? (?:rows?|lines?|content|objects?) (?:of|in|from)"
    r"|(?:lines?|rows?|days?|half|column \w+|each|all) of|tables,|lists,|stands? in)"
    r" (?:all |the |both )?$",
    re.IGNORECASE,
)
_TAKEN_AFTER = re.compile(r" apart\b")
_BESIDE = r"{}(?: \([^()]*\))?,? (?:and|with|against|,) $"  # the other one of two
_TOLD = re.compile(
    r",? (?:which )?(?:has|have|holds?|contains?|is an?|are|keeps?|says?)\b|, whose |; in each line"
)
_IN = re.compile(r"(?:^|[.!?:] )(?:[Ii]n |[\w ]+ (?:are|stand) in |[\w' ]+ \w+book )$")
_INSIDE = re.compile(r",? (?:there |we |the |each |which |\()")
_TO_BE = re.compile(r",? (?:is to be|shall|should|must|will|gets?|for|please)\b")
_MADE = re.compile(
    r"\b(?:to|into|as|make|write|save|need|wants?|called|give me|publish|create|plan,|table) $",
    re.IGNORECASE,
)
_MAKING = re.compile(
    r"\b(?:to|into|as|make|write|save|need|wants?|table|file|called|create|publish) $",
    re.IGNORECASE,
)


NOTHING_SAID: Final = Brief((), (), {})


def is_named(name: str, path: str) -> bool:
    """Is it the file that a task calls so? ``people/NAME.csv`` stands for all of its kind."""
    return fnmatch.fnmatchcase(path, _PLACEHOLDER.sub("*", name))


def placeholder(path: str) -> str:
    """The word in capitals that stands for each of something, if the path has one."""
    found = _PLACEHOLDER.search(path)
    return found.group() if found else ""


def _cells(columns: tuple[str, ...], row: int) -> list[float | int | str]:
    """A row of a table, whose first column mostly is what it is called by."""
    return [_cell(name, row, is_key=place == 0) for place, name in enumerate(columns)]


def _cell(column: str, row: int, *, is_key: bool = False) -> float | int | str:
    """Something that could stand in such a column; different in each row of a key."""
    if DAYLIKE.search(column):
        return f"2026-01-{15 + row}"
    whole = (2, 45, 6000)[row % 3]  # so far apart that a bound of the task lies between them
    if COUNT.search(column):
        return whole
    return whole + 0.5 if AMOUNT.search(column) else f"{column} {row if is_key else row % 2}"


def _word(name: str, row: int) -> str:
    """A word for a line: it must not fall apart where the line is split."""
    if _TIME.search(name):
        return f"12:0{row % 10}:00"
    return str(_cell(name, row)).replace(" ", "-")


def _parts(text: str) -> tuple[str, ...]:
    """Names of an enumeration, without articles and what stands in parentheses."""
    bare = re.sub(r" \([^()]*\)", "", text)
    names = [re.sub(r"^(?:an?|the) ", "", one.strip()) for one in re.split(r",? and |, ", bare)]
    return tuple(name for name in names if name)


def _one_of(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:\b|_)(?:{words})(?:\b|_)", re.IGNORECASE)


# How the amounts are recognised that `_cell` makes up.
FRACTION: Final = re.compile(r"\b(?:2|45|6000)\.5\b")
_TIME = re.compile(r"\btime\b|\bhour\b", re.IGNORECASE)
_LEVEL = re.compile(r"level|severity|status|state|kind", re.IGNORECASE)
DAYLIKE: Final = re.compile(r"date|day|due|until|since|when|deadline", re.IGNORECASE)
COUNT: Final = _one_of("count|number|age|stars|pieces|year|visits|quantity|n|id|points|units|stock")
AMOUNT: Final = _one_of(
    "amount|price|sum|total|hours|minutes|score|value|cost|rate|size|weight|rating|percent|income"
    "|spent|fee|km"
)


NAMES_SOMETHING: Final = re.compile(r"\b(?:id|number|year)\b")


def is_amount(name: str) -> bool:
    """Does a column of this name hold numbers to reckon with?"""
    counted = COUNT.search(name) is not None and NAMES_SOMETHING.search(name) is None
    return counted or AMOUNT.search(name) is not None


def is_day(name: str) -> bool:
    return DAYLIKE.search(name) is not None
