"""A worker of the proof: ``scale_worker.py URL NAME LOG LEASE_S DELAY_S``.

The real worker with a scripted model; its events go to standard output, a line each.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import scale_kit

from edvac.core import event
from edvac.core.seams import SystemClock
from edvac.machine.fleet import wire
from edvac.machine.fleet.doing import Doer
from edvac.machine.fleet.opening import opened
from edvac.machine.fleet.worker import Worker
from edvac.machine.storage import Storage
from edvac.store import Enlisted

SLOTS = 8


def show(happened: event.Event) -> None:
    print(event.encode(happened).decode(), flush=True)


async def main(url: str, name: str, log: str, lease_s: str, delay_s: str) -> None:
    work = Path(log).parent / f"at-{name}"
    work.mkdir(exist_ok=True)
    processor = scale_kit.processor(Path(log), float(delay_s))
    able = wire.capabilities(frozenset({wire.MODEL}), scale_kit.MODEL)
    about = Enlisted(f"{name} id", name, name, wire.VERSION, able, SLOTS)
    async with opened(Storage(work, url), show) as ways:
        worker = Worker(ways, Doer(processor), about, SystemClock(), show, lease_s=float(lease_s))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
