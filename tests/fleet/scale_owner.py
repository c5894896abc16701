"""The owner of the run of the proof: ``scale_owner.py URL WORK STEPS``.

It executes no model step itself: its own model is one that fails. On standard output its notes,
then the run.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import scale_kit

from edvac.core import event
from edvac.core.errors import DeviceError
from edvac.machine import Job, Machine
from edvac.machine.fleet.postgresql import fleet
from edvac.machine.machine import Terminal
from edvac.machine.storage import Storage
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor


def refuse(request: Request) -> str:
    raise DeviceError("here", "this step was done by the owner")


def show(happened: event.Event) -> None:
    if isinstance(happened, event.Note):
        print("note", happened.text, flush=True)


async def main(url: str, work: str, steps: str) -> None:
    store = Storage(Path(work), url, 120.0, lambda waited: print("gone", waited, flush=True))
    processor = ScriptedProcessor(refuse, name=scale_kit.MODEL)
    with Machine(Path(work), processor, store=store, workers=fleet(0.0)) as machine:
        job = Job(scale_kit.program(int(steps)), seed=1)
        report = await machine.run(job, Terminal(show))
        print("run", report.run, report.state, report.counts, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
