"""The control unit's core: a state machine over steps, driven by events, doing no input or output.

Call `start`, then whatever happens (`finished`, `tick`, `answer`, `cancel`); each returns a `Work`:
records to make durable first, then intents to execute, executions to abort, questions to ask and
the time of the next `tick`. Nothing
that depends on an outcome may leave the process before the outcome's record is durable; the driver
keeps to that by committing `Work.records` before it acts on the rest.

After a crash the same program, parameters and journalled outcomes are handed to a new unit: steps
whose outcome is known resolve at once and are not executed again.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from edvac.control.access import exact_access
from edvac.control.journal import Record, Replay, StoredOutcome
from edvac.control.scoreboard import Claim, OpenOrders, Scoreboard
from edvac.control.step import Failure, Intent, Limits, Outcome, Result, Step, StepState
from edvac.core import event
from edvac.core.errors import InternalError
from edvac.core.signature import Access, Effect
from edvac.core.value import (
    Cell,
    Failed,
    Value,
    completed,
    first_failure,
    infused,
    open_cells,
    plain,
    steered,
)
from edvac.guard import Ask, Deny, Policy, Verdict, decide
from edvac.program import Evaluator, StepCall

EvaluatorOf = Callable[["ControlUnit"], Evaluator]


@dataclass(slots=True)
class Work:
    """What the driver has to do, in this order: records durable, then everything else."""

    records: list[Record] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    aborts: list[str] = field(default_factory=list)
    questions: list[event.Question] = field(default_factory=list)
    events: list[event.Event] = field(default_factory=list)
    wake_at: float | None = None  # clock time of the next tick; None when no timer runs
    closed: str = ""  # done, partial or cancelled, once nothing is left to do


class ControlUnit:
    """Issue, hazards, retire. One object per run; not thread-safe."""

    def __init__(
        self,
        evaluator: EvaluatorOf,
        replay: Replay,
        limits: Limits,
        policy: Policy = decide,
    ) -> None:
        self._replay = replay
        self._limits = limits
        self._policy = policy
        self._scoreboard = Scoreboard()
        self._claims: dict[str, Claim] = {}
        self._regions: dict[int, Claim] = {}
        self._open = OpenOrders()
        self._region_orders: dict[int, tuple[int, ...]] = {}
        self._resolutions: deque[tuple[str, Value]] = deque()
        self._to_check: deque[str] = deque()
        self._ready: dict[str, list[tuple[tuple[int, ...], str]]] = {}
        self._running: dict[str, int] = {}
        self._timers: list[tuple[float, str]] = []
        self._in_order: list[str] = []  # external steps that wait for everything earlier
        self._region_count = 0
        self._unhandled: set[str] = set()
        self._stopping = ""
        self._now = 0.0
        self._work = Work()
        self.steps: dict[str, Step] = {}
        self.usage = replay.usage
        self.reused = 0
        self._evaluator = evaluator(self)

    # -- what happens -------------------------------------------------------------------------

    def start(self, now: float) -> Work:
        self._now = now
        self._evaluator.start()
        return self._pump()

    def finished(self, outcomes: Iterable[tuple[str, Outcome]], now: float) -> Work:
        """Executions came back. Outcomes of steps that are no longer running are ignored."""
        self._now = now
        for slot, outcome in outcomes:
            step = self.steps.get(slot)
            if step is None or step.state is not StepState.ISSUED:
                continue
            self._running[step.call.signature.device] -= 1
            if isinstance(outcome, Result):
                self._retire(step, outcome)
            else:
                self._fail_or_retry(step, outcome)
        return self._pump()

    def tick(self, now: float) -> Work:
        self._now = now
        while self._timers and self._timers[0][0] <= now:
            _, slot = heapq.heappop(self._timers)
            step = self.steps[slot]
            if step.state is StepState.RETRYING:
                step.state = StepState.READY
                self._queue(step)
        return self._pump()

    def answer(self, slot: str, yes: bool, now: float) -> Work:
        """A person answered a question of the guard or about an unknown outcome."""
        self._now = now
        step = self.steps.get(slot)
        if step is not None and step.state is StepState.HELD:
            verdict = "yes" if yes else "no"
            self._work.records.append(Record.approved(slot, step.call.address, verdict))
            if yes:
                step.approved = True
                step.state = StepState.READY
                self._to_check.append(slot)
            else:
                why = "A person was asked and said no."
                self._fail(step, Failure("denied_by_person", "this step was not approved", why))
        return self._pump()

    def cancel(self, now: float, reason: str = "cancelled") -> Work:
        """Abort what runs, issue nothing more. What is finished stays finished."""
        self._now = now
        self._stopping = reason
        for step in self.steps.values():
            if step.state is StepState.ISSUED:
                self._work.aborts.append(step.slot)
        return self._pump()

    # -- the evaluator's host -----------------------------------------------------------------

    def step(self, call: StepCall) -> Cell:
        """A call was reached. Its operands may be pending."""
        if call.slot in self.steps:
            raise InternalError("slot_twice", f"two steps have one slot ({call.address})")
        step = Step(call, Cell(call.slot))
        self.steps[call.slot] = step
        self._open.add(call.order)
        known = self._replay.outcomes.get(call.slot)
        if known is not None:
            self._adopt(step, known)
            return step.cell
        claim = self._scoreboard.claim(call.order, call.static)
        if claim is not None:
            self._claims[call.slot] = claim
        self._emit(event.StepWaiting(slot=call.slot, address=call.address, op=call.op))
        self._await_operands(step)
        return step.cell

    def open_region(self, order: tuple[int, ...], access: Access) -> int:
        self._region_count += 1
        token = self._region_count
        self._region_orders[token] = order
        self._open.add(order)
        claim = self._scoreboard.claim(order, access)
        if claim is not None:
            self._regions[token] = claim
        return token

    def close_region(self, token: int) -> None:
        claim = self._regions.pop(token, None)
        self._open.remove(self._region_orders.pop(token))
        if claim is not None:
            self._to_check.extend(self._scoreboard.release(claim))

    def handled(self, failed: Failed) -> None:
        """attempt() or ok() accepted a failure: it and the steps that only passed it on count no
        longer."""
        self._unhandled.discard(failed.slot)
        at = failed.origin
        while at is not None and at in self.steps:
            step = self.steps[at]
            self._unhandled.discard(at)
            at = step.failure.origin if step.state is StepState.BLOCKED and step.failure else None

    # -- inside -------------------------------------------------------------------------------

    def _pump(self) -> Work:
        """Run until nothing more can be done without the outside."""
        while self._resolutions or self._to_check:
            while self._resolutions:
                self._evaluator.resolve(*self._resolutions.popleft())
            while self._to_check and not self._resolutions:
                step = self.steps[self._to_check.popleft()]
                if step.state is StepState.WAITING:
                    self._await_operands(step)
                elif step.state is StepState.READY:
                    self._try(step)
        if not self._stopping:
            self._try_external()
            self._issue()
        self._close_if_over()
        work, self._work = self._work, Work()
        work.wake_at = self._timers[0][0] if self._timers else None
        return work

    def _await_operands(self, step: Step) -> None:
        pending = [cell for operand in step.call.args.values() for cell in open_cells(operand)]
        if pending:
            left = [len(pending)]

            def arrived(_: Value) -> None:
                left[0] -= 1
                if left[0] == 0:
                    self._to_check.append(step.slot)

            for cell in pending:
                cell.when_resolved(arrived)
            return
        step.values = {name: completed(operand) for name, operand in step.call.args.items()}
        for operand in step.values.values():
            failure = first_failure(operand)
            if failure is not None:
                self._block(step, failure)
                return
        step.state = StepState.READY
        step.access = exact_access(step.call.signature, step.values)
        claim = self._claims.get(step.slot)
        if claim is not None:
            self._to_check.extend(self._scoreboard.narrow(claim, step.access))
        self._to_check.append(step.slot)

    def _try(self, step: Step) -> None:
        """A ready step: policy, then hazards, then the queue of its device."""
        if not step.approved:
            verdict = self._policy(step.call, step.values)
            if isinstance(verdict, Deny):
                self._fail(step, Failure.of(verdict.error))
                return
            asked = isinstance(verdict, Ask) and step.slot not in self._replay.approved
            if asked or step.slot in self._replay.unknown:
                self._hold(step, verdict)
                return
            step.approved = True
        hazard = self._scoreboard.hazard(step.order, step.access)
        if hazard is not None:
            hazard.waiters.append(step.slot)
        elif step.call.signature.effect is Effect.EXTERNAL:
            self._in_order.append(step.slot)
        else:
            self._queue(step)

    def _hold(self, step: Step, verdict: Verdict) -> None:
        step.state = StepState.HELD
        text = verdict.text if isinstance(verdict, Ask) else ""
        if step.slot in self._replay.unknown:
            text = (
                f"{step.call.address} ({step.call.op}) had begun when the run was cut off, and "
                "nobody knows whether it took effect. Do it (again)?"
            )
        address = step.call.address
        question = event.Question(slot=step.slot, address=address, text=text, options=["yes", "no"])
        self._work.questions.append(question)
        self._emit(question)

    def _try_external(self) -> None:
        """External effects: every earlier line finished, or failed and handled (design 2)."""
        waiting, self._in_order = self._in_order, []
        for slot in waiting:
            step = self.steps[slot]
            if self._open.earliest() < step.order:
                self._in_order.append(slot)
                continue
            failed = self._earlier_unhandled(step.order)
            if failed is None:
                self._queue(step)
            else:
                self._block(step, failed)

    def _earlier_unhandled(self, order: tuple[int, ...]) -> Failed | None:
        for slot in self._unhandled:
            step = self.steps[slot]
            if step.order < order:
                return step.failure
        return None

    def _queue(self, step: Step) -> None:
        ready = self._ready.setdefault(step.call.signature.device, [])
        heapq.heappush(ready, (step.order, step.slot))

    def _issue(self) -> None:
        for device, ready in self._ready.items():
            room = self._room(device)
            while ready and room > 0:
                step = self.steps[heapq.heappop(ready)[1]]
                if step.state is not StepState.READY:
                    continue
                if self._budget_spent(step):
                    continue
                self._start(step)
                room -= 1

    def _room(self, device: str) -> int:
        limit = self._limits.at_once.get(device, self._limits.default_at_once)
        return limit - self._running.get(device, 0)

    def _budget_spent(self, step: Step) -> bool:
        used = self.usage.prompt - self.usage.cached + self.usage.completion
        if step.call.signature.device != "llm" or not 0 < self._limits.tokens <= used:
            return False
        what = f"the run's budget of {self._limits.tokens} tokens is spent"
        fix = "Raise it with --budget and run `edvac resume --retry`."
        self._fail(step, Failure("budget_spent", what, f"{used} were used.", fix))
        return True

    def _start(self, step: Step) -> None:
        signature = step.call.signature
        step.state = StepState.ISSUED
        step.attempt += 1
        self._running[signature.device] = self._running.get(signature.device, 0) + 1
        intent = Intent(
            step.call,
            step.values,
            step.access,
            step.attempt,
            step.complaint,
            signature.timeout_s,
        )
        if signature.effect in (Effect.WRITE, Effect.EXTERNAL) or signature.person:
            self._work.records.append(Record.intent(intent))
        self._work.intents.append(intent)
        address = step.call.address
        self._emit(
            event.StepStarted(
                slot=step.slot, address=address, op=step.call.op, attempt=step.attempt
            )
        )

    # -- retire -------------------------------------------------------------------------------

    def _retire(self, step: Step, result: Result) -> None:
        value = steered(infused(result.value, step.operand_label), step.call.branch)
        step.usage = step.usage + result.usage
        self.usage = self.usage + result.usage
        self.reused += result.reused
        self._work.records.append(Record.result(step, value, result))
        self._emit_finished(step, value, result)
        self._end(step, StepState.DONE, value)

    def _emit_finished(self, step: Step, value: Value, result: Result) -> None:
        for note in result.notes:
            self._emit(event.Note(text=f"{step.call.address}: {note}"))
        for written in result.files:
            self._emit(event.FileWritten(path=written.path, size=len(written.content or b"")))
        self._emit(
            event.StepFinished(
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
        )

    def _fail_or_retry(self, step: Step, failure: Failure) -> None:
        step.usage = step.usage + failure.usage
        self.usage = self.usage + failure.usage
        wait = 0.0
        if self._stopping:
            step.state = StepState.READY
            return
        if failure.retry and step.attempt < self._limits.attempts:
            wait = self._limits.backoff_s * 2 ** (step.attempt - 1)
        elif failure.repair and step.repairs < self._limits.repairs:
            step.repairs += 1
            step.complaint = failure.what
        else:
            self._fail(step, failure)
            return
        step.state = StepState.RETRYING
        heapq.heappush(self._timers, (self._now + wait, step.slot))
        self._emit(
            event.StepRetried(
                slot=step.slot,
                address=step.call.address,
                attempt=step.attempt,
                code=failure.code,
                what=failure.what,
                wait_s=wait,
            )
        )

    def _fail(self, step: Step, failure: Failure) -> None:
        label = step.operand_label.steer(step.call.branch)
        failed = Failed(step.slot, failure.code, failure.what, label)
        self._work.records.append(Record.failure(step, failed, failure))
        self._unhandled.add(step.slot)
        self._emit(
            event.StepFailed(
                slot=step.slot,
                address=step.call.address,
                op=step.call.op,
                code=failure.code,
                what=failure.what,
                fix=failure.fix,
            )
        )
        self._end(step, StepState.FAILED, failed)

    def _block(self, step: Step, cause: Failed) -> None:
        self._work.records.append(Record.blocked(step, cause))
        self._unhandled.add(step.slot)
        upstream = self.steps.get(cause.slot)
        self._emit(
            event.StepFailed(
                slot=step.slot,
                address=step.call.address,
                op=step.call.op,
                code=cause.code,
                what=cause.what,
                blocked_by=upstream.call.address if upstream else "the program",
            )
        )
        self._end(step, StepState.BLOCKED, cause)

    def _adopt(self, step: Step, known: StoredOutcome) -> None:
        """Replay: the outcome is in the journal; nothing is executed, recorded or claimed."""
        value = known.value
        state = StepState.DONE
        if isinstance(value, Failed):
            state = StepState.FAILED
            self._unhandled.add(step.slot)
        self._end(step, state, value)

    def _end(self, step: Step, state: StepState, value: Value) -> None:
        step.state = state
        self._open.remove(step.order)
        if isinstance(value, Failed):
            step.failure = value
        claim = self._claims.pop(step.slot, None)
        if claim is not None:
            self._to_check.extend(self._scoreboard.release(claim))
        self._resolutions.append((step.slot, value))

    def _close_if_over(self) -> None:
        if self._stopping:
            if not any(self._running.values()):
                self._work.closed = self._stopping
            return
        if self._open:
            return
        if not self._evaluator.finished:
            raise InternalError(
                "run_stuck",
                "every step has ended but the program has not",
                "A value is pending that no step will deliver.",
                "Please report this with the program.",
            )
        whole = not self.failures() and not self._evaluator.unreached
        self._work.closed = "done" if whole else "partial"

    @property
    def waits_for_person(self) -> bool:
        """Nothing runs or will run before a question is answered."""
        return (
            not any(self._running.values())
            and not self._timers
            and any(step.state is StepState.HELD for step in self.steps.values())
        )

    def failures(self) -> list[Step]:
        """Steps that failed or were blocked, and that no attempt() or ok() accepted, in order."""
        found = [self.steps[slot] for slot in self._unhandled]
        return sorted(found, key=lambda step: step.order)

    def _emit(self, happened: event.Event) -> None:
        self._work.events.append(happened)


def preview(value: Value, width: int = 100) -> str:
    """A short line that shows a value to a person."""
    shown = plain(value) if first_failure(value) is None else "failed"
    match shown:
        case str():
            text = " ".join(shown.split())
        case dict():
            text = ", ".join(f"{key}={item}" for key, item in shown.items())
        case list():
            text = f"{len(shown)} items"
        case _:
            text = str(shown)
    return text if len(text) <= width else text[: width - 1] + "…"
