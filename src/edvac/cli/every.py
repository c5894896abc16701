"""`every`: programs at set times."""

from __future__ import annotations

import datetime as dt
import os
import re
import shlex
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edvac.cli import ui
from edvac.cli.ui import open_store
from edvac.core.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    from edvac.machine.every import Spec
    from edvac.store import Schedule

Command = TypeVar("Command", bound=Callable[..., Any])

EXAMPLES = """\b
Examples:
  edvac every 07:00 inbox.edv --output out/
  edvac every "mon 07:00" pages.edv --budget 10min
  edvac every                     what is scheduled
  edvac every --run               run what is due, until stopped
"""
AWAY_S = 5.0  # until a store that is away is looked for again
PASSED = ("model", "plan_model", "escalate_model")  # flags of `run` with one value
_FLAGS = (
    click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="As for run."),
    click.option(
        "--input", "inputs", multiple=True, metavar="[NAME=]DIRECTORY", help="As for run."
    ),
    click.option("--output", type=click.Path(path_type=Path), help="As for run."),
    click.option("--fresh", is_flag=True, help="As for run."),
    click.option("--model", help="As for run."),
    click.option("--plan-model", hidden=True),
    click.option("--escalate-model", help="As for run."),
    click.option("--budget", multiple=True, metavar="AMOUNT", help="As for run, of each run."),
    click.option("--yes", "-y", is_flag=True, help="Approve without asking."),
)


def run_flags(command: Command) -> Command:
    """The flags of `run` that a program which is started later takes."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


@click.command(epilog=EXAMPLES)
@click.argument("when", default="")
@click.argument("program", default="")
@click.option("--run", "go", is_flag=True, help="Run what is due, until stopped; one a workspace.")
@click.option("--due", "once", is_flag=True, help="Run what is due now, and end: for cron.")
@click.option("--remove", metavar="ID", help="Forget a schedule; its runs stay.")
@click.option("--unit", is_flag=True, help="Print a systemd unit and a cron line that keep it up.")
@run_flags
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def every(when: str, program: str, **flags: Any) -> int:
    """Run PROGRAM (.edv) at set times: 07:00, "mon 07:00", "weekdays 18:30", hourly, 15min, or the
    five fields of a crontab, "30 7 * * mon-fri".

    Times are those of this machine's clock. What was missed while nobody watched runs once; a time
    at which the last run still goes on is left out.
    """
    if flags["go"] or flags["once"]:
        return _serve(once=flags["once"])
    if flags["unit"]:
        _unit()
    elif flags["remove"]:
        _remove(flags["remove"], as_json=flags["as_json"])
    elif when:
        _add(when, program, flags)
    else:
        _list(as_json=flags["as_json"])
    return 0


def _add(when: str, program: str, flags: dict[str, Any]) -> None:
    from edvac.core.seams import SystemClock, SystemEntropy
    from edvac.machine.every import Spec, local_zone, touch_digest, write_spec
    from edvac.machine.when import parse_when
    from edvac.store import Schedule

    parsed = parse_when(when)
    text = checked_program(program, flags, "Run it at these times?")
    spec = Spec(when, program, passed_flags(flags), str(Path.cwd()), touch_digest(text))
    clock = SystemClock()
    wall, zone = clock.wall(), local_zone()
    with ui.storage().open() as store:
        made = Schedule(SystemEntropy().token(2), write_spec(spec), wall, parsed.latest(wall, zone))
        store.keep_schedule(made)
    first = _local(parsed.upcoming(wall, zone))
    if flags["as_json"]:
        ui.out_json(_document(made))
        return
    ui.out(f"schedule {made.id}: {program} {when}, first on {first}")
    ui.out("It runs while `edvac every --run` does; `edvac every --unit` says how to keep that up.")


def checked_program(program: str, flags: dict[str, Any], question: str) -> Any:
    """The program, legal and approved.

    Raises:
        UsageError: it is no program file, or nobody approved it.
    """
    from edvac.cli.plan import describe_touches
    from edvac.cli.run import read_settings
    from edvac.cli.source import read_source
    from edvac.core.errors import PolicyError
    from edvac.machine.job import program_parameters
    from edvac.program import parse

    source = read_source(program) if program != "-" else None
    if source is None or source.text is None:
        raise UsageError(
            "schedule_without_program",
            f"{program!r} is not a program file",
            "What runs while nobody looks on is a program that you have seen.",
            "Write it with `edvac run --plan-only TASK > NAME.edv`, then schedule NAME.edv.",
        )
    found = parse(source.text, ui.catalogue())
    program_parameters(found, read_settings(flags["settings"]))
    if not flags["yes"]:
        for line in describe_touches(found, {}):
            ui.err(line)
        if not ui.is_terminal() or not click.confirm(question, err=True):
            raise PolicyError(
                "approval_needed",
                "nobody approved this program",
                "It is run later without asking again.",
                "Repeat with --yes.",
            )
    return found


def passed_flags(flags: dict[str, Any]) -> list[str]:
    found = [("set", pair) for pair in flags["settings"]]
    found += [("input", directory) for directory in flags["inputs"]]
    found += [("budget", amount) for amount in flags["budget"]]
    found += [(name.replace("_", "-"), flags[name]) for name in (*PASSED, "output") if flags[name]]
    made = [f"--{name}={value}" for name, value in found]
    return [*made, "--fresh"] if flags["fresh"] else made


def _serve(*, once: bool) -> int:
    from edvac.core.seams import SystemClock
    from edvac.machine.every import Scheduler, alone
    from edvac.machine.wakes import Waker

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with open_store() as store, alone(store.workspace):
        scheduler = Scheduler(store, SystemClock(), approved=approved, say=_say)
        waker = Waker(store, SystemClock(), say=_say)
        if not once:
            ui.err(f"{ui.counted(len(store.schedules()), 'schedule')}; stop with Ctrl-C")
        while not stop.is_set():
            try:
                waker.look()
                wait_s = scheduler.look()
            except UnreachableError as error:  # what it has done is in the store
                if once:
                    raise
                _say(f"waiting for the store: {error.what}")
                wait_s = AWAY_S
            if once:
                break
            stop.wait(wait_s)
    return 0


def _say(line: str) -> None:
    ui.err(f"{dt.datetime.now().strftime('%Y-%m-%d %H:%M')}  {ui.safe_line(line)}")


def approved(spec: Spec) -> str:
    """Why the program is not what was approved: its text may change, what it touches may not."""
    from edvac.core.errors import EdvacError
    from edvac.machine.every import touch_digest
    from edvac.program import parse

    try:
        text = (Path(spec.place) / spec.program).read_text(encoding="utf-8")
        same = touch_digest(parse(text, ui.catalogue())) == spec.touches
    except (OSError, UnicodeDecodeError, EdvacError) as problem:
        return f"{spec.program} cannot be run: {problem}"
    changed = f"{spec.program} reads, writes or does other things than when it was scheduled"
    return "" if same else f"{changed}; look at it and schedule it again"


def _list(*, as_json: bool) -> None:
    with open_store() as store:
        found = store.schedules()
    if as_json:
        ui.out_json({"schedules": [_document(one) for one in found]})
        return
    if not found:
        ui.out("nothing is scheduled")
    for one in found:
        document = _document(one)
        ui.out(
            ui.safe_line(
                f"{one.id}  {document['when']:16}  {document['program']}"
                f"  next {document['next']}  last {one.run or '-'}"
            )
        )
        if one.said:
            ui.out(ui.safe_line(f"      not run: {one.said}"))


def _document(one: Schedule) -> dict[str, Any]:
    from edvac.core.seams import SystemClock
    from edvac.machine.every import local_zone, read_spec
    from edvac.machine.when import parse_when

    spec = read_spec(one)
    coming = parse_when(spec.when).upcoming(SystemClock().wall(), local_zone())
    return {
        "id": one.id,
        "when": spec.when,
        "program": spec.program,
        "flags": spec.flags,
        "directory": spec.place,
        "next": _local(coming),
        "run": one.run,
        "said": one.said,
    }


def _local(wall: float) -> str:
    from edvac.machine.every import local_zone

    return dt.datetime.fromtimestamp(wall, local_zone()).strftime("%a %Y-%m-%d %H:%M")


def _remove(schedule: str, *, as_json: bool) -> None:
    with open_store() as store:
        if not store.drop_schedule(schedule):
            raise UsageError(
                "schedule_unknown",
                f"there is no schedule {schedule!r} in this workspace",
                "",
                "`edvac every` lists those there are.",
            )
    if as_json:
        ui.out_json({"removed": schedule})
    else:
        ui.out(f"removed schedule {schedule}; its runs stay")


def _unit() -> None:
    """Lines to paste; nothing is installed."""
    from edvac.machine.detach import COMMAND

    place = ui.workspace()
    name = re.sub(r"[^A-Za-z0-9._-]", "-", f"edvac-{place.name or 'workspace'}")
    in_unit = str(place).replace("%", "%%")  # a specifier there, a line's end in a crontab
    command = shlex.join([*COMMAND, "every"])
    ui.out(f"# ~/.config/systemd/user/{name}.service, then: systemctl --user enable --now {name}")
    ui.out("# and, to have it run while you are not logged in: loginctl enable-linger")
    ui.out(f"[Unit]\nDescription=edvac schedules of {in_unit}\n\n[Service]")
    ui.out(f"WorkingDirectory={in_unit}\nExecStart={command} --run\nRestart=on-failure")
    ui.out("# detached runs are not the service's own\nKillMode=process\n")
    ui.out("[Install]\nWantedBy=default.target\n")
    ui.out("# or a line of crontab -e, without a process of its own:")
    ui.out(f"* * * * * cd {shlex.quote(str(place))} && {command} --due".replace("%", r"\%"))
    if os.environ.get("TZ"):
        ui.out(f"# TZ is {os.environ['TZ']!r} here: set it there too")
