"""How much of a program's prompts coincides, and how much of that the engine did not read again.

The sample program runs with a real model. Of each prompt, the longest beginning that an earlier
prompt had is what a perfect memory would not have to read; what the engine says it had cached is
what it did not read. Beside it the same prompts in the order that comes first to mind, the data
before the instruction: how much of those would coincide.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left, insort
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edvac.bench.report import Document, Figure
from edvac.machine import Job, Machine
from edvac.processor import Answer, OnText, Processor, Request


class Kept:
    """A processor whose prompts are kept, as they were sent, with what was cached of each."""

    def __init__(self, inner: Processor) -> None:
        self._inner = inner
        self.prompts: list[str] = []
        self.swapped: list[str] = []
        self.read = 0
        self.cached = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        answer = await self._inner.complete(request, on_text)
        *before, last = request.messages
        self.prompts.append("".join(message.text for message in request.messages))
        instruction, data = last.segments[0].text, last.segments[1:]
        text = "".join(part.text for part in data) + instruction
        self.swapped.append("".join(message.text for message in before) + text)
        self.read += answer.prompt_tokens
        self.cached += answer.cached_tokens
        return answer


def shared(prompts: Iterable[str]) -> float:
    """The share of all characters that lie in a beginning which an earlier prompt had."""
    seen: list[str] = []
    total = common = 0
    for prompt in prompts:
        at = bisect_left(seen, prompt)
        near = seen[max(0, at - 1) : at + 1]  # in order, the neighbours share most
        common += max((_common(prompt, one) for one in near), default=0)
        total += len(prompt)
        insort(seen, prompt)
    return common / total if total else 0.0


def _common(left: str, right: str) -> int:
    """How many characters two texts begin with."""
    pairs = zip(left, right, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


async def measure(document: Document, processor: Processor, examples: Path) -> None:
    """Add the figures of the sample program."""
    kept: Any = Kept(processor)
    program = (examples / "inbox.edv").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as place, Machine(Path(place), kept) as machine:
        await machine.run(Job(program, roots={"inbox": examples / "inbox"}))
    coincide, naive = shared(kept.prompts), shared(kept.swapped)
    document.figures += [
        Figure(
            "characters of prompts that begin as an earlier one",
            100 * coincide,
            "%",
            "higher",
            peer="data before the instruction",
            peer_value=100 * naive,
        ),
        Figure(
            "tokens of prompts that were not read again",
            100 * kept.cached / max(1, kept.read),
            "%",
            "higher",
            peer="all that coincide",
            peer_value=100 * coincide,
        ),
    ]
    document.notes.append(f"{len(kept.prompts)} prompts, {kept.read:,} tokens")
