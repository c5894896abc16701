"""The control unit's core: a state machine over steps, driven by events, doing no input or output.

Call `start`, then whatever happens (`finished`, `tick`, `answer`, `cancel`); each returns a `Work`:
records to make durable first, then intents to execute, executions to abort, questions to ask and
the time of the next `tick`. Nothing that depends on an outcome may leave the process before the
outcome's record is durable; the driver keeps to that by committing `Work.records` before it acts on
the rest.

After a crash the same program, parameters and journalled outcomes are handed to a new unit: steps
whose outcome is known resolve without being executed, once their operands are seen to be the ones
that the outcome was computed from.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from edvac.control import notices
from edvac.control.absence import Absence
from edvac.control.access import claimed_access, unfit, whole_access
from edvac.control.ahead import NOTE, Room, RunAhead, Surroundings, key_of
from edvac.control.external import ExternalOrder
from edvac.control.journal import Record, Replay, StoredOutcome, diverged
from edvac.control.outlook import Outlook
from edvac.control.predictor import Decided, Predictor
from edvac.control.question import approval, question_key
from edvac.control.scoreboard import Claim, OpenOrders, Order, Scoreboard
from edvac.control.step import (
    Failure,
    Intent,
    Limits,
    Outcome,
    Result,
    Step,
    StepState,
    answer_kind,
    operand_digest,
)
from edvac.control.unwritten import Unwritten
from edvac.control.work import Work
from edvac.core import event
from edvac.core.errors import InternalError
from edvac.core.label import PUBLIC, Label
from edvac.core.result import result_of
from edvac.core.signature import Access
from edvac.core.value import (
    Cell,
    Failed,
    Value,
    completed,
    first_failure,
    open_cells,
)
from edvac.guard import Ask, Deny, Policy, Verdict, decide
from edvac.program import Evaluator, Program, StepCall
from edvac.program.host import Branch, Condition

EvaluatorOf = Callable[["ControlUnit"], Evaluator]
ABORTED = "aborted"  # code of a failure that says only that the execution was told to stop


class ControlUnit(Outlook):
    """Issue, hazards, retire. One object per run; not thread-safe.

    Args:
        growing: the program is still being written; `alone`: by what its own steps come to.
    """

    def __init__(
        self,
        evaluator: EvaluatorOf,
        replay: Replay,
        limits: Limits,
        policy: Policy = decide,
        *,
        growing: bool = False,
        alone: bool = False,
        past: Sequence[Decided] = (),
    ) -> None:
        self._drafted, self._alone = growing, alone
        self._answered = False  # has the model answered in this drive?
        self._replay = replay
        self._limits = limits
        self._policy = policy
        self._scoreboard = Scoreboard()
        self._claims: dict[str, Claim] = {}
        self._regions: dict[int, Claim | None] = {}
        self._region_orders: dict[int, Order] = {}
        self._region_count = 0
        self._open = OpenOrders()
        self._resolutions: deque[tuple[str, Value]] = deque()
        self._to_check: deque[str] = deque()
        self._ready: dict[str, list[tuple[Order, str]]] = {}
        self._running: Counter[str] = Counter()  # by device and by op
        self._issued: dict[str, Step] = {}
        self._held: set[str] = set()
        self._asking: set[str] = set()  # steps with an open question
        self._unpaid: list[str] = []  # ready, and held back by a budget
        self._absence = Absence(limits.patience_s)
        self._retrying = 0  # steps of the run's model that keep their place meanwhile
        self._later: list[str] = []  # ready, and not in the sample
        self._answers = Counter(replay.answered)
        self._began = 0.0
        self._timers: list[tuple[float, str]] = []
        self._unhandled: dict[str, Step] = {}
        self._doubtful = set(replay.unknown)
        self._unwritten = Unwritten()
        self._stopping = ""
        self._now = 0.0
        self._work = Work()
        self.steps: dict[str, Step] = {}
        self._in_order = ExternalOrder(self._open, self._unhandled, self.steps)
        around = Surroundings(self.steps, self._spare, self._scoreboard.conflicts)
        self._ahead = RunAhead(Predictor(past), policy, limits.ahead, around)
        self.usage = replay.usage
        self.reused = 0
        self.replayed = 0
        self._evaluator = evaluator(self)

    # -- what happens -------------------------------------------------------------------------

    def start(self, now: float) -> Work:
        self._now = self._began = now
        self._evaluator.start(None if self._replay.outcomes else self._limits.met)
        return self._pump()

    def finished(self, outcomes: Iterable[tuple[str, Outcome]], now: float) -> Work:
        """Executions came back, each by its name. Outcomes of steps that are no longer running are
        ignored."""
        self._now = now
        for name, outcome in outcomes:
            step = self._issued.pop(self._ahead.finished(name, outcome), None)
            if step is None:
                continue
            self._leave(step)
            if step.call.signature.device == "llm":
                self._answered = True
                for free in self._absence.listen(step, outcome, now):
                    self._queue(free)
            if isinstance(outcome, Result):
                self._retire(step, outcome)
            else:
                self._fail_or_retry(step, outcome)
        return self._pump()

    def extend(
        self, program: Program, now: float, *, whole: bool, decided_by: Label = PUBLIC
    ) -> Work:
        """More of the program has been written. Until it is whole, steps that only read or compute
        run ahead; what writes or leaves the machine waits. See `Evaluator.extend`."""
        self._now = now
        self._drafted = not whole
        self._evaluator.extend(program, decided_by)
        return self._pump()

    def tick(self, now: float) -> Work:
        self._now = now
        self._evaluator.meet(self._limits.met)
        while self._timers and self._timers[0][0] <= now:
            _, slot = heapq.heappop(self._timers)
            step = self.steps[slot]
            if step.state is StepState.RETRYING:
                step.state = StepState.READY
                self._retrying -= self._keeps_place(step)
                self._queue(step)
        return self._pump()

    def answer(self, slot: str, yes: bool, now: float) -> Work:
        """A person answered a question of the guard or about an unknown outcome."""
        self._now = now
        if slot in self._held:
            step = self.steps[slot]
            self._held.discard(slot)
            self._asking.discard(slot)
            self._answers[slot] += 1
            self._work.records.append(Record.approved(step, "yes" if yes else "no"))
            if yes:
                step.approved = True
                step.state = StepState.READY
                self._to_check.append(slot)
            else:
                why = "A person was asked and said no."
                self._fail(step, Failure("denied_by_person", "this step was not approved", why))
        return self._pump()

    def go_on(self, now: float) -> Work:
        """The sample, or what the run would do, was looked at: the rest too."""
        self._now = now
        self._limits = replace(self._limits, sample=0, read_only=False)
        later, self._later = self._later, []
        for slot in later:
            self._queue(self.steps[slot])
        return self._pump()

    def cancel(self, now: float, reason: str = "cancelled") -> Work:
        """Abort what runs, issue nothing more. What is finished stays finished."""
        self._now = now
        self._stopping = reason
        self._work.aborts.extend(step.key or step.slot for step in self._issued.values())
        return self._pump()

    # -- the evaluator's host -----------------------------------------------------------------

    def step(self, call: StepCall) -> Cell:
        """A call was reached. Its operands may be pending."""
        if call.slot in self.steps:
            raise InternalError("slot_twice", f"two steps have one slot ({call.address})")
        cell = Cell(call.slot)
        step = Step(call)
        self.steps[call.slot] = step
        self._open.add(call.order)
        claim = self._scoreboard.claim(call.order, claimed_access(call.static))
        if claim is not None:
            self._claims[call.slot] = claim
        if call.slot not in self._replay.outcomes:
            self._emit(event.StepWaiting(slot=call.slot, address=call.address, op=call.op))
        self._await_operands(step)
        return cell

    def open_region(self, order: Order, access: Access) -> int:
        self._region_count += 1
        token = self._region_count
        self._region_orders[token] = order
        self._open.add(order)
        self._regions[token] = self._scoreboard.claim(order, claimed_access(access))
        return token

    def close_region(self, token: int) -> None:
        claim = self._regions.pop(token)
        self._open.remove(self._region_orders.pop(token))
        if claim is not None:
            self._to_check.extend(self._scoreboard.release(claim))

    def passed(self, order: Order, access: Access, decider: Label) -> None:
        self._unwritten.passed(order, access, decider)

    def undecided(self, branch: Branch) -> None:
        self._ahead.met(branch)

    def decided(self, condition: Condition, taken: bool | None) -> None:
        self._ahead.decided(condition, taken)

    def handled(self, failed: Failed) -> None:
        """attempt() or ok() accepted a failure: it and the steps that only passed it on count no
        longer."""
        self._unhandled.pop(failed.slot, None)
        at = failed.origin
        while at is not None and at in self.steps:
            step = self.steps[at]
            self._unhandled.pop(at, None)
            at = step.failure.origin if step.state is StepState.BLOCKED and step.failure else None

    # -- inside -------------------------------------------------------------------------------

    def _pump(self) -> Work:
        """Run until nothing more can be done without the outside."""
        while True:
            self._settle()
            if self._stopping:
                break
            self._try_external()
            self._issue()
            if not self._resolutions and not self._to_check and not self._give_up_external():
                break
        self._run_ahead()
        self._close_if_over()
        work, self._work = self._work, Work()
        work.wake_at = self._due
        return work

    def _run_ahead(self) -> None:
        """Use places that nothing of the run needs now."""
        if not (self._stopping or self._growing or self._limits.sample):
            self._work.intents.extend(self._ahead.advance())
        self._work.aborts.extend(self._ahead.take_aborts())

    def _spare(self, device: str) -> Room:
        away = device == "llm" and self._absence.why is not None
        limit = 0 if away else self._room(device)
        taken = self._running[device] + len(self._ready.get(device, ()))
        return Room(max(0, limit - taken), limit)

    def _settle(self) -> None:
        while self._resolutions or self._to_check:
            while self._resolutions:
                self._evaluator.resolve(*self._resolutions.popleft())
            while self._to_check and not self._resolutions:
                step = self.steps[self._to_check.popleft()]
                if step.state is StepState.WAITING:
                    self._await_operands(step)
                elif step.state is StepState.READY:
                    self._try(step)

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
            if (failure := first_failure(operand)) is not None:
                self._block(step, failure)
                return
        step.digest = operand_digest(step.values)
        self._unwritten.addressed(step)
        known = self._replay.outcomes.get(step.slot)
        if known is None or not self._adopt(step, known):
            self._make_ready(step)

    def _make_ready(self, step: Step) -> None:
        """The operands are complete: whether they fit and what the step touches is now known
        exactly. A step whose outcome is in the journal does not come here: history stands."""
        if (wrong := unfit(step.call, step.values)) is not None:
            self._fail(step, wrong)
            return
        if self._limits.escalate:
            step.escalated = self._replay.escalated.get(step.slot) == step.digest
        step.access = whole_access(step.call, step.values)
        step.state = StepState.READY
        claim = self._claims.get(step.slot)
        if claim is not None:
            self._to_check.extend(self._scoreboard.narrow(claim, step.access))
        self._to_check.append(step.slot)

    def _try(self, step: Step) -> None:
        """A ready step: policy, then hazards, then the queue of its device."""
        if not step.approved:
            verdict = step.verdict = self._policy(step.call, step.values)
            if isinstance(verdict, Deny):
                self._fail(step, Failure.of(verdict.error))
                return
            agreed = self._replay.approved.get(step.slot) == step.digest
            doubtful = step.external and step.slot in self._doubtful
            if doubtful or (isinstance(verdict, Ask) and not agreed):
                self._hold(step, verdict, doubtful=doubtful)
                return
            step.approved = True
        hazard = self._scoreboard.hazard(step.order, step.access)
        if hazard is not None:
            hazard.waiters.append(step.slot)
        elif step.call.signature.in_turn:
            self._in_order.add(step)
        else:
            self._queue(step)

    def _hold(self, step: Step, verdict: Verdict, *, doubtful: bool) -> None:
        step.state = StepState.HELD
        step.question = question_key(
            step, "doubt" if doubtful else "guard", self._answers[step.slot]
        )
        self._held.add(step.slot)
        self._asking.add(step.slot)
        text = verdict.text if isinstance(verdict, Ask) else ""
        question = approval(step, text, doubtful=doubtful)
        if step.question not in self._replay.asked:
            self._work.records.append(Record.asked(step, question, doubt=doubtful))
        self._work.questions.append(question)
        self._emit(question)

    def _try_external(self) -> None:
        for step in () if self._growing else self._in_order.due():
            self._queue(step)

    def _give_up_external(self) -> bool:
        """Nothing moves: block an external step that waits for a failure in vain."""
        waiting = self._held or self._unpaid or self._absence.why or self._later or self._timers
        moving = self._issued or waiting or any(self._ready.values())
        if self._growing or moving or not self._in_order:
            return False
        if given_up := self._in_order.give_up():
            self._block(*given_up)
        return given_up is not None

    def _queue(self, step: Step) -> None:
        if done := self._ahead.claim(step):
            self._take_over(step, done)
            return
        ready = self._ready.setdefault(step.call.signature.device, [])
        heapq.heappush(ready, (step.order, step.slot))

    def _issue(self) -> None:
        for device, ready in self._ready.items():
            at_limit: list[tuple[Order, str]] = []
            while ready and self._running[device] < self._room(device):
                first = heapq.heappop(ready)
                step = self.steps[first[1]]
                limit = step.call.signature.limit
                if step.state is not StepState.READY:
                    continue
                if self._too_early(step) or (limit and self._running[step.call.op] >= limit):
                    at_limit.append(first)
                elif self._kept_back(step):
                    self._later.append(step.slot)
                elif self._over(step):
                    self._unpaid.append(step.slot)
                elif self._absence.meets(step):
                    self._absence.hold(step)
                else:
                    self._start(step)
            for left in at_limit:
                heapq.heappush(ready, left)

    def _kept_back(self, step: Step) -> bool:
        """Until somebody has looked: at the sample, or at what the run would do."""
        sample = self._limits.sample
        beyond = sample and (step.call.place or 0) >= sample
        return bool(beyond) or (self._limits.read_only and step.acts)

    def _too_early(self, step: Step) -> bool:
        """Of a program that may still be taken back."""
        return self._growing and step.lasting

    def _room(self, device: str) -> int:
        limit = self._limits.at_once.get(device, self._limits.default_at_once)
        if device != "llm":
            return limit
        slow = 0 if self._answered else self._limits.slow_start
        return min(limit, slow or limit) - self._retrying

    def _keeps_place(self, step: Step) -> bool:
        """While it waits for its next attempt: others of the same model would fare no better."""
        return step.call.signature.device == "llm" and not step.escalated

    def _take_over(self, step: Step, done: Result | bool) -> None:
        """The step has been executed ahead, or is being executed."""
        self._occupy(step)
        self._emit(notices.started(step))
        if isinstance(done, Result):
            del self._issued[step.slot]
            self._leave(step)
            self._retire(step, replace(done, notes=(*done.notes, NOTE)))
        else:
            step.key = key_of(step.slot, step.digest)

    def _occupy(self, step: Step) -> None:
        step.state = StepState.ISSUED
        step.attempt += 1
        self._issued[step.slot] = step
        self._running[step.call.signature.device] += 1
        self._running[step.call.op] += 1

    def _leave(self, step: Step) -> None:
        self._running[step.call.signature.device] -= 1
        self._running[step.call.op] -= 1

    def _start(self, step: Step) -> None:
        signature = step.call.signature
        step.key = ""
        self._occupy(step)
        if signature.person:
            step.question = question_key(step, "program", self._answers[step.slot])
            self._asking.add(step.slot)
        intent = Intent(
            step.call,
            step.values,
            step.access,
            step.digest,
            step.attempt,
            not step.may_repeat(self._limits),
            step.complaint,
            step.call.time_limit,
            step.escalated,
            question=step.question if signature.person else "",
        )
        if signature.noted:
            self._work.records.append(Record.intent(intent, step.verdict))
        self._work.intents.append(intent)
        self._emit(notices.started(step))

    # -- retire -------------------------------------------------------------------------------

    def _retire(self, step: Step, result: Result) -> None:
        operands, branch = step.operand_label, self._unwritten.decided(step)
        value = result_of(result.value, answer_kind(step.call, step.values), operands, branch)
        files = tuple(written.influenced(operands, branch) for written in result.files)
        result = replace(result, files=files)
        step.usage = step.usage + result.usage
        self.usage = self.usage + result.usage
        self.reused += result.reused
        self._answers[step.slot] += step.call.signature.person
        self._work.records.append(Record.result(step, value, result))
        self._work.events.extend(notices.finished(step, value, result))
        self._end(step, StepState.DONE, value)

    def _fail_or_retry(self, step: Step, failure: Failure) -> None:
        step.usage = step.usage + failure.usage
        self.usage = self.usage + failure.usage
        wait = 0.0
        again = (failure.retry and step.may_repeat(self._limits)) or failure.away
        repair = failure.repair and step.repairs < self._limits.repairs and not step.escalated
        escalate = failure.repair and not repair and self._may_escalate(step)
        if self._stopping and (again or repair or escalate or failure.code == ABORTED):
            step.state = StepState.READY  # nothing is recorded: the next resume tries again
            return
        if failure.away and not self._absence.patient(step, self._now):
            step.state = StepState.READY
            step.attempt = step.repairs
            if self._absence.hold(step, failure):
                self._emit(event.Note(text=f"model steps wait: {failure.what}", level="warning"))
            return
        if again:
            doubled = self._limits.backoff_s * 2 ** min(step.attempt - 1, 30)
            wait = max(min(doubled, self._limits.longest_wait_s), failure.wait_s)
        elif repair:
            step.repairs += 1
            step.complaint = failure.what
        elif escalate:
            step.escalated, step.complaint = True, ""
            self._work.records.append(Record.escalation(step))
        else:
            self._fail(step, failure)
            return
        step.state = StepState.RETRYING
        self._retrying += self._keeps_place(step)
        heapq.heappush(self._timers, (self._now + wait, step.slot))
        self._emit(notices.retried(step, failure, wait, escalated=escalate))

    def _may_escalate(self, step: Step) -> bool:
        """Only what has a type can be seen not to fit it."""
        typed = step.call.signature.function != "write"
        return self._limits.escalate and typed and not step.escalated

    def _fail(self, step: Step, failure: Failure) -> None:
        label = step.operand_label.steer(self._unwritten.decided(step)).steer(failure.seen)
        failed = Failed(step.slot, failure.code, failure.what, label)
        self._work.records.append(Record.failure(step, failed, failure))
        self._emit(notices.failed(step, failure))
        self._end(step, StepState.FAILED, failed)

    def _block(self, step: Step, cause: Failed) -> None:
        if step.slot not in self._replay.blocked:
            self._work.records.append(Record.blocked(step, cause))
        self._emit(notices.blocked(step, cause, self.steps.get(cause.slot)))
        self._end(step, StepState.BLOCKED, cause)

    def _adopt(self, step: Step, known: StoredOutcome) -> bool:
        """Replay: the outcome is in the journal and nothing is executed. False where a retry has
        changed the operands, so that the step has to be done again.

        Raises:
            InternalError: the operands are not those of the outcome, though nothing was retried.
        """
        if known.digest != step.digest:
            if not self._replay.edited:
                raise diverged(step.call.address)
            self._doubtful.add(step.slot)  # an external effect is not repeated unasked
            return False
        self.replayed += 1
        failed = isinstance(known.value, Failed)
        self._end(step, StepState.FAILED if failed else StepState.DONE, known.value)
        return True

    def _end(self, step: Step, state: StepState, value: Value) -> None:
        step.state = state
        self._asking.discard(step.slot)
        self._open.remove(step.order)
        if isinstance(value, Failed):
            step.failure = value
            self._unhandled[step.slot] = step
            self._unwritten.failed(step, value.label)
        claim = self._claims.pop(step.slot, None)
        if claim is not None:
            self._to_check.extend(self._scoreboard.release(claim))
        step.release()
        self._resolutions.append((step.slot, value))

    def _close_if_over(self) -> None:
        if self._stopping:
            if not self._issued:
                self._work.closed = self._stopping
            return
        if self._open or self._growing:
            return
        if not self._evaluator.finished:
            raise InternalError(
                "run_stuck",
                "every step has ended but the program has not",
                "A value is pending that no step will deliver.",
                "Please report this with the program.",
            )
        self._ahead.close()
        self._work.closed = "partial" if self._unhandled or self.unreached else "done"

    def _emit(self, happened: event.Event) -> None:
        self._work.events.append(happened)


__all__ = ["ABORTED", "ControlUnit", "EvaluatorOf", "Work"]
