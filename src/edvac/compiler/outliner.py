"""Writes the outline of a task with a model, line by line, and makes the program of it.

Which files the outline has to say something about, and in which order, is read from the task by
code; the model fills one line at a time under that line's grammar, and each line has to give a
program that passes the same rehearsal and review as a free one.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import hashlib
import importlib.resources
import re
from collections.abc import Callable
from dataclasses import dataclass

from edvac.compiler import examples, outline_grammar
from edvac.compiler.acceptance import accept
from edvac.compiler.clauses import result
from edvac.compiler.outline import Outline
from edvac.compiler.wanted import Reading, read_task
from edvac.core.errors import ProgramError
from edvac.core.signature import Catalogue
from edvac.processor import Message, Processor, Request, Segment
from edvac.program import parse

SHOWN = 4  # outlines in a prompt
SAMPLES = (0.0, 0.3, 0.5, 0.7)  # temperatures: one, then the others side by side
LINE_TOKENS = 200
END = "end"
_LEAVES_OUT = re.compile(
    r"\bleave out\b|\bwithout\b|\bwith (?:\w+ )?[A-Z]{3,}\b|\bonly\b|\bdo not count\b"
)

_SYSTEM = """\
You outline how a task over files is done. The outline has short lines:

each document in "FOLDER/": the facts that are wanted of one document, each a name and one of
  text, number, day, yes/no, one of (WORD, WORD). A ? behind it: it may be missing.
  several NAME text, or several NAME (FACT, FACT): where one document holds many of them.
each row of "x.csv": only the columns that are a number or a day
each object of "x.json": only the fields that are a number
each line of "x.log"
only TEST: all other items are left out
NAME = one of (WORD, WORD) from FACT: "question": the model decides it for each item
NAME = "word" if TEST else "word"
results

Then for each file what is in it:
table FACT, FACT where TEST sorted by FACT descending
groups by FACT with NAME count, NAME sum of FACT having NAME > 3
list of FACT where TEST (a line each); list of file: names of documents
sum of FACT, mean of FACT, count (one number)
FACT with most FACT
text "what the model writes" where TEST
for each FACT: table, list or text
FOLDER/FILE: a file for each item: text, copy or move

Tests: FACT > 3, FACT is "word", FACT contains "word", has FACT, no FACT, yes/no facts by name.
Take the columns that the task names as names of facts, spelt as they are there.
"""


@dataclass(slots=True)
class _Draft:
    """The outline so far and its program."""

    outline: Outline
    lines: list[str]
    text: str = ""


class Outliner:
    """
    Args:
        processor: one that decodes under grammars.
    """

    def __init__(self, processor: Processor, catalogue: Catalogue) -> None:
        self._processor = processor
        self._catalogue = catalogue
        self.lines: list[str] = []  # the outline

    async def plan(self, task: str, on_text: Callable[[str], None], attempt: int = 0) -> str:
        """A verified program for the task.

        Args:
            on_text: called with the program so far, which only grows.

        Raises:
            ProgramError: the task does not say from what which files are made, or a line was
                refused too often.
        """
        reading = read_task(task)
        if not reading.fits:
            raise ProgramError("outline_unfit", "the task does not say which files to write")
        keeps = reading.by_sign or any(
            one.path.endswith((".md", "/FILE")) for one in reading.results
        )
        draft = _Draft(Outline(reading.brief, keeps_text=keeps), self.lines)
        writer = _Writer(self, task, reading, draft, on_text, attempt)
        said = outline_grammar.automatic(reading)
        if said:
            writer.take("", said, Outline.begin)
        else:
            begin = functools.partial(_begun, reading=reading)
            await writer.line("", outline_grammar.first_line(reading), begin)
        await writer.decisions()
        draft.lines.append(outline_grammar.RESULTS)
        for one in reading.results:
            clause = functools.partial(_clause, path=one.path)
            grammar = outline_grammar.clause(draft.outline, reading, one)
            last = one is reading.results[-1]
            await writer.line(f"{one.path}: ", grammar, clause, last=last)
        return draft.text


@dataclass(frozen=True, slots=True)
class _Writer:
    outliner: Outliner
    task: str
    reading: Reading
    draft: _Draft
    on_text: Callable[[str], None]
    attempt: int

    async def decisions(self) -> None:
        """What is decided of each item before the results: documents are extracted with all that
        is wanted of them, others lack columns that tables want, and some are left out."""
        outline = self.draft.outline
        by_sign = self.reading.by_sign
        if outline.source == "document" or (outline.source == "file" and not by_sign):
            return
        if by_sign or _LEAVES_OUT.search(self.task):
            await self.line("", outline_grammar.only(outline, self.reading), _decided)
            if self.draft.lines[-1] == outline_grammar.RESULTS:
                self.draft.lines.pop()
        for name in self.reading.undecided(frozenset(self.draft.outline.facts)):
            grammar = outline_grammar.decision(self.draft.outline, self.reading)
            decide = functools.partial(_named, name=name)
            await self.line(f"{name} = ", grammar, decide)

    async def line(
        self,
        head: str,
        grammar: str,
        take: Callable[[Outline, str], str],
        *,
        last: bool = False,
    ) -> None:
        """Have one line written and put its statements behind the others.

        Raises:
            ProgramError: all samples were refused.
        """
        refused: ProgramError | None = None
        for temperatures in (SAMPLES[:1], SAMPLES[1:]):
            hint = f"# {refused.what}. {refused.fix}"[:200].rstrip() + "\n" if refused else ""
            asked = (self._sample(hint + head, grammar, warmth) for warmth in temperatures)
            for said in dict.fromkeys(await asyncio.gather(*asked)):
                try:
                    self.take(head, said, take, last=last)
                except ProgramError as problem:
                    refused = refused or problem
                else:
                    return
        assert refused is not None
        raise refused

    def take(
        self, head: str, said: str, take: Callable[[Outline, str], str], *, last: bool = False
    ) -> None:
        """
        Raises:
            ProgramError: the line does not make a program of the task.
        """
        draft = self.draft
        outline = copy.copy(draft.outline)
        outline.facts, outline.tables = dict(outline.facts), dict(outline.tables)
        text = draft.text + take(outline, said)
        accept(parse(text, self.outliner._catalogue), self.task, whole=last)
        draft.outline, draft.text = outline, text
        draft.lines.append(head + said)
        self.on_text(text)

    async def _sample(self, head: str, grammar: str, warmth: float) -> str:
        written = "".join(f"{line}\n" for line in self.draft.lines)
        mixed = f"{self.task} {len(self.draft.lines)} {warmth} {self.attempt}"
        seed = hashlib.blake2b(mixed.encode(), digest_size=4).digest()
        answer = await self.outliner._processor.complete(
            Request(
                run="plan",
                slot="plan",
                messages=prompt(self.task),
                prefill=written + head,
                lark=grammar,
                max_tokens=LINE_TOKENS,
                temperature=warmth,
                seed=int.from_bytes(seed, "big") >> 1,
            )
        )
        return answer.text.partition("\n")[0].strip()


def _begun(outline: Outline, line: str, *, reading: Reading) -> str:
    text = outline.begin(line)
    lacking = outline_grammar.lacking(outline, reading) if outline.source == "document" else ""
    if lacking:
        raise ProgramError("outline_incomplete", lacking)
    return text


def _decided(outline: Outline, line: str) -> str:
    if line == outline_grammar.RESULTS:
        return ""
    if line.startswith("only "):
        return outline.only(line.removeprefix("only "))
    return outline.decide(line)


def _named(outline: Outline, line: str, *, name: str) -> str:
    return outline.decide(f"{name} = {line}")


def _clause(outline: Outline, line: str, *, path: str) -> str:
    return result(outline, path, line)


@functools.cache
def library() -> dict[str, str]:
    """The outlines of example tasks, by the example's name."""
    folder = importlib.resources.files("edvac.compiler") / "outlines"
    return {
        entry.name.removesuffix(".txt"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
    }


@functools.lru_cache(maxsize=16)
def prompt(task: str) -> tuple[Message, ...]:
    """The prompt; what never changes comes first."""
    made = [Message("system", (Segment(_SYSTEM, keep=True),))]
    known = library()
    for example in examples.similar(task, SHOWN, frozenset(known)):
        made.append(Message("user", (Segment(_told(example.task)),)))
        written = f"{known[example.name].strip()}\n{END}"  # a last line ends like the others
        made.append(Message("assistant", (Segment(written, keep=True),)))
    made.append(Message("user", (Segment(_told(task)),)))
    return tuple(made)


def _told(task: str) -> str:
    return f"Task: {task}\nFiles: {', '.join(one.path for one in read_task(task).results)}"
