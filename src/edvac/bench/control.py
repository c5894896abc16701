"""Control overhead: CPU, wall time and bytes per durable step with an idle processor."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from edvac.bench.report import Document, Figure, median
from edvac.machine import Job, Machine
from edvac.processor.scripted import ScriptedProcessor

PEERS = Path(__file__).parent / "peers"
CHAIN = """\
last = "start"
for number in range({steps}):
    last = llm.write("next", last, number)
"""
FAN = """\
texts = [llm.write("one of many", number) for number in range({steps})]
"""


def measure(document: Document, python: str | None, *, steps: int, repeats: int) -> None:
    """Add edvac's figures, beside those of the peers that `python`'s environment holds. All take
    turns, so that a machine that grows slower does so for everybody."""
    names = ("langgraph", "dbos") if python is not None else ()
    own: dict[str, list[dict[str, float]]] = {shape: [] for shape, _ in _SHAPES}
    others: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in names}
    for _ in range(repeats):
        for shape, text in _SHAPES:
            own[shape].append(_ours(text, steps))
        for name in names:
            others[name].append(_peer(str(python), name, steps))
    ours = {shape: _median(runs) for shape, runs in own.items()}
    peers = {
        name: {shape: _median([one[shape] for one in runs if shape in one]) for shape, _ in _SHAPES}
        for name, runs in others.items()
    }
    for shape, _ in _SHAPES:
        for unit, key in (("ms CPU", "cpu_ms"), ("ms", "wall_ms"), ("bytes", "bytes")):
            _add(document, shape, unit, ours[shape].get(key), peers)


_SHAPES = (("chain", CHAIN), ("fan", FAN))
_KEYS = {"ms CPU": "cpu_ms", "ms": "wall_ms", "bytes": "bytes"}


def _add(
    document: Document, shape: str, unit: str, value: float | None, peers: dict[str, Any]
) -> None:
    if value is None:
        return
    target = 1.0 if unit == "ms CPU" else None
    identity = f"durable step, {shape}"
    measured = {name: found[shape].get(_KEYS[unit]) for name, found in peers.items()}
    rows: list[tuple[str | None, float | None]] = [
        (name, other) for name, other in measured.items() if other is not None
    ]
    for name, other in rows or [(None, None)]:
        document.figures.append(
            Figure(identity, value, f"{unit} a step", "lower", target, name, other)
        )


def _ours(text: str, steps: int) -> dict[str, float]:
    """One run in a fresh workspace."""
    with tempfile.TemporaryDirectory() as directory:
        processor = ScriptedProcessor(lambda _: "done", concurrency=100)
        with Machine(Path(directory), processor) as machine:
            job = Job(text.format(steps=steps), fresh=True)
            wall, cpu = time.perf_counter(), time.process_time()
            report = asyncio.run(machine.run(job))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert report.counts["finished"] == steps
        size = sum(f.stat().st_size for f in Path(directory).rglob("*") if f.is_file())
    return {"cpu_ms": cpu / steps * 1e3, "wall_ms": wall / steps * 1e3, "bytes": size / steps}


def _peer(python: str, name: str, steps: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [python, str(PEERS / f"{name}_steps.py"), str(steps), directory],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0 or not done.stdout.strip():
        return {}
    found: dict[str, dict[str, float]] = json.loads(done.stdout.strip().split("\n")[-1])
    return found


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    keys = {key for one in runs for key in one}
    return {key: median([one[key] for one in runs if key in one]) for key in keys}
