"""`app`: third-party tools, each in a sandbox of its own, with the signatures that you approved."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

import click

from edvac.cli import ui
from edvac.cli.ui import open_store
from edvac.core.errors import ConfigError, PolicyError, UsageError
from edvac.core.seams import SystemClock

if TYPE_CHECKING:
    from edvac.device.app.manifest import App, Approved, Installed
    from edvac.device.app.offer import Offered

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
NAME = click.argument("name", metavar="NAME")
YES = click.option("--yes", is_flag=True, help="Approve what it offers without asking.")
ONLY = click.option("--only", multiple=True, metavar="TOOL", help="Approve these tools alone.")
READS = click.option(
    "--reads", multiple=True, metavar="TOOL", help="This tool changes nothing; * for all of them."
)
RETURNS = click.option(
    "--returns", multiple=True, metavar="TOOL=TYPE", help="Type of a result, as in fare=float."
)


@click.group()
def app() -> None:
    """Add third-party tools: MCP servers and Python modules, each in a sandbox of its own.

    What programs may call are the signatures that you approve here. Descriptions and error texts
    are a stranger's words, which no model that writes programs sees.
    """


@app.command(context_settings={"ignore_unknown_options": False})
@NAME
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--python", "module", metavar="MODULE", help="A module of typed Python functions.")
@click.option("--code", multiple=True, metavar="PATH", help="What it may read, beside its files.")
@click.option("--host", "hosts", multiple=True, metavar="ORIGIN", help="It may connect to this.")
@click.option(
    "--private-host",
    "private",
    multiple=True,
    metavar="ORIGIN",
    help="The same, near this machine.",
)
@click.option("--timeout-s", default=60.0, show_default=True, help="Of one call, seconds.")
@click.option("--memory-mb", default=2048, show_default=True, help="Of all its processes, MiB.")
@ONLY
@READS
@RETURNS
@YES
@JSON
def add(name: str, command: tuple[str, ...], module: str | None, **flags: Any) -> None:
    """Add an app: edvac app add NAME -- COMMAND ARGS, or --python MODULE.

    COMMAND is a server of the Model Context Protocol that speaks on its standard input and output.
    It sees the files among its arguments, what --code names, and a folder of its own.
    """
    from edvac.device.app.code import module_at, resolved
    from edvac.device.app.manifest import App
    from edvac.device.browser.origins import read_origins

    place = _place()
    _free(name, place)
    if bool(command) == bool(module):
        raise UsageError(
            "app_command",
            "an app is a command or a module",
            "",
            "Write edvac app add NAME -- COMMAND ARGS, or edvac app add NAME --python MODULE.",
        )
    if module:
        called, code = module_at(module)
        made = App(name=name, module=called, code=code)
    else:
        argv, code = resolved(command, flags["code"])
        made = App(name=name, command=argv, code=code)
    place.apart(made.code)
    import msgspec

    limits = {"timeout_s": flags["timeout_s"], "memory_mb": flags["memory_mb"]}
    near = sorted(read_origins("--private-host", flags["private"]))
    hosts = sorted({*near, *read_origins("--host", flags["hosts"])})
    limits |= {"hosts": tuple(hosts), "private": tuple(near)}
    try:
        _approve(place, msgspec.structs.replace(made, **limits), flags)
    except BaseException:
        shutil.rmtree(place.folder(name), ignore_errors=True)  # nothing of it stays
        raise


@app.command()
@NAME
@ONLY
@READS
@RETURNS
@YES
@JSON
def approve(name: str, **flags: Any) -> None:
    """Show what NAME offers now, and what of that is other than you approved; approve it."""
    place = _place()
    _approve(place, place.get(name), flags)


def _approve(place: Installed, known: App, flags: dict[str, Any]) -> None:
    """Start the app, show what it offers, and keep what a person says yes to."""
    from edvac.device.app.device import offered_by
    from edvac.device.app.manifest import approve as approved
    from edvac.device.app.offer import changes

    offered = asyncio.run(offered_by(known, place.folder(known.name)))
    reads = list(offered.tools) if "*" in flags["reads"] else flags["reads"]
    returns = dict(map(_returned, flags["returns"]))
    made = approved(known, offered, only=flags["only"], reads=reads, returns=returns)
    before = {name: one.offer for name, one in known.tools.items()}
    changed = changes(before, {name: one.offer for name, one in made.tools.items()})
    if not flags["as_json"]:
        for line in [
            *_signature_lines(made),
            *_left_out(offered),
            *map("changed: {}".format, changed),
        ]:
            ui.err(line)
    if not flags["yes"]:
        _agree(made)
    place.keep(made)
    if flags["as_json"]:
        ui.out_json(_document(made) | {"left_out": list(offered.left_out), "changed": changed})
    else:
        ui.out(f"approved {ui.counted(len(made.tools), 'tool')} of {made.name}")


def _agree(made: App) -> None:
    """
    Raises:
        PolicyError: the person said no, or nobody is there.
    """
    if not ui.is_terminal():
        raise PolicyError(
            "approval_needed",
            f"nobody is there to approve what {made.name} offers",
            "Standard input or error is not a terminal.",
            "Repeat with --yes.",
        )
    if not click.confirm("May programs call these?", err=True):
        raise PolicyError("app_not_approved", f"{made.name} was not approved; nothing was changed")


def _returned(pair: str) -> tuple[str, Any]:
    from edvac.device.app.types import written

    tool, mark, text = pair.partition("=")
    if not mark:
        raise ConfigError("app_type", f"{pair!r} is not TOOL=TYPE", "", "Write fare=float.")
    return tool, written(text)


@app.command("list")
@JSON
def list_(as_json: bool) -> None:
    """List the apps of this workspace."""
    found = _place().all()
    if as_json:
        ui.out_json({"apps": [_document(one) for one in found]})
        return
    if not found:
        ui.out("there are no apps here")
    for one in found:
        ui.out(ui.safe_line(f"{one.name:16} {ui.counted(len(one.tools), 'tool'):9} {_start(one)}"))


@app.command()
@NAME
@JSON
def show(name: str, as_json: bool) -> None:
    """Show how NAME is started, what it may see, what was approved, and what its publisher says."""
    from edvac.device.browser.origins import shown

    found = _place().get(name)
    if as_json:
        ui.out_json(_document(found) | {"publisher_says": found.words})
        return
    ui.out(ui.safe_line(f"started as  {_start(found)}"))
    ui.out(ui.safe_line(f"may read    {', '.join(found.code) or 'nothing of yours'}"))
    ui.out("may write   its own folder, which is kept between runs")
    ui.out(f"connects to {', '.join(map(shown, found.hosts)) or 'nothing'}")
    for line in _signature_lines(found):
        ui.out(line)
    for tool, said in found.words.items():
        if said and tool in found.tools:
            ui.out(ui.safe_line(f"its publisher says of {tool}: {said}"))


@app.command()
@NAME
@JSON
def remove(name: str, as_json: bool) -> None:
    """Remove NAME, with all that it has kept and all that it was permitted."""
    place = _place()
    place.remove(name)
    if ui.storage().made:
        with open_store() as store:
            for one in _permits(store.grants()):
                if name in (one["asks"], one["answers"].partition(".")[0]):
                    store.revoke(one["id"])
    _done({"removed": name}, f"removed {name}", as_json=as_json)


@app.command()
@NAME
@JSON
def forget(name: str, as_json: bool) -> None:
    """Empty the folder in which NAME keeps what it remembers between runs."""
    place = _place()
    place.get(name)
    shutil.rmtree(place.folder(name))
    place.folder(name)
    _done({"forgot": name}, f"{name} remembers nothing", as_json=as_json)


@app.command()
@click.argument("asks", metavar="APP")
@click.argument("tool", metavar="OTHER.TOOL")
@JSON
def permit(asks: str, tool: str, as_json: bool) -> None:
    """Permit APP to ask for a tool of another app, in all runs; `edvac grants rm` takes it back."""
    from edvac.device.app.hub import Pair
    from edvac.machine.apps import permit as permitted

    place = _place()
    answers, _, function = tool.partition(".")
    apps = {name: place.get(name) for name in (asks, answers)}
    if asks == answers or function not in apps[answers].tools:
        raise UsageError("app_tool_unknown", f"{tool!r} is no approved tool of another app")
    with ui.storage().open() as store:
        given = permitted(Pair(asks, answers, function), apps, SystemClock().wall())
        store.grant(given)
    text = f"{asks} may ask for {tool} in all runs (grant {given.id})"
    _done({"granted": given.id}, text, as_json=as_json)


def _permits(grants: Any) -> list[dict[str, Any]]:
    from edvac.machine.apps import described

    return [found for found in map(described, grants) if found is not None]


def _place() -> Installed:
    from edvac.machine.apps import installed

    return installed(ui.workspace())


def _free(name: str, place: Installed) -> None:
    """
    Raises:
        ConfigError: the name is none, or means something else.
        UsageError: there is an app of this name.
    """
    from edvac.compiler.grammar import reserved
    from edvac.device import CATALOGUE
    from edvac.device.app.types import word

    taken = {*reserved(CATALOGUE), *CATALOGUE.devices, "run", "program", "worker"}
    if word(name) != name or name != name.lower() or name in taken:
        raise ConfigError(
            "app_name",
            f"{name!r} is no name of an app",
            "It is a word in small letters that means nothing else in programs.",
            "Choose another, such as fares.",
        )
    if name in place.names():
        raise UsageError(
            "app_exists",
            f"there is an app {name!r} already",
            "",
            f"See `edvac app show {name}`, or take it away with `edvac app remove {name}`.",
        )


def _start(one: App) -> str:
    return f"python module {one.module}" if one.module else " ".join(one.command)


def _signature_lines(one: App) -> list[str]:
    words = {"read": "reads", "external": "acts, and cannot be undone"}
    return [ui.safe_line(f"{one.name}.{t}  ({words[t.effect]})") for t in one.tools.values()]


def _left_out(offered: Offered) -> list[str]:
    return [f"left out: {why}" for why in offered.left_out]


def _document(one: App) -> dict[str, Any]:
    def tool(found: Approved) -> dict[str, Any]:
        return {"signature": str(found), "effect": found.effect, "digest": found.offer.digest}

    return {
        "name": one.name,
        "command": list(one.command),
        "module": one.module,
        "code": list(one.code),
        "hosts": list(one.hosts),
        "private_hosts": list(one.private),
        "timeout_s": one.timeout_s,
        "memory_mb": one.memory_mb,
        "tools": {name: tool(found) for name, found in one.tools.items()},
    }


def _done(document: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        ui.out_json(document)
    else:
        ui.out(text)
