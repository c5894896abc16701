"""The engine without its shell: requests in, messages out, one step at a time.

It owns scheduler, KV memory and decoder, and runs in whatever thread calls `step`. It knows
neither sockets nor clients; a request's `id` is whatever the caller made unique.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Final

import msgspec
import torch

from edvac.core.errors import ConfigError, EdvacError, InternalError, ModelFileError
from edvac.core.seams import Clock
from edvac.engine.adapters import Adapted, Adapter, Adapters
from edvac.engine.answer import Answer
from edvac.engine.attention import (
    CPU,
    Arena,
    Attending,
    AttentionPlan,
    KernelPlan,
    Span,
    TensorPlan,
)
from edvac.engine.draft import DraftModel
from edvac.engine.drafting import Drafting
from edvac.engine.grammar import Grammars, Matcher
from edvac.engine.job import Job
from edvac.engine.kv.codecs import F16, KVType
from edvac.engine.kv.kept import KeptPrefixes
from edvac.engine.kv.pages import BLOCK, PagedArena
from edvac.engine.kv.spill import SpillFile
from edvac.engine.kv.tree import PrefixTree
from edvac.engine.model import Decoder
from edvac.engine.pace import Pace
from edvac.engine.programs import Programs
from edvac.engine.prompt import check_prompt, check_request, check_tokens, encode
from edvac.engine.protocol import (
    FinishReason,
    FromEngine,
    Generate,
    Hint,
    Progress,
    StatsReply,
    failure,
)
from edvac.engine.sampler import Sampling, add_bias, choose, report
from edvac.engine.scheduler import Chunk, Limits, Scheduler, StepPlan
from edvac.engine.sequences import common_prefix
from edvac.engine.speculation import KERNELS, TENSORS
from edvac.engine.tokenizer import TextCodec
from edvac.engine.weights import in_background

_LEFT: Final = 512 << 20  # bytes that are left on disk for a later engine, at most
_CLAIMED: Final = 2  # claims of programs keep this fraction (1/n) of the memory at most
_ROOM: Final = 8  # blocks that are evicted at a time: looking for them takes as long as for one


@dataclass(slots=True)
class Counters:
    """What happened since start."""

    steps: int = 0
    prefill_tokens: int = 0
    cached_tokens: int = 0
    decode_tokens: int = 0
    forced_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    busy_seconds: float = 0.0


@dataclass(slots=True)
class EngineOptions:
    """How the engine runs; `exact` is the reference setting, `native` the kernels that attend and
    `kv` how these store keys and values, `draft` a smaller model of the same vocabulary that
    guesses."""

    limits: Limits
    exact: bool = False
    kv_dtype: torch.dtype = torch.float16
    parked_bytes: int = 512 << 20
    device: torch.device = CPU
    native: ModuleType | None = None
    kv: KVType = F16
    spill: SpillFile | None = None
    jump_ahead: bool = True
    speculate: bool = True
    retention: str = "told"
    draft: Decoder | None = None


@dataclass(slots=True)
class Engine:
    """Continuous batching over one decoder."""

    decoder: Decoder
    codec: TextCodec
    options: EngineOptions
    clock: Clock
    kept: KeptPrefixes | None = None
    counters: Counters = field(default_factory=Counters)
    save: Callable[[Callable[[], None]], None] = field(default=lambda work: work())
    paused: bool = False  # nothing can be computed until somebody comes back, or time passes
    _answers: dict[str, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = self.options.limits
        config = self.decoder.config
        options = self.options
        self._arena, self._plan = _memory(self.decoder, options)
        claimed = limits.kv_tokens // BLOCK // _CLAIMED
        self._prefixes = PrefixTree(self._arena, BLOCK, options.spill, claimed)
        self._prefixes.worth_loading = self._worth_loading
        self._arena.make_room = lambda: self._prefixes.evict(_ROOM)
        self._pace = Pace()
        programs = Programs(self.clock, self._prefixes, self._back, options.retention)
        self._scheduler = Scheduler(limits, self.clock, self._prefixes, programs, self._pace)
        # Half a second for a large vocabulary, which the first answer under a grammar waits for.
        self._grammars = in_background(lambda: Grammars(self.codec, config.vocabulary))
        costs = TENSORS if options.native is None else KERNELS
        ends = self.codec.specials.ends
        model = None if options.draft is None else _draft_model(options.draft, options)
        self._drafting = Drafting(costs, ends, self._pace, model)
        self.adapters = Adapters(config, options.device)

    adapters: Adapters = field(init=False)
    _arena: Arena | PagedArena = field(init=False)
    _plan: Callable[[list[Span], int], AttentionPlan] = field(init=False)
    _prefixes: PrefixTree = field(init=False)
    _scheduler: Scheduler = field(init=False)
    _pace: Pace = field(init=False)
    _grammars: Future[Grammars] = field(init=False)
    _drafting: Drafting = field(init=False)

    @property
    def busy(self) -> bool:
        return bool(self._answers)

    def submit(self, request: Generate) -> None:
        """Queue a request; raises what is wrong with it."""
        if request.id in self._answers:
            raise ConfigError("request_duplicate", f"a request named {request.id!r} is running")
        check_request(request)
        check_tokens(self.codec, request.bias)
        check_prompt(self.codec, request.segments, self.options.limits.context)
        adapter = self.adapters.find(request.adapter)
        tokens, keeps = self._encode(request)
        request = self._fitted(request, len(tokens))
        job = Job(
            id=request.id,
            program=request.program,
            cls=request.cls,
            reader_class=_sharing(request, adapter),
            tokens=tokens,
            max_tokens=request.max_tokens,
            shared=_digests(request, keeps),
            # What is read for other engines alone is kept for them, and they take it for exact.
            exact=request.exact or (bool(keeps) and not request.max_tokens),
        )
        memory = self._drafting.memory(job.program, job.reader_class)
        matcher = self._matcher(request)
        stream = self.codec.stream(verbatim=matcher is not None)
        answer = Answer(request, job, matcher, stream, memory, keeps, adapter)
        self._restore(job, keeps)
        self._scheduler.add(job)
        self._answers[request.id] = answer

    def use_threads(self, count: int) -> None:
        """Compute the next steps with so many threads; called from the thread that steps."""
        torch.set_num_threads(count)

    def hint(self, hint: Hint) -> list[FromEngine]:
        """Take a program's word on what it will do; never an error."""
        self._scheduler.programs.hint(hint)
        return []

    def forget(self) -> list[FromEngine]:
        """Give up all that is kept of finished sequences, in memory and on disk."""
        self._prefixes.forget()
        self._scheduler.forget()
        self._drafting.forget()
        return []

    def leave(self) -> None:
        """Put what later engines may read again on disk; nothing may be asked after."""
        if self.options.spill is not None:
            self._prefixes.save(_LEFT // self.options.spill.size)

    def cancel(self, identity: str) -> list[FromEngine]:
        answer = self._answers.get(identity)
        if answer is None:
            return []
        return self._end(answer, "cancelled")

    def step(self) -> list[FromEngine]:
        """Compute one step and report what came of it."""
        if self.options.speculate:
            with torch.inference_mode():
                self._drafting.prepare(self._scheduler.running, self._answers)
        self._prefixes.settle()
        with self._prefixes.pinned([]), torch.inference_mode():
            plan = self._scheduler.plan()
            self._make_room(plan)
            self._admit(plan)
        if not plan.chunks:
            self.paused = plan.pauses
            if self._prefixes.loading:
                self._prefixes.wait()
            elif self._answers and not plan.pauses:
                raise InternalError("schedule_stuck", "the scheduler has work but plans none")
            return []
        self.paused = False
        started = self.clock.now()
        messages: list[FromEngine] = []
        with torch.inference_mode():
            logits = self._forward(plan)
            self._scheduler.commit(plan)
            messages += self._progress(plan)
            row = 0
            for chunk in plan.chunks:
                if chunk.samples:
                    messages += self._advance(chunk, logits[row : row + 1 + chunk.drafted])
                    row += 1 + chunk.drafted
        self._count(plan, self.clock.now() - started)
        return messages

    def stats(self, resident: int) -> StatsReply:
        counters, running = self.counters, self._scheduler.running
        tokens = sum(job.computed for job in running)
        busy = max(counters.busy_seconds, 1e-9)
        return StatsReply(
            running=len(running),
            waiting=len(self._scheduler.waiting),
            slots=self.options.limits.slots,
            kv_tokens=tokens,
            kv_bytes=(tokens + self._prefixes.resident * BLOCK) * self._arena.token_bytes,
            kv_capacity_bytes=self.options.limits.kv_tokens * self._arena.token_bytes,
            parked_prefixes=len(self._prefixes),
            steps=counters.steps,
            prefill_tokens=counters.prefill_tokens,
            cached_tokens=counters.cached_tokens,
            decode_tokens=counters.decode_tokens,
            forced_tokens=counters.forced_tokens,
            busy_seconds=counters.busy_seconds,
            prefill_tokens_per_second=counters.prefill_tokens / busy,
            decode_tokens_per_second=counters.decode_tokens / busy,
            resident_bytes=resident,
            drafted_tokens=counters.drafted_tokens,
            accepted_tokens=counters.accepted_tokens,
            adapters=len(self.adapters),
            adapter_bytes=self.adapters.size,
        )

    def _encode(self, request: Generate) -> tuple[list[int], list[int]]:
        """Prompt tokens, and the lengths of the prefixes that are to be kept on disk."""
        given = bool(request.segments[0].tokens)  # who gives token ids gives the first one too
        tokens, ends = encode(self.codec, request.segments, bos=not given)
        return tokens, [end for end, one in zip(ends, request.segments, strict=True) if one.keep]

    def _fitted(self, request: Generate, prompt: int) -> Generate:
        if not request.fit:
            return request
        room = min(self.options.limits.context, self.options.limits.kv_tokens) - prompt
        most = min(request.max_tokens, max(room, 1))
        return msgspec.structs.replace(request, max_tokens=most)

    def _matcher(self, request: Generate) -> Matcher | None:
        if request.schema is not None:
            return self._grammars.result().from_schema(request.schema)
        if request.lark is not None:
            return self._grammars.result().from_lark(request.lark)
        return None

    def _restore(self, job: Job, keeps: list[int]) -> None:
        """Bring back the longest prefix that is kept on disk, if it is longer than what is known
        here."""
        if self.kept is None or not keeps:
            return
        reader_class, tokens = job.reader_class, job.tokens
        known = self._prefixes.known(reader_class, tokens, exact=job.exact)
        for keep in sorted(keeps, reverse=True):
            if keep <= known:
                return
            block = self.kept.load_prefix(reader_class, tokens[:keep])
            if block is not None and block.dtype == self._arena.dtype:
                self._prefixes.put(reader_class, tokens[:keep], block)
                return

    def _back(self, tokens: int) -> float:
        """Seconds to have so many tokens again that are in memory no longer."""
        reading, spill = self._pace.reading(tokens), self.options.spill
        return reading if spill is None else min(reading, spill.seconds * -(-tokens // BLOCK))

    def _worth_loading(self, tokens: int, blocks: int) -> bool:
        """Whether the disk is quicker than the model, where both were timed."""
        reading = self._pace.reading(tokens)
        assert self.options.spill is not None
        return not reading or self.options.spill.seconds * blocks <= reading

    def _make_room(self, plan: StepPlan) -> None:
        """Take out the rows that others need; what they computed is not lost."""
        for one in plan.evictions:
            tokens = one.job.tokens[: one.computed]
            self._prefixes.insert(one.job.reader_class, tokens, one.slot, one.lossy_from)
            self._arena.clear(one.slot)

    def _admit(self, plan: StepPlan) -> None:
        """Let new rows begin with what is known of their prompts."""
        for admission in plan.admissions:
            job = admission.job
            if not admission.cached:
                continue
            if admission.source_slot >= 0:
                self._arena.copy(admission.source_slot, job.slot, admission.cached)
            else:
                exact = job.lossy_from is None  # as it was planned, whatever is known by now
                count, slot = admission.cached, job.slot
                self._prefixes.lend(job.reader_class, job.tokens, count, slot, exact=exact)
            self.counters.cached_tokens += admission.cached

    def _forward(self, plan: StepPlan) -> torch.Tensor:
        tokens: list[int] = []
        spans: list[Span] = []
        sampled: list[int] = []
        wanted: dict[Adapter, list[int]] = {}
        for chunk in plan.chunks:
            adapter = self._answers[chunk.job.id].adapter
            if adapter is not None:
                wanted.setdefault(adapter, []).extend(range(len(tokens), len(tokens) + chunk.rows))
            tokens += chunk.job.tokens[chunk.start : chunk.start + chunk.count]
            tokens += chunk.job.draft[: chunk.drafted]
            spans.append(Span(chunk.job.slot, chunk.start, chunk.rows))
            self._arena.touch(chunk.job.slot, chunk.start + chunk.rows)
            if chunk.samples:
                sampled += range(len(tokens) - 1 - chunk.drafted, len(tokens))
        device = self.options.device
        adapted = [Adapted.on(device, one, rows) for one, rows in wanted.items()]
        return self.decoder.forward(tokens, self._plan(spans, plan.answering), sampled, adapted)

    def _progress(self, plan: StepPlan) -> list[FromEngine]:
        return [
            Progress(chunk.job.id, "prefill", chunk.start + chunk.count, chunk.job.prompt)
            for chunk in plan.chunks
            if chunk.start < chunk.job.prompt and self._answers[chunk.job.id].request.stream
        ]

    def _advance(self, chunk: Chunk, logits: torch.Tensor) -> list[FromEngine]:
        """Take the next token of an answer, then more of them for as long as its draft holds.

        Row `n` of the logits follows the first `n` drafted tokens. What is taken from a row does
        not depend on the draft, so neither does the answer.
        """
        job = chunk.job
        answer = self._answers[job.id]
        if not answer.request.max_tokens:
            return self._end(answer, "length")
        answer.decoding_since(self.clock.now())
        known, draft = len(job.tokens), job.draft[: chunk.drafted]
        answer.drafted += len(draft)
        row = held = 0
        ended: list[FromEngine] | None = None
        while ended is None and row == held:
            try:
                ended = self._next(answer, logits[row])
            except EdvacError as error:
                return self._fail(answer, error)
            row, before = len(job.tokens) - known, held
            held = common_prefix(draft, job.tokens[known:])
            job.computed = known + held
            answer.accepted += held - before
        self._judge(answer, draft, held, ended is None)
        return answer.fresh_text() if ended is None else ended

    def _judge(self, answer: Answer, draft: list[int], held: int, goes_on: bool) -> None:
        self.counters.drafted_tokens += len(draft)
        self.counters.accepted_tokens += held
        self.counters.decode_tokens += held
        self._drafting.learn(answer, draft, held, goes_on=goes_on)

    def _next(self, answer: Answer, logits: torch.Tensor) -> list[FromEngine] | None:
        """Append what follows; the last messages where that ends the answer."""
        queued = answer.next_queued()
        if queued is not None:  # forced tokens, fed one per step
            answer.job.tokens.append(queued)
            return None
        return self._take(answer, self._choose(answer, logits), logits)

    def _choose(self, answer: Answer, logits: torch.Tensor) -> int:
        request = answer.request
        if not bool(torch.isfinite(logits).all()):
            raise _no_numbers()
        if request.bias:
            logits = add_bias(logits, request.bias)
        if answer.matcher is not None:
            logits = logits.masked_fill(~answer.matcher.allowed(), -torch.inf)
        sampling = Sampling(
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
            min_p=request.min_p,
            repetition_penalty=request.repetition_penalty,
            seed=request.seed,
        )
        return choose(logits, sampling, len(answer.job.tokens), answer.job.tokens)

    def _take(self, answer: Answer, token: int, logits: torch.Tensor) -> list[FromEngine] | None:
        if token in self.codec.specials.ends:
            return self._end(answer, "stop")
        new, request = [token], answer.request
        if answer.matcher is not None:
            answer.matcher.take(token)
            for forced in answer.matcher.forced() if request.logprobs < 0 else ():
                answer.matcher.take(forced)
                new.append(forced)
        room = request.max_tokens - answer.produced
        pieces = self.codec.spelled
        told = report(new[:room], logits, pieces, request.logprobs) if request.report else None
        stopped = answer.add(new[:room], told)
        self.counters.forced_tokens += len(new[:room]) - 1
        if stopped or (answer.complete and len(new) <= room):
            return self._end(answer, "stop")
        if answer.produced >= request.max_tokens:
            return self._end(answer, "length")
        answer.feed(new, self.options.jump_ahead)
        return None

    def _end(self, answer: Answer, reason: FinishReason) -> list[FromEngine]:
        self._park(answer)
        self._forget(answer, kept=answer.job.computed > 0)
        return [*answer.fresh_text(last=True), answer.done(reason, self.clock.now())]

    def _fail(self, answer: Answer, error: EdvacError) -> list[FromEngine]:
        self._forget(answer)
        return [failure(answer.request.id, error)]

    def _forget(self, answer: Answer, *, kept: bool = False) -> None:
        self._drafting.ended(answer)
        if answer.job.slot >= 0:
            self._arena.clear(answer.job.slot)
        self._scheduler.finish(answer.job, kept=kept)
        self._arena.trim(self._scheduler.free, self.options.limits.kv_tokens)
        del self._answers[answer.request.id]

    def _park(self, answer: Answer) -> None:
        """Leave the finished sequence's keys and values where a successor may find them."""
        job = answer.job
        if job.slot < 0 or job.computed == 0:
            return
        with torch.inference_mode():
            tokens = job.tokens[: job.computed]
            self._prefixes.insert(job.reader_class, tokens, job.slot, job.lossy_from)
            for keep in answer.keeps:
                exact = job.lossy_from is None or keep <= job.lossy_from
                if self.kept is None or job.computed < keep or not exact:
                    continue
                tokens = job.tokens[:keep]
                if not self.kept.has(job.reader_class, tokens):
                    block = self._arena.export(job.slot, 0, keep)
                    save = partial(self.kept.save_prefix, job.reader_class, tokens, block)
                    # Who asks for the prompt alone has it read by another engine next.
                    (self.save if answer.request.max_tokens else _now)(save)

    def _count(self, plan: StepPlan, seconds: float) -> None:
        answers = [chunk for chunk in plan.chunks if chunk.answers]
        prompts = plan.rows - plan.answering
        self._pace.note(plan.answering, prompts, seconds)
        self.counters.steps += 1
        self.counters.busy_seconds += seconds
        self.counters.prefill_tokens += prompts
        self.counters.decode_tokens += sum(chunk.count for chunk in answers)


def _memory(
    decoder: Decoder, options: EngineOptions
) -> tuple[Arena | PagedArena, Callable[[list[Span], int], AttentionPlan]]:
    """Memory for keys and values, and how a step attends in it."""
    config, limits = decoder.config, options.limits
    if options.native is not None:
        # A row's last block is not full, and a shared one may have to be copied.
        blocks = -(-limits.kv_tokens // BLOCK) + limits.slots
        paged = PagedArena(config, limits.slots, limits.context, blocks, options.kv)
        bias = decoder.key_bias(limits.context)
        return paged, partial(KernelPlan, Attending(options.native, paged, config.heads, bias))
    arena = Arena(config, limits.slots, limits.context, options.kv_dtype, options.device)
    arena.most_blocks = options.parked_bytes // (arena.token_bytes * BLOCK)
    return arena, lambda spans, answering: TensorPlan(
        spans, arena, config, options.exact, answering
    )


def _sharing(request: Generate, adapter: Adapter | None) -> str:
    """Whose keys and values a request may share: those of its readers under its adapter."""
    return request.reader_class if adapter is None else f"{adapter.digest}\0{request.reader_class}"


def _draft_model(decoder: Decoder, options: EngineOptions) -> DraftModel:
    arena, plan = _memory(decoder, replace(options, kv=F16))
    assert isinstance(arena, PagedArena), "the fast setting's kernels are there"
    return DraftModel(decoder, arena, plan)


def _now(work: Callable[[], None]) -> None:
    work()


def _digests(request: Generate, keeps: list[int]) -> dict[str, int]:
    """Lengths of the prefixes that the request shares with others, by SHA-256 of their text."""
    digest, found, lengths = hashlib.sha256(), dict[str, int](), iter(keeps)
    for segment in request.segments:
        digest.update(segment.text.encode())
        if segment.keep:
            found[digest.hexdigest()] = next(lengths)
    return found


def _no_numbers() -> ModelFileError:
    return ModelFileError(
        "model_numbers",
        "the model computes what is no number",
        "A weight of its file is infinite or no number, or the sums of its weights are.",
        "Fetch the model again with `edvac model pull`, or choose another file.",
    )
