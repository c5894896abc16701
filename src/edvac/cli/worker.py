"""`edvac worker`: does steps of other machines' runs, or says who does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edvac.cli import ui
from edvac.core import event
from edvac.core.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    from edvac.machine.fleet.doing import Doer
    from edvac.machine.fleet.worker import Worker
    from edvac.machine.settings import Settings
    from edvac.machine.storage import Storage
    from edvac.store import Enlisted

EXAMPLES = """\b
Examples:
  edvac worker --slots 4
  edvac worker --store postgresql://me@db.example/edvac --capabilities python,shell
  edvac worker --list
  edvac worker --ray 3
"""


@click.command(epilog=EXAMPLES)
@click.option("--store", metavar="URL", help="Of the store, instead of the setting.")
@click.option("--model", help="As for `edvac run`; it takes the steps of runs with this model.")
@click.option("--name", default="", help="What it is called in lists.  [default: host and process]")
@click.option("--slots", type=click.IntRange(1, 1024), help="Steps at the same time.")
@click.option(
    "--capabilities",
    metavar="LIST",
    help="Of llm, python and shell.  [default: llm, and the others where there is a sandbox]",
)
@click.option(
    "--lease",
    "lease_s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(1, 3600),
    help="Seconds after which its steps are others', should it die.",
)
@click.option(
    "--grace",
    "grace_s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, 86400),
    help="Seconds that steps under way get when it is stopped; then they are handed back.",
)
@click.option("--tied", is_flag=True, hidden=True)  # stop when standard input ends
@click.option("--list", "listed", is_flag=True, help="List the workers that live, and end.")
@click.option(
    "--ray",
    type=click.IntRange(0, 10_000),
    metavar="N",
    help="Have Ray keep N such workers on its cluster, and end; 0 removes them.",
)
@click.option("--ray-address", default="auto", show_default=True, help="Of Ray's cluster.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines; a list as a document.")
def worker(**flags: Any) -> int:
    """Do steps of runs that have `--workers`, as long as it is not stopped.

    It takes steps from the store that the setting `store` names, a PostgreSQL database: calls of
    its model, and sandboxed calls with all that they may see. SIGTERM and Ctrl-C let it finish what
    it has begun; a second one hands that back at once. A store that is away is waited for.
    """
    from edvac.machine import settings
    from edvac.machine.storage import Storage, require_server

    workspace = ui.workspace()
    chosen, _ = settings.load(workspace, {"store": flags["store"], "model": flags["model"]})
    require_server(chosen.store)
    place = Storage(workspace, chosen.store)
    if flags["listed"]:
        return _list(place, as_json=flags["as_json"])
    if flags["ray"] is not None:
        return _place(chosen, flags)
    say = _json if flags["as_json"] else _line
    return asyncio.run(_work(chosen, place, flags, say))


def _json(happened: event.Event) -> None:
    click.echo(ui.safe_json(event.encode(happened).decode()))


def _line(happened: event.Event) -> None:
    match happened:
        case event.Note(text=text, level=level):
            ui.err(ui.safe_line(f"{level}: {text}" if level != "info" else text))
        case event.WorkerState(name=name, state="ready", slots=slots):
            ui.err(f"worker {name} is ready for {ui.counted(slots, 'step')} at a time")
        case event.WorkerState(name=name, state=state):
            ui.err(f"worker {name} {'finishes its steps' if state == 'finishing' else state}")
        case event.StepReturned():
            took = f" in {ui.seconds(happened.seconds)}" if happened.seconds else ""
            ui.err(ui.safe_line(f"{happened.run}  {happened.how}{took}  {happened.slot}"))


def _kinds(given: str | None) -> frozenset[str]:
    from edvac.machine.fleet.wire import KINDS, MODEL
    from edvac.sandbox import probe

    if given is None:
        return frozenset(KINDS) if probe().available else frozenset({MODEL})
    found = frozenset(filter(None, (one.strip() for one in given.split(","))))
    if not found or not found <= set(KINDS):
        raise UsageError(
            "capability_unknown",
            f"--capabilities {given!r} names none or an unknown kind of steps",
            "",
            f"Name some of {', '.join(KINDS)}, with commas.",
        )
    return found


async def _work(settings: Settings, place: Storage, flags: dict[str, Any], say: event.Emit) -> int:
    from edvac.core.seams import SystemClock
    from edvac.machine import processors
    from edvac.machine.fleet.doing import Doer
    from edvac.machine.fleet.opening import opened
    from edvac.machine.fleet.wire import MODEL
    from edvac.machine.fleet.worker import Worker

    kinds = _kinds(flags["capabilities"])
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    made: list[Worker] = []

    def stop() -> None:
        """First signal: no more steps. Second: none at all."""
        if made and made[0].stopping:
            made[0].stop(at_once=True)
        elif made:
            made[0].stop()
        else:
            task.cancel()

    def input_ended() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    if flags["tied"]:
        loop.add_reader(0, input_ended)
    model = processors.choose_processor(settings, say) if MODEL in kinds else None
    try:
        if model is not None:
            await model.open()
        doer, times = Doer(model), {name: flags[name] for name in ("lease_s", "grace_s")}
        about = _about(flags, kinds, doer, settings)
        async with opened(place, say) as ways:
            made.append(Worker(ways, doer, about, SystemClock(), say, **times))
            await made[0].run()
    except asyncio.CancelledError:
        if made:
            raise
    finally:
        if model is not None:
            await model.close()
    return EXIT_DONE


def _about(
    flags: dict[str, Any], kinds: frozenset[str], doer: Doer, settings: Settings
) -> Enlisted:
    from edvac.core.seams import SystemClock, SystemEntropy
    from edvac.machine.fleet.wire import VERSION, capabilities
    from edvac.store import Enlisted

    host = socket.gethostname()
    model = doer.processor
    at_once = settings.at_once or (model.concurrency if model is not None else 0)
    cores = len(os.sched_getaffinity(0))
    return Enlisted(
        SystemEntropy().token(8),
        flags["name"] or f"{host}-{os.getpid()}",
        host,
        VERSION,
        capabilities(kinds, model.identity if model is not None else ""),
        flags["slots"] or at_once or cores,
        started=SystemClock().wall(),
    )


def _list(place: Storage, *, as_json: bool) -> int:
    from dataclasses import asdict

    from edvac.machine.fleet.postgresql import queue_of

    with place.open() as store:
        found = queue_of(store).workers()
    if as_json:
        ui.out_json({"workers": [asdict(one) for one in found]})
        return EXIT_DONE
    if not found:
        ui.out("no worker lives")
    for one in found:
        does = ", ".join(kind for kind in ("llm", "python", "shell") if kind in one.capabilities)
        doing = f"does {one.doing} of {ui.counted(one.slots, 'step')}"
        seen = f"seen {one.silent_s:.0f} s ago"
        ui.out(ui.safe_line(f"{one.name:24}  {one.host:16}  {doing:18}  {seen:14}  {does}"))
        for mark in one.capabilities:
            if mark.startswith(("model ", "edvac ")):
                ui.out(ui.safe_line(f"{'':24}  {mark}"))
    return EXIT_DONE


def _place(settings: Settings, flags: dict[str, Any]) -> int:
    from edvac.machine.fleet.ray_placing import Placing, place

    given = [("--model", flags["model"]), ("--capabilities", flags["capabilities"])]
    given += [("--slots", flags["slots"]), ("--lease", flags["lease_s"])]
    arguments = [f"{name}={value}" for name, value in given if value is not None]
    placing = Placing(settings.store, tuple(arguments), str(Path.cwd()), flags["ray_address"])
    names = place(placing, flags["ray"])
    if flags["as_json"]:
        ui.out_json({"workers": names})
    else:
        ui.out(
            f"Ray keeps {ui.counted(len(names), 'worker')}{': ' if names else ''}"
            + ", ".join(names)
        )
    return EXIT_DONE
