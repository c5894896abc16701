"""Writes one program: statement by statement under a grammar, each verified before the next, or in
one piece that is repaired.

A statement that is refused is sampled again, several times side by side; after a few refusals the
statement before it is taken back as well, and then the writer gives up with the last refusal.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edvac.compiler import examples, grammar, prompt
from edvac.compiler.acceptance import accept
from edvac.compiler.brief import read_brief
from edvac.compiler.dead import without_dead
from edvac.compiler.draft import HOTTEST, Draft, GivenUp
from edvac.compiler.head import head
from edvac.compiler.review import unused_names
from edvac.compiler.statements import first_statement, statements
from edvac.compiler.trial import Sight
from edvac.core import event
from edvac.core.errors import ProgramError
from edvac.core.signature import Catalogue
from edvac.processor import Answer, Message, Processor, Request
from edvac.program import Scope, library, parse, verify_prefix

FENCE = "```python\n"
MAX_STATEMENTS = 30
STATEMENT_TOKENS = 400
PROGRAM_TOKENS = 1200
REPAIRS = 3  # of a program that came in one piece
REPAIR_STEP = 0.4  # warmer, where a correction changed nothing

OnDraft = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """One program to write.

    Attributes:
        attempt: decides the examples, and what comes from chance.
        complaint: what is wrong with an earlier program, for the model.
        shown: does a person watch?
        first: does it begin with the tables that the task starts from? A later one begins freely.
        last: may it find nothing in the files, since nothing better has come?
        part: is the task a part of another one?
        begun: what the program has already.
        running: does that run, so that it has to stay as it is?
    """

    task: str
    attempt: int = 0
    complaint: str = ""
    shown: bool = False
    first: bool = True
    last: bool = False
    part: bool = False
    begun: str = ""
    running: bool = False


class Writer:
    """
    Args:
        sight: files to try programs on.
        shown: examples in a prompt; as many as the task needs where it is None.
        rules: with rules in the prompt?
        budget: samples, after which it gives up.

    Attributes:
        lines: what a person has been shown.
    """

    def __init__(
        self,
        processor: Processor,
        catalogue: Catalogue,
        emit: event.Emit,
        *,
        sight: Sight | None,
        shown: int | None,
        rules: bool,
        budget: int,
    ) -> None:
        self._processor = processor
        self._catalogue = catalogue
        self._emit = emit
        self._sight = sight
        self._shown = shown
        self._rules = rules
        self._budget = budget
        self._samples = 0
        self._refused: ProgramError | None = None  # why the last statement was
        self.lines: list[str] = []

    async def write(self, order: Order, on_draft: OnDraft) -> str:
        """
        Args:
            on_draft: called with the program so far whenever it has changed.

        Raises:
            ProgramError: no program came out.
        """
        write = self._by_statement if self._processor.has_grammar else self._whole
        return await write(order, on_draft)

    async def _by_statement(self, order: Order, on_draft: OnDraft) -> str:
        asked = self._asked(order, begun=True)
        begun = statements(order.begun) if order.begun else self._head(order)
        draft = Draft(order.attempt, begun)
        draft.given = len(draft.statements)
        if order.shown and draft.statements and not order.begun:
            self.show("", draft.text)
        while len(draft.statements) < MAX_STATEMENTS:
            try:
                piece = await self._next(asked, draft, order)
            except ProgramError as problem:
                raise GivenUp(problem, draft.spare) from problem
            if piece == grammar.END:
                return draft.text
            if piece is None:
                continue
            if order.shown:
                self.show(draft.text, piece)
            draft.accept(piece)
            on_draft(draft.text)
            done = self._done(draft.text, order)
            if done:
                on_draft(done)
                return done
        raise ProgramError("program_too_long", f"over {MAX_STATEMENTS} statements")

    def _asked(self, order: Order, *, begun: bool) -> tuple[Message, ...]:
        return prompt.messages(
            order.task,
            examples.similar(order.task, self._shown, attempt=order.attempt),
            self._catalogue,
            order.complaint,
            begun=begun,
            rules=self._rules,
        )

    def _head(self, order: Order) -> list[str]:
        """How the program begins where that is certain: with the tables that the task starts from.
        A later attempt begins freely."""
        if not order.first:
            return []
        return head(read_brief(order.task), grammar.reserved(self._catalogue))

    def _done(self, text: str, order: Order) -> str:
        """The program without what nobody uses, if it does everything that the task names; empty
        if not. A small model that is asked whether it has more to say says more."""
        if not read_brief(order.task).results:
            return ""
        done = text if order.running else without_dead(text)
        try:
            self.accept(done, order, whole=True)
        except ProgramError:
            return ""
        return done

    async def _next(self, asked: tuple[Message, ...], draft: Draft, order: Order) -> str | None:
        """The next statement, or the end; None where all samples were refused, which is counted.

        Raises:
            ProgramError: refused once too often.
        """
        task = order.task
        scope = verify_prefix(draft.text, self._catalogue)
        places = grammar.Places.of(read_brief(task), examples.kinds_of_work(task))
        grammar_text = self._grammar(scope, draft, places)
        before = draft.text + draft.hint
        self._samples += len(draft.samplings())
        if self._samples > self._budget and self._refused is not None:
            raise self._refused
        pieces = await asyncio.gather(
            *(
                self._statement(asked, before, grammar_text, (warmth, _seed(task, number)))
                for warmth, number in draft.samplings()
            )
        )
        refused: dict[str, ProgramError] = {}
        for piece in dict.fromkeys(pieces):
            try:
                self._examine(draft, piece, order)
            except ProgramError as problem:
                refused[piece] = problem
                if problem.code == "plan_empty" and not draft.spare:
                    draft.spare = self._done(draft.text + piece, order)
            else:
                return piece
        self._refused = refused[pieces[0]]
        draft.refuse(self._refused, at_end=pieces[0] == grammar.END)
        return None

    def _examine(self, draft: Draft, piece: str, order: Order) -> None:
        """May the statement follow, or the program end?

        Raises:
            ProgramError: why not.
        """
        if piece == grammar.END:
            self.accept(draft.text, order, whole=True)
            return
        verify_prefix(draft.text + piece, self._catalogue)
        self.accept(draft.text + piece, order, whole=False, may_be_empty=order.last)
        _refuse_idle(draft.text, piece)

    def accept(self, text: str, order: Order, *, whole: bool, may_be_empty: bool = True) -> None:
        accept(
            parse(text, self._catalogue),
            order.task,
            whole=whole,
            part=order.part,
            running=parse(order.begun, self._catalogue) if order.running else None,
            sight=self._sight,
            may_be_empty=may_be_empty,
        )

    def show(self, before: str, piece: str) -> None:
        number = before.count("\n")
        for line in piece.rstrip("\n").split("\n"):
            number += 1
            self.lines.append(line)
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

    def _grammar(self, scope: Scope, draft: Draft, places: grammar.Places) -> str:
        names = [doc.name for doc in library() if "self" not in doc.signature]
        return grammar.statement_grammar(
            self._catalogue,
            names,
            scope.records,
            grammar.reserved(self._catalogue),
            places=places,
            may_end=bool(draft.statements) and draft.may_end,
            may_declare=draft.may_declare,
        )

    # -- without one ----------------------------------------------------------------------------

    async def _whole(self, order: Order, on_draft: OnDraft) -> str:
        """Validate and repair: the model sees its last program and what is wrong with it.

        Raises:
            ProgramError: the last of `REPAIRS` corrections was refused too.
        """
        del on_draft  # it comes in one piece
        task = order.task
        asked = self._asked(order, begun=False)
        repair: tuple[Message, ...] = ()
        refused = ProgramError("plan_failed", "no program was written")
        warmth = REPAIR_STEP * order.attempt
        seen: set[str] = set()
        for number in range(REPAIRS + 1):
            seed = _seed(task, f"{order.attempt} {number}")
            answer = await self._program((*asked, *repair), min(HOTTEST, warmth), seed)
            text = _below(order, unfenced(answer.text))
            try:
                if answer.finish == "length":
                    raise ProgramError("program_too_long", f"over {PROGRAM_TOKENS} tokens")
                return self._whole_accepted(text, order, may_be_empty=number > 0)
            except ProgramError as problem:
                refused = problem
            if text in seen:  # it does not see what is meant: another one must come from chance
                warmth += REPAIR_STEP
            seen.add(text)
            repair = prompt.repair(text, refused)
        raise refused

    def _whole_accepted(self, text: str, order: Order, *, may_be_empty: bool) -> str:
        """The program without what nobody uses.

        Raises:
            ProgramError: it may not do the task.
        """
        parse(text, self._catalogue)
        done = text if order.running else without_dead(text)
        self.accept(done, order, whole=True, may_be_empty=may_be_empty)
        if order.shown:
            self.show("", done)
        return done

    async def _program(self, asked: tuple[Message, ...], warmth: float, seed: int) -> Answer:
        request = Request(
            run="plan",
            slot="plan",
            messages=asked,
            max_tokens=PROGRAM_TOKENS,
            temperature=warmth,
            seed=seed,
        )
        return await self._processor.complete(request)


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


def unfenced(text: str) -> str:
    """The program in an answer that may wrap it in a fence."""
    if "```" not in text:
        return text.strip() + "\n"
    inside = text.split("```")[1]
    return inside.removeprefix("python").strip("\n") + "\n"


def _below(order: Order, text: str) -> str:
    """The program that an answer means: whole, or what goes below a running one."""
    return text if not order.running or text.startswith(order.begun) else order.begun + text


def _seed(task: str, sample: str) -> int:
    mixed = hashlib.blake2b(f"{task} {sample}".encode(), digest_size=4).digest()
    return int.from_bytes(mixed, "big") >> 1
