"""A processor that answers from a function: for tests, crash harnesses and the null-processor
benchmark."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edvac.core.seams import Contacts
from edvac.processor.port import FREE, Answer, Doing, OnText, Request

Script = Callable[[Request], str]


class ScriptedProcessor:
    """Answers `script(request)` after `delay_s`; the script may raise any error of the tree."""

    def __init__(
        self,
        script: Script,
        *,
        name: str = "scripted",
        delay_s: float = 0.0,
        concurrency: int = 32,
        local: bool = False,
    ) -> None:
        self._script = script
        self._delay_s = delay_s
        self.identity = name
        self.concurrency = concurrency
        self.price = FREE
        self.contacts = Contacts()
        self.context_tokens = 1_000_000
        self.has_grammar = True
        self.endpoint = "scripted"
        self.local = local
        self.calls = 0
        self.told: list[tuple[str, Doing, str]] = []

    async def open(self) -> None:
        return

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        self.calls += 1
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        text = self._script(request)
        if on_text is not None:
            on_text(text, 1)
        sent = tuple(s.text for message in request.messages for s in message.segments)
        size = sum(map(len, sent)) // 4
        return Answer(text, "stop", size, 0, len(text) // 4, sent)

    def tell(self, run: str, doing: Doing, tool: str) -> None:
        self.told.append((run, doing, tool))

    async def close(self) -> None:
        return
