"""DBOS on SQLite: a workflow of null steps, one after another, and as many workflows at once.

Usage: python dbos_steps.py STEPS DIRECTORY
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbos import DBOS

STEPS, DIRECTORY = int(sys.argv[1]), Path(sys.argv[2])
DBOS(
    config={
        "name": "bench",
        "system_database_url": f"sqlite:///{DIRECTORY / 'dbos.db'}",
        "run_admin_server": False,
        "log_level": "ERROR",
    }
)


@DBOS.step()
def step(number: int) -> int:
    return number + 1


@DBOS.workflow()
def one(number: int) -> int:
    return step(number)


@DBOS.workflow()
def chain(steps: int) -> int:
    count = 0
    while count < steps:
        count = step(count)
    return count


@DBOS.workflow()
def fan(width: int) -> int:
    handles = [DBOS.start_workflow(one, number) for number in range(width)]
    return sum(handle.get_result() for handle in handles)


def measure(workflow: Callable[[int], Any], steps: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    workflow(steps)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"cpu_ms": cpu / steps * 1e3, "wall_ms": wall / steps * 1e3}


DBOS.launch()
found = {"chain": measure(chain, STEPS), "fan": measure(fan, min(STEPS, 100))}
size = sum(file.stat().st_size for file in DIRECTORY.glob("dbos.db*"))
found["chain"]["bytes"] = size / STEPS
sys.stdout.write("\n" + json.dumps(found))
DBOS.destroy()
