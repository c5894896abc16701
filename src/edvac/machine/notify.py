"""Calling the user's own command when a run waits for a person, a budget or a model.

It is told which run and how many questions, never what they say: those words come from documents,
and where the command sends them nobody knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is told: the run and how many questions are open; none where it waits for a budget or a
    model."""

    run: str
    questions: int


async def notify(
    command: Sequence[str], waiting: Waiting, workspace: Path, timeout_s: float = TIMEOUT_S
) -> str:
    """Run the command with the run and the number of questions as last arguments, and the same in
    EDVAC_RUN and EDVAC_QUESTIONS. No shell. What went wrong, as a clause; empty if nothing did."""
    told = {"EDVAC_RUN": waiting.run, "EDVAC_QUESTIONS": str(waiting.questions)}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            waiting.run,
            str(waiting.questions),
            cwd=workspace,
            env=os.environ | told,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as problem:
        return f"{command[0]!r} could not be started: {problem}"
    try:
        async with asyncio.timeout(timeout_s):
            code = await process.wait()
    except TimeoutError:
        return f"{command[0]!r} did not end within {timeout_s:g} s and was stopped"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return f"{command[0]!r} ended with exit status {code}" if code else ""
