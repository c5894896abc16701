"""What a machine tells of a run: how it ended, for whoever drove or watched it, and what differed.

Knows nothing of journals.
"""

from __future__ import annotations

from dataclasses import dataclass

from edvac.control import ControlUnit, Failure, Step, Usage
from edvac.core import event
from edvac.machine import rates
from edvac.processor import Processor
from edvac.program.host import Unreached


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended. `state` is done, partial, cancelled, interrupted or waiting."""

    run: str
    state: str
    seconds: float
    counts: dict[str, int]
    failures: tuple[Step, ...]
    spent: str = ""  # which budget holds back steps, as a clause
    away: Failure | None = None  # why the model is taken to be away, where that holds back steps
    unreached: tuple[Unreached, ...] = ()  # calls never made: what decides them failed
    actions: tuple[Step, ...] = ()  # what a run that only reads would do next

    @property
    def asleep(self) -> bool:
        """Does it wait for a time alone?"""
        others = self.counts["questions"] or self.counts["signals"] or self.actions
        return bool(self.counts["due"] and not (others or self.spent or self.away))


def report_of(run: str, state: str, seconds: float, unit: ControlUnit) -> Report:
    """What there is to say of a run that has just ended."""
    failures = tuple(unit.failures())
    return Report(
        run,
        state,
        seconds,
        unit.standing(),
        failures,
        unit.spent,
        unit.away,
        unit.unreached,
        tuple(unit.actions),
    )


def closed(report: Report, unit: ControlUnit, endpoints: list[str]) -> event.RunClosed:
    """The same as an event."""
    return event.RunClosed(
        run=report.run,
        state=report.state,
        seconds=report.seconds,
        **{name: report.counts[name] for name in ("finished", "failed", "blocked", "reused")},
        prompt_tokens=unit.usage.prompt,
        cached_tokens=unit.usage.cached,
        completion_tokens=unit.usage.completion,
        bits=report.counts["bits"],
        endpoints=endpoints,
        actions=[f"{step.call.address}: {step.call.op}" for step in report.actions],
    )


def another_model(before: str, now: str) -> event.Note:
    return event.Note(text=f"the run was begun with {before}; it goes on with {now}")


def note_rate(
    model: str, processor: Processor, report: Report, unit: ControlUnit, before: Usage
) -> None:
    """Remember how fast a model was, where nothing else was waited for.

    Args:
        model: its name; nothing is remembered without one.
        before: what earlier drives of the run had used.
    """
    if processor.endpoint == "scripted":
        return
    asked = any(step.call.signature.person for step in unit.steps.values())
    if report.state not in ("done", "partial") or asked or not model:
        return
    used = unit.usage
    read = used.prompt - before.prompt - (used.cached - before.cached)
    rates.note(model, report.seconds, read, used.completion - before.completion)
