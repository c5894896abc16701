"""Between a run and the person at its terminal: events to the view, questions to the person,
signals to the driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from edvac.cli import ui
from edvac.cli.ask import Asker
from edvac.core import errors, event

if TYPE_CHECKING:
    from edvac.cli.view import View
    from edvac.machine import Machine
    from edvac.machine.driver import Driver
    from edvac.machine.machine import Terminal


class Talk:
    """One command's talk with its terminal.

    Attributes:
        sample: items of each loop to show before the rest is done; 0 does all.
    """

    def __init__(self, view: View, sample: int, *, read_only: bool = False) -> None:
        from edvac.machine.detach import HANDSHAKE

        self._handshake = HANDSHAKE
        self.view = view
        self.asker = Asker()
        self.sample = sample
        self._read_only = read_only
        self._results: list[str] = []  # of the sample
        self._run = ""
        self._one_question = asyncio.Lock()
        self._driver: Driver | None = None
        self._task: asyncio.Task[Any] | None = None
        self._signals = 0

    async def whole(self, work: Coroutine[Any, Any, int]) -> int:
        """A command from its first signal handler to its last.

        Raises:
            Interrupted: it was stopped before steps began.
        """
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        try:
            code = await work
            if self._task is not None and self._task.cancelling():
                raise asyncio.CancelledError  # what was shown last found nobody: see `show`
            return code
        except asyncio.CancelledError:
            raise errors.Interrupted(
                "interrupted",
                "stopped before any step was begun",
                "",
                "Start it again, or go on with `edvac resume` where a run was begun.",
            ) from None
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def terminal(self, machine: Machine) -> Terminal:
        """What the machine is given; without a terminal nobody is asked."""
        from edvac.machine.machine import Terminal

        asks = ui.is_terminal()

        async def look() -> bool:
            return await self._looks(machine)

        return Terminal(
            self.show,
            self._answer if asks else None,
            self._ask if asks else None,
            self.sample,
            look if asks else None,
            self._read_only,
            self._own,
        )

    async def _looks(self, machine: Machine) -> bool:
        """Show what the sample brought; go on with the rest?"""
        from edvac.cli.summary import sampled

        self.view.pause()
        try:
            for line in self._results + sampled(machine, self._run):
                ui.err(line)
            return bool(await self.asker.yes("Go on with the rest?", default=True))
        finally:
            self.view.resume()

    def show(self, happened: event.Event) -> None:
        """Show an event; where nobody reads any more, stop cleanly."""
        match happened:
            case event.RunOpened():
                self._run = happened.run
                self._handshake.ready()
            case event.StepFinished() if self.sample and happened.op.startswith("llm."):
                self._results.append(f"  {happened.address}: {happened.preview}")
        try:
            self.view.show(happened)
        except BrokenPipeError:
            with contextlib.suppress(OSError):
                ui.err("nobody reads the output any more: stopping; `edvac resume` goes on")
            self._hang_up()

    def say(self, lines: list[str]) -> None:
        """The same for lines to a person."""
        try:
            for line in lines:
                ui.err(line)
        except BrokenPipeError:
            self._hang_up()

    def _hang_up(self) -> None:
        """The terminal or the reader is gone: a clean stop, in silence."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        if self._driver is not None:
            self._driver.stop("interrupted")
        elif self._task is not None:
            self._task.cancel()

    def _own(self, driver: Driver) -> None:
        self._driver = driver

    def _interrupt(self) -> None:
        """First signal: a clean stop. Second: now."""
        self._signals += 1
        if self._signals > 1:
            with contextlib.suppress(OSError):
                self.view.__exit__(None, None, None)
                ui.err("stopped at once; what was finished is kept. Go on with `edvac resume`.")
            os._exit(errors.EXIT_INTERRUPTED)
        self.show(event.Note(text="stopping; once more to stop at once"))
        if self._driver is not None:
            self._driver.stop("interrupted")
        elif self._task is not None:
            self._task.cancel()

    async def _answer(self, question: event.Question) -> bool | None:
        self.view.pause()
        try:
            return await self.asker.yes(question.text, default=False)
        finally:
            self.view.resume()

    async def _ask(self, address: str, text: str, options: list[str]) -> str:
        """One question at a time; when nobody answers any more, the run waits for another day."""
        async with self._one_question:
            self.view.pause()
            try:
                answer = await self.asker.text(f"{address}: {text}", options)
            finally:
                self.view.resume()
        if answer is None:
            assert self._driver is not None
            self._driver.stop("waiting")
            await asyncio.Event().wait()
        return answer or ""
