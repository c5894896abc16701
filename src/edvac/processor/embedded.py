"""The embedded engine as the processor: a client of the engine process."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from edvac.core.errors import EdvacError, InternalError, ModelFileError
from edvac.core.seams import Contacts
from edvac.engine import protocol
from edvac.engine.client import EngineClient, EngineSpec, connect_or_start
from edvac.engine.protocol import (
    STEPS,
    Done,
    Generate,
    Hint,
    HintKind,
    Progress,
    Ready,
    StatsReply,
    Tokens,
)
from edvac.engine.split import SplitClient, connect_split
from edvac.processor.adapted import NamedAdapters
from edvac.processor.clean import without_thinking
from edvac.processor.port import (
    FREE,
    Answer,
    Doing,
    OnStage,
    OnText,
    OnTokens,
    Request,
    Timings,
    Token,
)
from edvac.processor.tools import grammar, names_called

_LEASE_S = 600.0  # for which the engine remembers a run that it hears nothing of
CONCURRENCY = 16  # rows that a step of the engine gains from; more only wait


class EmbeddedProcessor:
    """Connects to the engine of this model, or starts it.

    Args:
        sha256: what the model file's hash has to be, where that is known.
        split: two engines, one for long prompts and one for answers.
        adapter: a LoRA adapter that requests run under which name none.
    """

    def __init__(
        self,
        spec: EngineSpec,
        on_stage: OnStage | None = None,
        *,
        sha256: str | None = None,
        split: bool = False,
        adapter: Path | None = None,
    ) -> None:
        self._spec, self._split = spec, split
        self._adapter = adapter and adapter.absolute()
        self._adapter_sha256 = ""
        self.adapters = NamedAdapters()  # that requests may name
        self._sha256 = sha256
        self._on_stage = on_stage
        self._client: EngineClient | SplitClient | None = None
        self._opening = asyncio.Lock()
        self._names = itertools.count(1)
        self._runs: set[str] = set()  # that the engine was told of
        self.concurrency = CONCURRENCY
        self.price = FREE
        self.contacts = Contacts()  # stays empty: the engine is spoken to over a local socket
        self.has_grammar = True
        self.endpoint = "embedded engine"
        self.local = True

    @property
    def identity(self) -> str:
        ready, kv, disk = self._ready(), self._spec.kv_type, self._spec.kv_disk_type
        lossy = "" if kv == "f16" else f"/{kv}"  # answers may be others
        lossy += "" if disk == "same" else f"/disk-{disk}"
        adapted = f"+{self._adapter_sha256[:16]}" if self._adapter_sha256 else ""
        return f"{ready.model}@{ready.sha256[:16]}/{ready.setting}{lossy}{adapted}"

    @property
    def context_tokens(self) -> int:
        return self._ready().context_length

    async def open(self) -> None:
        """Where the engine that was connected to has ended, another is started.

        Raises:
            ModelFileError: the file is not the model that it should be, or the adapter is not one
                of this model.
        """
        async with self._opening:
            old = self._client
            if old is None or old.gone:
                self._client = await self._connect()  # until then the old one names the model
                self._runs.clear()
                if old is not None:
                    await old.close()

    async def _connect(self) -> EngineClient | SplitClient:
        connect = connect_split if self._split else connect_or_start
        client = await connect(self._spec, self._progress)
        if self._sha256 not in (None, client.ready.sha256):
            await client.release()
            raise ModelFileError(
                "model_damaged",
                f"the model file {self._spec.model.name} has been changed",
                f"Its SHA-256 begins {client.ready.sha256[:12]} and should begin "
                f"{self._sha256[:12]}.",
                "Remove it with `edvac model rm` and pull it again, or name its path to use it so.",
            )
        if self._adapter is not None:
            try:
                self._adapter_sha256 = await self.adapters.take(client, self._adapter)
            except EdvacError:
                await client.release()
                raise
        return client

    async def complete(
        self, request: Request, on_text: OnText | None = None, on_tokens: OnTokens | None = None
    ) -> Answer:
        """One call; `on_tokens` is told the tokens of each text before it comes, where the request
        asks for a report.

        Raises:
            ProcessorError, OperandError: see `Processor`.
            ConfigError: the request cannot be meant.
        """
        await self.open()
        assert self._client is not None
        client = self._client  # another one would not hold the adapter
        segments = self.segments(request)
        if request.run and not request.goes_on and request.run not in self._runs:
            self._runs.add(request.run)
            self._hint("open", request.run, STEPS)
        name = f"{request.run}.{next(self._names)}"
        control = self._ready().control_tokens

        def tokens(chosen: list[protocol.Token]) -> None:
            if on_tokens is not None:
                on_tokens(_told(chosen))

        async with self._adapted(request.adapter, client) as adapter:
            generate = _generate(request, name, segments, control, adapter)
            done = await client.generate(
                generate, on_text, on_tokens=None if on_tokens is None else tokens
            )
        if request.goes_on and request.tools is not None:
            for tool in names_called(request.tools, done.text)[:1]:  # the talk waits for it
                self._hint("tool_started", done.program, tool)
        plain = request.lark is None and request.tools is None and not request.prompt
        return _answer(done, without_thinking(done.text) if plain else done.text, segments)

    def _adapted(
        self, name: str, client: EngineClient | SplitClient
    ) -> AbstractAsyncContextManager[str]:
        return self.adapters.using(name, client) if name else nullcontext(self._adapter_sha256)

    def segments(self, request: Request) -> list[protocol.Segment]:
        """The prompt as the model sees it.

        Raises:
            ModelFileError: the model's template cannot be rendered.
        """
        from edvac.processor.chat import render

        if request.prompt:
            return [
                protocol.Segment(part, control=True)
                if isinstance(part, str)
                else protocol.Segment(tokens=list(part))
                for part in request.prompt
            ]
        ready = self._ready()
        return render(
            ready.chat_template,
            ready.special_tokens,
            request.messages,
            request.prefill,
            request.tools,
        )

    async def tokenize(self, segments: list[protocol.Segment], *, bos: bool) -> Tokens:
        """The tokens of a prompt.

        Args:
            bos: begin with the token that the model's prompts begin with, where there is one.

        Raises:
            ConfigError: there is no such token.
        """
        await self.open()
        assert self._client is not None
        return await self._client.tokenize(f"tokens.{next(self._names)}", segments, bos=bos)

    async def load_adapter(self, name: str) -> None:
        """Read an adapter now, and not when a request first names it.

        Raises:
            ModelFileError: it cannot be used with this model.
            ConfigError: no adapter has this name.
        """
        await self.open()
        assert self._client is not None
        await self.adapters.load(name, self._client)

    async def unload_adapter(self, name: str) -> None:
        """Give its memory back when no request uses it; one that names it later reads it again."""
        await self.adapters.unload(name)

    def has_adapter(self, name: str) -> bool:
        """Is it in the engine's memory?"""
        return self.adapters.is_loaded(name)

    async def stats(self) -> StatsReply:
        """The engine's counters, and its state right now."""
        await self.open()
        assert self._client is not None
        return await self._client.stats()

    @property
    def file(self) -> str:
        """Name of the model's file."""
        return self._spec.model.name

    @property
    def card(self) -> Ready:
        """What the engine says of its model."""
        return self._ready()

    def tell(self, run: str, doing: Doing, tool: str) -> None:
        if run in self._runs:
            self._hint(doing, run, tool)

    def _hint(self, kind: HintKind, run: str, detail: str = "") -> None:
        if self._client is not None:
            self._client.hint(Hint(kind=kind, program=run, detail=detail, lease=_LEASE_S))

    async def close(self) -> None:
        client = self._leave()
        if client is not None:
            await client.close()

    async def unload(self) -> None:
        """As `close`, and the engine ends at once where nobody else uses it; returns when its
        memory is free. It may be opened again."""
        async with self._opening:
            client = self._leave()
            if client is not None:
                await client.release()

    def _leave(self) -> EngineClient | SplitClient | None:
        for run in self._runs:
            self._hint("close", run)
        self._runs.clear()
        client, self._client = self._client, None
        return client

    def _ready(self) -> Ready:
        if self._client is None:
            raise InternalError("engine_not_open", "the engine was asked before it was opened")
        return self._client.ready

    def _progress(self, progress: Progress) -> None:
        if self._on_stage is not None:
            self._on_stage(
                _STAGES.get(progress.stage, progress.stage), progress.done, progress.total
            )


_STAGES = {"load": "loading the model", "queue": "waiting for the engine", "prefill": "reading"}


def _generate(
    request: Request, name: str, segments: list[protocol.Segment], control: list[str], adapter: str
) -> Generate:
    schema = json.dumps(request.schema) if request.schema is not None else None
    lark = request.lark
    if request.tools is not None:
        schema, lark = None, grammar(request.tools, control, request.schema)
    sampling = request.sampling
    return Generate(
        id=name,
        segments=segments,
        program="" if request.goes_on else request.run,
        slot=request.slot,
        cls=request.cls,
        reader_class=request.reader_class,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        bias=dict(sampling.bias),
        seed=request.seed,
        stop=list(request.stop),
        schema=schema,
        lark=lark,
        fit=request.fit,
        report=request.report,
        logprobs=request.logprobs,
        adapter=adapter,
    )


def _answer(done: Done, text: str, segments: list[protocol.Segment]) -> Answer:
    return Answer(
        text,
        done.finish_reason,
        done.prompt_tokens,
        done.cached_tokens,
        done.completion_tokens,
        tuple(segment.text for segment in segments),
        done.text if done.text != text else "",
        stop=done.stop,
        tokens=_told(done.chosen),
        timings=Timings(
            done.queue_ms,
            done.prefill_ms,
            done.decode_ms,
            done.drafted_tokens,
            done.accepted_tokens,
        ),
    )


def _told(chosen: list[protocol.Token]) -> tuple[Token, ...]:
    return tuple(Token(one.id, one.piece, one.logprob, tuple(one.top)) for one in chosen)
