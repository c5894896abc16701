"""What the tests of the machine share: a workspace, a scripted model, counters of executions."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edvac.core.label import PROGRAM
from edvac.core.schema import STR
from edvac.core.signature import Effect, Param, Signature
from edvac.core.value import Scalar
from edvac.device import Call, Reply
from edvac.machine import Job, Machine, Report
from edvac.machine.executor import Executor
from edvac.machine.machine import Terminal
from edvac.processor.scripted import ScriptedProcessor

TEXT = Param("text", STR)
Act = Callable[[Call], Awaitable[None]]


async def nothing(_: Call) -> None:
    return None


class Post:
    """An external device: remembers what it did; `act` runs first and may fail or wait."""

    version = "1"

    def __init__(self, act: Act = nothing, timeout_s: float = 600.0) -> None:
        self.sent: list[str] = []
        self.act = act
        self.signatures = (
            Signature(
                "mail.send", (Param("text", STR),), STR, Effect.EXTERNAL, "", timeout_s=timeout_s
            ),
            Signature(
                "mail.wait", (Param("text", STR),), STR, Effect.READ, "", timeout_s=timeout_s
            ),
        )

    async def call(self, call: Call) -> Reply:
        await self.act(call)
        self.sent.append(call.text("text"))
        return Reply(Scalar("sent", PROGRAM))

    async def read_version(self, call: Call) -> str | None:
        return None


@dataclass
class Bench:
    """A workspace with an inbox, on which machines are opened."""

    work: Path
    post: Post = field(default_factory=Post)
    broken: set[str] = field(default_factory=set)  # words that make a model step fail
    executed: Counter[str] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)  # prompts that the model saw

    def file(self, path: str, text: str) -> None:
        target = self.work / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def open(self, **options: Any) -> Machine:
        processor = ScriptedProcessor(self._answer)
        return Machine(self.work, processor, devices={"mail": self.post}, **options)

    def _answer(self, request: Any) -> str:
        from edvac.core.errors import DeviceError

        text = request.messages[-1].text
        self.asked.append(text)
        for word in self.broken:
            if word in text:
                raise DeviceError("broken", f"{word} cannot be read")
        if request.schema is None:
            return f"<{text.rpartition('<data 1>')[2][:60].strip()}>"
        if "options" in text:
            return json.dumps({"answer": "yes"})
        return json.dumps({"word": text.split("word=")[-1].split()[0]})

    def job(self, program: str, **more: Any) -> Job:
        return Job(program, roots={"inbox": self.work / "inbox"}, seed=1, **more)

    def run(self, program: str, terminal: Terminal | None = None, **more: Any) -> Report:
        with self.open() as machine:
            return asyncio.run(machine.run(self.job(program, **more), terminal))

    def resume(self, run: str, terminal: Terminal | None = None, *, retry: bool = False) -> Report:
        with self.open() as machine:
            return asyncio.run(machine.resume(run, terminal, retry=retry))

    def files(self, run: str) -> dict[str, str]:
        with self.open() as machine:
            return machine.ledger.call_now(
                lambda s: {f.path: s.read_file(run, f.path).decode() for f in s.list_files(run)}
            )

    def count(self, monkeypatch: Any) -> None:
        """Count what really executes: not what is replayed or reused."""
        bench = self
        model, device = Executor._model, Executor._device

        async def counted_model(self: Executor, intent: Any, *rest: Any) -> Any:
            bench.executed[intent.call.address] += 1
            return await model(self, intent, *rest)

        async def counted_device(self: Executor, intent: Any, *rest: Any) -> Any:
            bench.executed[intent.call.address] += 1
            return await device(self, intent, *rest)

        monkeypatch.setattr(Executor, "_model", counted_model)
        monkeypatch.setattr(Executor, "_device", counted_device)
