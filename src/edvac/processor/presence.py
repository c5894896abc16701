"""Whether a processor answers at all: tells a request that cannot be answered from a processor that
answers nobody.
"""

from __future__ import annotations

import asyncio

from edvac.core.errors import ConfigError, EdvacError, ModelFileError, TransientError
from edvac.processor.port import Message, Processor, Request, Segment

PATIENCE_S = 60.0  # for a few tokens, behind whatever the processor is busy with

_QUESTION = Request("", "", (Message("user", (Segment("Say yes."),)),), max_tokens=4)


class Presence:
    """Asks a processor something that no document has a part in."""

    def __init__(self, processor: Processor, patience_s: float = PATIENCE_S) -> None:
        self._processor = processor
        self._patience_s = patience_s
        self._one = asyncio.Lock()
        self._asked = 0
        self._away = False

    async def away(self) -> bool:
        """True where it does not answer. Callers that wait at the same time share one question."""
        asked = self._asked
        async with self._one:
            if self._asked == asked:
                self._asked += 1
                self._away = not await self._answers()
            return self._away

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._processor.open()
                await self._processor.complete(_QUESTION)
        except (TimeoutError, TransientError, ConfigError, ModelFileError):
            return False
        except EdvacError:
            return True  # it had something to say
        return True
