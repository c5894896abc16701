"""Two engines for one model: one reads long prompts, the other writes answers.

Reading a prompt then holds up no answer. The keys and values of a prompt that was read go from one
to the other through a directory in memory, as prefixes that are kept (`kv/kept.py`): named by what
they hold, checksummed, bounded. If the reading engine fails, or the directory is full, the other
one reads for itself. Both map the same repacked weights.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from edvac.core.errors import ConfigError, OperandError, ProcessorError
from edvac.engine.client import (
    EngineClient,
    EngineSpec,
    OnProgress,
    OnText,
    OnTokens,
    connect_or_start,
    default_runtime,
)
from edvac.engine.protocol import Done, Generate, Hint, Ready, Segment, StatsReply, Tokens

LONG: Final = 2000  # characters of a prompt from which it is read apart
_PROGRAMS: Final = 256
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a directory of our own is made below it


def handover_of(spec: EngineSpec) -> Path:
    """The directory through which prompts go, ours alone."""
    base = _MEMORY if os.access(_MEMORY, os.W_OK) else (spec.runtime or default_runtime())
    handover = base / f"edvac-handover-{os.getuid()}"
    handover.mkdir(mode=0o700, parents=True, exist_ok=True)
    if handover.stat().st_uid != os.getuid() or handover.stat().st_mode & 0o077:
        raise ConfigError(
            "engine_directory_open",
            f"the directory {handover} is not private",
            "Keys and values of prompts would lie in it.",
            "Remove it, or make it yours alone: chmod 700.",
        )
    return handover


def split(spec: EngineSpec, handover: Path) -> tuple[EngineSpec, EngineSpec]:
    """The engine that reads and the one that writes; each gets half of the threads and of the
    memory for keys and values."""
    threads = spec.threads or len(os.sched_getaffinity(0))
    shared = (*spec.extra, "--handover", str(handover))
    half = replace(spec, threads=max(1, threads // 2), kv_mb=spec.kv_mb // 2, extra=shared)
    return replace(half, extra=(*shared, "--role", "reads")), half


@dataclass(slots=True)
class SplitClient:
    """As one engine to its callers: see `EngineClient`.

    Attributes:
        handover: where what one has read lies for the other.
    """

    reads: EngineClient
    writes: EngineClient
    handover: Path
    _last: dict[str, str] = field(default_factory=dict)  # prompts, by program

    @property
    def ready(self) -> Ready:
        return self.writes.ready

    @property
    def gone(self) -> bool:
        return self.writes.gone

    async def generate(
        self,
        request: Generate,
        on_text: OnText | None = None,
        on_progress: OnProgress | None = None,
        on_tokens: OnTokens | None = None,
    ) -> Done:
        """The finished answer; a long prompt is read by the other engine first.

        Raises:
            ProcessorError, OperandError, ConfigError: as the writing engine says.
        """
        if self.reads.gone or not self._is_long(request):
            return await self.writes.generate(request, on_text, on_progress, on_tokens)
        *rest, last = request.segments
        segments = [*rest, msgspec.structs.replace(last, keep=True)]
        kept = msgspec.structs.replace(request, segments=segments)
        alone = msgspec.structs.replace(kept, max_tokens=0, schema=None, lark=None)
        # What is wrong with the request is said by the engine that answers it.
        with contextlib.suppress(ProcessorError, OperandError, ConfigError):
            await self.reads.generate(alone, None, on_progress)
        return await self.writes.generate(kept, on_text, on_progress, on_tokens)

    def _is_long(self, request: Generate) -> bool:
        """Whether much of the prompt is new to the engine that writes."""
        text = "".join(segment.text for segment in request.segments)
        known = self._last.pop(request.program, "") if request.program else ""
        if request.program:
            self._last[request.program] = text
            if len(self._last) > _PROGRAMS:
                del self._last[next(iter(self._last))]
        return len(text) - (len(known) if text.startswith(known) else 0) >= LONG

    def hint(self, hint: Hint) -> None:
        for one in (self.reads, self.writes):
            one.hint(hint)

    async def load_adapter(self, name: str, path: Path) -> str:
        """See `EngineClient.load_adapter`; both engines read it."""
        if not self.reads.gone:
            await self.reads.load_adapter(name, path)
        return await self.writes.load_adapter(name, path)

    async def unload_adapter(self, name: str) -> None:
        if not self.reads.gone:
            await self.reads.unload_adapter(name)
        await self.writes.unload_adapter(name)

    async def tokenize(self, name: str, segments: list[Segment], *, bos: bool) -> Tokens:
        return await self.writes.tokenize(name, segments, bos=bos)

    async def stats(self) -> StatsReply:
        return await self.writes.stats()

    async def shutdown(self) -> None:
        await asyncio.gather(self.reads.shutdown(), self.writes.shutdown())

    async def release(self) -> None:
        await asyncio.gather(self.reads.release(), self.writes.release())

    async def close(self) -> None:
        await asyncio.gather(self.reads.close(), self.writes.close())


async def connect_split(spec: EngineSpec, on_progress: OnProgress | None = None) -> SplitClient:
    """Clients of both engines, which are started if they are not running.

    Raises:
        ProcessorError, ModelFileError, ConfigError: one of them cannot be started.
    """
    handover = handover_of(spec)
    reading, writing = split(spec, handover)
    reads = await connect_or_start(reading, on_progress)
    try:
        return SplitClient(reads, await connect_or_start(writing, on_progress), handover)
    except BaseException:
        await reads.close()
        raise
