"""What the engine benchmark asks: edvac's engine, and servers of others, by the same questions.

An arm completes raw text, greedily, and says when its first and last token came. Servers are
started for the benchmark, spoken to over loopback, and ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx2

from edvac.bench.control import PEERS
from edvac.core.errors import UsageError
from edvac.engine.client import EngineClient, EngineSpec, connect_or_start
from edvac.engine.protocol import Generate, Hint, HintKind, Segment

_PATIENCE: float = 1200.0
_GRACE: float = 20.0  # seconds for a server to end


@dataclass(frozen=True, slots=True)
class Took:
    """One completion: seconds until its first and its last token, and what it counted."""

    first: float
    whole: float
    prompt: int
    cached: int
    tokens: int
    text: str = ""

    @property
    def decoding(self) -> float:
        """Tokens a second after the first."""
        return (self.tokens - 1) / max(self.whole - self.first, 1e-9)


class Arm(Protocol):
    """
    Attributes:
        together: does it take more than one request at a time?
    """

    name: str
    together: bool

    async def complete(self, prompt: str, tokens: int, program: str = "") -> Took: ...
    def tell(self, kind: HintKind, program: str, tool: str = "", seconds: float = 0.0) -> None: ...


class EngineArm:
    """edvac's engine, as its own clients reach it."""

    together = True

    def __init__(self, name: str, client: EngineClient) -> None:
        self.name, self._client = name, client
        self._names = itertools.count(1)

    async def complete(self, prompt: str, tokens: int, program: str = "") -> Took:
        start = time.perf_counter()
        first: list[float] = []
        request = Generate(
            id=str(next(self._names)),
            segments=[Segment(prompt)],
            program=program,
            max_tokens=tokens,
            stream=True,
        )
        done = await self._client.generate(
            request, lambda _text, _count: first.append(time.perf_counter() - start)
        )
        whole = time.perf_counter() - start
        return Took(
            first[0] if first else whole,
            whole,
            done.prompt_tokens,
            done.cached_tokens,
            done.completion_tokens,
            done.text,
        )

    def tell(self, kind: HintKind, program: str, tool: str = "", seconds: float = 0.0) -> None:
        """What a program does; `seconds` where it knows how long."""
        self._client.hint(Hint(kind=kind, program=program, detail=tool, after=seconds, lease=600.0))


class ServerArm:
    """An OpenAI-compatible server that completes raw text."""

    together = True

    def __init__(self, name: str, address: str, client: httpx2.AsyncClient) -> None:
        self.name, self._address, self._client = name, address, client

    async def complete(self, prompt: str, tokens: int, program: str = "") -> Took:
        del program  # it knows of none
        start = time.perf_counter()
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0.0, "stream": True,
                "cache_prompt": True, "ignore_eos": False}  # fmt: skip
        first, last = 0.0, dict[str, Any]()
        pieces: list[str] = []
        url = f"{self._address}/completion"
        async with self._client.stream("POST", url, json=body, timeout=_PATIENCE) as reply:
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                last = json.loads(line.removeprefix("data: "))
                if last.get("content") and not pieces:
                    first = time.perf_counter() - start
                pieces.append(last.get("content", ""))
        whole = time.perf_counter() - start
        timings = last.get("timings", {})
        return Took(
            first or whole,
            whole,
            int(timings.get("prompt_n", 0)) + int(timings.get("cache_n", 0)),
            int(timings.get("cache_n", 0)),
            int(timings.get("predicted_n", 0)),
            "".join(pieces),
        )

    def tell(self, kind: HintKind, program: str, tool: str = "", seconds: float = 0.0) -> None:
        """It has no ear for it."""

    async def likely(self, tokens: list[int], count: int) -> dict[int, float]:
        """Log-probabilities of the tokens that most likely follow."""
        body = {"prompt": tokens, "n_predict": 1, "n_probs": count, "temperature": 0.0,
                "cache_prompt": True, "post_sampling_probs": False}  # fmt: skip
        reply = await self._client.post(f"{self._address}/completion", json=body)
        reply.raise_for_status()
        found = reply.json()["completion_probabilities"][0]["top_logprobs"]
        return {one["id"]: one["logprob"] for one in found}


class LineArm:
    """A program that is asked over its standard input, a JSON object a line."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, *, together: bool) -> None:
        self.name, self.together, self._process = name, together, process
        self._names = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.Future[float], asyncio.Future[dict[str, Any]]]] = {}
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if not line.startswith(b'{"id"'):
                continue
            said = json.loads(line)
            first, whole = self._waiting[said["id"]]
            if "first" in said:
                first.set_result(time.perf_counter())
            else:
                whole.set_result(said)

    async def complete(self, prompt: str, tokens: int, program: str = "") -> Took:
        del program
        assert self._process.stdin is not None
        loop, name = asyncio.get_running_loop(), next(self._names)
        first, whole = self._waiting[name] = (loop.create_future(), loop.create_future())
        start = time.perf_counter()
        asked = {"id": name, "prompt": prompt, "tokens": tokens}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        done = await asyncio.wait_for(whole, _PATIENCE)
        end = time.perf_counter()
        began = first.result() if first.done() else end
        del self._waiting[name]
        return Took(began - start, end - start, done["prompt"], 0, done["tokens"], done["text"])

    def tell(self, kind: HintKind, program: str, tool: str = "", seconds: float = 0.0) -> None:
        """It has no ear for it."""

    def close(self) -> None:
        self._listener.cancel()


@asynccontextmanager
async def line_arm(
    name: str, python: str, script: str, model: Path, threads: int
) -> AsyncIterator[Arm]:
    """A script of the peers' environment that completes one line after the other.

    Raises:
        UsageError: it does not start with this model.
    """
    process = await asyncio.create_subprocess_exec(
        *(python, str(PEERS / script), str(model), str(threads)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        limit=1 << 24,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    assert process.stdout is not None
    arm: LineArm | None = None
    try:
        async for line in process.stdout:
            if line.startswith(b'{"ready"'):
                break
        else:
            raise UsageError("bench_peer", f"{name} did not start", f"{model.name}, {script}")
        arm = LineArm(name, process, together=script.startswith("openvino"))
        yield arm
    finally:
        if arm is not None:
            arm.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def engine_arm(
    name: str, model: Path, threads: int, extra: tuple[str, ...] = (), kv_mb: int = 1024
) -> AsyncIterator[Arm]:
    """A fresh engine of its own, ended afterwards, which knows nothing that an earlier one read."""
    if "--kv-disk" not in extra:
        extra = (*extra, "--kv-disk", "session")
    with tempfile.TemporaryDirectory(prefix="edvac-bench-") as root:
        spec = EngineSpec(model, threads=threads, kv_mb=kv_mb, runtime=Path(root), extra=extra)
        client = await connect_or_start(replace(spec, idle_seconds=1.0))
        try:
            yield EngineArm(name, client)
        finally:
            await client.shutdown()
            await client.close()


@asynccontextmanager
async def llamacpp_arm(
    name: str, python: str, model: Path, threads: int, slots: int, *, kv: str = ""
) -> AsyncIterator[ServerArm]:
    """llama.cpp's server, fresh: from the environment of an interpreter, or a `llama-server`; `kv`
    is its type of keys and values."""
    command = [python, str(PEERS / "llamacpp_server.py"), str(model), str(threads), str(slots)]
    if Path(python).name == "llama-server":
        command = [str(PEERS / "llamacpp_server.sh"), python, *command[2:]]
    process = await asyncio.create_subprocess_exec(
        *command,
        *([kv] if kv else []),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        address = await _address(process.stdout)
        if not address:
            fix = f"Is xllamacpp in the environment of {python}?"
            raise UsageError("bench_peer", "llama.cpp's server did not start", "", fix)
        # A connection of its own for each question: the server closes idle ones as it likes.
        limits = httpx2.Limits(max_keepalive_connections=0)
        async with httpx2.AsyncClient(timeout=_PATIENCE, limits=limits) as client:
            yield ServerArm(name, address, client)
    except httpx2.HTTPError as problem:
        raise UsageError("bench_peer", f"{name} did not answer", str(problem)) from problem
    finally:
        process.stdin.close()
        # It ends by itself then, and ends what it has started; killed, it could not.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _address(lines: asyncio.StreamReader) -> str:
    async for line in lines:
        if line.startswith(b"http"):
            return line.decode().strip()
    return ""
