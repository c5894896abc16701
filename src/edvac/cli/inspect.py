"""`ps`, `show`, `log`: reading what a run has done."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from edvac.cli import ui
from edvac.cli.names import RUN
from edvac.core.errors import UsageError
from edvac.core.seams import SystemClock

if TYPE_CHECKING:
    from edvac.machine.entry import Entry
    from edvac.machine.history import History
    from edvac.store import RunInfo, Store

MAX_STEPS = 100  # that `show` lists


@click.command()
@click.option("--limit", "-n", default=20, show_default=True, help="How many runs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def ps(limit: int, as_json: bool) -> None:
    """List runs, the latest first."""
    with ui.open_store() as store:
        found = store.runs(limit=limit)
        answers = {info.id: _answered(store, info) for info in found}
    if as_json:
        ui.out_json({"runs": [_run_document(info) for info in found]})
        return
    if not found:
        ui.out("no runs")
    for info in found:
        started = dt.datetime.fromtimestamp(info.created).strftime("%Y-%m-%d %H:%M")
        state = standing(info)
        done = "; ".join(filter(None, [_counts(info), spent(info)]))
        ui.out(ui.safe_line(f"{info.id}  {state:11}  {started}  {done:48}  {info.title}"))
        for line in needs(info, answers[info.id]):
            ui.out(f"          {line}")


def standing(info: RunInfo) -> str:
    """How a run stands, in a word."""
    if info.state != "open":
        return info.state
    if info.owner:
        return "running"
    return "waiting" if needs(info, 0) else "interrupted"


def needs(info: RunInfo, answers: int) -> list[str]:
    """What an open run waits for, and the command that helps."""
    if info.state != "open":
        return []
    lines = []
    asked = info.counts.get("questions", 0)
    if asked > answers:
        count = ui.counted(asked - answers, "question")
        lines.append(f"waiting for you: {count} (`edvac answer {info.id}`)")
    elif asked and not info.owner:
        lines.append(f"answered: `edvac resume {info.id}`")
    if info.counts.get("signals"):
        count = ui.counted(info.counts["signals"], "signal")
        lines.append(f"waiting for {count} (`edvac signal {info.id}`)")
    due = info.counts.get("due", 0)
    if due and (due > SystemClock().wall() or info.owner):
        lines.append(f"waiting until {ui.moment(due)} (`edvac every --run` goes on with it then)")
    elif due:
        lines.append(f"its time came at {ui.moment(due)}: `edvac resume {info.id}`")
    if info.counts.get("spent"):
        lines.append(f"its budget is spent (`edvac resume {info.id} --budget AMOUNT`)")
    if info.counts.get("away"):
        lines.append(f"its model was away (`edvac resume {info.id}`)")
    return lines


def _answered(store: Store, info: RunInfo) -> int:
    from edvac.machine.questions import answered

    asked = info.state == "open" and info.counts.get("questions", 0)
    return answered(store, info.id) if asked else 0


def _run_document(info: RunInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "state": info.state,
        "standing": standing(info),
        "running": bool(info.owner),
        "created": info.created,
        "closed": info.closed,
        "seconds": info.seconds,
        "task": info.task,
        "title": info.title,
        "until": ui.moment(info.counts["due"]) if info.counts.get("due") else None,
        "counts": dict(info.counts),
        "tokens": {name: info.counts.get(name, 0) for name in ("prompt", "cached", "completion")},
        "cost": money(info),
        "currency": ui.currency(),
    }


def money(info: RunInfo) -> str:
    """What a run has cost, as a decimal number."""
    return f"{Decimal(info.counts.get('nano', 0)) / 10**9:f}"


def spent(info: RunInfo) -> str:
    """Time, computed tokens and money of a run, for people."""
    parts = [ui.seconds(info.seconds)] if info.seconds else []
    return ", ".join([*parts, *ui.used(info.counts)])


def _counts(info: RunInfo) -> str:
    counts = info.counts
    if not counts:
        return ""
    text = f"{counts.get('finished', 0)} done"
    if counts.get("failed"):
        text += f", {counts['failed']} failed"
    if counts.get("blocked"):
        text += f", {counts['blocked']} blocked"
    return text


@click.command()
@RUN
@click.argument("step", required=False)
@click.option("--prompt", is_flag=True, help="The exact bytes sent to and received from the model.")
@click.option("--program", is_flag=True, help="Only the program's text.")
@click.option("--steps", is_flag=True, help="Every step, however many there are.")
@click.option("--failed", is_flag=True, help="Every item that failed: inputs, reason, remedy.")
@click.option("--csv", "as_csv", is_flag=True, help="With --failed: as CSV.")
@click.option("--events", is_flag=True, help="The latest value of each event that it has set.")
@click.option("--explain", is_flag=True, help="Why each step was executed, or was not.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(run_id: str | None, step: str | None, prompt: bool, **flags: bool) -> None:
    """Show RUN (default: the latest), or the STEP of it that is addressed like invoices[17]."""
    from edvac.machine.history import read_history

    as_json = flags["as_json"]
    with ui.open_store() as store:
        info = store.find_run(run_id)
        if flags["failed"] or flags["as_csv"]:
            _show_failed(store, info.id, as_json=as_json, as_csv=flags["as_csv"])
            return
        if flags["events"]:
            _show_events(store, info.id, as_json=as_json)
            return
        if flags["explain"]:
            from edvac.cli.explained import say_why

            say_why(store, info.id, as_json=as_json)
            return
        history = read_history(store, info.id, lazy=True)
        if flags["program"] and as_json:
            ui.out_json({"run": info.id, "program": history.text})
        elif flags["program"]:
            ui.out(history.text.rstrip())
        elif step is None:
            _show_run(store, info, history, flags)
        else:
            from edvac.machine.entry import step_unknown

            entries = [entry for entry in history.entries if entry.address == step]
            if not entries:
                raise step_unknown(info.id, step, history.entries)
            _show_step(store, entries[-1], prompt, as_json)


def _show_failed(store: Store, run: str, *, as_json: bool, as_csv: bool) -> None:
    from edvac.cli import failed
    from edvac.machine.failures import failed_items

    items = failed_items(store, run)
    if as_json:
        ui.out_json(failed.document(items, run))
    elif as_csv:
        click.echo(failed.as_csv(items), nl=False)
    else:
        for item in items:
            inputs = f" [{', '.join(item.inputs)}]" if item.inputs else ""
            said = ui.because(item.what, item.why, item.item)
            ui.out(ui.safe_line(f"✗ {item.item or 'a line'}{inputs}: {said} ({item.code})"))
            if item.remedy:
                ui.out(ui.safe_line(f"    {item.remedy}"))


def _show_events(store: Store, run: str, *, as_json: bool) -> None:
    from edvac.machine.signals import events

    found = events(store, run)
    if as_json:
        shown = [{"event": one.name, "value": one.value, "step": one.address} for one in found]
        ui.out_json({"run": run, "events": shown})
        return
    for one in found:
        ui.out(ui.safe_line(f"{one.name}: {ui.json_text(one.value)}"))
    if not found:
        ui.out(f"run {run} has set no event")


def _show_run(store: Store, info: RunInfo, history: History, flags: dict[str, bool]) -> None:
    from edvac.cli.signal import document as waited_for
    from edvac.cli.summary import contacts, endorsed
    from edvac.machine.detach import log_path

    ended = {e.slot: e for e in history.entries if e.kind in ("outcome", "blocked")}
    checks = _checks(history)
    if flags["as_json"]:
        steps = [_step_document(entry) for entry in ended.values()]
        more: dict[str, Any] = {
            "program": history.text,
            "contacted": history.contacted,
            "steps": steps,
        }
        more |= {"checks": checks} if checks else {}
        ui.out_json(_run_document(info) | {"signals": waited_for(store, info.id)} | more)
        return
    ui.out(f"run {info.id}: {standing(info)}" + (f" · {spent(info)}" if spent(info) else ""))
    for line in needs(info, _answered(store, info)):
        ui.out(line)
    if info.counts.get("bits"):
        ui.out(endorsed(info.counts["bits"]))
    if info.task:
        ui.out(f"task: {info.task}")
    ui.out(ui.safe_line(f"contacted: {contacts(history)}"))
    if checks:
        ui.out(f"checks: {', '.join(f'{count} {name}' for name, count in checks.items())}")
    ui.out("")
    for number, line in enumerate(history.text.rstrip().split("\n"), 1):
        ui.out(f"  {number:3} {line}")
    ui.out("")
    _show_steps(list(ended.values()), every=flags["steps"])
    if any(entry.failed for entry in ended.values()):
        from edvac.cli import failed
        from edvac.machine.failures import failed_items

        ui.out("")
        for line in failed.table(failed_items(store, info.id), info.id):
            ui.out(ui.safe_line(line))
    log = log_path(store.workspace, info.id)
    if log.exists():
        ui.out(f"\nlog: {log}")


def _checks(history: History) -> dict[str, int]:
    """How closely a worker was looked at, and what that cost; empty for other runs."""
    closed = (entry.body for entry in reversed(history.entries) if entry.kind == "closed")
    found: dict[str, int] = next(closed, {}).get("checks", {})
    return found


def _show_steps(ended: list[Entry], *, every: bool) -> None:
    """All of them, or of very many the first and the last."""
    left = 0 if every else len(ended) - MAX_STEPS
    for number, entry in enumerate(ended):
        if left > 0 and number == MAX_STEPS // 2:
            ui.out(f"… {ui.counted(left, 'step')} more: `edvac show --steps`")
        if left > 0 and MAX_STEPS // 2 <= number < MAX_STEPS // 2 + left:
            continue
        by = f"  (by {entry.body['model']})" if entry.body.get("escalated") else ""
        ui.out(ui.safe_line(f"{_mark(entry)} {entry.address}  {_preview(entry)}{by}"))


def _mark(entry: Entry) -> str:
    if entry.kind == "blocked":
        return "-"
    return "✗" if entry.failed else "✓"


def _preview(entry: Entry) -> str:
    from edvac.control.notices import preview
    from edvac.core.value import Failed

    if isinstance(entry.value, Failed):
        return f"{entry.value.what} [{entry.value.code}]"
    return preview(entry.value) if entry.value is not None else ""


def _decided(entry: Entry) -> str:
    """Which rule of the policy decided, and what it accepted."""
    said = entry.body.get("policy")
    if not said:
        return ""
    accepted = [
        f"{param} released to {', '.join(who)}"
        if bits is None
        else f"{bits:g} bits of {', '.join(who)} in {param}"
        for param, bits, who in said.get("accepted", ())
    ]
    return f"(rule {said['rule']}" + (f" accepted {'; '.join(accepted)})" if accepted else ")")


def _step_document(entry: Entry) -> dict[str, Any]:
    from edvac.core.value import Failed, first_failure, plain, total_label

    value = entry.value
    document: dict[str, Any] = {"step": entry.address, "slot": entry.slot, **entry.body}
    if isinstance(value, Failed):
        document["error"] = {"code": value.code, "what": value.what, "step": value.slot}
    elif value is not None and first_failure(value) is None:
        document["value"] = plain(value)
        document["label"] = total_label(value).stored()
    return document


def _show_step(store: Store, entry: Entry, prompt: bool, as_json: bool) -> None:
    sent = [store.segment(name) for name in entry.prompt]
    document = _step_document(entry)
    if as_json:
        document["prompt"] = sent
        ui.out_json(document)
    elif prompt:
        if not sent:
            raise UsageError(
                "no_prompt", f"{entry.address} is not a model step", "", "Leave out --prompt."
            )
        # The exact bytes into a file or pipe; a terminal would obey what a document hides in them.
        on_terminal = sys.stdout.isatty()
        parts = ["".join(sent), "\n--- received ---\n", entry.body.get("answer", "")]
        click.echo("".join(map(ui.safe, parts)) if on_terminal else "".join(parts))
    else:
        shown = {key: found for key, found in document.items() if key != "label"}
        if "label" in document:
            sources, steered, *_ = document["label"]
            shown["influenced by"] = ", ".join(sorted({*sources, *steered}))
        for name, found in shown.items():
            ui.out(f"{name}: {found if isinstance(found, str) else json.dumps(found, default=str)}")


@click.command()
@RUN
@click.option("--follow", "-f", is_flag=True, help="Wait for more until the run is closed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document; with -f, JSON lines.")
def log(run_id: str | None, follow: bool, as_json: bool) -> None:
    """Print the journal of RUN (default: the latest)."""
    from edvac.machine.entry import decoder_of, read_entry

    with ui.open_store() as store:
        info = store.find_run(run_id)
        decoder = decoder_of(store)
        if as_json and not follow:
            records = [_record(read_entry(decoder, record)) for record in store.records(info.id)]
            ui.out_json({"run": info.id, "records": records})
            return
        last = 0
        while True:
            for record in store.records(info.id, after=last):
                last = record.seq
                _log_line(read_entry(decoder, record), as_json)
            info = store.run(info.id)
            if not follow or info.state != "open":
                return
            if info.owner is None and info.last_seq == last:
                for line in needs(info, _answered(store, info)) or [f"{standing(info)}"]:
                    ui.err(f"nobody works on run {info.id}: {line}")
                return
            time.sleep(0.5)


def _record(entry: Entry) -> dict[str, Any]:
    return {"seq": entry.seq, "kind": entry.kind} | _step_document(entry)


def _log_line(entry: Entry, as_json: bool) -> None:
    if as_json:
        click.echo(ui.json_text(_record(entry)))
        return
    said = " ".join(filter(None, (_preview(entry), _decided(entry))))
    ui.out(ui.safe_line(f"{entry.seq:6} {entry.kind:9} {entry.address:30} {said}"))
