"""The embedded engine as the processor: a client of the engine process."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

from edvac.core.errors import EdvacError, InternalError, ModelFileError
from edvac.core.seams import Contacts
from edvac.engine.client import EngineClient, EngineSpec, connect_or_start
from edvac.engine.digest import adapter_digest
from edvac.engine.protocol import Generate, Progress, Ready
from edvac.processor.clean import without_thinking
from edvac.processor.port import FREE, Answer, OnStage, OnText, Request

CONCURRENCY = 16  # rows that a step of the engine gains from; more only wait


class EmbeddedProcessor:
    """Connects to the engine of this model, or starts it.

    Args:
        sha256: what the model file's hash has to be, where that is known.
        adapter: a LoRA adapter that all requests run under.
    """

    def __init__(
        self,
        spec: EngineSpec,
        on_stage: OnStage | None = None,
        *,
        sha256: str | None = None,
        adapter: Path | None = None,
    ) -> None:
        self._spec, self._adapter = spec, adapter
        self._adapter_sha256 = ""
        self._sha256 = sha256
        self._on_stage = on_stage
        self._client: EngineClient | None = None
        self._opening = asyncio.Lock()
        self._names = itertools.count(1)
        self.concurrency = CONCURRENCY
        self.price = FREE
        self.contacts = Contacts()  # stays empty: the engine is spoken to over a local socket
        self.has_grammar = True
        self.endpoint = "embedded engine"

    @property
    def identity(self) -> str:
        ready = self._ready()
        adapted = f"+{self._adapter_sha256[:16]}" if self._adapter_sha256 else ""
        return f"{ready.model}@{ready.sha256[:16]}/{ready.setting}{adapted}"

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
                if old is not None:
                    await old.close()

    async def _connect(self) -> EngineClient:
        client = await connect_or_start(self._spec, self._progress)
        if self._sha256 not in (None, client.ready.sha256):
            await client.close()
            raise ModelFileError(
                "model_damaged",
                f"the model file {self._spec.model.name} has been changed",
                f"Its SHA-256 begins {client.ready.sha256[:12]} and should begin "
                f"{self._sha256[:12]}.",
                "Remove it with `edvac model rm` and pull it again, or name its path to use it so.",
            )
        if self._adapter is not None:
            try:
                # Its name is its content: another client may have loaded another one.
                name = await asyncio.to_thread(adapter_digest, self._adapter)
                self._adapter_sha256 = await client.load_adapter(name, self._adapter.absolute())
            except EdvacError:
                await client.close()
                raise
        return client

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        from edvac.processor.chat import render

        await self.open()
        assert self._client is not None
        ready = self._ready()
        segments = render(
            ready.chat_template, ready.special_tokens, request.messages, request.prefill
        )
        generate = Generate(
            id=f"{request.run}.{next(self._names)}",
            segments=segments,
            program=request.run,
            slot=request.slot,
            reader_class=request.reader_class,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed,
            stop=list(request.stop),
            schema=json.dumps(request.schema) if request.schema is not None else None,
            lark=request.lark,
            stream=on_text is not None,
            adapter=self._adapter_sha256,
        )

        def text(piece: str, tokens: int) -> None:
            if on_text is not None:
                on_text(piece, tokens)

        done = await self._client.generate(generate, text if on_text is not None else None)
        answer = without_thinking(done.text) if request.lark is None else done.text
        return Answer(
            answer,
            done.finish_reason,
            done.prompt_tokens,
            done.cached_tokens,
            done.completion_tokens,
            tuple(segment.text for segment in segments),
            done.text if done.text != answer else "",
        )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

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
