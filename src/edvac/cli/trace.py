"""`trace`: from a line of a result file back to steps, prompts and sources."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edvac.cli import ui
from edvac.cli.deliver import JSON
from edvac.cli.names import complete_run
from edvac.cli.ui import open_store
from edvac.core.errors import UsageError

if TYPE_CHECKING:
    from edvac.machine.trace import Origin, Part, Trace

SHOWN_FILES = 10


@click.command()
@click.argument("file", metavar="FILE[:LINE]")
@click.option(
    "--run",
    "run_id",
    metavar="RUN",
    help="Default: the latest that wrote the file.",
    shell_complete=complete_run,
)
@JSON
def trace(file: str, run_id: str | None, as_json: bool) -> None:
    """Show from which steps, prompts and sources FILE, or one LINE of it, comes.

    "Recorded" is what the journal says; "found in" is a text that occurs in another now.
    """
    from edvac.machine import trace as tracing

    found = re.fullmatch(r"(.+):(\d{1,9})", file)
    path, line = (found[1], int(found[2])) if found else (file, 0)
    if found and not line:
        raise UsageError("trace_no_line", "lines are counted from 1")
    with open_store() as store:
        made = tracing.trace(store, run_id, Path(path), line)
    if as_json:
        ui.out_json(asdict(made))
    else:
        _show(made)


def _show(made: Trace) -> None:
    def out(text: str) -> None:
        ui.out(ui.safe_line(text))

    line = f":{made.line}" if made.line else ""
    out(f"{made.path}{line}  (run {made.run}, version {made.version})")
    if made.delivered:
        out(f"! {made.delivered}")
    if made.writer:
        where = f"line {made.writer_line} of the program"
        out(f"recorded: written by {made.writer} ({made.writer_op}), {where}")
    if made.sources:
        more = len(made.sources) - SHOWN_FILES
        names = ", ".join(made.sources[:SHOWN_FILES]) + (f" and {more:,} more" if more > 0 else "")
        out(f"recorded: the file's label names {names}")
    if not made.line:
        counts = ", ".join(f"{number:,} {op}" for op, number in sorted(made.steps.items()))
        out(f"recorded: steps whose lines lead there: {counts or 'none'}")
        ui.out(f"for one line: edvac trace {made.path}:LINE")
        return
    out(f"  {made.text}")
    for origin in made.origins:
        _show_origin(made, origin)
    for cell, lines in made.elsewhere.items():
        ui.out()
        where = ", ".join(map(str, lines))
        said = f"the program itself has it, line {where}" if lines else "the program computed it"
        out(f"{_short(cell)}: found in no step's value; {said}")


def _show_origin(made: Trace, origin: Origin) -> None:
    def out(text: str) -> None:
        ui.out(ui.safe_line(text))

    ui.out()
    by = f", {origin.model}" if origin.model else ""
    out(f"{origin.step} ({origin.op}, line {origin.line} of the program{by})")
    if origin.prompt:
        out(f"  its prompt: edvac show {made.run} '{origin.step}' --prompt")
    for part in origin.parts:
        name = part.name or "its value"
        others = made.more.get(part.cell, 0)
        also = f" (and in {ui.counted(others, 'other step')})" if others else ""
        out(f"  {_short(part.cell)}: found in {name}{also}")
        if part.sources:
            more = len(part.sources) - SHOWN_FILES
            names = ", ".join(part.sources[:SHOWN_FILES])
            names += f" and {more:,} more" if more > 0 else ""
            out(f"    recorded: made from {names}")
        _show_places(part)


def _show_places(part: Part) -> None:
    what = "its quote" if part.quoted else "it"
    for place in part.places:
        where = f"{place.path}:{place.line}"
        if not place.whole:
            where = f"{place.path}, line {place.line} of the text that {place.step} read"
            where += f", {place.mark}" if place.mark else ""
        ui.out(ui.safe_line(f"    {what} is found in {where}: {place.text}"))
    if part.sources and not part.places:
        ui.out(f"    {what} is found in none of them literally")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
