"""A program that runs while it is being written: drafts go to the driver as they are accepted.

Drafts mostly grow. One that takes back what was begun stops the run, and the finished text is run
anew; nothing was written by then, and what was computed is reused. Knows nothing of how programs
are written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from edvac.core.errors import EdvacError
from edvac.core.signature import Catalogue
from edvac.program import parse

if TYPE_CHECKING:
    from edvac.machine.driver import Driver

Writer: TypeAlias = Callable[[Callable[[str], None]], Awaitable[str]]


class Growth:
    """One program on its way, and the task that writes it."""

    def __init__(self, write: Writer, catalogue: Catalogue) -> None:
        self._write = write
        self._catalogue = catalogue
        self._begun = ""  # what has been written
        self._whole = ""  # the same with what it uses of the library, as it runs
        self._replaced = False
        self._task: asyncio.Task[str] | None = None

    def begin(self, driver: Driver) -> None:
        """Write from now on, and hand each draft to the driver."""
        self._task = asyncio.create_task(self._grow(driver))

    async def text(self) -> str:
        """The finished program.

        Raises:
            ProgramError: none came out.
        """
        assert self._task is not None
        return await self._task

    async def end(self, state: str) -> None:
        """The run is over: a failure to write a program is the run's; writing on is of no use."""
        assert self._task is not None
        if state == "replanned":
            return
        if not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        elif state == "unplanned":
            self._task.result()

    async def _grow(self, driver: Driver) -> str:
        def take(text: str, *, whole: bool = False) -> None:
            if self._replaced:
                return
            if not text.startswith(self._begun):
                self._replaced = True
                driver.stop("replanned")
                return
            program = parse(self._whole + text[len(self._begun) :], self._catalogue)
            self._begun, self._whole = text, program.text
            driver.grow(program, whole=whole)

        try:
            text = await self._write(take)
        except EdvacError:
            driver.stop("unplanned")
            raise
        take(text, whole=True)
        return text
