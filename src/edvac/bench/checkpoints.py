"""LangGraph's chain with edvac's checkpointer, beside the one that comes with it: time and bytes of
a step, and of going on.

Each is a process of its own, in a fresh directory, and they take turns. The physical limit of time
is what the disk takes for the two syncs that a step has; that of bytes is what a step adds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edvac.bench.control import PEERS
from edvac.bench.report import Document, Figure, median
from edvac.core.errors import UsageError

SCRIPT = PEERS / "langgraph_checkpoints.py"
ADDED = 1024  # bytes that a step adds to the list
_SYNCED = 4096  # bytes of one synced write, a page of SQLite's log


@dataclass(frozen=True, slots=True)
class Shape:
    """What a step adds to the state, or how steps lie: its name for the script, in words, and how
    many steps there are."""

    name: str
    words: str
    steps: int
    added: int = 0


SHAPES = (
    Shape("none", "no payload", 1000),
    Shape("noise", "1 KB of noise a step", 300, ADDED),
    Shape("text", "1 KB of text a step", 300, ADDED),
    Shape("fan", "300 tasks side by side", 300),
)
QUICK = (Shape("none", "no payload", 100), Shape("noise", "1 KB of noise a step", 50, ADDED))


def measure(
    document: Document,
    python: str | None,
    shapes: tuple[Shape, ...],
    repeats: int,
    say: Callable[[str], None],
) -> None:
    """Add the figures; `python` is an environment with LangGraph and its SQLite checkpointer.

    Raises:
        UsageError: LangGraph is not installed here, or a run failed.
    """
    if importlib.util.find_spec("langgraph") is None:
        fix = "Run `pip install langgraph 'edvac[langgraph]'`."
        raise UsageError("bench_peer", "there is no LangGraph here", "", fix)
    arms = {"edvac": sys.executable}
    if python is not None:
        arms |= {"sqlite": python, "memory": python}
    for shape in shapes:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
        syncs: list[float] = []
        for turn in range(repeats):
            for name, interpreter in arms.items():
                one = _run(interpreter, name, shape)
                found[name].append(one["figures"])
                _note(document, name, one["versions"])
            syncs.append(_two_syncs())
            say(f"{shape.words}: turn {turn + 1} of {repeats}")
        medians = {
            name: {key: median([run[key] for run in runs]) for key in runs[0]}
            for name, runs in found.items()
        }
        _add(document, shape, medians, median(syncs))


def _add(
    document: Document, shape: Shape, found: dict[str, dict[str, float]], syncs: float
) -> None:
    own = found["edvac"]
    units = {"wall_ms": "ms", "cpu_ms": "ms CPU", "bytes": "bytes", "load_ms": "ms"}
    target = 2.0 * shape.added if shape.added else None

    def add(key: str, peer: str, value: float) -> None:
        what = "a task" if shape.name == "fan" else "a step"
        name = f"{shape.words}: {'loading the state' if key == 'load_ms' else what}"
        aim = target if key == "bytes" else None
        document.figures.append(Figure(name, own[key], units[key], "lower", aim, peer, value))

    others = {"SqliteSaver": found.get("sqlite"), "InMemorySaver, not durable": found.get("memory")}
    for peer, figures in others.items():
        if figures is not None:
            add("wall_ms", peer, figures["wall_ms"])
            add("cpu_ms", peer, figures["cpu_ms"])
    if shape.name != "fan":  # tasks may share a sync
        add("wall_ms", "two bare syncs", syncs)
    for peer, figures in others.items():
        if figures is not None and figures["bytes"]:
            add("bytes", peer, figures["bytes"])
            add("load_ms", peer, figures["load_ms"])
    if shape.added:
        add("bytes", "what was added", float(shape.added))


def _run(python: str, name: str, shape: Shape) -> dict[str, Any]:
    # The peers' interpreter must not find edvac's packages, nor its own be kept from them.
    own = python == sys.executable
    environment = {k: v for k, v in os.environ.items() if own or k != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [python, str(SCRIPT), name, shape.name, str(shape.steps), directory],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
    if done.returncode != 0:
        why = done.stderr.strip().rpartition("\n")[2][:200]
        fix = f"Is langgraph-checkpoint-sqlite in the environment of {python}?"
        raise UsageError("bench_peer", f"the checkpointer {name} did not run", why, fix)
    found: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return found


def _note(document: Document, name: str, versions: dict[str, str]) -> None:
    said = ", ".join(f"{package} {version}" for package, version in versions.items())
    note = f"{name} ran with {said}."
    if note not in document.notes:
        document.notes.append(note)


def _two_syncs(count: int = 100) -> float:
    """Milliseconds that this disk takes for two synced writes: a step has a put of what its task
    wrote, and one of its checkpoint. They go over what the file has, as a log that is used again
    does: to make a file longer takes longer."""
    with tempfile.TemporaryDirectory() as directory:
        file = os.open(Path(directory) / "file", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.write(file, bytes(_SYNCED * 2 * count))
            os.fsync(file)
            start = time.perf_counter()
            for number in range(2 * count):
                os.pwrite(file, b"x" * _SYNCED, number * _SYNCED)
                os.fdatasync(file)
            return (time.perf_counter() - start) / count * 1e3
        finally:
            os.close(file)
