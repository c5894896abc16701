"""One answer as it comes in: events of a stream or a whole document, bounded and watched.

A stream that sends nothing of an answer for too long is given up, however many signs of life it
sends; one that breaks off, goes on after its end or says a thing twice is found out. Knows nothing
of requests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from edvac.processor.counts import Counts
from edvac.processor.port import OnText
from edvac.processor.web import get, number

MAX_ANSWER = 8 * 1024 * 1024  # bytes of one streamed answer


class Garbled(Exception):
    """What came is no answer as an OpenAI-compatible endpoint gives it."""


class Reported(Exception):
    """The endpoint said in the middle of an answer that something went wrong."""


class Silent(Exception):
    """Nothing of an answer came for too long; `begun` when some of it had."""

    def __init__(self, *, begun: bool) -> None:
        super().__init__()
        self.begun = begun


@dataclass(slots=True)
class Stream:
    """What has come of one answer so far."""

    on_text: OnText | None
    content: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    finish: str = ""
    over: bool = False  # its end was seen, not only the end of the connection
    whole: bool = False  # it came in one piece
    pieces: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""
    fingerprint: str = ""

    @property
    def text(self) -> str:
        return well_formed("".join(self.content))

    @property
    def thinking(self) -> str:
        return well_formed("".join(self.thoughts))

    @property
    def counts(self) -> Counts:
        return Counts(self.prompt_tokens, self.cached_tokens, self.completion_tokens)

    @property
    def doubled(self) -> bool:
        """More pieces than tokens: some of them came twice, or the count is a lie."""
        return not self.whole and 0 < self.completion_tokens < self.pieces

    def take(self, data: str) -> bool:
        """One event of the stream, or a whole answer. True when it brought a part of the answer.

        Raises:
            Garbled: it is none.
            Reported: it is an error.
        """
        try:
            event = json.loads(data)
            if event.get("error"):
                raise Reported(str(event["error"]))
            self._note(event)
            brought = [self._choice(choice) for choice in event.get("choices") or ()]
        except (ValueError, AttributeError, TypeError, RecursionError) as problem:
            raise Garbled(data) from problem
        return any(brought)

    def _note(self, event: dict[str, Any]) -> None:
        self.prompt_tokens = number(event, "usage", "prompt_tokens") or self.prompt_tokens
        self.completion_tokens = (
            number(event, "usage", "completion_tokens") or self.completion_tokens
        )
        self.cached_tokens = (
            number(event, "usage", "prompt_tokens_details", "cached_tokens") or self.cached_tokens
        )
        for name in ("model", "system_fingerprint"):
            found = get(event, name)
            if isinstance(found, str) and found:
                setattr(self, "model" if name == "model" else "fingerprint", found[:200])

    def _choice(self, choice: dict[str, Any]) -> bool:
        part = choice.get("delta") or choice.get("message") or {}
        self.whole = self.whole or "message" in choice
        piece = (part.get("content") or "") + ""
        thought = (part.get("reasoning_content") or part.get("reasoning") or "") + ""
        if (piece or thought) and self.finish:
            raise Garbled("more of an answer that had ended")
        self.content.append(piece)
        self.thoughts.append(thought)
        self.pieces += bool(piece) + bool(thought)
        self.finish = str(choice.get("finish_reason") or self.finish)
        if (piece or thought) and self.on_text is not None:
            self.on_text(well_formed(piece), 1)
        return bool(piece or thought)


async def receive(reply: httpx2.Response, found: Stream, first_s: float, idle_s: float) -> None:
    """Read an answer to its end.

    Args:
        first_s: seconds until something of the answer has to come, `idle_s` between two parts.

    Raises:
        Garbled, Reported: see `Stream.take`.
        Silent: too long without a part of the answer.
        httpx2.HTTPError: the connection broke.
    """
    loop = asyncio.get_running_loop()
    begun = False
    try:
        async with asyncio.timeout(first_s) as limit:
            if reply.headers.get("content-type", "").startswith("application/json"):
                whole = b"".join([part async for part in _bounded(reply)])
                found.over = found.whole = True
                found.take(whole.decode(errors="replace"))
                return
            async for line in _lines(reply):
                if not line.startswith("data:"):
                    continue
                if line[5:].strip() == "[DONE]":
                    found.over = True
                    return
                if found.take(line[5:]):
                    begun = True
                    limit.reschedule(loop.time() + idle_s)
    except TimeoutError as problem:
        if found.finish:
            return  # all of it is here; only the end of the connection is not
        raise Silent(begun=begun) from problem


async def beginning(reply: httpx2.Response, most: int) -> str:
    """The beginning of an error's text; it may not end."""
    found = b""
    async for part in reply.aiter_bytes():
        found += part
        if len(found) > most:
            break
    return found[:most].decode(errors="replace")


def well_formed(text: str) -> str:
    """Text without halves of surrogate pairs, which JSON can bring and nothing can store; halves
    that were sent apart are put together."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


async def _bounded(reply: httpx2.Response) -> AsyncIterator[bytes]:
    size = 0
    async for part in reply.aiter_bytes():
        size += len(part)
        if size > MAX_ANSWER:
            raise Garbled("an answer that does not end")
        yield part


async def _lines(reply: httpx2.Response) -> AsyncIterator[str]:
    """Lines, of which one may never end."""
    rest = b""
    async for part in _bounded(reply):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")
