"""Which of the things are meant, and how many one document may hold: what a task says in passing,
and a small model reads over."""

from __future__ import annotations

import ast
import re

from edvac.compiler.brief import NUMBER_WORDS, read_brief
from edvac.compiler.syntax import assigned
from edvac.compiler.unsaid import unmeant
from edvac.core.schema import ListOf
from edvac.program import Program

_MOST = re.compile(r"\bthe (\w+) with (?:the )?most (\w+)", re.IGNORECASE)
_LARGEST = re.compile(r"\b(?:max|sort_by|sorted)\(")
_ADDS = re.compile(r"\b(?:group|tally|sum|len|total)\(|\+=")
_OF_A_SUM = re.compile(
    r"\b(?:more|less|fewer) than (\w+) \w+ (?:altogether|in all|in total|together)", re.IGNORECASE
)
_WANTED = re.compile(
    r"\b(?:write|list|name|put|note|give me) (?:down )?(?:all )?the (\w+?)s?"
    r" (?:who|that|of all|with)\b",
    re.IGNORECASE,
)
_NO_FACT = re.compile(
    r"^(?:name|file|line|row|sum|total|number|average|mean|word|list|other|one|note|path|text)$"
)
_NO_CHOICE = re.compile(
    r"^(?:other|same|following|first|last|next|new|whole|single|own|two|three|many|more|most)$"
)


def refuse_overlooked(program: Program, task: str, *, whole: bool) -> None:
    """
    Args:
        whole: is nothing to follow?

    Raises:
        ProgramError: `plan_unmeant`.
    """
    tree = ast.parse(program.text)
    _refuse_single(program, task)
    _refuse_largest_row(program, tree, task)
    _refuse_unnamed(program, task)
    _refuse_asked_counts(program, task)
    _refuse_early_bounds(tree, task)
    if whole:
        _refuse_unselected(tree, task)
        _refuse_unmarked(program, task)


def _refuse_single(program: Program, task: str) -> None:
    """One of something extracted from a text that may hold several."""
    brief = read_brief(task)
    columns = {name for own in brief.columns.values() for name in own}
    several = brief.several if brief.several in columns else ""
    fields = [part for record in program.records.values() for part in record.fields]
    if not several or "llm.extract" not in program.text or "list[" in program.text:
        return
    if fields and not any(isinstance(part.type, ListOf) for part in fields):
        raise unmeant(
            f"one text may hold several {several}s, and one is extracted",
            f"Extract list[...] with a record for each {several}, or declare a field list[str].",
        )


def _refuse_largest_row(program: Program, tree: ast.AST, task: str) -> None:
    """ "The person with the most hours" looked for among rows, of which a person has several."""
    brief = read_brief(task)
    columns = {name for path in brief.inputs for name in brief.columns.get(path, ())}
    for who, what in _MOST.findall(task):
        several = {who.casefold(), what.casefold()} <= columns and len(columns) > 2
        if several and _LARGEST.search(program.text) and not _ADDS.search(program.text):
            raise unmeant(
                f"a {who} has {what} in several rows, and these are not added up",
                f'Write group(rows, by=["{who}"], {what}=sum_of("{what}")) first.',
            )


def _refuse_unnamed(program: Program, task: str) -> None:
    """What is to be listed is no field of the record that is filled in from the documents."""
    brief = read_brief(task)
    fields = {part.name.casefold() for r in program.records.values() for part in r.fields}
    documents = {folder.rpartition("/")[2].rstrip("s") for folder in brief.folders}
    documents |= {found.rstrip("s") for found in re.findall(r"(\w+) in [\w-]+/", task)}
    if brief.inputs or not fields:
        return
    for found in _WANTED.findall(task):
        what = found.casefold()
        held = any(what in name or name.rstrip("s") in what for name in fields)
        if not held and what not in documents and not _NO_FACT.match(what):
            record = next(iter(program.records))
            raise unmeant(
                f"the task wants the {found}s, and no field of {record} holds them",
                f"Add the field {what}.",
            )


def _refuse_asked_counts(program: Program, task: str) -> None:
    """Words or lines counted by a model."""
    for what in re.findall(
        r"\b(?:count (?:the|all)|how many|number of) (words|lines|characters)\b",
        task,
        re.IGNORECASE,
    ):
        name = what.casefold()
        if any(part.name == name for r in program.records.values() for part in r.fields):
            code = {"words": "len(doc.text(p).split())", "lines": "len(text.lines(doc.text(p)))"}
            raise unmeant(
                f"a model does not count {name}, code does",
                f"Write {code.get(name, 'len(doc.text(p))')}.",
            )


def _refuse_early_bounds(tree: ast.AST, task: str) -> None:
    """A bound for a sum ("more than 8 hours altogether") held against each row."""
    said = _OF_A_SUM.search(task)
    if said is None or any(isinstance(node, ast.AugAssign) for node in ast.walk(tree)):
        return
    bound = str(NUMBER_WORDS.get(said[1].casefold(), said[1]))
    grouped = {
        name
        for name, value in assigned(tree)
        if re.search(r"\b(?:group|tally|sum)\(", ast.unparse(value))
    }
    for node in ast.walk(tree):
        match node:
            case ast.Compare(
                ast.Subscript(ast.Name(), ast.Constant(str())) | ast.Attribute(ast.Name()),
                [ast.Gt() | ast.GtE() | ast.Lt() | ast.LtE()],
                [ast.Constant(int() as number)],
            ) if str(number) == bound and not grouped:
                raise unmeant(
                    f"{said[0]!r} is meant of a sum, and each row is held against it",
                    'Add up first: group(rows, by=["..."], x=sum_of("x")); then compare its rows.',
                )


def _refuse_unselected(tree: ast.AST, task: str) -> None:
    """Only some of the documents are meant, by what they say, and all are taken."""
    brief = read_brief(task)
    if len(brief.folders) != 1 or brief.inputs or _tests(tree):
        return
    noun = re.escape(brief.folders[0].rpartition("/")[2].rstrip("s"))
    said = [
        kind
        for kind in re.findall(rf"\bthe (\w+) {noun}s\b", task, re.IGNORECASE)
        if not _NO_CHOICE.match(kind.casefold())
    ]
    listed = rf"\b(?:every|each|all) \w+ in {re.escape(brief.folders[0])}/"
    said += re.findall(rf"{listed} (that (?:has|have|is|are) \w+)", task, re.IGNORECASE)
    if said:
        raise unmeant(
            f"only those are meant of which the task says {said[0]!r}, and all are taken",
            "Select them: if found.…, with a bool field of a record or llm.choose.",
        )


def _refuse_unmarked(program: Program, task: str) -> None:
    """A word in capitals that tells lines of a file apart, and that nothing looks for."""
    brief = read_brief(task)
    said = [mark for mark in brief.marks if re.search(rf"\b(?:level|with|lines?) {mark}\b", task)]
    if brief.inputs and said and not any(mark in program.text for mark in said):
        raise unmeant(
            f"the task speaks of {said[0]}, and nothing looks for it",
            f'Select the lines: if "{said[0]}" in line.',
        )


def _tests(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.If | ast.IfExp) or (isinstance(node, ast.comprehension) and node.ifs)
        for node in ast.walk(tree)
    )
