"""`signal`: something that a run waits for has happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edvac.cli import ui
from edvac.cli.answer import go_on
from edvac.cli.names import RUN
from edvac.core.errors import UsageError

if TYPE_CHECKING:
    from edvac.store import Store

EXAMPLES = """\b
Examples:
  edvac signal 3f2a                       what it waits for, and what came and was not taken
  edvac signal 3f2a arrived               with true for a value
  edvac signal 3f2a approved '{"by": "ann", "upto": 500}' --resume
  edvac signal 3f2a price 17.5 --from shop
"""


@click.command(epilog=EXAMPLES)
@RUN
@click.argument("name", required=False)
@click.argument("value", required=False)
@click.option(
    "--from",
    "sender",
    metavar="WHO",
    help="Who it is from: no word of yours, and trusted no more than a document.",
)
@click.option("--resume", "resume", is_flag=True, help="Then go on with the run, if nobody does.")
@click.option("--detach", is_flag=True, help="The same, in a process of its own.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def signal(
    run_id: str | None, name: str | None, value: str | None, sender: str | None, **flags: Any
) -> int:
    """Send RUN the signal NAME, with a VALUE as JSON; without NAME, show what RUN waits for.

    `signal.wait(NAME, T)` takes it, now or whenever the program comes there; each is taken once, in
    the order in which they came. What is typed at a terminal is your own word; what a script sends
    is from an outsider, named by --from or else `script`.
    """
    from edvac.machine.signals import post_signal

    with ui.open_store() as store:
        run = store.find_run(run_id).id
        if name is None:
            _require_a_name(sender, flags)
            _show(store, run, as_json=flags["as_json"])
            return 0
        who = sender if sender is not None else "" if ui.is_terminal() else "script"
        if sender == "":
            raise UsageError("signal_name", "--from names nobody", "", "Such as --from shop.")
        ahead = post_signal(store, run, name, "true" if value is None else value, sender=who)
        owner = store.run(run).owner
    if flags["as_json"]:
        sent = {"run": run, "signal": name, "ahead": ahead, "from": who, "running": bool(owner)}
        # A detached start says its own one document on stdout.
        (ui.err if flags["detach"] and not owner else ui.out)(ui.json_text(sent))
    else:
        more = f"; {ui.counted(ahead, 'other')} of this name before it" if ahead else ""
        ui.out(f"sent {name} to run {run}{more}")
    if owner or not (flags["resume"] or flags["detach"]):
        if not owner and not flags["as_json"]:
            ui.out(f"Nobody works on it now: `edvac resume {run}`.")
        return 0
    return go_on(run, flags)


def _require_a_name(sender: str | None, flags: dict[str, Any]) -> None:
    if sender is not None or flags["resume"] or flags["detach"]:
        raise UsageError(
            "signal_name",
            "no signal was named",
            "Without one, the command only shows what a run waits for.",
            "Such as edvac signal RUN NAME.",
        )


def _show(store: Store, run: str, *, as_json: bool) -> None:
    from edvac.machine.signals import awaited, signals

    open_now, left = awaited(store, run), signals(store, run)
    if as_json:
        come = [{"signal": one.name, "value": one.text, "from": one.sender} for one in left]
        ui.out_json({"run": run, "waits": document(store, run), "untaken": come})
        return
    for one in open_now:
        until = f", until {ui.moment(one.until)}" if one.until else ""
        ui.out(ui.safe_line(f"{one.name}  {one.kind}  ({one.address}{until})"))
    if not open_now:
        ui.out(f"run {run} waits for no signal")
    for each in left:
        who = f" from {each.sender}" if each.sender else ""
        ui.out(ui.safe_line(f"not taken: {each.name} {each.text[:200]}{who}"))


def document(store: Store, run: str) -> list[dict[str, Any]]:
    """The signals that a run waits for, as data."""
    from edvac.machine.signals import awaited

    return [
        {
            "signal": one.name,
            "type": one.kind,
            "step": one.address,
            "until": ui.moment(one.until) if one.until else None,
        }
        for one in awaited(store, run)
    ]
