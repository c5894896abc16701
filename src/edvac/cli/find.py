"""`find`: which step of which run."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice

import click

from edvac.cli import ui
from edvac.cli.ui import open_store
from edvac.core.errors import UsageError


@click.command()
@click.argument("text")
@click.option("--run", metavar="RUN", help="In this one alone.")
@click.option("--prompts", is_flag=True, help="Look through what the model was sent as well.")
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def find(text: str, run: str | None, prompts: bool, limit: int, as_json: bool) -> int:
    """Find TEXT in tasks, results, failures, questions and programs of runs, the latest first.

    Ends with status 1 where it is nowhere.
    """
    from edvac.machine.find import find as look

    if not text.strip():
        raise UsageError("find_nothing", "there is nothing to look for", "", "Give a text.")
    with open_store() as store:
        name = store.find_run(run).id if run else ""
        found = list(islice(look(store, text, run=name, prompts=prompts), limit + 1))
    more = len(found) > limit
    found = found[:limit]
    if as_json:
        ui.out_json({"found": [asdict(one) for one in found], "more": more})
    for one in found if not as_json else ():
        step = f" {one.step}" if one.step else ""
        ui.out(ui.safe_line(f"{one.run}{step} ({one.where}): {one.excerpt}"))
    if more and not as_json:
        ui.err("There is more: give a larger --limit, or --run.")
    return 0 if found else 1
