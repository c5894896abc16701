"""Frames: one JSON object a line, from a process that may send anything at all.

What is read is bounded before it is understood: the length of a line, how deep it is nested, how
many parts it has. Several frames in one read are several frames, and one that comes in pieces is
one. Knows nothing of what a frame says.
"""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

from edvac.core.errors import DeviceError

MAX_FRAME = 4 * 1024 * 1024  # bytes
MAX_DEPTH, MAX_PARTS = 48, 200_000
_CHUNK = 64 * 1024


class Frames:
    """The frames of one stream."""

    def __init__(self, source: asyncio.StreamReader, app: str, limit: int = MAX_FRAME) -> None:
        self._source = source
        self._app = app
        self._limit = limit
        self._held = bytearray()
        self._seen = 0  # of what is held; there is no line's end in it

    async def next(self) -> dict[str, Any] | None:
        """The next frame; None at the end of the stream. An empty line is none.

        Raises:
            DeviceError: what comes is no frame.
        """
        while True:
            line = await self._line()
            if line is None:
                return None
            if line.strip():
                return self._read(line)

    async def _line(self) -> bytes | None:
        while (at := self._held.find(b"\n", self._seen)) < 0:
            self._seen = len(self._held)
            if self._seen > self._limit:
                raise broken(self._app, f"a line is longer than {self._limit:,} bytes")
            more = await self._source.read(_CHUNK)
            if not more:
                return None
            self._held += more
        line = bytes(self._held[:at])
        del self._held[: at + 1]
        self._seen = 0
        if len(line) > self._limit:
            raise broken(self._app, f"a line is longer than {self._limit:,} bytes")
        return line

    def _read(self, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line.decode(), parse_float=Decimal, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise broken(self._app, "a line is no JSON") from None
        why = unfit(found)
        if why:
            raise broken(self._app, f"a line {why}")
        if not isinstance(found, dict):
            raise broken(self._app, "a line is no object")
        return found


def _no_number(said: str) -> Any:
    raise ValueError(said)


def unfit(data: Any) -> str:
    """Why parsed JSON is more than is taken, as a clause; empty where it is not."""
    todo, parts = [(data, 1)], 0
    while todo:
        here, depth = todo.pop()
        parts += 1
        if parts > MAX_PARTS:
            return f"has more than {MAX_PARTS:,} parts"
        if depth > MAX_DEPTH:
            return f"is nested deeper than {MAX_DEPTH}"
        match here:
            case str() if not _is_text(here):
                return "holds half a character"
            case list():
                todo += [(one, depth + 1) for one in here]
            case dict():
                todo += [(one, depth + 1) for one in here.values()]
                if not all(map(_is_text, here)):
                    return "holds half a character"
    return ""


def _is_text(said: str) -> bool:
    return said.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in said)


def encoded(frame: dict[str, Any]) -> bytes:
    """A frame as it is sent: decimals as numbers, dates as text, no line's end inside."""
    return json.dumps(frame, default=_plain, allow_nan=False).encode() + b"\n"


def _plain(one: Any) -> Any:
    return float(one) if isinstance(one, Decimal) else str(one)


def broken(app: str, why: str) -> DeviceError:
    """The process does not keep to the protocol; it is ended, and the next call begins another."""
    return DeviceError(
        "app_broken",
        f"the app {app} does not keep to the protocol",
        f"{why[0].upper()}{why[1:]}.",
        "Its process was ended. Ask its publisher, or leave the app out.",
    )
