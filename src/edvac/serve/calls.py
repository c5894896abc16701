"""The calls of one HTTP request while they run, and what they have written that is not sent yet.

One reader takes what there is. What is not taken is put together, so that a slow reader costs the
text itself and no more; one that lags too far behind is given up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from edvac.core.errors import EdvacError, UsageError
from edvac.processor import Answer, OnText, OnTokens, Token

MOST_UNSENT: Final = 1 << 20  # characters; more than any context holds is read by nobody

Start: TypeAlias = Callable[[OnText, OnTokens], Awaitable[Answer]]


@dataclass(slots=True)
class Piece:
    """More of the `index`-th answer, with the tokens that begin in it where they are reported."""

    index: int
    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """The `index`-th answer is there as a whole."""

    index: int
    answer: Answer


class Calls:
    """Starts the calls at once. The first error of one ends all."""

    def __init__(self, starts: Sequence[Start]) -> None:
        self._items: deque[Piece | Ended] = deque()
        self._tokens: list[tuple[Token, ...]] = [()] * len(starts)
        self._fresh = asyncio.Event()
        self._error: BaseException | None = None
        self._unsent = 0
        self._left = len(starts)
        self._tasks = [
            asyncio.ensure_future(start(partial(self._write, at), partial(self._report, at)))
            for at, start in enumerate(starts)
        ]
        for at, task in enumerate(self._tasks):
            task.add_done_callback(partial(self._end, at))

    async def next(self) -> Piece | Ended | None:
        """What comes next; None when all answers have ended.

        Raises:
            EdvacError: there is no answer to one of the calls.
        """
        while not self._items:
            if self._error is not None:
                raise self._error
            if not self._left:
                return None
            self._fresh.clear()
            await self._fresh.wait()
        found = self._items.popleft()
        if isinstance(found, Piece):
            self._unsent -= len(found.text)
        return found

    async def answers(self) -> list[Answer]:
        """All answers, in the order of their calls.

        Raises:
            EdvacError: there is no answer to one of the calls.
        """
        found: dict[int, Answer] = {}
        while (item := await self.next()) is not None:
            if isinstance(item, Ended):
                found[item.index] = item.answer
        return [found[at] for at in sorted(found)]

    def fail(self, error: EdvacError) -> None:
        """End all calls with an error, unless they have ended. What was written before is read
        first."""
        if self._left:
            self._give_up(error)

    async def close(self) -> None:
        """End what still runs and wait until it has."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _give_up(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
            for task in self._tasks:
                task.cancel()
            self._fresh.set()

    def _report(self, at: int, tokens: tuple[Token, ...]) -> None:
        self._tokens[at] += tokens

    def _write(self, at: int, text: str, count: int) -> None:
        del count
        tokens, self._tokens[at] = self._tokens[at], ()
        self._unsent += len(text)
        last = self._items[-1] if self._items else None
        if isinstance(last, Piece) and last.index == at:
            last.text += text
            last.tokens += tokens
        else:
            self._items.append(Piece(at, text, tokens))
        if self._unsent > MOST_UNSENT:
            self.fail(UsageError("client_slow", "the client does not read its answer"))
        self._fresh.set()

    def _end(self, at: int, task: asyncio.Future[Answer]) -> None:
        self._left -= 1
        if not task.cancelled():  # else nobody asks any more, or all are told why
            error = task.exception()
            if error is not None:
                self._give_up(error)
            else:
                self._items.append(Ended(at, task.result()))
        self._fresh.set()
