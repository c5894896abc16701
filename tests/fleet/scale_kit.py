"""What the proof of scale-out shares between its processes: the program, the model, the sums."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor

MODEL = "scripted for the proof"


def program(steps: int) -> str:
    return (
        f'notes = [llm.write("Say it", f"item {{n}}") for n in range({steps})]\n'
        'files.write("notes.txt", "\\n".join(notes))\n'
    )


def item(request: Request) -> str:
    """The one that a request is about."""
    return request.messages[-1].text.partition("<data 1>")[2].split("<")[0].strip()


def answer(request: Request) -> str:
    text = f"{item(request)} {request.seed} {request.temperature}"
    return f"{item(request)}: {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def processor(log: Path | None, delay_s: float) -> ScriptedProcessor:
    """Each execution is a line of the log, written before it happens."""

    def say(request: Request) -> str:
        if log is not None:
            with log.open("a") as file:
                file.write(f"{item(request)}\n")
        return answer(request)

    return ScriptedProcessor(say, name=MODEL, delay_s=delay_s, concurrency=16)
