"""What a program will do, derived from its text by code, for the person who approves it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edvac.device import CATALOGUE
from edvac.program import parse

if TYPE_CHECKING:
    from edvac.machine import Settings


def describe_plan(
    text: str, roots: dict[str, Path], settings: Settings, *, with_text: bool
) -> list[str]:
    """Lines: the program (unless it was just shown), what it reads, writes and contacts."""
    program = parse(text, CATALOGUE)
    lines = []
    if with_text:
        lines += [f"  {n:3} {line}" for n, line in enumerate(text.rstrip().split("\n"), 1)]
    touched = program.touches
    lines.append(f"reads     {', '.join(touched.reads) or 'nothing'}")
    lines += [f"          {name or '.'}/ is {path.resolve()}" for name, path in roots.items()]
    lines.append(f"writes    {', '.join(touched.writes) or 'nothing'} (into the run, not yet real)")
    steps = program.outline().steps
    lines.append("steps     " + ", ".join(f"{op} ×{count}" for op, count in steps.items()))
    remote = "://" in settings.model
    lines.append(f"contacts  {settings.model if remote else 'nothing outside this machine'}")
    return lines
