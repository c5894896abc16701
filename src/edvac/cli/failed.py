"""What failed, for people: the table at the end of a run, and the list of `show --failed`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edvac.cli import ui

if TYPE_CHECKING:
    from edvac.machine.failures import FailedItem

MAX_ROWS = 20
COLUMNS = ("item", "inputs", "code", "what", "why", "remedy", "holds_up")


def table(items: Sequence[FailedItem], run: str) -> list[str]:
    """A row for each reason: the item, how many more, why, and what to do."""
    from edvac.machine.failures import grouped

    groups = grouped(items)
    lines = []
    for group in groups[:MAX_ROWS]:
        first = group.first
        more = f" and {group.count - 1} more" if group.count > 1 else ""
        name = f"{first.item}{more}: " if first.item else ""
        held = f" (holds up {group.holds_up} more)" if group.holds_up else ""
        lines.append(f"  ✗ {name}{ui.because(first.what, first.why, first.item)}{held}")
        if first.remedy:
            lines.append(f"      {first.remedy}")
    if len(groups) > MAX_ROWS:
        lines.append(f"  … and {len(groups) - MAX_ROWS} more reasons")
    if len(items) > len(groups[:MAX_ROWS]):
        count = ui.counted(len(items), "failed item")
        lines.append(f"  `edvac show {run} --failed` lists all {count}; --csv as a table.")
    return lines


def document(items: Sequence[FailedItem], run: str) -> dict[str, Any]:
    return {"run": run, "failed": [asdict(item) for item in items]}


def as_csv(items: Sequence[FailedItem]) -> str:
    made = io.StringIO()
    writer = csv.writer(made)
    writer.writerow(COLUMNS)
    for item in items:
        row = asdict(item) | {"inputs": "; ".join(item.inputs)}
        writer.writerow([ui.no_formula(ui.safe_line(str(row[name]))) for name in COLUMNS])
    return made.getvalue()
