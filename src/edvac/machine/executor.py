"""`execute(intent) -> outcome`: the one seam through which steps happen; scale-out replaces it.

Looks for a result that may be reused, calls the device or the processor, turns typed errors into
failures. Knows nothing of hazards, order or the journal's records.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from edvac.control import Failure, Intent, Outcome, Result, Usage
from edvac.control.context import TEMPLATE_VERSION, assemble, read_answer
from edvac.control.step import WrittenFile
from edvac.core import event
from edvac.core.errors import EdvacError
from edvac.core.label import Label
from edvac.core.seams import Clock
from edvac.core.signature import Effect
from edvac.core.value import Failed
from edvac.device import Call, Device
from edvac.machine.ledger import Ledger, decoder_of, read_entry
from edvac.processor import Answer, Processor
from edvac.store import Store

NEVER_REUSED = frozenset({"files"})  # as cheap to do as to look up


@dataclass(frozen=True, slots=True)
class Execution:
    """What an executor needs of its run."""

    run: str
    seed: int
    task: str
    fresh: bool
    emit: Callable[[event.Event], None]
    behind: Callable[[tuple[str, ...]], Awaitable[Label]]  # who decided what is found at paths


class Executor:
    def __init__(
        self,
        devices: Mapping[str, Device],
        processor: Processor,
        ledger: Ledger,
        clock: Clock,
        execution: Execution,
    ) -> None:
        self._devices = devices
        self._processor = processor
        self._ledger = ledger
        self._clock = clock
        self._run = execution

    async def execute(self, intent: Intent) -> Outcome:
        """One attempt. Every expected failure comes back as data."""
        start = self._clock.now()
        try:
            async with asyncio.timeout(intent.timeout_s):
                return await self._execute(intent, start)
        except TimeoutError:
            what = f"{intent.call.op} did not end within {intent.timeout_s:g} s"
            failure = Failure("step_timeout", what, seconds=self._clock.now() - start)
        except EdvacError as error:
            failure = Failure.of(error, seconds=self._clock.now() - start)
        return replace(failure, seen=await self._run.behind(intent.access.reads))

    async def _execute(self, intent: Intent, start: float) -> Outcome:
        key = await self._reuse_key(intent)
        if key and not self._run.fresh and intent.attempt == 1:
            known = await self._reuse(key)
            if known is not None:
                return known
        if intent.call.signature.device == "llm":
            return await self._model(intent, key, start)
        return await self._device(intent, key, start)

    async def _device(self, intent: Intent, key: str, start: float) -> Outcome:
        device = self._devices[intent.call.signature.device]
        reply = await device.call(_call(intent))
        files = tuple(WrittenFile(new.path, new.content, new.label) for new in reply.files)
        seconds = self._clock.now() - start
        return Result(reply.value, seconds, files=files, notes=reply.notes, reuse_key=key)

    async def _model(self, intent: Intent, key: str, start: float) -> Outcome:
        request = assemble(intent, self._run.run, self._seed(intent.slot), self._run.task)
        answer = await self._processor.complete(request, self._on_text(intent.slot))
        usage = Usage(answer.prompt_tokens, answer.cached_tokens, answer.completion_tokens)
        seconds = self._clock.now() - start
        try:
            value = read_answer(intent, answer.text, answer.finish, self._processor.identity)
        except EdvacError as error:
            return _misfit(error, answer, usage, seconds)
        notes = ("answered only after a repair",) if intent.attempt > 1 else ()
        return Result(
            value,
            seconds,
            usage,
            prompt=answer.sent,
            answer=answer.text,
            reuse_key=key,
            notes=notes,
        )

    def _seed(self, slot: str) -> int:
        mixed = hashlib.blake2b(f"{self._run.seed}:{slot}".encode(), digest_size=4)
        return int.from_bytes(mixed.digest(), "big") >> 1

    def _on_text(self, slot: str) -> Callable[[str, int], None]:
        def show(text: str, tokens: int) -> None:
            self._run.emit(event.StepText(run=self._run.run, slot=slot, text=text, tokens=tokens))

        return show

    async def _reuse_key(self, intent: Intent) -> str:
        """Everything that decides the result (design 2, Identity); empty where reuse is not
        allowed."""
        signature = intent.call.signature
        if signature.effect is Effect.EXTERNAL or signature.person or intent.access.writes:
            return ""
        if signature.device in NEVER_REUSED:
            return ""
        parts = [signature.op, intent.digest, repr(intent.call.result)]
        if signature.device == "llm":
            parts += [self._processor.identity, str(TEMPLATE_VERSION), self._run.task]
        else:
            device = self._devices[signature.device]
            read = await device.read_version(_call(intent))
            if read is None:
                return ""
            parts += [device.version, read]
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=20).hexdigest()

    async def _reuse(self, key: str) -> Result | None:
        def look(store: Store) -> Result | None:
            record = store.reuse_get(key)
            if record is None:
                return None
            entry = read_entry(decoder_of(store), record)
            if entry.value is None or isinstance(entry.value, Failed):
                return None
            prompt = tuple(store.segment(name) for name in entry.prompt)
            answer = str(entry.body.get("answer", ""))
            return Result(entry.value, prompt=prompt, answer=answer, reuse_key=key, reused=True)

        return await self._ledger.call(look)


def _call(intent: Intent) -> Call:
    return Call(
        intent.call.signature,
        intent.operands,
        intent.slot,
        intent.call.address,
        intent.timeout_s,
    )


def _misfit(error: EdvacError, answer: Answer, usage: Usage, seconds: float) -> Failure:
    failed = Failure.of(error, usage=usage, seconds=seconds)
    return replace(failed, prompt=answer.sent, answer=answer.text)
