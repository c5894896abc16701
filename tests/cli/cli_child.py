"""`edvac` as a process of its own with a scripted model, for tests with a terminal and signals.

Usage: cli_child.py DELAY ARGUMENT...

Its model thinks for so many seconds, or until there is a file ``go`` where it runs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from edvac.core import event
from edvac.core.errors import ConfigError
from edvac.machine import detach, every, processors
from edvac.machine.settings import Settings
from edvac.processor import Answer, OnText, Request
from edvac.processor.scripted import ScriptedProcessor

DELAY = float(sys.argv[1])


class Slow(ScriptedProcessor):
    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        end = time.monotonic() + DELAY
        while time.monotonic() < end and not Path("go").exists():
            await asyncio.sleep(0.02)
        return await super().complete(request, on_text)


def choose(
    settings: Settings, emit: Callable[[event.Event], None] = lambda _: None
) -> ScriptedProcessor:
    """As a cold engine: it says how far it has come before anything else is said."""
    if settings.model == "missing":
        raise ConfigError("model_missing", "the model missing is not on this machine")
    emit(event.Stage(name="loading the model", done=1, total=2))
    return Slow(lambda request: "hello")


processors.choose_processor = choose  # type: ignore[assignment]
detach.COMMAND = every.COMMAND = (sys.executable, __file__, sys.argv[1])

if __name__ == "__main__":
    from edvac.cli.main import main

    main(sys.argv[2:])
