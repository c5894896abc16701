"""`config`: every setting and where it comes from."""

from __future__ import annotations

import click

from edvac.cli import ui


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def config(as_json: bool) -> None:
    """Show every setting, its value and its origin."""
    from edvac.machine.settings import load

    _, origins = load(ui.workspace(), {})
    if as_json:
        ui.out_json({o.name: {"value": o.shown, "origin": o.origin} for o in origins})
        return
    for origin in origins:
        ui.out(f"{origin.name:14} = {origin.shown!r:28}  {origin.origin}")
