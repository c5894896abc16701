"""The planner: fills an outline of the task where it can, and else decodes a program statement by
statement, verifying each before going on.

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
from edvac.compiler.acceptance import accept
from edvac.compiler.brief import NOTHING_SAID, read_brief
from edvac.compiler.dead import without_dead
from edvac.compiler.head import head
from edvac.compiler.merge import merged
from edvac.compiler.outliner import Outliner
from edvac.compiler.parts import Smaller, smaller
from edvac.compiler.review import Misdeclared, unused_names
from edvac.compiler.statements import first_statement, statements
from edvac.compiler.trial import Sight, outcome
from edvac.core import event
from edvac.core.errors import ProgramError
from edvac.core.signature import Catalogue
from edvac.processor import Answer, Message, Processor, Request
from edvac.program import Scope, library, parse, verify_prefix

PLANNER_VERSION = 11  # raise it whenever prompt, grammar or examples change what is written
FENCE = "```python\n"
MAX_STATEMENTS = 30
TRIES = 3  # at one statement: a single sample, then several side by side
SIDE_BY_SIDE = 3
STEP, HOTTEST = 0.25, 0.75  # temperatures: a small model drifts into nonsense above
BACKTRACKS = 1  # statements taken back, in one round
ROUNDS = 3  # of whole programs, each with other examples
SAMPLES = 100  # after so many the planner gives up: what has not come by then seldom comes
STRICT = 2  # rounds before a program will do that finds nothing in the files
PLANS = 1  # written side by side in a round
STATEMENT_TOKENS = 400
HINT = 240  # characters
PROGRAM_TOKENS = 1200
REPAIRS = 3  # of a program that came in one piece
REPAIR_STEP = 0.4  # warmer, where a correction changed nothing


OnDraft = Callable[[str], None]


def _ignore(text: str) -> None:
    del text


def _results(written: dict[str, str]) -> frozenset[tuple[str, object]]:
    """Files in a form that is the same whatever the order of columns."""
    found: list[tuple[str, object]] = []
    for path, text in written.items():
        rows = [line.split(",") for line in text.split("\n")]
        same = path.endswith(".csv") and all(len(row) == len(rows[0]) for row in rows[:-1])
        columns = frozenset(zip(*rows[:-1], strict=True)) if same else text
        found.append((path, columns))
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Order:
    """One program to write: its number decides the examples, `shown` whether a person watches."""

    task: str
    attempt: int
    complaint: str
    shown: bool
    part: bool = False  # of another task
    begun: str = ""  # what the program has already


@dataclass(slots=True)
class _Draft:
    """The program so far, by statement, and how the one under way is getting on."""

    attempt: int
    statements: list[str] = field(default_factory=list)
    given: int = 0  # of these that are not the model's
    tries: int = 0
    backtracks: int = 0
    samples: int = 0
    may_end: bool = True
    may_declare: bool = True
    hint: str = ""  # why the statement was refused: a comment that only the model sees
    declared_anew: bool = False
    spare: str = ""  # a whole program that finds nothing in the files, which may be right

    @property
    def text(self) -> str:
        return "".join(self.statements)

    def samplings(self) -> list[tuple[float, str]]:
        """Temperature and name of each sample of the next statement: one, the surest, at first;
        after a refusal several side by side, from the surest to more daring ones. A further
        attempt is no warmer: it has other examples."""
        steps = range(SIDE_BY_SIDE) if self.tries else range(1)
        base = STEP * (self.backtracks + max(0, self.tries - 1))
        name = f"{self.attempt} {len(self.statements)} {self.samples}"
        return [(min(HOTTEST, base + STEP * step), f"{name} {step}") for step in steps]

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
        if isinstance(problem, Misdeclared) and self._back_to(problem.field):
            return
        if self.tries < TRIES:
            return
        self.backtracks += 1
        if self.backtracks > BACKTRACKS or len(self.statements) <= self.given:
            raise problem
        self.statements.pop()
        self.tries = 0

    def _back_to(self, name: str) -> bool:
        """Take everything back from the record on that has the field; once, and after the line has
        been refused in other forms too."""
        found = [n for n, one in enumerate(self.statements) if f"\n    {name}: " in one]
        if self.declared_anew or self.tries < 2 or not found or found[-1] < self.given:
            return False
        self.declared_anew = True
        self.statements = self.statements[: found[-1]]
        self.tries = 0
        return True


class _GivenUp(ProgramError):
    """No program that is surely right; `spare` is one that finds nothing in the files."""

    def __init__(self, refused: ProgramError, spare: str) -> None:
        super().__init__(refused.code, refused.what, refused.why, refused.fix, line=refused.line)
        self.spare = spare


class Planner:
    """Turns tasks into programs with one processor.

    Args:
        plans: programs that are written side by side, of which the one that most agree with is
            taken.
        outlines: try an outline first; `free` writes freely where that gives no program.
        sight: files to try programs on; where it is None they are tried on made-up ones alone.
        shown: examples in a prompt; as many as the task needs where it is None.
        rules: with rules in the prompt, or with the examples alone?
    """

    def __init__(
        self,
        processor: Processor,
        catalogue: Catalogue,
        emit: event.Emit,
        *,
        plans: int = PLANS,
        outlines: bool = False,
        free: bool = True,
        sight: Sight | None = None,
        shown: int | None = None,
        rules: bool = True,
    ) -> None:
        self._processor = processor
        self._catalogue = catalogue
        self._emit = emit
        self._plans = plans
        self._outlines = outlines
        self._free = free
        self._sight = sight
        self._shown = shown
        self._rules = rules
        self._samples = 0
        self._refused: ProgramError | None = None  # why the last statement was
        self._lines: list[str] = []  # that were shown

    async def revise(self, task: str, program: str, remark: str) -> str:
        """Another program for the task, given the present one and what a person says of it.

        Raises:
            ProgramError: no legal program came out.
        """
        said = f"An earlier program was:\n{program}\nThe user says what is wrong with it: {remark}"
        return await self.plan(task, complaint=said)

    async def plan(self, task: str, on_draft: OnDraft | None = None, *, complaint: str = "") -> str:
        """A verified program for the task.

        Args:
            on_draft: called with the program so far whenever it has changed. It mostly grows;
                when a statement was taken back it is not a continuation of what came before. One
                program is written then; otherwise several, and the one that others agree with is
                taken.
            complaint: what is wrong with an earlier program, for the model.

        Raises:
            ProgramError: no legal program came out; the error is the verifier's last one.
        """
        if self._outlines and self._processor.has_grammar and not complaint:
            try:
                return await self._by_outline(task, on_draft or _ignore)
            except ProgramError as refused:
                if not self._free:
                    raise
                why = f"the task does not fit an outline and is planned freely: {refused.what}"
                self._emit(event.Note(text=why))
        self._samples, self._refused, self._lines = 0, None, []
        parts = [] if complaint or not self._processor.has_grammar else self._parts(task)
        if len(parts) > 1:
            try:
                return await self._by_parts(task, parts, on_draft or _ignore)
            except ProgramError as refused:
                why = f"the task is planned as a whole: {refused.what}"
                self._emit(event.Note(text=why))
        return await self._rounds(task, on_draft, complaint)

    async def _rounds(self, task: str, on_draft: OnDraft | None, complaint: str) -> str:
        """
        Raises:
            ProgramError: no round gave a legal program.
        """
        failed: ProgramError | None = None
        spare = ""
        for number in range(ROUNDS):
            plans = self._plans if on_draft is None else 1
            attempts = range(number * plans, (number + 1) * plans)
            drafts = (
                self._draft(_Order(task, one, complaint, one == attempts[0]), on_draft or _ignore)
                for one in attempts
            )
            ended = await asyncio.gather(*drafts, return_exceptions=True)
            found = [one for one in ended if isinstance(one, str)]
            if found:
                chosen = self._agreed(found, task)
                if chosen is not ended[0]:
                    self._emit(event.Note(text="another plan is taken, which more agree with"))
                    self._show("", chosen)
                return chosen
            refusals = [one for one in ended if isinstance(one, ProgramError)]
            for one in ended:
                if one not in refusals and isinstance(one, BaseException):
                    raise one
            failed = refusals[0]
            spares = (one.spare for one in refusals if isinstance(one, _GivenUp))
            spare = next(filter(None, spares), spare)
            if spare and number + 1 >= STRICT:
                (on_draft or _ignore)(spare)
                self._show("", spare)
                return spare
            complaint = f"An earlier program was refused. {failed}"
            why = f"the plan was refused and is written again: {failed.what}"
            self._emit(event.Note(text=why))
        raise ProgramError(
            "plan_failed",
            "the model wrote no legal program for this task",
            str(failed),
            "Say the task in smaller steps, use a larger model, or write the program yourself.",
        )

    def _parts(self, task: str) -> list[Smaller]:
        sight = self._sight
        return smaller(task, None if sight is None else lambda found: bool(sight.names(found)))

    async def _by_parts(self, task: str, parts: list[Smaller], on_draft: OnDraft) -> str:
        """A program that does one part of the task after the other. It goes on with what it has
        where that will do; else the part gets a program of its own, which is put to the others.

        Raises:
            ProgramError: a part has no program, or all of them together do not do the task.
        """
        text = await self._first_part(parts[0].alone, on_draft)
        for part in parts[1:]:
            behind = _Order(part.so_far, 0, "", shown=True, part=True, begun=text)
            alone = _Order(part.alone, 0, "", shown=False, part=True)
            try:
                text = await self._draft(behind, on_draft)
            except ProgramError:  # it may lack what the part needs
                text = merged([text, await self._draft(alone, _ignore)], self._headers)
                on_draft(text)
        self._accept(text, _Order(task, 0, "", shown=True), whole=True)
        if self._lines != text.rstrip("\n").split("\n"):
            self._show("", text)
        return text

    async def _first_part(self, task: str, on_draft: OnDraft) -> str:
        """
        Raises:
            ProgramError: no program came out, with none of the examples.
        """
        try:
            return await self._draft(_Order(task, 0, "", shown=True, part=True), on_draft)
        except ProgramError:
            other = _Order(task, self._plans, "", shown=True, part=True)
            return await self._draft(other, on_draft)

    def _headers(self, text: str) -> dict[str, list[str]]:
        """The columns of the tables that a program writes, by path."""
        written = outcome(parse(text, self._catalogue), NOTHING_SAID, self._sight)
        return {
            path: table.partition("\n")[0].split(",")
            for path, table in written.items()
            if path.endswith(".csv") and table.strip()
        }

    async def _draft(self, order: _Order, on_draft: OnDraft) -> str:
        write = self._by_statement if self._processor.has_grammar else self._whole
        return await write(order, on_draft)

    def _agreed(self, found: list[str], task: str) -> str:
        """Of several programs the one whose results most others have too; the surest of those."""
        brief = read_brief(task)
        programs = [parse(text, self._catalogue) for text in found]
        results = [_results(outcome(program, brief, self._sight)) for program in programs]
        return max(zip(found, results, strict=True), key=lambda one: results.count(one[1]))[0]

    async def prepare(self) -> None:
        """Have the processor read what every plan begins with, so that the first one need not wait
        for it."""
        asked = prompt.constant(self._catalogue, rules=self._rules)
        await self._processor.complete(Request(run="plan", slot="", messages=asked, max_tokens=1))

    async def _by_outline(self, task: str, on_draft: OnDraft) -> str:
        shown = ""

        def grown(text: str) -> None:
            nonlocal shown
            self._show(shown, text[len(shown) :])
            shown = text
            on_draft(text)

        return await Outliner(self._processor, self._catalogue).plan(task, grown)

    # -- under a grammar ------------------------------------------------------------------------

    async def _by_statement(self, order: _Order, on_draft: OnDraft) -> str:
        asked = self._asked(order, begun=True)
        begun = statements(order.begun) if order.begun else self._head(order)
        draft = _Draft(order.attempt, begun)
        draft.given = len(draft.statements)
        if order.shown and draft.statements and not order.begun:
            self._show("", draft.text)
        while len(draft.statements) < MAX_STATEMENTS:
            try:
                piece = await self._next(asked, draft, order)
            except ProgramError as problem:
                raise _GivenUp(problem, draft.spare) from problem
            if piece == grammar.END:
                return draft.text
            if piece is None:
                continue
            if order.shown:
                self._show(draft.text, piece)
            draft.accept(piece)
            on_draft(draft.text)
            done = self._done(draft.text, order)
            if done:
                on_draft(done)
                return done
        raise ProgramError("program_too_long", f"over {MAX_STATEMENTS} statements")

    def _asked(self, order: _Order, *, begun: bool) -> tuple[Message, ...]:
        return prompt.messages(
            order.task,
            examples.similar(order.task, self._shown, attempt=order.attempt),
            self._catalogue,
            order.complaint,
            begun=begun,
            rules=self._rules,
        )

    def _head(self, order: _Order) -> list[str]:
        """How the program begins where that is certain: with the tables that the task starts from.
        A later attempt begins freely."""
        if order.attempt >= self._plans:
            return []
        return head(read_brief(order.task), grammar.reserved(self._catalogue))

    def _done(self, text: str, order: _Order) -> str:
        """The program without what nobody uses, if it does everything that the task names; empty
        if not. A small model that is asked whether it has more to say says more."""
        if not read_brief(order.task).results:
            return ""
        done = without_dead(text)
        try:
            self._accept(done, order, whole=True)
        except ProgramError:
            return ""
        return done

    async def _next(self, asked: tuple[Message, ...], draft: _Draft, order: _Order) -> str | None:
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
        if self._samples > SAMPLES * self._plans and self._refused is not None:
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

    def _examine(self, draft: _Draft, piece: str, order: _Order) -> None:
        """May the statement follow, or the program end?

        Raises:
            ProgramError: why not.
        """
        if piece == grammar.END:
            self._accept(draft.text, order, whole=True)
            return
        verify_prefix(draft.text + piece, self._catalogue)
        last = draft.attempt >= (ROUNDS - 1) * self._plans and not order.part
        self._accept(draft.text + piece, order, whole=False, may_be_empty=last)
        _refuse_idle(draft.text, piece)

    def _accept(self, text: str, order: _Order, *, whole: bool, may_be_empty: bool = True) -> None:
        accept(
            parse(text, self._catalogue),
            order.task,
            whole=whole,
            part=order.part,
            sight=self._sight,
            may_be_empty=may_be_empty,
        )

    def _show(self, before: str, piece: str) -> None:
        number = before.count("\n")
        for line in piece.rstrip("\n").split("\n"):
            number += 1
            self._lines.append(line)
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

    def _grammar(self, scope: Scope, draft: _Draft, places: grammar.Places) -> str:
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

    async def _whole(self, order: _Order, on_draft: OnDraft) -> str:
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
            text = unfenced(answer.text)
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

    def _whole_accepted(self, text: str, order: _Order, *, may_be_empty: bool) -> str:
        """The program without what nobody uses.

        Raises:
            ProgramError: it may not do the task.
        """
        parse(text, self._catalogue)
        done = without_dead(text)
        self._accept(done, order, whole=True, may_be_empty=may_be_empty)
        if order.shown:
            self._show("", done)
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


def _seed(task: str, sample: str) -> int:
    mixed = hashlib.blake2b(f"{task} {sample}".encode(), digest_size=4).digest()
    return int.from_bytes(mixed, "big") >> 1


__all__ = ["Planner", "unfenced"]
