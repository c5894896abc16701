"""`model`: the model files on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edvac.cli import ui
from edvac.core.errors import EXIT_DAMAGED, ModelFileError, PolicyError

if TYPE_CHECKING:
    from edvac.engine.pull import PullPlan, PullProgress

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.group()
def model() -> None:
    """List, fetch, verify and remove models."""


@model.command("ls")
@JSON
def list_models(as_json: bool) -> None:
    """List the catalogue, and which of it is here."""
    from edvac.engine import catalogue, pull

    here = {found.entry.name: found for found in pull.installed()}
    rows = [
        {
            "name": entry.name,
            "size": entry.size,
            "licence": entry.licence,
            "installed": entry.name in here,
            "path": str(here[entry.name].path) if entry.name in here else None,
        }
        for entry in catalogue.CATALOGUE
    ]
    if as_json:
        ui.out_json({"models": rows, "directory": str(catalogue.models_dir())})
        return
    for entry in catalogue.CATALOGUE:
        mark = "here" if entry.name in here else "-"
        ui.out(f"{entry.name:22} {ui.megabytes(entry.size):>12}  {entry.licence:12} {mark}")


@model.command("pull")
@click.argument("name", default="")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--prepare", is_flag=True, help="Lay its weights out for this machine too (once).")
@click.option("--from", "origin", type=click.Path(exists=True), help="A file that you have.")
@JSON
def pull_model(name: str, yes: bool, prepare: bool, origin: str | None, as_json: bool) -> None:
    """Fetch NAME (default: the default model), verified; goes on where it was cut off."""
    from edvac.engine import pull
    from edvac.machine.settings import DEFAULT_MODEL

    own = Path(origin) if origin else None
    damaged: list[Path] = []
    while True:
        plan = pull.plan_pull(name or DEFAULT_MODEL, own, damaged=damaged)
        if plan.kind != "installed":
            _agree(plan, asking=not yes and not as_json)
        try:
            path = pull.pull(plan, Meter().show)
            break
        except ModelFileError as error:
            if error.code != "model_damaged" or plan.kind != "copy" or own:
                raise
            # What another program keeps is not what was asked for: the next place, said again.
            ui.err(f"note: {error.what}: {error.why}")
            damaged.append(Path(plan.source))
    if prepare:
        _prepare(plan.entry.name)
    if as_json:
        ui.out_json({"name": plan.entry.name, "path": str(path), "size": plan.size})
    else:
        ui.out(f"{plan.entry.name} is here: {path}")


def _agree(plan: PullPlan, asking: bool) -> None:
    """Show what will be done, and have a person say yes to it."""
    for line in describe(plan):
        ui.err(line)
    if not asking:
        return
    if not ui.is_terminal():
        raise PolicyError("approval_needed", "nobody agreed to fetch it", "", "Use --yes.")
    click.confirm("Fetch it?", default=True, abort=True, err=True)


def _prepare(name: str) -> None:
    """Start the engine once, which repacks the weights, and let it read what every plan begins
    with; it stays for the run that follows."""
    import asyncio

    from edvac.compiler import Planner
    from edvac.device import CATALOGUE
    from edvac.machine import Settings
    from edvac.machine.processors import choose_processor

    async def start() -> None:
        processor = choose_processor(Settings(model=name))
        await processor.open()
        await Planner(processor, CATALOGUE, lambda _: None).prepare()
        await processor.close()

    ui.err("preparing the model for this machine (about a minute, once)")
    asyncio.run(start())


def describe(plan: PullPlan) -> list[str]:
    """What a pull will do, before it does it."""
    return [
        f"{plan.entry.name}: {ui.megabytes(plan.size)}, licence {plan.entry.licence}",
        f"  from       {plan.source}",
        f"  download   {ui.megabytes(plan.fetch_bytes)}",
        f"  to         {plan.target}",
        f"  free disk  {ui.megabytes(plan.free_bytes)}",
    ]


class Meter:
    """Progress of a long transfer: a line that changes on a terminal, a line a tenth elsewhere."""

    def __init__(self) -> None:
        self._last = ("", -1)

    def show(self, progress: PullProgress) -> None:
        tenth = progress.done * 10 // max(1, progress.total)
        if sys.stderr.isatty():
            done, total = ui.megabytes(progress.done), ui.megabytes(progress.total)
            end = "\n" if progress.done >= progress.total else ""
            click.echo(f"\r{progress.stage} {done} of {total}   {end}", err=True, nl=False)
        elif (progress.stage, tenth) != self._last:
            self._last = (progress.stage, tenth)
            ui.err(f"{progress.stage} {tenth * 10} %")


@model.command("rm")
@click.argument("name")
@JSON
def remove_model(name: str, as_json: bool) -> None:
    """Remove NAME from this machine."""
    from edvac.engine import pull

    gone = pull.remove(name)
    if as_json:
        ui.out_json({"name": name, "removed": gone})
    else:
        ui.out(f"{name} is removed" if gone else f"{name} was not here")


@model.command("verify")
@click.argument("name", default="")
@JSON
def verify_model(name: str, as_json: bool) -> int:
    """Compare NAME's file with its pinned SHA-256."""
    from edvac.engine import pull
    from edvac.machine.settings import DEFAULT_MODEL

    name = name or DEFAULT_MODEL
    good = pull.verify(name, on_progress=Meter().show)
    if as_json:
        ui.out_json({"name": name, "verified": good})
    elif good:
        ui.out("the file is what it should be")
    else:
        ui.out(f"the file is damaged: `edvac model rm {name}`, then pull it again")
    return 0 if good else EXIT_DAMAGED
