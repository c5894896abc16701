"""A processor that tries again: for callers that are no steps of a run, such as the planner.

Steps are tried again by the control unit, which journals what comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edvac.core.errors import TransientError
from edvac.processor.passing import Passing
from edvac.processor.port import Answer, OnText, Processor, Request

ATTEMPTS = 5
FIRST_WAIT_S = 0.5  # doubled before each further attempt; longer where it is asked for


class Patient(Passing):
    """Passes everything on to another processor.

    Args:
        tell: told why it waits.
    """

    def __init__(self, inner: Processor, tell: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(inner)
        self._tell = tell

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        """One call; again after a transient error, unless a part of the answer was passed on,
        which cannot be taken back."""
        heard = False

        def listen(text: str, tokens: int) -> None:
            nonlocal heard
            heard = heard or bool(text)
            if on_text is not None:
                on_text(text, tokens)

        for attempt in range(ATTEMPTS):
            try:
                return await self._inner.complete(request, listen if on_text is not None else None)
            except TransientError as error:
                if heard or attempt == ATTEMPTS - 1:
                    raise
                wait_s = max(FIRST_WAIT_S * 2**attempt, error.wait_s)
                self._tell(f"{error.what}; again in {wait_s:g} s")
                await asyncio.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")
