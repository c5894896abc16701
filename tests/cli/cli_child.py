"""`edvac` as a process of its own with a scripted model, for tests with a terminal and signals.

Usage: cli_child.py DELAY ARGUMENT...

Its model thinks for so many seconds, or until there is a file ``go`` where it runs. Without an
argument it is a server that forks such a process for each order, which costs a tenth of starting
one: `Forked` is its client."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edvac.core import event
from edvac.core.errors import ConfigError
from edvac.machine import detach, every, processors
from edvac.machine.settings import Settings
from edvac.processor import Answer, OnText, Request
from edvac.processor.scripted import ScriptedProcessor

DELAY = [0.0]


class Slow(ScriptedProcessor):
    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        end, go = time.monotonic() + DELAY[0], Path("go")
        while time.monotonic() < end and not go.exists():  # noqa: ASYNC110, ASYNC240
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


def edvac(delay: str, arguments: list[str]) -> None:
    from edvac.cli.main import main

    DELAY[0] = float(delay)
    processors.choose_processor = choose  # type: ignore[assignment]
    detach.COMMAND = every.COMMAND = (sys.executable, __file__, delay)
    main(arguments)


def become(order: dict[str, Any]) -> None:
    """A process as one that was just started, with the streams of the order."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it (nohup)
    for number, path in enumerate(order["streams"]):
        # The first terminal that the leader of a session opens becomes its own: Ctrl-C reaches it.
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False, buffering=1 if os.isatty(1) else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])


def fork(order: dict[str, Any]) -> int:
    """The number of a process that has its streams already."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid:
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        return pid
    code = 70
    try:
        become(order)
        os.close(told)
        os.close(ready)
        edvac(str(order["delay"]), order["args"])
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def serve() -> None:
    """For each order the number of its process; for each number how that process ended."""
    import edvac.cli.plan
    import edvac.cli.run
    import edvac.cli.summary
    import edvac.machine.machine  # noqa: F401

    for line in sys.stdin:
        said = json.loads(line)
        if isinstance(said, dict):
            answer = fork(said)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(said, 0)[1])
        print(answer, flush=True)


if __name__ == "__main__":
    edvac(sys.argv[1], sys.argv[2:]) if sys.argv[1:] else serve()
