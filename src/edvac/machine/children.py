"""Who does a step that is a program of its own: an `llm.do` by a worker, a model step whose data
does not fit one context piece by piece.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edvac.control import ControlUnit, Failure, Intent, Limits, Outcome, Result, Usage
from edvac.control import worker as writing
from edvac.control.access import exact_access, unforeseen
from edvac.control.paging import Paged, paged
from edvac.control.screen import RETRIES, Counts, Screen
from edvac.core.errors import ModelOutputError, OperandError, PolicyError
from edvac.core.label import Label
from edvac.core.signature import Access, Catalogue
from edvac.core.value import Failed, Instance, Sequence, Value, first_failure, plain, total_label
from edvac.guard import Deny, Verdict
from edvac.machine.child import Child, DoWork, Surroundings
from edvac.machine.driver import Execute
from edvac.machine.history import program_so_far
from edvac.machine.screening import ANY, Screening, effects_ahead
from edvac.program import Program, StepCall, parse
from edvac.program.extending import EXTEND

OVERHEAD = 2_200  # tokens of a context that the instruction, its frame and the answer may take
CHARACTERS = (3.0, 1.5, 0.7)  # of a token: tried one after the other, since texts differ
REFUSED = "worker_refused"
LEAST = 400  # characters of a piece; with less nothing can be done


class Children:
    """Does those steps of one run."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._ahead: dict[tuple[str, int], tuple[str, ...]] = {}

    async def do(self, intent: Intent) -> Outcome:
        """One step, to its end.

        Raises:
            OperandError: a worker is to have functions that there are not, or that it may not have;
                data cannot be cut so that it fits.
            LeaseError, StoreError: a journal could not be written.
        """
        if intent.call.op == writing.DO:
            return await self._worker(intent)
        return await self._paged(intent)

    async def _worker(self, intent: Intent) -> Outcome:
        around = self._around
        operands = ("functions", "budget", "reads")
        names, budget, reads = (plain(intent.operands[name]) for name in operands)
        if budget < 0:
            raise OperandError("budget_negative", f"a worker cannot use {budget} tokens")
        brief = writing.Brief(
            writing.functions_of(names, around.catalogue),
            intent.call.result,
            around.processor.context_tokens,
            budget,
            tuple(reads),
            around.depth,
        )
        known = [*around.catalogue.signatures.values(), *writing.SIGNATURES]
        catalogue = Catalogue.of(known)
        if not around.depth:
            goal = str(plain(intent.operands["goal"]))
            around = replace(around, goal=goal, ahead=await self._effects_ahead(intent))
        counts = Counts()
        usage = Usage()
        for attempt in range(RETRIES + 1):
            screen = Screen(around.policy.rules.workers, around.goal, around.ahead, attempt > 0)
            screen.counts = counts
            suffix = "bc"[attempt - 1] if attempt else ""
            outcome = await _Worker(around, intent, brief, catalogue, screen, suffix=suffix).run()
            usage += outcome.usage
            refused = isinstance(outcome, Failure) and outcome.code == REFUSED
            spent = usage.prompt + usage.completion
            if not refused or attempt == RETRIES or 0 < budget <= spent:
                break
            counts.again += 1
            brief = replace(brief, budget=budget - spent if budget else 0)
        return replace(outcome, usage=usage)

    async def _effects_ahead(self, intent: Intent) -> tuple[str, ...]:
        """Which effects of the program this worker's answer could be part of."""
        around, line = self._around, intent.call.line
        text, whole = await around.ledger.call(lambda store: program_so_far(store, around.run))
        if (text, line) not in self._ahead:
            found = effects_ahead(text, around.catalogue, writing.DO, line)
            self._ahead[text, line] = found
        known = whole and EXTEND not in text
        return self._ahead[text, line] if known else (*self._ahead[text, line], ANY)

    async def _paged(self, intent: Intent) -> Outcome:
        """With pieces of one size; where those do not fit, with smaller ones."""
        around, rule = self._around, str(plain(intent.operands["over"]))
        tokens = around.processor.context_tokens - OVERHEAD
        outcome: Outcome | None = None
        for at, characters in enumerate(CHARACTERS):
            room = int(tokens * characters)
            if room < LEAST and outcome is not None:
                break
            made = paged(intent, rule, max(LEAST, room))
            program = parse(made.text, around.catalogue)
            outcome = await _Pages(around, intent, program, made, suffix="abc"[at]).run()
            if not (isinstance(outcome, Failure) and outcome.code == "operand_too_large"):
                break
        assert outcome is not None
        return outcome


class _Pages(Child):
    kind = "pieces"

    def __init__(
        self, around: Surroundings, intent: Intent, program: Program, made: Paged, *, suffix: str
    ) -> None:
        super().__init__(around, intent, program, made.params, suffix=suffix)
        self._note = made.note

    def outcome(self, unit: ControlUnit, state: str) -> Outcome:
        answer, usage = unit.bound("answer"), unit.usage
        if answer is None or state not in ("done", "partial"):
            away = unit.away
            if away is not None:
                return replace(away, usage=usage)
            return Failure("pieces_stopped", f"its pieces were stopped ({state})", usage=usage)
        failed = first_failure(answer)
        if failed is not None:
            if failed.code == "index_out_of_range":  # a field's list of what pieces state is empty
                what = "no piece of the data states all that the record needs"
                return Failure("not_stated", what, usage=usage, seen=failed.label)
            return Failure(failed.code, failed.what, usage=usage, seen=failed.label)
        note = f"{self._note}: edvac show {self.name}"
        return Result(answer, usage=usage, notes=(note,))


class _Worker(Child):
    kind = "worker"
    growing = True

    def __init__(
        self,
        around: Surroundings,
        intent: Intent,
        brief: writing.Brief,
        catalogue: Catalogue,
        screen: Screen,
        *,
        suffix: str,
    ) -> None:
        params = {name: intent.operands[name] for name in ("goal", "data")}
        super().__init__(around, intent, parse(brief.text, catalogue), params, suffix=suffix)
        rules, processor = around.policy.rules, around.processor
        self._screening = Screening(screen, rules, processor, self.name, around.seed)
        self.brief = self._brief = brief
        self._catalogue = catalogue
        self._growth = writing.Growth(brief)
        self._failure: Failure | None = None
        self._answer: Value | None = None
        self._over = False

    def limits(self) -> Limits:
        limits = super().limits()
        return replace(limits, tokens=self._brief.budget)

    def below(self) -> DoWork:
        around = self.around
        return Children(replace(around, run=self.name, depth=around.depth + 1)).do

    def through(self, execute: Execute) -> Execute:
        return self._screening.through(execute)

    async def checked(self, outcome: Outcome) -> Outcome:
        """The answer, where nothing is to be said against it."""
        if isinstance(outcome, Failure):
            return outcome
        result = await self._screening.answered(self.intent, outcome)
        if result is not None:
            return result
        what = "the answer of its worker was refused by the check of workers"
        fix = f"See what it did: edvac show {self.name}. Say the goal more precisely."
        return Failure(REFUSED, what, "", fix, usage=outcome.usage)

    def told(self) -> dict[str, Any]:
        return {"checks": self._screening.screen.counts.stored()}

    def policy(self, call: StepCall, values: dict[str, Value]) -> Verdict:
        """The guard's, and no path but those that the step is to read.

        What its model hands on to another worker may be made of anything that it has read: the
        other can do no more than this one, and its answer carries the same labels."""
        allowed = Access(self._brief.reads)
        stray = unforeseen(allowed, exact_access(call.signature, values))
        if stray is None:
            handed = {"goal", "functions"} if call.signature.device == "llm" else set()
            kept = {key: one for key, one in values.items() if key not in handed}
            return super().policy(call, kept)
        what = f"{stray!r} is not among the paths that this worker may read"
        return Deny(PolicyError("worker_outside", what, f"It may read {allowed.reads}."))

    def grow(self, unit: ControlUnit) -> tuple[Program, bool, Label] | None:
        """The lines that follow from the last turn, once that is known."""
        if self._over:
            return None
        number = self._growth.turns
        turn = unit.bound(f"turn{number}")
        if turn is None:
            return None
        label = total_label(turn)
        if isinstance(turn, Failed):
            self._failure = Failure(turn.code, turn.what, seen=turn.label)
            return self._end(label)
        assert isinstance(turn, Instance)
        seen = unit.bound(f"seen{number - 1}")
        size = len(str(plain(seen))) if isinstance(seen, Sequence) else 0
        try:
            more = self._growth.after(turn, size)
        except ModelOutputError as problem:
            self._failure = replace(Failure.of(problem), repair=False, seen=label)
            return self._end(label)
        self._screening.screen.turned(plain(turn))
        if more is None:
            answer = turn.fields["answer"]
            self._answer = answer.fields["value"]
            return self._end(label)
        self.program = parse(self.program.text + more, self._catalogue)
        return self.program, False, label

    def _end(self, label: Label) -> tuple[Program, bool, Label]:
        self._over = True
        return self.program, True, label

    def outcome(self, unit: ControlUnit, state: str) -> Outcome:
        usage = unit.usage
        turns = self._growth.turns
        if self._answer is not None and state in ("done", "partial"):
            notes = [f"a worker took {turns} turns: edvac show {self.name}"]
            if dropped := self._screening.screen.counts.dropped:
                was = "sentence was" if dropped == 1 else "sentences were"
                notes.append(f"{dropped} {was} not shown to it: they seem to speak to a model")
            return Result(self._answer, usage=usage, notes=tuple(notes))
        if self._failure is not None:
            return replace(self._failure, usage=usage)
        if unit.spent:
            what = f"its worker has no answer, and {unit.spent}"
            fix = "Give it a larger budget, or a smaller goal."
            return Failure("worker_budget", what, "", fix, usage=usage)
        away = unit.away
        if away is not None:
            return replace(away, usage=usage)
        return Failure("worker_stopped", f"its worker was stopped ({state})", usage=usage)
