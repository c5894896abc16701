"""Why steps ran, and what two runs have apart: printed, or as one document."""

from __future__ import annotations

import difflib
from itertools import groupby
from typing import TYPE_CHECKING, Any

from edvac.cli import ui
from edvac.machine.explain import Apart, Reason, apart, explain

if TYPE_CHECKING:
    from edvac.store import Store


def say_why(store: Store, run: str, *, as_json: bool) -> None:
    """Each step with its reason; steps in a row that share one are told together."""
    before, reasons = explain(store, run)
    if as_json:
        steps = [{"step": r.address, "op": r.op, "ran": r.ran, "why": r.why} for r in reasons]
        ui.out_json({"run": run, "compared_with": before or None, "steps": steps})
        return
    for line in told(before, reasons):
        ui.out(ui.safe_line(line))


def told(before: str, reasons: list[Reason]) -> list[str]:
    """The same in lines."""
    ran = sum(reason.ran for reason in reasons)
    head = f"{ran} of {ui.counted(len(reasons), 'step')} executed"
    lines = [f"{head}, compared with run {before}" if before else head]
    for (did, why), group in groupby(reasons, key=lambda one: (one.ran, one.why)):
        members = [one.address for one in group]
        names = members[0] if len(members) == 1 else f"{members[0]} … {members[-1]}"
        count = "" if len(members) == 1 else f" ({len(members)})"
        lines.append(f"{'✓' if did else '='} {names}{count}: {why}")
    return lines


def compare(store: Store, left: str, right: str, *, as_json: bool) -> None:
    """What two runs have apart: program, steps, files."""
    found = apart(store, left, right)
    if as_json:
        ui.out_json(_document(left, right, found))
        return
    if found.empty:
        ui.out(f"runs {left} and {right} have nothing apart")
    for line in _program(left, right, found):
        ui.out(ui.safe_line(line))
    for step in found.steps:
        ui.out(ui.safe_line(f"{step.mark} {step.address}: {step.left} | {step.right}"))
    for path, (old, new) in found.files.items():
        lines = difflib.unified_diff(
            old.splitlines(), new.splitlines(), f"{left}/{path}", f"{right}/{path}", lineterm=""
        )
        for line in lines:
            ui.out(ui.safe_line(line))


def _program(left: str, right: str, found: Apart) -> list[str]:
    old, new = found.programs
    return list(
        difflib.unified_diff(
            old.splitlines(),
            new.splitlines(),
            f"{left}/program",
            f"{right}/program",
            lineterm="",
        )
    )


def _document(left: str, right: str, found: Apart) -> dict[str, Any]:
    return {
        "left": left,
        "right": right,
        "program": "\n".join(_program(left, right, found)),
        "steps": [
            {"step": s.address, "change": s.change, "left": s.left, "right": s.right}
            for s in found.steps
        ],
        "files": {path: {"left": old, "right": new} for path, (old, new) in found.files.items()},
    }
