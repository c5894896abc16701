"""Questions to the person at the terminal, asked without holding up the run: a question that is no
longer of interest is simply dropped, and Ctrl-C is heard while one is open."""

from __future__ import annotations

import asyncio
import os
import sys

import click

from edvac.cli import ui


class Asker:
    """Reads lines of standard input as they come; what was typed ahead is kept."""

    def __init__(self) -> None:
        self._typed = b""
        self._over = False

    async def yes(self, question: str, *, default: bool) -> bool | None:
        """Yes or no; None when nobody answers any more."""
        choices = "Y/n" if default else "y/N"
        while True:
            answer = await self._ask(f"{question} [{choices}]: ")
            if answer is None:
                return None
            if not answer:
                return default
            if answer.lower() in ("y", "yes", "n", "no"):
                return answer.lower() in ("y", "yes")
            ui.err("Please answer y or n.")

    async def text(self, question: str, options: list[str]) -> str | None:
        """A text, one of `options` where there are any; None when nobody answers any more."""
        shown = f" ({', '.join(options)})" if options else ""
        while True:
            answer = await self._ask(f"{question}{shown}: ")
            if answer is None or (answer if not options else answer in options):
                return answer
            if options:
                ui.err(f"Please answer one of: {', '.join(options)}.")

    async def line(self, question: str) -> str | None:
        """Whatever is answered, be it nothing; None when nobody answers any more."""
        return await self._ask(f"{question}: ")

    async def _ask(self, prompt: str) -> str | None:
        click.echo(ui.safe(prompt), nl=False, err=True)
        while b"\n" not in self._typed and not self._over:
            await self._more()
        line, mark, self._typed = self._typed.partition(b"\n")
        if not mark and not line:
            click.echo(err=True)
            return None
        return line.decode(errors="replace").strip()

    async def _more(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        descriptor = sys.stdin.fileno()

        def readable() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(descriptor, readable)
        try:
            await ready
        finally:
            loop.remove_reader(descriptor)
        data = os.read(descriptor, 65_536)
        self._over = not data
        self._typed += data
