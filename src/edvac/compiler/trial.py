"""A program tried on a few of the files that are there, before anybody has agreed to it.

As in a rehearsal no model is asked, nothing is written, and what a step of a device returns is made
up; but listings and the texts of files are real. So code is found that takes names or lines apart
in a way that they are not written, and a program that would write nothing.

What stands in the files comes from anybody, and a model that writes programs must not read it. So a
refusal names the kind of failure, in words of ours and of the program's alone; what is left to a
file is whether a line is refused.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Protocol

from edvac.compiler.brief import NOTHING_SAID, Brief
from edvac.compiler.rehearsal import STANDS_IN, Fault, Stage, misshapen, text_of
from edvac.compiler.syntax import assigned
from edvac.core.errors import ProgramError
from edvac.core.label import Label
from edvac.core.schema import STR
from edvac.core.signature import Effect
from edvac.core.value import Value, lift
from edvac.program import Program, StepCall

LISTED = 12  # files of a listing that are looked at
_PLAIN = (".txt", ".md", ".log", ".csv", ".tsv", ".json", ".jsonl")
_REAL = Label.of([STANDS_IN])


# What may be said of a failure: the names that the program itself has, and these.
_SAID = (
    "a an and are as be between by cannot does field fields for from go has have in is it its key"
    " line list lists must needs no not number object of on only operand out range row rows since"
    " supported than text to type unsupported value values with str int float bool dict tuple None"
    " Decimal date record"
)
_SPLIT = re.compile(r"\.split\((?:' '(?:, \d+)?)?\)$")  # at blanks
_FIX = "Look for what the task says stands there, in the way in which it says so."


class Sight(Protocol):
    """What may be seen of the files that a program will read."""

    def names(self, pattern: str) -> Sequence[str]:
        """Files that match, in order; none where the pattern cannot be looked up."""
        ...

    def text(self, path: str) -> str | None:
        """What stands in a file, or in the beginning of a long one; None where that is no text, or
        is not to be had."""
        ...


def try_out(program: Program, brief: Brief, sight: Sight) -> Trial:
    """Run it on what is there.

    Raises:
        ProgramError: `plan_fails`, without a word of what was read.
    """
    trial = Trial(program, brief, sight)
    trial.run()
    trial.refuse_misplaced_marks(program)
    fault = trial.fault
    if fault is not None:
        said = fault.kind.replace("_", " ") if isinstance(fault, Fault) else fault.what
        if isinstance(fault, Fault):
            known = {*_SAID.split(), *re.findall(r"\w+", program.text)}
            told = re.sub(r"\w+", lambda word: word[0] if word[0] in known else "…", fault.what)
            said += f": {told}"
        what = f"on the files that are there, this fails: {said}"
        raise ProgramError("plan_fails", what, "", trial.fix or _FIX, line=fault.line)
    return trial


def outcome(
    program: Program, brief: Brief = NOTHING_SAID, sight: Sight | None = None
) -> dict[str, str]:
    """What a legal program would write, by path, where equal data gets equal answers: two programs
    that do the same write the same. Without a `sight` in a made-up world."""
    stage = Trial(program, brief, sight) if sight else Stage(program, brief, steady=True)
    stage.run()
    return stage.written


class Trial(Stage):
    """The host of a trial.

    Attributes:
        written: what the program would write, by path; of a copy, where it comes from.
        fix: what helps against the fault, where that is known.
    """

    def __init__(self, program: Program, brief: Brief, sight: Sight) -> None:
        super().__init__(program, brief, steady=True)
        self._sight = sight
        self._by_code = "llm." not in program.text
        self._among_tables: set[str] = set()  # files of listings of tables alone
        self._only_tables: set[str | None] = set()  # and what stands in them
        self._read: list[str] = []  # texts of files
        self._unmatched = ""  # a pattern that no file of its folder is called like
        self.fix = ""

    def refuse_empty(self, program: Program) -> None:
        """
        Raises:
            ProgramError: `plan_empty`: whatever a model says, nothing that was found would stand
                in a file, or it would not be written at all. That may be right.
        """
        if self._unmatched:
            what = f"no file is called like {self._unmatched}, and others are there"
            folder = self._unmatched.rpartition("/")[0]
            raise ProgramError("plan_empty", what, "", f'Write files.list("{folder}/*").')
        nodes = ast.walk(ast.parse(program.text))
        own = {node.value for node in nodes if isinstance(node, ast.Constant)}
        named = {path for path in program.touches.writes if not set(path) & set("*?[")}
        for path in sorted({*named, *self.written}) if self._by_code else ():
            if _bare(path, self.written.get(path, "")) or self.written[path] in own:
                # A name that is made of what stands in a file is not for the model either.
                said = path if path in named else "one of the files"
                what = f"on the files that are there, {said} would be empty"
                raise ProgramError("plan_empty", what, "", _FIX)

    def refuse_misplaced_marks(self, program: Program) -> None:
        """A word in capitals that stands in the lines, looked for at a place where it never is.

        Raises:
            ProgramError: `plan_fails`.
        """
        tree = ast.parse(program.text)
        split = {name for name, value in assigned(tree) if _SPLIT.search(ast.unparse(value))}
        for node in ast.walk(tree):
            match node:
                case ast.Compare(
                    ast.Subscript(words, ast.Constant(int() as place)),
                    [ast.Eq()],
                    [ast.Constant(str() as mark)],
                ) if mark in self._brief.marks:
                    known = isinstance(words, ast.Name) and words.id in split
                    if known or _SPLIT.search(ast.unparse(words)):
                        self._refuse_place(mark, place)

    def _refuse_place(self, mark: str, place: int) -> None:
        lines = [line.split() for text in self._read for line in text.split("\n")]
        stands = any(mark in line for line in lines)
        if stands and not any(line[place : place + 1] == [mark] for line in lines):
            what = f"on the files that are there, {mark} is never word {place} of a line"
            fix = f'Count from 0, or write if "{mark}" in line.'
            raise ProgramError("plan_fails", what, "", fix)

    def answer(self, call: StepCall) -> Value:
        if call.op == "files.list":
            pattern = text_of(call, "pattern") or ""
            names = self._sight.names(pattern)[:LISTED]
            if not names and self._sight.names(f"{pattern.rpartition('/')[0]}/*"):
                self._unmatched = pattern
            if all(name.endswith((".csv", ".tsv")) for name in names):
                self._among_tables.update(names)
            return lift(list(names), _REAL) if names else super().answer(call)
        if call.op == "llm.extract" and text_of(call, "data") in self._only_tables:
            what = "all of these files are tables, which code reads, row by row, and no model"
            self._refuse(call, what, "Write csv.table(files.read(p)).")
        path, target = text_of(call, "path"), text_of(call, "target")
        if call.op in ("files.copy", "files.move") and target is not None:
            self._place(call, target, text_of(call, "source") or "")
        elif call.op == "files.write" and path is not None:
            self._place(call, path, text_of(call, "text") or "")
            if path.endswith(".csv") and _names_itself(self.written[path]):
                self._refuse(call, "a column holds its own name in every row", "Take the cells.")
        elif call.result == STR and call.signature.effect is Effect.READ and path is not None:
            text = self._text(call, path)
            if text is not None:
                return lift(text, _REAL)
        return super().answer(call)

    def unlike(self, call: StepCall) -> ProgramError | None:
        """A rehearsal looks at that, with what the task says instead of what is there."""
        return None

    def _text(self, call: StepCall, path: str) -> str | None:
        if path in self.written:
            return self.written[path]
        plain = call.op == "files.read" or PurePosixPath(path).suffix in _PLAIN
        text = self._sight.text(path) if plain else None
        self._read += [text] if text is not None else []
        if text is not None and path in self._among_tables:
            self._only_tables.add(text)
        if text is None and path in self._brief.results:
            self._refuse(call, f"{path} is to be made, and is read before it is", "Make it first.")
        return text

    def _place(self, call: StepCall, path: str, content: str) -> None:
        """Something is put at a path where, perhaps, something else has been put before."""
        before = self.written.get(path, content)
        self.written[path] = content
        if call.op == "files.write":
            lost = not content.startswith(before)
            fix = "Put the parts together first, and write once, after the loop."
        else:
            lost = before != content
            fix = 'Write f"folder/{path.name(p)}".'
            if path.endswith("/") or PurePosixPath(path).suffix != PurePosixPath(content).suffix:
                self._refuse(call, "a file would lose its ending, or be called like a folder", fix)
        if lost:
            self._refuse(call, "a file is written twice, and what stood in it first is lost", fix)

    def _refuse(self, call: StepCall, what: str, fix: str) -> None:
        if self.fault is None:
            self.fault, self.fix = misshapen(call, what, fix), fix


def _names_itself(table: str) -> bool:
    """Does a column hold nothing but its own name?"""
    lines = [line.split(",") for line in table.rstrip("\n").split("\n")]
    return len(lines) > 1 and any(len(set(cells)) == 1 for cells in zip(*lines, strict=False))


def _bare(path: str, text: str) -> bool:
    """Does nothing stand in it, or a sum of nothing, or a table's header alone?"""
    lines = [line for line in text.split("\n") if line.strip()]
    nothing = re.fullmatch(r"\s*(?:0(?:\.0+)?|None|\[\]|\{\})\s*", text) is not None
    return nothing or len(lines) <= path.endswith((".csv", ".tsv"))
