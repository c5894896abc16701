"""What a program will do, derived from its text by code, for the person who approves it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edvac.device import CATALOGUE
from edvac.program import Program, parse

if TYPE_CHECKING:
    from edvac.machine import Settings


def describe_plan(
    text: str, roots: dict[str, Path], settings: Settings, *, with_text: bool
) -> list[str]:
    """Lines: the program (unless it was just shown), what it reads, writes and contacts."""
    lines = []
    if with_text:
        lines += [f"  {n:3} {line}" for n, line in enumerate(text.rstrip().split("\n"), 1)]
    lines += describe_touches(parse(text, CATALOGUE), roots)
    named = dict.fromkeys((settings.model, settings.plan_model, settings.escalate_model))
    remote = [model for model in named if "://" in model]
    lines.append(f"contacts  {', '.join(remote) or 'nothing outside this machine'}")
    return lines


def describe_touches(program: Program, roots: dict[str, Path]) -> list[str]:
    """Lines: what it reads, writes and does."""
    touched = program.touches
    steps = [f"{op} ×{count}" for op, count in program.outline().steps.items()]
    return [
        f"reads     {', '.join(touched.reads) or 'nothing'}",
        *(f"          {name or '.'}/ is {path.resolve()}" for name, path in roots.items()),
        f"writes    {', '.join(touched.writes) or 'nothing'} (into the run, not yet real)",
        f"steps     {', '.join(steps) or 'none'}",
    ]
