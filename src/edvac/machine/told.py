"""What a machine tells of a run beside its steps: sentences, and the event of its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edvac.control import ControlUnit
from edvac.core import event

if TYPE_CHECKING:
    from edvac.machine.machine import Report


def another_model(before: str, now: str) -> event.Note:
    return event.Note(text=f"the run was begun with {before}; it goes on with {now}")


def not_in_previous(paths: list[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"no text or too large for run.previous.written: {', '.join(paths[:3])}{more}"


async def nobody(address: str, text: str, options: list[str]) -> str:
    """No person can be asked here: wait until the run is stopped; the question is journalled."""
    del address, text, options
    await asyncio.Event().wait()
    raise AssertionError("the wait above ends only by cancellation")


def closed(report: Report, unit: ControlUnit, endpoints: list[str]) -> event.RunClosed:
    return event.RunClosed(
        run=report.run,
        state=report.state,
        seconds=report.seconds,
        **{name: report.counts[name] for name in ("finished", "failed", "blocked", "reused")},
        prompt_tokens=unit.usage.prompt,
        cached_tokens=unit.usage.cached,
        completion_tokens=unit.usage.completion,
        endpoints=endpoints,
        actions=[f"{step.call.address}: {step.call.op}" for step in report.actions],
    )
