"""Limits on a whole tree of processes: how many they are and how much memory they hold together.

The kernel's own limits hold for each process alone, and some not at all for the superuser. Looks in
``/proc``; knows nothing of what the processes do.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from edvac.core.errors import SandboxError

EVERY_S = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")


async def watch(pid: int, processes: int, memory_mb: int) -> None:
    """Look again and again at `pid` and all below it; never returns.

    Raises:
        SandboxError: they have become too many or too big.
    """
    while True:
        tree = descendants(pid, processes)
        if len(tree) > processes:
            raise SandboxError(
                "sandbox_processes",
                f"the call started more than {processes} processes",
                "",
                "Start fewer at once.",
            )
        limit = memory_mb * 1024 * 1024
        if sum(map(_resident, tree)) > limit and sum(map(_proportional, tree)) > limit:
            raise SandboxError(
                "sandbox_memory",
                f"the call held more than {memory_mb} MiB of memory",
                "",
                "Give it less data at once.",
            )
        await asyncio.sleep(EVERY_S)


def descendants(pid: int, enough: int = 1_000_000) -> list[int]:
    """The processes that descend from `pid`, itself included; stops looking at more than `enough`,
    for a tree may grow faster than it can be walked."""
    found, todo = [pid], [pid]
    while todo and len(found) <= enough:
        here = todo.pop()
        for task in _names(Path(f"/proc/{here}/task")):
            text = _text(Path(f"/proc/{here}/task/{task}/children"))
            below = [int(child) for child in text.split()]
            found += below
            todo += below
    return found


def _resident(pid: int) -> int:
    parts = _text(Path(f"/proc/{pid}/statm")).split()
    return int(parts[1]) * _PAGE if len(parts) > 1 else 0


def _proportional(pid: int) -> int:
    """What a process holds, its share of what several share counted in parts."""
    for line in _text(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _names(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except OSError:
        return []  # it has ended


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""  # it has ended
