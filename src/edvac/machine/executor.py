"""`execute(intent) -> outcome`: the one seam through which steps happen; scale-out replaces it.

Looks for a result that may be reused, calls the device or the processor, turns typed errors into
failures. Knows nothing of hazards, order or the journal's records.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edvac.control import Failure, Intent, Outcome, Result, Usage, worker_prompt
from edvac.control.context import TEMPLATE_VERSION, assemble, read_answer
from edvac.control.paging import pages
from edvac.control.step import WrittenFile, answer_kind
from edvac.control.worker import DO, Brief
from edvac.control.worker import SIGNATURES as WORKER_SIGNATURES
from edvac.core import event
from edvac.core.codec import INLINE_LIMIT, label_key
from edvac.core.errors import (
    ConfigError,
    DamageError,
    DeviceError,
    EdvacError,
    LeaseError,
    ModelFileError,
    ModelOutputError,
    OperandError,
    StepError,
    StoreError,
    TransientError,
    UnreachableError,
)
from edvac.core.label import Label
from edvac.core.schema import fits, show
from edvac.core.seams import Clock
from edvac.core.signature import Effect
from edvac.core.value import Failed, LazyText, Scalar, Value, lazy_texts
from edvac.device import Call, Device
from edvac.machine.entry import decoder_of, read_entry
from edvac.machine.extending import Extending
from edvac.machine.ledger import Ledger
from edvac.processor import Processor, Request
from edvac.processor.presence import Presence
from edvac.program.extending import EXTEND
from edvac.store import Record as StoredRecord
from edvac.store import Store

WORKER_OPS = frozenset(one.op for one in WORKER_SIGNATURES)
SUSPECT = (TransientError, ConfigError, ModelFileError)  # may be no fault of the step
CODES = 4  # bits of a failure's code
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
    inside: Callable[[tuple[str, ...]], Awaitable[Label]]  # who is in what runs have put there
    read_of: Callable[..., dict[str, str]]  # input files at paths, with the hashes they had
    cls: Literal["online", "offline"] = "online"  # whether somebody waits for the run
    escalate: Processor | None = None  # asked where answers did not fit; opened when first needed
    child: Callable[[Intent], Awaitable[Outcome]] | None = None  # does what is a program itself
    brief: Brief | None = None  # of the worker whose steps these are
    extending: Extending | None = None  # writes further lines of the program
    limited: frozenset[str] = frozenset()  # devices that keep to a step's time themselves


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
        self._escalate = execution.escalate
        self._presence = Presence(processor)
        self._escalate_presence = Presence(execution.escalate or processor)
        self._ledger = ledger
        self._clock = clock
        self._run = execution
        self._under_way: dict[str, asyncio.Future[Outcome]] = {}  # by reuse key

    async def execute(self, intent: Intent) -> Outcome:
        """One attempt, as the control unit counts. Every expected failure comes back as data.

        Where a model step would fail for a reason that may lie with the processor, that is asked
        something harmless. If it does not answer either, the step has not been tried; if it does,
        it may have been away a moment ago, so that the step is tried once more.
        """
        outcome = await self._attempt(intent)
        if not isinstance(outcome, Failure) or not outcome.suspect:
            return outcome
        if outcome.retry and not intent.last:
            return outcome
        presence = self._escalate_presence if intent.escalated else self._presence
        if await presence.away():
            return replace(outcome, away=True)
        return await self._attempt(intent)

    async def _attempt(self, intent: Intent) -> Outcome:
        start = self._clock.now()
        try:
            limited = intent.call.signature.device in self._run.limited
            async with asyncio.timeout(None if limited else intent.timeout_s):
                return self._with_read(intent, await self._execute(intent, start))
        except TimeoutError:
            what = f"{intent.call.op} did not end within {intent.timeout_s:g} s"
            failure = Failure("step_timeout", what, seconds=self._clock.now() - start)
            suspect = True
        except UnreachableError:
            raise  # the store is away, which is no outcome of a step
        except EdvacError as error:
            lost = isinstance(error, StoreError | LeaseError)
            if lost and not isinstance(error, DamageError):
                raise  # no fault of the step: nothing can be kept of any
            failure = Failure.of(error, seconds=self._clock.now() - start)
            suspect = isinstance(error, SUSPECT)
        suspect = suspect and intent.call.signature.device == "llm"
        touched = intent.access.reads + intent.access.writes
        seen = await self._run.behind(touched)
        signature = intent.call.signature
        if signature.sources:  # they decide also that there is no result, and which code it has
            readers = ("user", *signature.told)
            seen = seen.join(Label.of(signature.sources, (), readers, CODES))
        return replace(failure, suspect=suspect, seen=seen)

    def _with_read(self, intent: Intent, outcome: Outcome) -> Outcome:
        """With the hashes of the input files that the step read: a later run may ask for them."""
        signature = intent.call.signature
        if isinstance(outcome, Failure) or not intent.access.reads or signature.op == "files.list":
            return outcome
        below = signature.device not in ("files", "doc")
        return replace(outcome, read=self._run.read_of(intent.access.reads, below=below))

    async def _execute(self, intent: Intent, start: float) -> Outcome:
        if intent.call.op == DO:
            return await self._worker(intent, start)
        model = intent.call.signature.device == "llm"
        key = self._model_key(intent, self._processor.identity) if model else ""
        key = key if model else await self._device_key(intent)
        if key and not self._run.fresh and intent.attempt == 1:
            known = await self._reuse(key) or (await self._reuse_escalated(key) if model else None)
            if known is not None:
                return known
            return await self._once(key, lambda: self._anew(intent, key, start))
        return await self._anew(intent, key, start)

    async def _anew(self, intent: Intent, key: str, start: float) -> Outcome:
        if intent.call.op == EXTEND:
            outcome = await self._extending.write(intent)
            outcome = replace(outcome, seconds=self._clock.now() - start)
            return replace(outcome, reuse_key=key) if isinstance(outcome, Result) else outcome
        if intent.call.signature.device == "llm":
            return await self._model(intent, start)
        return await self._device(intent, key, start)

    async def _once(self, key: str, make: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Of equal steps that are under way at the same time the first makes the value; where it
        does not come to one, each of the others tries for itself."""
        first = self._under_way.get(key)
        if first is not None:
            await asyncio.wait([first])
            outcome = None if first.cancelled() else first.result()
            if isinstance(outcome, Result):
                return replace(outcome, usage=Usage(), seconds=0.0, reused=True)
            return await make()
        mine = asyncio.get_running_loop().create_future()
        self._under_way[key] = mine
        try:
            outcome = await make()
            mine.set_result(outcome)
            return outcome
        finally:
            mine.cancel()  # where there is no result; it says nothing to one that is there
            del self._under_way[key]

    async def _device(self, intent: Intent, key: str, start: float) -> Outcome:
        device = self._devices[intent.call.signature.device]
        with self._told(intent):
            reply = await device.call(replace(_call(intent), key=self._name(intent)))
        _check_result(intent, reply.value)
        files = tuple(WrittenFile(new.path, new.content, new.label) for new in reply.files)
        seconds = self._clock.now() - start
        value = await self._laid_down(reply.value)
        return Result(value, seconds, files=files, notes=reply.notes, reuse_key=key)

    @contextlib.contextmanager
    def _told(self, intent: Intent) -> Iterator[None]:
        """The processor hears of what may take its time."""
        if intent.call.signature.device == "files":
            yield
            return
        tool = _tool(intent)
        self._processor.tell(self._run.run, "tool_started", tool)
        try:
            yield
        finally:
            self._processor.tell(self._run.run, "tool_ended", tool)

    async def _laid_down(self, value: Value) -> Value:
        """A large text goes to its blob at once, so that a run over very many holds few of them."""
        raw = value.raw if isinstance(value, Scalar) else None
        if not isinstance(value, Scalar) or not isinstance(raw, str):
            return value
        if len(raw) * 4 <= INLINE_LIMIT or len(body := raw.encode()) <= INLINE_LIMIT:
            return value

        def put(store: Store) -> LazyText:
            ref = store.put_blob(body)
            return LazyText(ref, len(body), lambda name: store.get_blob(name).decode())

        return replace(value, raw=await self._ledger.call(put))

    async def _model(self, intent: Intent, start: float) -> Outcome:
        processor = (self._escalate if intent.escalated else None) or self._processor
        escalated = processor is self._escalate
        await processor.open()
        request = self._request(intent)
        cls = "speculative" if intent.key else self._run.cls
        request = replace(request, cls=cls, key=self._name(intent))
        try:
            answer = await processor.complete(request, self._on_text(intent))
        except OperandError as problem:
            child = self._run.child
            if problem.code != "operand_too_large" or child is None or not pages(intent.operands):
                raise
            outcome = replace(await child(intent), seconds=self._clock.now() - start)
            if isinstance(outcome, Failure):
                return outcome
            model = processor.identity
            return replace(outcome, model=model, reuse_key=self._model_key(intent, model))
        usage = Usage.of(answer, processor.price)
        seconds = self._clock.now() - start
        model = answer.model or processor.identity
        received = answer.received or answer.text
        try:
            if received.strip() and not answer.text.strip():
                raise _only_thoughts()
            value = self._read(intent, answer.text, answer.finish, model)
        except EdvacError as error:
            failed = Failure.of(error, usage=usage, seconds=seconds)
            return replace(failed, prompt=answer.sent, answer=received, model=model)
        if escalated:
            key = _escalated_key(self._model_key(intent, self._processor.identity))
        else:
            key = self._model_key(intent, model)
        return Result(
            value,
            seconds,
            usage,
            prompt=answer.sent,
            answer=received,
            reuse_key=key,
            notes=_how(intent, escalated=escalated, model=model),
            model=model,
            escalated=escalated,
        )

    async def _worker(self, intent: Intent, start: float) -> Outcome:
        if self._run.child is None:
            fix = "Let the program call it."
            raise StepError("worker_nested", "a worker may not have workers", "", fix)
        outcome = await self._run.child(intent)
        return replace(outcome, seconds=self._clock.now() - start)

    def _request(self, intent: Intent) -> Request:
        seed = self._seed(intent.slot)
        if self._run.brief is not None and intent.call.op in WORKER_OPS:
            return worker_prompt.assemble(self._run.brief, intent, self._run.run, seed)
        return assemble(intent, self._run.run, seed, self._run.task)

    def _read(self, intent: Intent, text: str, finish: str, model: str) -> Value:
        if self._run.brief is not None and intent.call.op in WORKER_OPS:
            return worker_prompt.read_turn(self._run.brief, intent, text, finish, model)
        return read_answer(intent, text, finish, model)

    def _name(self, intent: Intent) -> str:
        """Of what is asked for, however often: another model or a remark makes it another thing."""
        asked = (intent.digest, intent.complaint, str(intent.escalated))
        parts = "\n".join((self._run.run, intent.slot, *asked))
        return f"edvac-{hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()}"

    def _seed(self, slot: str) -> int:
        mixed = hashlib.blake2b(f"{self._run.seed}:{slot}".encode(), digest_size=4)
        return int.from_bytes(mixed.digest(), "big") >> 1

    def _on_text(self, intent: Intent) -> Callable[[str, int], None]:
        def show(text: str, tokens: int) -> None:
            if not intent.key:  # what may be thrown away is not shown
                slot = intent.slot
                told = event.StepText(run=self._run.run, slot=slot, text=text, tokens=tokens)
                self._run.emit(told)

        return show

    @property
    def _extending(self) -> Extending:
        if self._run.extending is None:
            fix = "Let the program return what to do next."
            raise StepError("extend_nested", "only a run's own program is extended", "", fix)
        return self._run.extending

    def _model_key(self, intent: Intent, model: str) -> str:
        """Everything that decides what this model answers (design 2, Identity)."""
        if intent.call.op == EXTEND:
            return _key(intent, self._extending.version)
        worker = self._run.brief is not None and intent.call.op in WORKER_OPS
        version = f"worker {worker_prompt.VERSION}" if worker else str(TEMPLATE_VERSION)
        return _key(intent, model, version, self._run.task)

    async def _device_key(self, intent: Intent) -> str:
        """The same for a device; empty where reuse is not allowed."""
        signature = intent.call.signature
        if signature.effect is Effect.EXTERNAL or signature.person or intent.access.writes:
            return ""
        if signature.device in NEVER_REUSED:
            return ""
        device = self._devices[signature.device]
        read = await device.read_version(_call(intent))
        if read is None:
            return ""
        who = label_key(await self._run.inside(intent.access.reads))
        return _key(intent, device.version, read, who)  # equal bytes may be another's now

    async def _reuse_escalated(self, key: str) -> Result | None:
        """What the escalate model made where the one of this key had failed; only if it is still
        the same."""
        if self._escalate is None:
            return None
        known = await self._reuse(_escalated_key(key))
        if known is None:
            return None
        try:
            await self._escalate.open()
        except SUSPECT:
            return None
        return known if known.model == self._escalate.identity else None

    async def _reuse(self, key: str) -> Result | None:
        def look(store: Store) -> Result | None:
            record = store.reuse_get(key)
            if record is None:
                return None
            try:
                return reused(store, record)
            except DamageError:
                return None  # damaged, or removed at this moment: made anew, it is stored anew

        def reused(store: Store, record: StoredRecord) -> Result | None:
            entry = read_entry(decoder_of(store), record)
            if entry.value is None or isinstance(entry.value, Failed):
                return None
            for text in lazy_texts(entry.value):
                store.get_blob(text.ref)
            return Result(
                entry.value,
                prompt=tuple(store.segment(name) for name in entry.prompt),
                answer=str(entry.body.get("answer", "")),
                reuse_key=key,
                reused=True,
                model=str(entry.body.get("model", "")),
                escalated=bool(entry.body.get("escalated", False)),
            )

        return await self._ledger.call(look)


def _call(intent: Intent) -> Call:
    return Call(
        intent.call.signature,
        intent.operands,
        intent.slot,
        intent.call.address,
        intent.timeout_s,
    )


def _tool(intent: Intent) -> str:
    """What a device is asked to do, as far as it says how long that may take: the operation, and of
    a command its name."""
    op, code = intent.call.signature.op, intent.operands.get("code")
    raw = code.raw if op == "shell.run" and isinstance(code, Scalar) else None
    return f"{op}:{raw.split()[0]}" if isinstance(raw, str) and raw.split() else op


def _only_thoughts() -> ModelOutputError:
    return ModelOutputError(
        "answer_only_thoughts",
        "the model thought and did not answer",
        "What it thought is in the record.",
        "Ask for less in one step, or use another model.",
    )


def _check_result(intent: Intent, value: Value) -> None:
    """A device is no part of edvac: what follows relies on the type that its signature names.

    Raises:
        DeviceError: the result is of another.
    """
    kind = intent.call.result
    if not fits(value, kind):
        raise DeviceError(
            "result_misfit",
            f"{intent.call.op} returned something that is not of the type {show(kind)}",
            "Its signature promises that type; where it has an effect, that may have happened.",
            "Mend the device.",
        )


def _key(intent: Intent, *parts: str) -> str:
    head = (
        intent.call.signature.op,
        intent.digest,
        repr(answer_kind(intent.call, intent.operands)),
    )
    return hashlib.blake2b("\n".join((*head, *parts)).encode(), digest_size=20).hexdigest()


def _escalated_key(key: str) -> str:
    return hashlib.blake2b(f"{key} escalated".encode(), digest_size=20).hexdigest()


def _how(intent: Intent, *, escalated: bool, model: str) -> tuple[str, ...]:
    """What is to be said of how a value came about."""
    if escalated:
        return (f"made by the escalate model {model}, after two answers that did not fit",)
    return ("answered only after a repair",) if intent.complaint else ()
