"""`queue`: runs that wait their turn."""

from __future__ import annotations

import datetime as dt
import json
import re
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edvac.cli import ui
from edvac.cli.every import AWAY_S, approved, checked_program, passed_flags, run_flags
from edvac.cli.ui import open_store
from edvac.core.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    from edvac.machine.queues import Rules
    from edvac.store import QueuedRun, RunQueue, Store

EXAMPLES = """\b
Examples:
  edvac queue put nightly inbox.edv --output out/ --key 2026-05-01
  edvac queue set nightly --at-once 2 --rate 10/h
  edvac queue run                 work on all of them, until stopped
  edvac queue run --drain         until nothing is left to do, for cron
  edvac queue                     what waits, goes on, was given up
  edvac queue retry nightly 7
"""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
_AFTER = re.compile(r"(\d{1,6}) ?(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


@click.group(invoke_without_command=True, epilog=EXAMPLES)
@_JSON
@click.pass_context
def queue(ctx: click.Context, as_json: bool) -> None:
    """Let runs wait their turn: so many at a time, so many in a period, again where one failed."""
    if ctx.invoked_subcommand is None:
        _list(as_json=as_json)


@queue.command()
@click.argument("name")
@click.argument("program")
@click.option("--key", default="", help="No other of this key gets in; the one there is named.")
@click.option("--priority", default=0, help="Higher ones first.  [default: 0]")
@click.option("--after", default="", metavar="TIME", help="Not before: 10min, 2h, 1d.")
@click.option(
    "--after-quiet",
    "quiet",
    default="",
    metavar="TIME",
    help="When no other of its --key was put for so long; the last one counts.",
)
@run_flags
@_JSON
def put(name: str, program: str, key: str, priority: int, **flags: Any) -> int:
    """Put PROGRAM (.edv) at the end of the queue NAME, which is made where there is none."""
    from edvac.core.seams import SystemClock
    from edvac.machine.every import Spec, touch_digest, write_spec
    from edvac.machine.queues import Rules, read_rules, write_rules
    from edvac.store import QueuedRun, RunQueue

    _check_name(name)
    after, quiet = flags.pop("after"), flags.pop("quiet")
    _check_quiet(key, after, quiet)
    delay = _delay(quiet or after)
    parsed = checked_program(program, flags, "Run it when its turn comes?")
    spec = Spec("", program, passed_flags(flags), str(Path.cwd()), touch_digest(parsed))
    now = SystemClock().wall()
    with ui.storage().open() as store:
        known = next((one for one in store.queues() if one.name == name), None)
        if known is None:
            known = RunQueue(name, write_rules(Rules()), now)
            store.keep_queue(known)
        item = QueuedRun(0, name, write_spec(spec), key, priority, now, now + delay)
        made = store.enqueue(item, read_rules(known).most, replaces=bool(quiet))
    again = made.added != now
    if flags["as_json"]:
        ui.out_json(_item(made) | {"known": again})
        return 0
    what = ("is put off" if quiet else "is there already") if again else "waits"
    ui.out(f"{name} {made.id}: {program} {what}")
    if not again:
        ui.out("It runs while `edvac queue run` does.")
    return 0


@queue.command("set")
@click.argument("name")
@click.option("--at-once", type=click.IntRange(1, 1000), help="Runs at the same time.")
@click.option("--rate", metavar="N/TIME", help="Runs that may begin: 10/h, 3/10min; 0 is no limit.")
@click.option("--attempts", type=click.IntRange(1, 100), help="Before a run is given up.")
@click.option("--recoveries", type=click.IntRange(0, 1000), help="Deaths of a process it survives.")
@click.option("--most", type=click.IntRange(1, 1_000_000), help="Entries that may wait.")
@_JSON
def set_rules(name: str, rate: str | None, as_json: bool, **given: int | None) -> int:
    """Say how the queue NAME is served."""
    import msgspec

    from edvac.core.seams import SystemClock
    from edvac.machine.queues import Rules, parse_rate, read_rules, write_rules
    from edvac.store import RunQueue

    _check_name(name)
    changed: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if rate is not None:
        changed["starts"], changed["period_s"] = parse_rate(rate)
    with ui.storage().open() as store:
        known = next((one for one in store.queues() if one.name == name), None)
        rules = msgspec.structs.replace(read_rules(known) if known else Rules(), **changed)
        made = RunQueue(name, write_rules(rules), known.created if known else SystemClock().wall())
        store.keep_queue(made)
    if as_json:
        ui.out_json({"queue": name} | msgspec.to_builtins(rules))
    else:
        ui.out(f"{name}: {_told(rules)}")
    return 0


@queue.command("show")
@click.argument("name")
@_JSON
def show(name: str, as_json: bool) -> int:
    """Show what is in the queue NAME, in the order in which it is taken."""
    with open_store() as store:
        found = _the(store, name)
        items = store.queued(found.name)
    if as_json:
        ui.out_json({"queue": name, "entries": [_item(one) for one in items]})
        return 0
    for one in items:
        document = _item(one)
        run = f"  run {one.run}" if one.run else ""
        line = f"{one.id:>5}  {one.state:8}  {document['program']}{run}"
        ui.out(ui.safe_line(line + (f"  {one.said}" if one.said else "")))
    if not items:
        ui.out(f"nothing is in {name}")
    return 0


@queue.command("run")
@click.argument("names", nargs=-1)
@click.option("--drain", is_flag=True, help="End when nothing waits or goes on: for cron.")
def serve(names: tuple[str, ...], drain: bool) -> int:
    """Work on the queues NAMES (default: all), until stopped; one process a workspace."""
    from edvac.core.seams import SystemClock
    from edvac.machine.every import alone
    from edvac.machine.queues import LOCK, LOOK_S, Seams, Server
    from edvac.machine.wakes import Waker

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with open_store() as store, alone(store.workspace, LOCK):
        for name in names:
            _the(store, name)
        seams = Seams(approved=approved, say=_say)
        server = Server(store, SystemClock(), seams, names)
        waker = Waker(store, SystemClock(), say=_say)
        if not drain:
            ui.err("working on the queues; stop with Ctrl-C")
        while not stop.is_set():
            try:
                busy = server.look()
                waker.look()
            except UnreachableError as error:  # what it has done is in the store
                if drain:
                    raise
                _say(f"waiting for the store: {error.what}")
                stop.wait(AWAY_S)
                continue
            if drain and not busy:
                break
            stop.wait(LOOK_S)
    return 0


@queue.command("retry")
@click.argument("name")
@click.argument("entry", type=int)
def retry(name: str, entry: int) -> int:
    """Give ENTRY, which was given up, another life: what failed in its run is done again."""
    from edvac.core.seams import SystemClock
    from edvac.machine.queues import again

    with open_store() as store:
        again(store, _entry(store, name, entry), SystemClock().wall())
    ui.out(f"{name} {entry}: waits")
    return 0


@queue.command("drop")
@click.argument("name")
@click.argument("entry", type=int, required=False)
def drop(name: str, entry: int | None) -> int:
    """Take ENTRY out of the queue NAME, or remove the queue. Runs stay, and go on if they do."""
    with open_store() as store:
        if entry is None:
            store.drop_queue(_the(store, name).name)
        else:
            store.drop_queued(_entry(store, name, entry).id)
    ui.out(f"removed {name}" if entry is None else f"took {entry} out of {name}")
    return 0


def _list(*, as_json: bool) -> None:
    from edvac.machine.queues import read_rules

    with open_store() as store:
        found = [(one, store.queued(one.name)) for one in store.queues()]
    states = ("waiting", "running", "asking", "done", "dead")
    counted = [(q, {s: sum(i.state == s for i in items) for s in states}) for q, items in found]
    if as_json:
        ui.out_json({"queues": [{"queue": one.name} | counts for one, counts in counted]})
        return
    for one, counts in counted:
        told = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        ui.out(f"{one.name}: {told or 'empty'} ({_told(read_rules(one))})")
    if not counted:
        ui.out("there are no queues; `edvac queue put NAME PROGRAM` makes one")


def _told(rules: Rules) -> str:
    parts = [f"{rules.at_once} at once"]
    if rules.starts:
        parts.append(f"{rules.starts} in {rules.period_s:.0f} s")
    return ", ".join([*parts, ui.counted(rules.attempts, "attempt")])


def _item(item: QueuedRun) -> dict[str, Any]:
    spec = json.loads(item.spec)
    return {
        "id": item.id,
        "state": item.state,
        "program": spec["program"],
        "flags": spec["flags"],
        "directory": spec["place"],
        "key": item.key,
        "priority": item.priority,
        "due": dt.datetime.fromtimestamp(item.due, dt.UTC).isoformat(timespec="seconds"),
        "run": item.run,
        "attempts": item.attempts,
        "recoveries": item.recoveries,
        "said": item.said,
    }


def _the(store: Store, name: str) -> RunQueue:
    from edvac.store.run_queues import queue_unknown

    for one in store.queues():
        if one.name == name:
            return one
    raise queue_unknown(name)


def _entry(store: Store, name: str, entry: int) -> QueuedRun:
    for one in store.queued(_the(store, name).name):
        if one.id == entry:
            return one
    raise UsageError(
        "queued_unknown",
        f"there is no entry {entry} in the queue {name!r}",
        "",
        f"`edvac queue show {name}` lists those there are.",
    )


def _check_quiet(key: str, after: str, quiet: str) -> None:
    if quiet and (after or not key):
        raise UsageError(
            "quiet_without_key",
            "--after-quiet goes with --key, and not with --after",
            "It waits until no other of the same key was put for so long.",
            "Such as edvac queue put NAME PROGRAM --key inbox --after-quiet 5min.",
        )


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            "queue_name",
            f"{name[:80]!r} cannot name a queue",
            "A name has at most 64 letters, digits, dots and dashes, and begins with a letter.",
            "Such as nightly.",
        )


def _delay(text: str) -> float:
    found = _AFTER.fullmatch(text.strip()) if text else None
    if text and found is None:
        raise UsageError(
            "delay_malformed", f"{text[:40]!r} is no time", "", "Such as 30s, 10min, 2h or 1d."
        )
    return float(int(found[1]) * _SECONDS[found[2]]) if found else 0.0


def _say(line: str) -> None:
    ui.err(f"{dt.datetime.now().strftime('%Y-%m-%d %H:%M')}  {ui.safe_line(line)}")
