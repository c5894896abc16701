"""What the control unit tells people about a step: its events, and a short look at a value.

Knows nothing of who listens.
"""

from __future__ import annotations

from collections.abc import Iterator

from edvac.control.step import Failure, Result, Step
from edvac.core import event
from edvac.core.value import Failed, Scalar, Sequence, Value, first_failure, plain


def started(step: Step) -> event.Event:
    call = step.call
    return event.StepStarted(slot=call.slot, address=call.address, op=call.op, attempt=step.attempt)


def finished(step: Step, value: Value, result: Result) -> Iterator[event.Event]:
    for note in result.notes:
        yield event.Note(text=f"{step.call.address}: {note}")
    for written in result.files:
        if written.content is not None:
            yield event.FileWritten(path=written.path, size=len(written.content))
    yield event.StepFinished(
        slot=step.slot,
        address=step.call.address,
        op=step.call.op,
        seconds=result.seconds,
        preview=preview(value),
        reused=result.reused,
        prompt_tokens=result.usage.prompt,
        cached_tokens=result.usage.cached,
        completion_tokens=result.usage.completion,
    )


def retried(step: Step, failure: Failure, wait_s: float, *, escalated: bool) -> event.Event:
    return event.StepRetried(
        slot=step.slot,
        address=step.call.address,
        attempt=step.attempt,
        code=failure.code,
        what=failure.what,
        wait_s=wait_s,
        escalated=escalated,
    )


def failed(step: Step, failure: Failure) -> event.Event:
    return event.StepFailed(
        slot=step.slot,
        address=step.call.address,
        op=step.call.op,
        code=failure.code,
        what=failure.what,
        why=failure.why,
        fix=failure.fix,
    )


def blocked(step: Step, cause: Failed, upstream: Step | None) -> event.Event:
    return event.StepFailed(
        slot=step.slot,
        address=step.call.address,
        op=step.call.op,
        code=cause.code,
        what=cause.what,
        blocked_by=upstream.call.address if upstream else "the program",
    )


def preview(value: Value, width: int = 100) -> str:
    """A short line that shows a value to a person; looks only at its beginning."""
    match value:
        case Scalar():
            data = value.data
            text = " ".join(data[: 4 * width].split()) if isinstance(data, str) else str(data)
        case Sequence():
            text = f"{len(value.items)} item{'' if len(value.items) == 1 else 's'}"
        case _ if first_failure(value) is not None:
            text = "failed"
        case _:
            shown = plain(value)
            text = ", ".join(f"{key}={item}" for key, item in shown.items())
    return text if len(text) <= width else text[: width - 1] + "…"
