"""The end of a run: what came of it, what failed and why, where the files are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edvac.cli.failed import table
from edvac.cli.ui import counted, moment, safe_line, seconds, used
from edvac.machine import delivery
from edvac.machine.failures import failed_items
from edvac.machine.history import read_history
from edvac.machine.overlay import newest

if TYPE_CHECKING:
    from edvac.control import Step
    from edvac.machine import Machine, Report
    from edvac.machine.history import History
    from edvac.store import Store


def deliver(machine: Machine, report: Report) -> list[str]:
    """Apply into the run's output directory, where one was given and the run is over."""
    target = _target(machine, report)
    if not target:
        return []
    return machine.ledger.call_now(lambda store: delivery.apply(store, report.run, Path(target)))


def _target(machine: Machine, report: Report) -> str:
    """Where the files of this run are made real without being asked for; empty: nowhere yet."""
    over = report.state in ("done", "partial")
    return str(_opened(machine, report.run).get("output", "")) if over else ""


def _opened(machine: Machine, run: str) -> dict[str, Any]:
    """The run's first record alone."""
    first = machine.ledger.call_now(lambda store: next(store.records(run, kinds=["opened"])))
    body: dict[str, Any] = msgspec.msgpack.decode(first.payload)
    return body


def summarise(machine: Machine, report: Report, applied: list[str] | None) -> list[str]:
    """Lines for a person.

    Args:
        applied: files that were made real; None where that was refused.
    """
    counts = report.counts
    text = f"run {report.run} is {report.state} after {seconds(report.seconds)}: "
    text += f"{counted(counts['finished'], 'step')} finished"
    if counts["reused"]:
        text += f" ({counts['reused']} of them reused)"
    if counts["failed"] or counts["blocked"]:
        text += f", {counts['failed']} failed, {counts['blocked']} blocked"
    if counts["handled"]:
        text += f"; handled by the program: {counts['handled']}"
    if used(counts):
        text += f"; used {', '.join(used(counts))}"
    history = machine.ledger.call_now(lambda s: read_history(s, report.run, lazy=True))
    lines = [text]
    if report.state == "partial":
        items = machine.ledger.call_now(lambda store: failed_items(store, report.run))
        lines += table(items, report.run)
    lines += [
        f"  - line {call.line}: {', '.join(call.ops)} was never reached: {call.failed.what}"
        for call in report.unreached
    ]
    if counts["bits"]:
        lines.append(f"  {endorsed(counts['bits'])}")
    lines += [f"  contacted: {contacts(history)}", *_other_models(history)]
    versions = machine.ledger.call_now(lambda store: newest(store.file_versions(report.run)))
    target = "" if applied is None else _target(machine, report)
    applied = applied or []
    listed = [  # not what was made and taken away within the run
        one for one in versions if not (one.deleted and target and one.path not in applied)
    ]
    shown = listed if len(listed) <= LISTED else listed[: LISTED // 2]
    for version in shown:
        place = f"{target}/{version.path}" if target else version.path
        size = "removed" if version.deleted else f"{version.size:,} bytes"
        unchanged = ", as it was" if target and version.path not in applied else ""
        lines.append(f"  {place}  {size}{unchanged}")
    if len(shown) < len(listed):
        rest = listed[len(shown) :]
        total = sum(one.size for one in rest if not one.deleted)
        where = f"`edvac show {report.run} --steps`"
        lines.append(f"  … {counted(len(rest), 'file')} more, {total:,} bytes: {where}")
    lines += _next_step(report, bool(versions) and not target, bool(applied))
    return lines


LISTED = 40  # files at the end of a run; of more than that the first half
SHOWN = 20  # files of a sample


def sampled(machine: Machine, run: str) -> list[str]:
    """The files that the run has written by now, with their first lines."""

    def look(store: Store) -> list[str]:
        lines = []
        for one in store.list_files(run)[:SHOWN]:
            text = store.read_file(run, one.path).decode(errors="replace")
            lines.append(f"  {one.path}")
            lines += [f"    {line}" for line in text.splitlines()[:5]]
        return lines

    return machine.ledger.call_now(look)


def contacts(history: History) -> str:
    """What was connected to over the network."""
    return ", ".join(history.contacted) or "nothing over the network"


def _other_models(history: History) -> list[str]:
    """A line for each model that made values and is not the one that the run was begun with."""
    made: dict[tuple[str, bool], list[str]] = {}
    for entry in history.entries:
        model = str(entry.body.get("model", ""))
        escalated = bool(entry.body.get("escalated", False))
        other = model and (escalated or model != history.opened["model"])
        if other and entry.kind == "outcome" and not entry.failed:
            made.setdefault((model, escalated), []).append(entry.address)
    lines = []
    for (model, escalated), steps in made.items():
        shown = ", ".join(steps[:3]) + (", …" if len(steps) > 3 else "")
        who = f"the escalate model {model}" if escalated else f"another model, {model}"
        lines.append(f"  {counted(len(steps), 'value')} made by {who}: {shown}")
    return lines


def _waiting(report: Report) -> list[str]:
    name, open_now = report.run, report.counts["questions"]
    awaited = (report.counts["signals"], report.counts["due"])
    lines = []
    if report.actions:
        lines.append(f"It has only read. {counted(len(report.actions), 'step')} would act now:")
        lines += [f"  {action(step)}" for step in report.actions[:SHOWN]]
        if len(report.actions) > SHOWN:
            lines.append(f"  … {len(report.actions) - SHOWN} more")
        lines.append(f"`edvac resume {name}` lets it, and does the rest.")
    elif not any((open_now, report.spent, report.away, *awaited)):
        lines.append(f"The sample is done. `edvac resume {name}` does the rest.")
    if open_now:
        lines.append(f"It waits for you: {counted(open_now, 'question')}.")
        lines.append(f"Answer with `edvac answer {name}`, then `edvac resume {name}`.")
    if awaited[0]:
        lines.append(f"It waits for a signal: `edvac signal {name}` says for which.")
    if awaited[1]:
        lines.append(f"It waits until {moment(awaited[1])}; then `edvac resume {name}` goes on,")
        lines.append("or `edvac every --run` does by itself.")
    if report.spent:
        lines.append(f"It waits for a budget: {report.spent}.")
        lines.append(f"With a larger one it goes on: `edvac resume {name} --budget AMOUNT`.")
    if report.away:
        lines.append(f"It waits for the model: {report.away.what}.")
        lines += [text for text in (report.away.why, report.away.fix) if text]
        lines.append(f"When it is there again: `edvac resume {name}`.")
    return lines


def action(step: Step) -> str:
    """A step that would act: what it does, to what, with which data."""
    from edvac.control.notices import preview

    given = ", ".join(f"{name}={preview(value)}" for name, value in step.values.items())
    return safe_line(f"{step.call.address}: {step.call.op}({given})")


def _next_step(report: Report, pending: bool, applied: bool) -> list[str]:
    name = report.run
    undo = [f"Take it back with `edvac undo {name}`."] if applied else []
    match report.state:
        case "waiting":
            return _waiting(report)
        case "interrupted" | "cancelled":
            return [f"Go on with `edvac resume {name}`."]
        case "partial":
            retry = f"Mend the cause, then `edvac resume {name} --retry` does only what is missing."
            return [retry, *undo]
    if pending:
        return [f"See `edvac diff {name}`; make it real with `edvac apply {name}`."]
    return undo


def endorsed(bits: int) -> str:
    """What outsiders have chosen in all that a run accepted of them, as a line."""
    return f"chosen by others in what the policy accepted: at most {counted(bits, 'bit')}"
