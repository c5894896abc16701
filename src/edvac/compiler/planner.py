"""The planner: decodes a program statement by statement and verifies each before going on.

A statement that the verifier refuses is sampled again, a little warmer each time; after a few
refusals the statement before it is taken back as well. If that budget is spent the whole program is
written once more with the last complaint in view (the repair loop), and then the planner gives up
with the verifier's error.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from edvac.compiler import examples, grammar, prompt
from edvac.compiler.brief import read_brief
from edvac.compiler.rehearsal import rehearse
from edvac.compiler.review import refuse_strangers, review, unused_names
from edvac.core import event
from edvac.core.errors import ProgramError
from edvac.core.signature import Catalogue
from edvac.processor import Answer, Message, Processor, Request
from edvac.program import Scope, library, parse, verify_prefix

PLANNER_VERSION = 4  # raise it whenever prompt, grammar or examples change what is written
FENCE = "```python\n"
MAX_STATEMENTS = 30
TRIES = 4  # samples of one statement
BACKTRACKS = 3  # statements taken back, in one round
ROUNDS = 2  # whole programs
STATEMENT_TOKENS = 400
HINT = 240  # characters
PROGRAM_TOKENS = 1200


OnDraft = Callable[[str], None]


def _ignore(text: str) -> None:
    del text


@dataclass(slots=True)
class _Draft:
    """The program so far, by statement, and how the one under way is getting on."""

    attempt: int
    statements: list[str] = field(default_factory=list)
    tries: int = 0
    backtracks: int = 0
    samples: int = 0
    may_end: bool = True
    may_declare: bool = True
    hint: str = ""  # why the statement was refused: a comment that only the model sees

    @property
    def text(self) -> str:
        return "".join(self.statements)

    @property
    def warmth(self) -> float:
        """Temperature: the surest statement first, then ever more variety."""
        return min(1.0, 0.3 * (self.tries + self.attempt + self.backtracks))

    def accept(self, piece: str) -> None:
        self.statements.append(piece)
        self.tries = 0
        self.hint = ""
        self.may_end = self.may_declare = True

    def refuse(self, problem: ProgramError, *, at_end: bool) -> None:
        """Count a refusal; take the statement before back once the budget is used up.

        Raises:
            ProgramError: the same one, when nothing is left to take back.
        """
        self.tries += 1
        self.samples += 1
        self.hint = f"# {problem.what}. {problem.fix}".replace("\n", " ")[:HINT].rstrip() + "\n"
        self.may_end = self.may_end and not at_end
        self.may_declare = self.may_declare and problem.code != "record_idle"
        if self.tries < TRIES:
            return
        self.backtracks += 1
        if self.backtracks > BACKTRACKS or not self.statements:
            raise problem
        self.statements.pop()
        self.tries = 0


class Planner:
    """Turns tasks into programs with one processor."""

    def __init__(self, processor: Processor, catalogue: Catalogue, emit: event.Emit) -> None:
        self._processor = processor
        self._catalogue = catalogue
        self._emit = emit

    async def plan(self, task: str, on_draft: OnDraft = _ignore) -> str:
        """A verified program for the task.

        Args:
            on_draft: called with the program so far whenever it has changed. It mostly grows;
                when a statement was taken back it is not a continuation of what came before.

        Raises:
            ProgramError: no legal program came out; the error is the verifier's last one.
        """
        complaint = ""
        failed: ProgramError | None = None
        for attempt in range(ROUNDS):
            write = self._by_statement if self._processor.has_grammar else self._whole
            try:
                return await write(task, attempt, complaint, on_draft)
            except ProgramError as problem:
                failed = problem
                complaint = f"An earlier program was refused. {problem}"
                why = f"the plan was refused and is written again: {problem.what}"
                self._emit(event.Note(text=why))
        assert failed is not None
        raise ProgramError(
            "plan_failed",
            "the model wrote no legal program for this task",
            str(failed),
            "Say the task in smaller steps, use a larger model, or write the program yourself.",
        )

    async def prepare(self) -> None:
        """Have the processor read what every plan begins with, so that the first one need not wait
        for it."""
        asked = prompt.constant(self._catalogue)
        await self._processor.complete(Request(run="plan", slot="", messages=asked, max_tokens=1))

    # -- under a grammar ------------------------------------------------------------------------

    async def _by_statement(
        self, task: str, attempt: int, complaint: str, on_draft: OnDraft
    ) -> str:
        shots = examples.similar(task)
        asked = prompt.messages(task, shots, self._catalogue, complaint)
        draft = _Draft(attempt=attempt)
        brief = read_brief(task)
        while len(draft.statements) < MAX_STATEMENTS:
            scope = verify_prefix(draft.text, self._catalogue)
            sampling = (draft.warmth, _seed(task, attempt, len(draft.statements), draft.samples))
            grammar_text = self._grammar(scope, draft)
            piece = await self._statement(asked, draft.text + draft.hint, grammar_text, sampling)
            try:
                if piece == grammar.END:
                    review(parse(draft.text, self._catalogue), task)
                    return draft.text
                verify_prefix(draft.text + piece, self._catalogue)
                program = parse(draft.text + piece, self._catalogue)
                rehearse(program, brief)
                refuse_strangers(program, task)
                _refuse_idle(draft.text, piece)
            except ProgramError as problem:
                draft.refuse(problem, at_end=piece == grammar.END)
                continue
            self._show(draft.text, piece)
            draft.accept(piece)
            on_draft(draft.text)
        raise ProgramError("program_too_long", f"over {MAX_STATEMENTS} statements")

    def _show(self, before: str, piece: str) -> None:
        number = before.count("\n")
        for line in piece.rstrip("\n").split("\n"):
            number += 1
            self._emit(event.PlanLine(text=line, number=number))

    async def _statement(
        self,
        asked: tuple[Message, ...],
        before: str,
        grammar_text: str,
        sampling: tuple[float, int],
    ) -> str:
        """Decode until the first statement is complete, then stop the engine."""
        request = Request(
            run="plan",
            slot="plan",
            messages=asked,
            prefill=FENCE + before,
            lark=grammar_text,
            max_tokens=STATEMENT_TOKENS,
            temperature=sampling[0],
            seed=sampling[1],
        )
        heard: list[str] = []
        complete = asyncio.Event()

        def listen(text: str, _: int) -> None:
            heard.append(text)
            if first_statement("".join(heard)) is not None:
                complete.set()

        answer = await _until(self._processor.complete(request, listen), complete)
        text = "".join(heard) if answer is None else answer.text
        found = first_statement(text)
        if found is None:
            found = text if text.endswith("\n") else text + "\n"
        return found

    def _grammar(self, scope: Scope, draft: _Draft) -> str:
        names = [doc.name for doc in library() if "self" not in doc.signature]
        reserved = {name.partition(".")[0] for name in names} | set(self._catalogue.devices)
        return grammar.statement_grammar(
            self._catalogue,
            names,
            scope.records,
            reserved,
            may_end=bool(draft.statements) and draft.may_end,
            may_declare=draft.may_declare,
        )

    # -- without one ----------------------------------------------------------------------------

    async def _whole(self, task: str, attempt: int, complaint: str, on_draft: OnDraft) -> str:
        del on_draft  # it comes in one piece
        asked = prompt.messages(task, examples.similar(task), self._catalogue, complaint)
        answer = await self._processor.complete(
            Request(
                run="plan",
                slot="plan",
                messages=asked,
                max_tokens=PROGRAM_TOKENS,
                temperature=0.4 * attempt,
                seed=_seed(task, attempt, 0, 0),
            )
        )
        text = unfenced(answer.text)
        if answer.finish == "length":
            raise ProgramError("program_too_long", f"over {PROGRAM_TOKENS} tokens")
        program = parse(text, self._catalogue)
        rehearse(program, read_brief(task))
        refuse_strangers(program, task)
        review(program, task)
        self._show("", text)
        return text


def _refuse_idle(before: str, piece: str) -> None:
    """No statement twice in a row; a second record only where the first one is used, be it by the
    second."""
    if before.endswith(piece):
        raise ProgramError("statement_repeated", "the statement is there already")
    if not piece.startswith("class "):
        return
    name = piece[len("class ") : piece.index(":")]
    idle = [found for found in unused_names(before + piece) if found != name]
    if any(found[0].isupper() for found in idle):
        raise ProgramError("record_idle", f"{', '.join(idle)} is declared and not used")


async def _until(call: Awaitable[Answer], complete: asyncio.Event) -> Answer | None:
    """The answer, or None when `complete` was set first; then the call is cancelled."""
    answering: asyncio.Task[Answer] = asyncio.ensure_future(call)
    waiting = asyncio.ensure_future(complete.wait())
    try:
        await asyncio.wait({answering, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        return None
    finally:
        waiting.cancel()
        answering.cancel()


def first_statement(text: str) -> str | None:
    """The first statement of a text that goes on, or None while it may not be complete.

    A plain statement ends with its line; a block ends where a line begins at the margin.
    """
    if text.startswith(grammar.END):
        return grammar.END
    head, newline, rest = text.partition("\n")
    if not newline:
        return None
    if not head.endswith(":"):
        return head + newline
    taken = [head]
    while rest:
        line, newline, after = rest.partition("\n")
        if line and not line.startswith(" "):
            if _continues(head, line):
                taken.append(line)
            elif _may_continue(head, line, bool(newline)):
                return None
            else:
                return "\n".join(taken) + "\n"
        elif not newline:
            return None
        elif line:
            taken.append(line)
        rest = after
    return None


def _continues(head: str, line: str) -> bool:
    return head.startswith("if ") and line.startswith(("else:", "elif "))


def _may_continue(head: str, line: str, whole: bool) -> bool:
    """Could an unfinished line still become ``else:`` or ``elif``?"""
    return (
        not whole and head.startswith("if ") and any(w.startswith(line) for w in ("else:", "elif "))
    )


def unfenced(text: str) -> str:
    """The program in an answer that may wrap it in a fence."""
    if "```" not in text:
        return text.strip() + "\n"
    inside = text.split("```")[1]
    return inside.removeprefix("python").strip("\n") + "\n"


def _seed(task: str, *numbers: int) -> int:
    mixed = hashlib.blake2b(f"{task}{numbers}".encode(), digest_size=4).digest()
    return int.from_bytes(mixed, "big") >> 1


__all__ = ["Planner", "first_statement", "unfenced"]
