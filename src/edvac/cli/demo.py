"""`demo`: a tour in under a minute, without a model and without a network."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click

from edvac.cli import ui

WIDTH = 88


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default="edvac-demo")
@click.option("--json", "as_json", is_flag=True, help="One JSON document of what was shown.")
def demo(directory: Path, as_json: bool) -> None:
    """Take a tour in DIRECTORY (default: edvac-demo): plan, kill, resume, trace, change, undo.

    It needs no model and no network: a small server on this machine gives answers that were written
    beforehand. Everything else is real, and stays in the directory to be looked at.
    """
    from edvac.apps.demo import Tour

    tour = Tour(directory, _nothing if as_json else _say, _nothing if as_json else _prompt, as_json)
    tour.prepare()
    tour.run()
    if as_json:
        rows = [
            {
                "command": one.command,
                "status": one.status,
                "seconds": round(one.seconds, 2),
                "killed": one.killed,
                "output": one.output,
            }
            for one in tour.shown
        ]
        ui.out_json({"directory": str(directory), "commands": rows})
        return
    _say(
        f"All of it lies in {directory}: `cd {directory}`, then `edvac ps`, `edvac show`, `edvac "
        "log`. For your own files: `edvac model pull`, then `edvac run` and the task in words."
    )


def _nothing(text: str) -> None:
    del text


def _say(text: str) -> None:
    if "\n" in text:
        ui.out(text.rstrip())
    else:
        ui.out("\n" + textwrap.fill(text, WIDTH, break_on_hyphens=False))


def _prompt(command: str) -> None:
    click.secho(f"\n$ {ui.safe_line(command)}", bold=True)
