"""What a task asks for, by words that leave no doubt, held against the calls that do it."""

from __future__ import annotations

import re

from edvac.compiler.brief import choices_in, is_named, read_brief, words_about
from edvac.compiler.unsaid import unmeant
from edvac.core.errors import ProgramError
from edvac.core.schema import BOOL, DATE, STR, Choice, ListOf, Maybe, Record
from edvac.program import Program

_DECIDES = re.compile(
    r"\bwhether\b|\bwhich (?:of the )?\w+ (?:in [\w/]+ )?(?:are|is|have|has|may|can|must|need)\b"
    r"|\b(?:who|that) (?:may|can|must)\b|\bstill (?:open|owe|unpaid)\w*\b|\bnot yet\b|\bunless\b"
    r"|\b(?:is|are) (?:anything|any|there any)\b",
    re.IGNORECASE,
)
# What the task says of a file, what has to be in the program then, and how it is written.
_WORK = [
    (
        re.compile(
            r"\bhow (?:many|often) (\w+)|\b(?:the|and) number of (\w+)|\bcount the (\w+)", re.I
        ),
        re.compile(r"count\(|len\(|tally\(|sum|\+=|: int|: Decimal|Decimal\(|int\("),
        "counted",
        "Write group(rows, by=[...], n=count()), or len(rows).",
    ),
    (
        re.compile(r"\badd(?:s|ed)? (?:them |it )?up\b|\bsums? of\b|\baltogether\b", re.I),
        re.compile(r"sum\(|sum_of\(|total\(|\+=|count\(|len\("),
        "added up",
        'Write sum([...]), or group(rows, by=[...], total=sum_of("x")).',
    ),
    (
        re.compile(r"\b(?:each|every)(?: \w+)? once\b|\bnobody twice\b|\bno duplicates\b", re.I),
        re.compile(r"unique\(|group\(|tally\(|not in "),
        "kept once",
        "Write unique([...]).",
    ),
    (
        re.compile(r"\baverage\b|\bmean\b|\bmeans\b", re.I),
        re.compile(r"mean|/ ?len\("),
        "averaged",
        'Write math.mean([...]), or group(rows, by=[...], x=mean_of("x")).',
    ),
    (
        re.compile(r"\bsummari[sz]e|\btranslat|\bapolog|\binvitation\b", re.I),
        re.compile(r"llm\.write"),
        "written by a model",
        'Write llm.write("Instruction", text).',
    ),
]
# What a task says, what a program has then, and how that is written.
_ASKED = [
    (
        re.compile(r"\bcop(?:y|ied|ies)\b(?! (?:all |the )?(?:\w+ )?lines)", re.I),
        re.compile(r"files\.copy\("),
        'Write files.copy(p, f"folder/{path.name(p)}").',
    ),
    (
        re.compile(r"\b(?:is|are|be) moved\b|\bmove\b", re.I),
        re.compile(r"files\.move\("),
        'Write files.move(p, f"folder/{path.name(p)}").',
    ),
    (
        re.compile(
            r"\btranslat|\bsummari[sz]|\bsummar(?:y|ies) (?:of|about)\b"
            r"|\b(?:writ\w+|give|sends?|gets?|short|polite|friendly|thank-you|deserves?)"
            r" (?:\w+ |to each of \w+ |-)?(?:\w+ )?"
            r"(?:letter|reply|apology|invitation|answer|warning|reminder)",
            re.I,
        ),
        re.compile(r"llm\.write\("),
        'Write llm.write("Instruction", text).',
    ),
    (
        re.compile(r"\b(?:per|each|every|by) month\b", re.I),
        re.compile(r"month|\[:7\]"),
        "A month is the first seven letters of a day: str(day)[:7].",
    ),
]


def refuse_undone(program: Program, task: str, *, whole: bool) -> None:
    """
    Args:
        whole: is nothing to follow?

    Raises:
        ProgramError: `plan_unmeant`, or `plan_incomplete` of a whole program.
    """
    _refuse_open_choices(program, task)
    _refuse_undecided(program, task)
    _refuse_undone(program, task)
    for cue, done, fix in _ASKED if whole else ():
        said = cue.search(task)
        if said is not None and done.search(program.text) is None:
            what = f"the task says {said.group()!r}, and nothing does it"
            raise ProgramError("plan_incomplete", what, "", fix)


def _refuse_open_choices(program: Program, task: str) -> None:
    """A field of which the task says the words, declared as free text."""
    for name, words in choices_in(task):
        for record in program.records.values():
            for part in record.fields:
                if part.name == name and part.type in (STR, Maybe(STR)):
                    spelled = ", ".join(f'"{word}"' for word in words)
                    raise unmeant(
                        f"{name} is one of {', '.join(words)}", f"Write {name}: Literal[{spelled}]."
                    )


def _refuse_undecided(program: Program, task: str) -> None:
    """The task asks of documents what is yes or no, and the record that is filled in from them has
    no field that could say so."""
    brief = read_brief(task)
    records = list(program.records.values())
    if brief.inputs or not brief.folders or len(records) != 1 or "llm.choose" in program.text:
        return
    said = _DECIDES.search(task)
    deciding = [
        p for p in records[0].fields if isinstance(p.type, Maybe | Choice | Record | ListOf)
    ]
    if said and not deciding and not any(p.type in (BOOL, DATE) for p in records[0].fields):
        raise unmeant(
            f"the task asks {said.group()!r}, and no field of {records[0].name} says so",
            "Add a field of type bool, or Literal of the words.",
        )


def _refuse_undone(program: Program, task: str) -> None:
    """A file is written, and what the task says of it is not done by then."""
    brief = read_brief(task)
    columns = {name for own in brief.columns.values() for name in own}
    for name in brief.results:
        if not any(is_named(name, path) or path == name for path in program.touches.writes):
            continue
        said = words_about(task, name)
        if any(other in said for other in brief.results if other != name):
            continue  # of which of them it speaks is not certain
        for cue, done, what, fix in _WORK:
            found = cue.search(said)
            if found is None or done.search(program.text) or columns & {*found.groups()}:
                continue
            raise unmeant(f"the task says {found.group()!r} for {name}, and nothing is {what}", fix)
