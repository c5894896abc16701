"""What a task asks for, by words that leave no doubt, held against the calls that do it."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

from edvac.compiler.brief import choices_in, is_named, placeholder, read_brief, words_about
from edvac.compiler.review import Misdeclared
from edvac.compiler.unsaid import unmeant
from edvac.core.errors import ProgramError
from edvac.core.schema import BOOL, DATE, STR, Choice, ListOf, Maybe, Record
from edvac.program import Program

_DECIDES = re.compile(
    r"\bwhether\b|\bwhich (?:of the )?\w+ (?:in [\w/]+ )?(?:are|is|have|has|may|can|must|need)\b"
    r"|\b(?:who|that) (?:may|can|must)\b|\bstill (?:open|owe|unpaid)\w*\b|\bnot yet\b|\bunless\b"
    r"|\b(?:are|is|were|was|have|has) not (?:been )?\w+(?:ed|aid|one|ent|ept)\b|\bso far\b"
    r"|\bunpaid\b|\boverdue\b|\boutstanding\b"
    r"|\b(?:is|are) (?:anything|any|there any)\b",
    re.IGNORECASE,
)


class _Wish(NamedTuple):
    """What a task says, what a program that does it has, how that is called, and how it is
    written."""

    said: re.Pattern[str]
    done: re.Pattern[str]
    what: str
    fix: str


def _wish(said: str, done: str, what: str, fix: str) -> _Wish:
    return _Wish(re.compile(said, re.IGNORECASE), re.compile(done), what, fix)


_OF_A_FILE = [  # asked for in what the task says of one file
    _wish(
        r"\bhow (?:many|often) (\w+)|\b(?:the|and) number of (\w+)",
        r"count\(|len\(|tally\(|sum|\+=|: int|: Decimal|Decimal\(|int\(",
        "counted",
        "Write group(rows, by=[...], n=count()), or len(rows).",
    ),
    _wish(
        r"\badd(?:s|ed)? (?:them |it )?up\b|\bsums? of\b|\baltogether\b",
        r"sum\(|sum_of\(|total\(|\+=|count\(|len\(",
        "added up",
        'Write sum([...]), or group(rows, by=[...], total=sum_of("x")).',
    ),
    _wish(
        r"\b(?:each|every)(?: \w+)? once\b|\bnobody twice\b|\bno duplicates\b",
        r"unique\(|group\(|tally\(|not in ",
        "kept once",
        "Write unique([...]).",
    ),
    _wish(
        r"\baverage\b|\bmean\b|\bmeans\b",
        r"mean|/ ?len\(",
        "averaged",
        'Write math.mean([...]), or group(rows, by=[...], x=mean_of("x")).',
    ),
    _wish(
        r"\bsummari[sz]e|\btranslat|\bapolog|\binvitation\b",
        r"llm\.write",
        "written by a model",
        'Write llm.write("Instruction", text).',
    ),
]
_ANYWHERE = [  # asked for somewhere in the task
    _wish(
        r"(?:^|[.;:!?] )count (?:the|all|how)\b",
        r"count\(|len\(|tally\(|\+= 1|\+ 1",
        "counted",
        "Write group(rows, by=[...], n=count()), or len(rows).",
    ),
    _wish(
        r"\bcop(?:y|ied|ies)\b(?! (?:all |the )?(?:\w+ )?lines)",
        r"files\.copy\(",
        "copied",
        'Write files.copy(p, f"folder/{path.name(p)}").',
    ),
    _wish(
        r"\b(?:is|are|be) moved\b|\bmove\b",
        r"files\.move\(",
        "moved",
        'Write files.move(p, f"folder/{path.name(p)}").',
    ),
    _wish(
        r"\btranslat|\bsummari[sz]|\bsummar(?:y|ies) (?:of|about)\b"
        r"|\b(?:writ\w+|give|sends?|gets?|short|polite|friendly|thank-you|deserves?)"
        r" (?:\w+ |to each of \w+ |-)?(?:\w+ )?"
        r"(?:letter|reply|apology|invitation|answer|warning|reminder)",
        r"llm\.write\(",
        "written by a model",
        'Write llm.write("Instruction", text).',
    ),
    _wish(
        r"\b(?:per|each|every|by) month\b",
        r"month|\[:7\]",
        "kept by months",
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
    _refuse_unextracted(program, task, whole=whole)
    _refuse_single_files(program, task)
    _refuse_undone(program, task)
    for wish in _ANYWHERE if whole else ():
        said = wish.said.search(task)
        if said is not None and wish.done.search(program.text) is None:
            what = f"the task says {said.group()!r}, and nothing is {wish.what}"
            raise ProgramError("plan_incomplete", what, "", wish.fix)
    if whole:
        _refuse_unread(program, task)


def _refuse_unread(program: Program, task: str) -> None:
    """A folder is listed, and nothing in it is looked at, though the task is not about files."""
    brief = read_brief(task)
    listed = brief.folders and not brief.inputs
    if listed and not _LOOKS.search(program.text) and not _OF_FILES.search(task):
        what = f"nothing that stands in the files of {brief.folders[0]}/ is looked at"
        raise ProgramError("plan_incomplete", what, "", "Read each of them: doc.text(p).")


_LOOKS = re.compile(r"\bdoc\.|\bfiles\.(?:read|copy|move|stat|hash)\b")
_OF_FILES = re.compile(
    r"\bfiles? ?names?\b|\bnam(?:e|ed|es)\b|\bcalled\b|\bhow many\b|\bnumber of\b|\bfiles\b", re.I
)


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
    allowed = said is not None and re.search(r"\b(?:may|can|must)$", said.group()) is not None
    enough = (BOOL,) if allowed else (BOOL, DATE)  # a day says that something is over, or paid
    if said and not deciding and not any(p.type in enough for p in records[0].fields):
        raise unmeant(
            f"the task asks {said.group()!r}, and no field of {records[0].name} says so",
            "Add a field of type bool, or Literal of the words.",
        )


def _refuse_unextracted(program: Program, task: str, *, whole: bool) -> None:
    """What the task wants of each document has no place in the record that is filled in."""
    brief = read_brief(task)
    fields = [part for record in program.records.values() for part in record.fields]
    for fact in brief.facts if fields else ():
        singular = fact.rstrip("s")
        held = [part for part in fields if singular in part.name or part.name in singular]
        if not held:
            record = next(iter(program.records))
            raise unmeant(
                f"the task wants the {fact} of each, and no field of {record} holds it",
                f"Add the field {singular}.",
            )
        if singular == "number" and not any(part.type in (STR, Maybe(STR)) for part in held):
            raise Misdeclared(
                held[0].name,
                "what something is called by, and is declared as an amount",
                f"Declare {held[0].name}: str.",
                "plan_unmeant",
            )
        read = rf"\b(?:{'|'.join(part.name for part in held)})\b"
        if whole and not re.search(rf"(?:\.|[\"']){read}", program.text):
            raise unmeant(
                f"the task wants the {fact} of each, and nothing is made of them",
                f"Write found.{held[0].name}, of each that is meant.",
            )


def _refuse_single_files(program: Program, task: str) -> None:
    """A file that the task wants for each of something, written once."""
    many = [name for name in read_brief(task).files if placeholder(name)]
    tree = ast.parse(program.text)
    inside = {
        id(node)
        for loop in ast.walk(tree)
        if isinstance(loop, ast.For)
        for stmt in loop.body
        for node in ast.walk(stmt)
    }
    for node in ast.walk(tree) if many else ():
        match node:
            case ast.Call(ast.Attribute(ast.Name("files"), "write"), [ast.JoinedStr(parts), *_]):
                path = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts
                )
                name = next((one for one in many if is_named(one, path)), "")
                if name and id(node) not in inside:
                    raise unmeant(
                        f"{name} is wanted for each {placeholder(name)}, and is written once",
                        "Write it in a loop: for one in unique([...]):",
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
        for wish in _OF_A_FILE:
            found = wish.said.search(said)
            if found is None or wish.done.search(program.text) or columns & {*found.groups()}:
                continue
            what = f"the task says {found.group()!r} for {name}, and nothing is {wish.what}"
            raise unmeant(what, wish.fix)
