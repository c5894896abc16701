"""The planner: from a task to a program, by an outline, part by part, or as a whole.

A task for several results is planned for one after the other. Where that gives no program, whole
ones are written, again with other examples and with the last complaint in view, until one is
accepted; then the planner gives up with the verifier's error.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from edvac.compiler import prompt
from edvac.compiler.brief import NOTHING_SAID, read_brief
from edvac.compiler.draft import GivenUp
from edvac.compiler.merge import merged
from edvac.compiler.outliner import Outliner
from edvac.compiler.parts import Smaller, smaller
from edvac.compiler.statements import statements
from edvac.compiler.trial import Sight, outcome
from edvac.compiler.writer import OnDraft, Order, Writer
from edvac.core import event
from edvac.core.errors import ProgramError
from edvac.core.signature import Catalogue
from edvac.processor import Processor, Request
from edvac.program import parse
from edvac.program.extending import without_extensions

PLANNER_VERSION = 11  # raise it whenever prompt, grammar or examples change what is written
ROUNDS = 3  # of whole programs, each with other examples
SAMPLES = 100  # after so many the planner gives up: what has not come by then seldom comes
STRICT = 2  # rounds before a program will do that finds nothing in the files
PLANS = 1  # written side by side in a round


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

    async def revise(self, task: str, program: str, remark: str) -> str:
        """Another program for the task, given the present one and what a person says of it.

        Raises:
            ProgramError: no legal program came out.
        """
        said = f"An earlier program was:\n{program}\nThe user says what is wrong with it: {remark}"
        return await self.plan(task, complaint=said)

    async def extend(self, goal: str, running: str, told: str = "") -> str:
        """Lines that go below a program which runs already, and do what a line of it asks for.

        Args:
            told: what is known, as text; who wrote it decides what is done, as with the goal.

        Raises:
            ProgramError: no legal lines came out; the error is the verifier's last one.
        """
        begun = "".join(statements(without_extensions(running)))
        task = f"{goal}\n{told}".rstrip()
        known = "" if self._processor.has_grammar else prompt.below(begun)
        writer, complaint = self._writer(), ""
        for number in range(ROUNDS):
            said = f"{known}\n\n{complaint}".strip()
            order = Order(task, number, said, first=False, last=True, part=True, begun=begun)
            try:
                text = await writer.write(replace(order, running=True), _ignore)
            except ProgramError as refused:
                failed, complaint = refused, f"Lines were refused. {refused}"
            else:
                writer.show(running, text[len(begun) :])
                return text[len(begun) :]
        raise ProgramError(
            "extend_failed",
            "the model wrote no legal lines for this",
            str(failed),
            "Say in smaller steps what is to be done, use a larger model, or write the lines.",
        )

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
        writer = self._writer()
        # What runs while it is being written must not begin on a part that is put to others later:
        # their records become one, and the documents would be read again.
        freely = not complaint and on_draft is None and self._processor.has_grammar
        parts = self._parts(task) if freely else []
        if len(parts) > 1:
            try:
                return await self._by_parts(writer, task, parts)
            except ProgramError as refused:
                why = f"the task is planned as a whole: {refused.what}"
                self._emit(event.Note(text=why))
        return await self._rounds(writer, task, on_draft, complaint)

    def _writer(self) -> Writer:
        return Writer(
            self._processor,
            self._catalogue,
            self._emit,
            sight=self._sight,
            shown=self._shown,
            rules=self._rules,
            budget=SAMPLES * self._plans,
        )

    async def _rounds(
        self, writer: Writer, task: str, on_draft: OnDraft | None, complaint: str
    ) -> str:
        """
        Raises:
            ProgramError: no round gave a legal program.
        """
        failed: ProgramError | None = None
        spare = ""
        for number in range(ROUNDS):
            plans = self._plans if on_draft is None else 1
            attempts = range(number * plans, (number + 1) * plans)
            first, last = number == 0, number + 1 == ROUNDS
            orders = (
                Order(task, one, complaint, shown=one == attempts[0], first=first, last=last)
                for one in attempts
            )
            drafts = (writer.write(order, on_draft or _ignore) for order in orders)
            ended = await asyncio.gather(*drafts, return_exceptions=True)
            found = [one for one in ended if isinstance(one, str)]
            if found:
                chosen = self._agreed(found, task)
                if chosen is not ended[0]:
                    self._emit(event.Note(text="another plan is taken, which more agree with"))
                    writer.show("", chosen)
                return chosen
            refusals = [one for one in ended if isinstance(one, ProgramError)]
            for one in ended:
                if one not in refusals and isinstance(one, BaseException):
                    raise one
            failed = refusals[0]
            spares = (one.spare for one in refusals if isinstance(one, GivenUp))
            spare = next(filter(None, spares), spare)
            if spare and number + 1 >= STRICT:
                (on_draft or _ignore)(spare)
                writer.show("", spare)
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

    async def _by_parts(self, writer: Writer, task: str, parts: list[Smaller]) -> str:
        """A program that does one part of the task after the other. It goes on with what it has
        where that will do; else the part gets a program of its own, which is put to the others.

        Raises:
            ProgramError: a part has no program, or all of them together do not do the task.
        """
        first = Order(parts[0].alone, shown=True, part=True)
        try:
            text = await writer.write(first, _ignore)
        except ProgramError:
            text = await writer.write(replace(first, attempt=self._plans, first=False), _ignore)
        for part in parts[1:]:
            behind = Order(part.so_far, shown=True, part=True, begun=text)
            try:
                text = await writer.write(behind, _ignore)
            except ProgramError:  # it may lack what the part needs
                own = await writer.write(Order(part.alone, part=True), _ignore)
                text = merged([text, own], self._headers)
        writer.accept(text, Order(task), whole=True)
        if writer.lines != text.rstrip("\n").split("\n"):
            writer.show("", text)
        return text

    def _headers(self, text: str) -> dict[str, list[str]]:
        """The columns of the tables that a program writes, by path."""
        written = outcome(parse(text, self._catalogue), NOTHING_SAID, self._sight)
        return {
            path: table.partition("\n")[0].split(",")
            for path, table in written.items()
            if path.endswith(".csv") and table.strip()
        }

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
        writer = self._writer()

        def grown(text: str) -> None:
            nonlocal shown
            writer.show(shown, text[len(shown) :])
            shown = text
            on_draft(text)

        return await Outliner(self._processor, self._catalogue).plan(task, grown)
