"""`kill`, `fork`, `rm`, `gc`: stopping runs, branching them off, freeing what they hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edvac.cli import ui
from edvac.cli.deliver import JSON
from edvac.cli.names import RUN, complete_run
from edvac.cli.ui import open_store
from edvac.core.errors import UsageError
from edvac.core.seams import SystemClock

if TYPE_CHECKING:
    from edvac.store import Store


@click.command()
@RUN
@JSON
def kill(run_id: str | None, as_json: bool) -> None:
    """Stop RUN: what runs is aborted, what is finished is kept."""
    with open_store() as store:
        info = store.find_run(run_id)
        if info.state != "open":
            raise UsageError(
                "run_over",
                f"run {info.id} is {info.state}: there is nothing to stop",
                "",
                "`edvac ps` shows what is running.",
            )
        if info.owner:
            store.post(info.id, "kill")
        else:
            _cancel(store, info.id)
    if as_json:
        ui.out_json({"run": info.id, "running": bool(info.owner)})
    elif info.owner:
        ui.out(f"run {info.id} was asked to stop ({info.owner})")
    else:
        ui.out(f"run {info.id} was not running; it is cancelled and waits for nothing")


def _cancel(store: Store, run: str) -> None:
    """Nobody works on it who could; what is finished is kept, and `resume` still goes on."""
    clock, owner = SystemClock(), f"pid {os.getpid()} kill"
    lease = store.acquire(run, owner, 30.0, clock.wall())
    store.set_state(lease, "cancelled", closed=clock.wall())
    store.release(lease)


@click.command()
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True, shell_complete=complete_run)
@JSON
def rm(run_ids: tuple[str, ...], as_json: bool) -> None:
    """Remove runs with their journal, prompts and files; what `apply` made stays.

    What another run shares stays with that run. What was applied can then no longer be undone.
    Engines give up what they keep of what they read, in memory and on disk.
    """
    from edvac.machine.detach import log_path
    from edvac.machine.retention import forget_read

    removed, freed = [], 0
    with open_store() as store:
        for run_id in run_ids:
            info = store.find_run(run_id)
            swept = store.forget_run(info.id)
            freed += swept.blob_bytes
            log_path(store.workspace, info.id).unlink(missing_ok=True)
            removed.append(info.id)
    forget_read()
    if as_json:
        ui.out_json({"removed": removed})
    else:
        space = f"; freed {ui.megabytes(freed)} of large texts and files" if freed else ""
        ui.out(f"removed {', '.join(removed)}{space}")


@click.command()
@click.argument("run_id", metavar="RUN", shell_complete=complete_run)
@click.option("--from", "step", required=True, metavar="STEP", help="The step to begin from.")
@click.option("--program", type=click.Path(path_type=Path, exists=True), help="An edited program.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter's value.")
@JSON
def fork(
    run_id: str, step: str, program: Path | None, settings: tuple[str, ...], as_json: bool
) -> None:
    """Begin another run from STEP of RUN, with all of RUN that does not depend on the step.

    RUN stays as it is. `edvac resume` goes on with the new one, `edvac diff` compares the two.
    """
    from edvac.cli.run import read_settings
    from edvac.core.seams import SystemEntropy
    from edvac.machine.fork import fork as make

    text = program.read_text(encoding="utf-8") if program is not None else None
    with open_store() as store:
        old = store.find_run(run_id).id
        new, kept = make(
            store,
            old,
            step,
            ui.catalogue(),
            clock=SystemClock(),
            entropy=SystemEntropy(),
            program=text,
            settings=read_settings(settings),
        )
    if as_json:
        ui.out_json({"run": new, "from": old, "step": step, "kept": kept})
        return
    ui.out(f"run {new} begins from {step} with {ui.counted(kept, 'step')} of {old}")
    ui.out(f"Go on with it: `edvac resume {new}`; afterwards `edvac diff {old} {new}`")


@click.command()
@click.option("--grace", default=3600.0, show_default=True, help="Spare what is younger, seconds.")
@JSON
def gc(grace: float, as_json: bool) -> None:
    """Free the space of what no run needs any more, and of runs older than `keep_days`."""
    from edvac.machine import settings
    from edvac.machine.retention import forget_expired

    chosen, _ = settings.load(ui.workspace(), {})
    with open_store() as store:
        removed = forget_expired(store, chosen.keep_days, SystemClock().wall())
        swept = store.gc(grace)
    if as_json:
        freed = {"blobs": swept.blobs, "bytes": swept.blob_bytes, "segments": swept.segments}
        ui.out_json({"removed": removed} | freed)
    else:
        for line in ui.removed(removed, chosen.keep_days):
            ui.out(line)
        ui.out(f"freed {ui.counted(swept.blobs, 'blob')}, {ui.megabytes(swept.blob_bytes)}")
