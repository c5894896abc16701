"""`diff`, `apply`, `undo`: from a run's files to yours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edvac.cli import ui
from edvac.cli.names import RUN, complete_run
from edvac.cli.ui import open_store
from edvac.core.errors import UsageError
from edvac.machine import delivery
from edvac.machine.history import read_history
from edvac.machine.rows import ALL, SHOWN

if TYPE_CHECKING:
    from edvac.store import Store

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
@click.argument("other", required=False, metavar="[RUN2]", shell_complete=complete_run)
@TARGET
@click.option("--all", "whole", is_flag=True, help="Every row of a database that differs.")
@click.option("--patch", "as_patch", is_flag=True, help="A patch for `git apply` or `patch -p1`.")
@JSON
def diff(run_id: str | None, other: str | None, output: Path | None, **flags: bool) -> None:
    """Show what apply would change; or what two runs have apart: program, steps, files."""
    if other is not None:
        from edvac.cli.explained import compare

        if flags["as_patch"] or flags["whole"] or output is not None:
            raise UsageError(
                "diff_runs",
                "two runs are compared with each other, not with a directory",
                "",
                "Leave out --output, --all and --patch, or name one run.",
            )
        with open_store() as store:
            left, right = store.find_run(run_id).id, store.find_run(other).id
            compare(store, left, right, as_json=flags["as_json"])
        return
    if flags["as_patch"] and (flags["as_json"] or flags["whole"]):
        raise UsageError(
            "diff_formats",
            "--patch goes with neither --json nor --all",
            "A patch has one format, and holds everything.",
            "Leave one of them out.",
        )
    with open_store() as store:
        info = store.find_run(run_id)
        target = _target(store, info.id, output)
        for path, why in delivery.refused(store, info.id, target).items():
            ui.err(ui.safe_line(f"note: {path}: {why}; apply would refuse it"))
        if flags["as_patch"]:
            _print_patch(delivery.patch(store, info.id, target))
            return
        found = delivery.changes(store, info.id, target, rows=ALL if flags["whole"] else SHOWN)
    if flags["as_json"]:
        ui.out_json({"run": info.id, "changes": [_document(change) for change in found]})
        return
    if not found:
        ui.out(f"run {info.id} has written no files")
    for change in found:
        way = f"{change.source} -> {change.path}" if change.source else change.path
        ui.out(ui.safe_line(f"{change.kind:8} {way}  {change.size:,} bytes"))
    for change in found:
        for line in change.diff.splitlines():
            ui.out(line)


def _document(change: delivery.Change) -> dict[str, Any]:
    found: dict[str, Any] = {"path": change.path, "change": change.kind, "size": change.size}
    found["diff"] = change.diff
    if change.source:
        found["from"] = change.source
    if change.tables:
        found["tables"] = msgspec.to_builtins(change.tables)
    return found


def _print_patch(found: bytes) -> None:
    """Byte for byte into a file or a pipe; on a terminal, where a document's control characters
    would act, with these made visible."""
    if sys.stdout.isatty():
        ui.out(found.decode(errors="replace"))
    else:
        sys.stdout.buffer.write(found)


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
