"""The main job: the sample program in parallel, one step after another, and on llama.cpp."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edvac.bench.control import PEERS
from edvac.bench.report import Document, Figure, median
from edvac.core import event
from edvac.machine import Job, Machine, Settings
from edvac.machine.machine import Terminal
from edvac.machine.processors import choose_processor, model_path
from edvac.processor import Answer, OnText, Processor, Request


@dataclass
class Recorder:
    """A processor that remembers what went through it."""

    inner: Processor
    asked: list[tuple[Request, Answer]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        answer = await self.inner.complete(request, on_text)
        self.asked.append((request, answer))
        return answer


@dataclass(slots=True)
class _Timing:
    seconds: float
    first: float
    tokens: int
    steps: int


def measure(
    document: Document, program: Path, inbox: Path, python: str | None, repeats: int
) -> None:
    """Add the figures of `program` on `inbox` with the default model."""
    settings = Settings(kv_disk="session")  # nothing that an earlier engine read
    text = program.read_text(encoding="utf-8")
    together: list[_Timing] = []
    alone: list[_Timing] = []
    recorder = Recorder(choose_processor(settings))
    for number in range(repeats):
        recorder.asked.clear()
        together.append(asyncio.run(_run(text, inbox, recorder, at_once=0, seed=number)))
        recorder.asked.clear()
        alone.append(asyncio.run(_run(text, inbox, recorder, at_once=1, seed=number + 1000)))
    parallel = median([one.seconds for one in together])
    _seconds(document, "steps in parallel", parallel)
    _seconds(document, "first extracted row", median([one.first for one in together]))
    sequential = median([one.seconds for one in alone])
    _seconds(document, "in parallel, against one by one", parallel, "one by one", sequential)
    if python is not None:
        peer = _llamacpp(python, settings, recorder.asked)
        if peer is not None:
            name = "llama.cpp one by one"
            _seconds(document, "in parallel, against llama.cpp", parallel, name, peer)
    tokens = together[-1].tokens / parallel
    document.figures.append(Figure("tokens decoded", tokens, "tokens/s", "higher"))


def _seconds(
    document: Document, name: str, value: float, peer: str | None = None, other: float | None = None
) -> None:
    document.figures.append(Figure(name, value, "s", "lower", None, peer, other))


async def _run(text: str, inbox: Path, processor: Recorder, *, at_once: int, seed: int) -> _Timing:
    """One run in a fresh workspace; the text of every prompt differs by run, so that nothing of an
    earlier one is in the engine's cache."""
    first: list[float] = []
    start = time.perf_counter()

    def emit(happened: event.Event) -> None:
        if isinstance(happened, event.StepFinished) and happened.op == "llm.extract":
            first.append(time.perf_counter() - start)

    marked = text.replace("# kind of document", f"# kind of document {seed}")
    await processor.open()
    with (
        tempfile.TemporaryDirectory() as directory,
        Machine(Path(directory), processor, at_once=at_once) as machine,
    ):
        start = time.perf_counter()
        job = Job(marked, roots={inbox.name: inbox}, fresh=True)
        report = await machine.run(job, Terminal(emit=emit))
        seconds = time.perf_counter() - start
    await processor.inner.close()
    tokens = sum(answer.completion_tokens for _, answer in processor.asked)
    return _Timing(seconds, first[0] if first else seconds, tokens, report.counts["finished"])


def _llamacpp(python: str, settings: Settings, asked: list[tuple[Request, Answer]]) -> float | None:
    """Seconds that llama.cpp takes for the very same prompts, one after another."""
    requests = [
        {"prompt": "".join(answer.sent), "schema": request.schema, "max_tokens": request.max_tokens}
        for request, answer in asked
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(requests, file)
        file.flush()
        threads = str(len(os.sched_getaffinity(0)))
        model = str(model_path(settings.model))
        command = [python, str(PEERS / "llamacpp_prompts.py"), model, threads, file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        return None
    return float(json.loads(done.stdout.strip().split("\n")[-1])["seconds"])
