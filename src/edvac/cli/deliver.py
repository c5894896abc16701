"""`diff`, `apply`, `undo`: from a run's files to yours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edvac.cli import ui
from edvac.cli.inspect import open_store
from edvac.machine import delivery
from edvac.machine.ledger import read_history

if TYPE_CHECKING:
    from edvac.store import Store

RUN = click.argument("run_id", metavar="[RUN]", required=False)
TARGET = click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory (default: the run's own, else the current one).",
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
FORCE = click.option("--force", is_flag=True, help="Replace files that changed meanwhile.")


def _target(store: Store, run: str, output: Path | None) -> Path:
    if output is not None:
        return output
    given = read_history(store, run).opened.get("output", "")
    return Path(given) if given else Path.cwd()


@click.command()
@RUN
@TARGET
@JSON
def diff(run_id: str | None, output: Path | None, as_json: bool) -> None:
    """Show what apply would change."""
    with open_store() as store:
        info = store.find_run(run_id)
        found = delivery.changes(store, info.id, _target(store, info.id, output))
    if as_json:
        rows = [{"path": c.path, "change": c.kind, "size": c.size, "diff": c.diff} for c in found]
        ui.out_json({"run": info.id, "changes": rows})
        return
    if not found:
        ui.out(f"run {info.id} has written no files")
    for change in found:
        ui.out(ui.safe_line(f"{change.kind:8} {change.path}  {change.size:,} bytes"))
    for change in found:
        for line in change.diff.splitlines():
            ui.out(line)


@click.command()
@RUN
@TARGET
@FORCE
@JSON
def apply(run_id: str | None, output: Path | None, force: bool, as_json: bool) -> None:
    """Make a run's files real; `edvac undo` takes it back."""
    with open_store() as store:
        info = store.find_run(run_id)
        target = _target(store, info.id, output)
        done = delivery.apply(store, info.id, target, force=force)
    _report(info.id, "applied", done, as_json)


@click.command()
@RUN
@FORCE
@JSON
def undo(run_id: str | None, force: bool, as_json: bool) -> None:
    """Put back what apply replaced."""
    with open_store() as store:
        info = store.find_run(run_id)
        done = delivery.undo(store, info.id, force=force)
    _report(info.id, "undone", done, as_json)


def _report(run: str, word: str, paths: list[str], as_json: bool) -> None:
    if as_json:
        ui.out_json({"run": run, word: paths})
        return
    ui.out(f"{word}: {ui.counted(len(paths), 'file')}")
    for path in paths:
        ui.out(ui.safe_line(f"  {path}"))
