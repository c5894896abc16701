"""Carries out what `edvac.control.screen` says of a worker: looks at what its calls gave before its
model sees it, and at its answer before the program does. Knows nothing of how a step is executed.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterable
from dataclasses import replace

from edvac.control import Failure, Intent, Outcome, Result, Usage
from edvac.control.screen import Screen, allows, call_line
from edvac.control.worker import SIGNATURES as WORKER_SIGNATURES
from edvac.control.worker import needed
from edvac.core.errors import EdvacError, ProgramError
from edvac.core.schema import fits
from edvac.core.signature import Catalogue, Effect, Signature
from edvac.core.value import digest, plain, total_label
from edvac.guard import Rules
from edvac.machine.driver import Execute
from edvac.processor import Processor
from edvac.program import parse
from edvac.program.influence import influences, made_by

_OWN = frozenset(one.op for one in WORKER_SIGNATURES)
_MARK = "this worker"
ANY = "whatever the program does"


class Screening:
    """Of one worker: a screen, and what it needs of the run."""

    def __init__(
        self, screen: Screen, rules: Rules, processor: Processor, run: str, seed: int
    ) -> None:
        self.screen = screen
        self._rules = rules
        self._processor = processor
        self._run = run
        self._seed = seed

    def through(self, execute: Execute) -> Execute:
        """The same, and what comes of it is looked at before it is journalled: a worker that is
        resumed sees what it saw."""

        async def looked(intent: Intent) -> Outcome:
            outcome = await execute(intent)
            if not self.screen.on or intent.call.op in _OWN:
                return outcome
            if isinstance(outcome, Failure):
                return self._failed(outcome)
            return await self._result(intent, outcome)

        return looked

    async def answered(self, intent: Intent, result: Result) -> Result | None:
        """A worker's answer as the program may have it; None where it is refused. Looked at only
        where an effect is ahead, since else it goes nowhere."""
        screen = self.screen
        if not screen.on or not screen.ahead:
            return result
        screen.counts.events += 1
        value, dropped = screen.cleaned(result.value, wide=screen.wide)
        self._count(dropped)
        if dropped:
            return replace(result, value=value) if fits(value, intent.call.result) else None
        allowed, usage = await self._allowed("", intent.slot)
        return replace(result, usage=result.usage + usage) if allowed else None

    async def _result(self, intent: Intent, result: Result) -> Result:
        screen, value = self.screen, result.value
        strange = self._rules.strange(total_label(value).integrity, ())
        sources = [one for one in strange if not one.startswith("model:")]
        read = await asyncio.to_thread(digest, value)
        if not screen.is_event(sources, read):
            if read not in screen.refused:
                return result
            return await self._without(result, read, wide=screen.refused[read])
        screen.counts.events += 1
        cleaned = await self._without(result, read, wide=screen.wide)
        if cleaned is not result:
            return cleaned
        names = {one.name for one in needed(intent.call.signature)}
        arguments = {name: plain(one) for name, one in intent.operands.items() if name in names}
        allowed, usage = await self._allowed(call_line(intent.call.op, arguments), intent.slot)
        result = replace(result, usage=result.usage + usage)
        return result if allowed else await self._without(result, read, wide=True)

    async def _without(self, result: Result, read: str, *, wide: bool) -> Result:
        """Without spans that speak to a model; the same where there are none. Nobody else may take
        the result up. `read` is the digest of what came."""
        clean = self.screen.cleaned
        value, dropped = await asyncio.to_thread(lambda: clean(result.value, wide=wide))
        if not dropped:
            return result
        self._count(dropped)
        self.screen.refused[read] = wide
        notes = (*result.notes, *(f"not shown to the worker: {one}" for one in dropped))
        return replace(result, value=value, reuse_key="", notes=notes)

    def _count(self, dropped: list[str]) -> None:
        self.screen.counts.denied += bool(dropped)
        self.screen.counts.dropped += len(dropped)

    def _failed(self, failure: Failure) -> Failure:
        """What an error says may be an outsider's words too."""
        found = [self.screen.cleaned_text(one) for one in (failure.what, failure.why)]
        return replace(failure, what=found[0], why=found[1])

    async def _allowed(self, step: str, slot: str) -> tuple[bool, Usage]:
        """What the model that checks says, and what that cost; yes where none is to be asked. One
        that does not answer has not said yes."""
        screen, processor = self.screen, self._processor
        if not screen.asks:
            return True, Usage()
        screen.counts.model += 1
        request = screen.request(step, self._run, f"{slot} check", self._seed)
        try:
            await processor.open()
            answer = await processor.complete(request)
        except EdvacError:
            screen.counts.denied += 1
            return False, Usage()
        usage = Usage.of(answer, processor.price)
        screen.counts.tokens += answer.prompt_tokens + answer.completion_tokens
        allowed = answer.finish == "stop" and allows(answer.text)
        screen.counts.denied += not allowed
        return allowed, usage


def effects_ahead(text: str, catalogue: Catalogue, op: str, line: int) -> tuple[str, ...]:
    """The functions with an effect that the result of a call could be part of, by the text alone:
    in an operand, or in deciding that they are called. Of a text that cannot be read, as of one
    that is still being written, any."""

    def source(call: ast.Call, signature: Signature) -> Iterable[str]:
        here = signature.op == op and call.lineno <= line <= (call.end_lineno or call.lineno)
        return (_MARK,) if here else made_by(call, signature)

    try:
        found = influences(parse(text, catalogue), source)
    except ProgramError:
        return (ANY,)
    reached = {
        one.op
        for one in found
        if one.effect in (Effect.WRITE, Effect.EXTERNAL)
        and any(_MARK in label.integrity for label in (one.branch, *one.params.values()))
    }
    return tuple(sorted(reached))
