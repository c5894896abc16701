"""Arguments and options that name something, and how a shell completes them."""

from __future__ import annotations

from collections.abc import Iterator

import click
from click.shell_completion import CompletionItem

from edvac.core.errors import EdvacError

MOST = 50  # offered at once


def complete_run(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
    """The runs of this workspace, the latest first."""
    del ctx, param
    return [item for item in _runs() if item.value.startswith(begun)]


def _runs() -> Iterator[CompletionItem]:
    from dataclasses import replace

    from edvac.cli.ui import storage

    try:
        place = storage()
        if not place.made:
            return
        with replace(place, wait_s=0.0).open() as store:  # nobody waits at a key press
            for info in store.runs(limit=MOST):
                yield CompletionItem(info.id, help=f"{info.state} {info.title}")
    except EdvacError:
        return  # a shell has no place for a message


def complete_model(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
    """The models of the catalogue."""
    del ctx, param
    from edvac.engine.catalogue import CATALOGUE

    names = [entry.name for entry in CATALOGUE]
    return [CompletionItem(name) for name in names if name.startswith(begun)]


RUN = click.argument("run_id", metavar="[RUN]", required=False, shell_complete=complete_run)
