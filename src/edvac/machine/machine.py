"""`Machine`: a workspace in which programs run, resume and deliver."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edvac.compiler import PLANNER_VERSION
from edvac.control import ControlUnit, Limits, Record, Replay, StepState
from edvac.control.predictor import Decided
from edvac.control.worker import Brief
from edvac.core import event
from edvac.core.seams import Clock, Entropy, SystemClock, SystemEntropy, iso_date
from edvac.core.value import Value
from edvac.device import (
    AskPerson,
    Browser,
    Databases,
    Device,
    Documents,
    Events,
    Files,
    Grants,
    Human,
    Processes,
    Roots,
)
from edvac.guard import Rules
from edvac.guard.load import NAME, load
from edvac.machine import apps, compensate
from edvac.machine.budget import UNLIMITED, Budget
from edvac.machine.child import DoWork, Surroundings
from edvac.machine.children import Children
from edvac.machine.conditions import past_of, trail_record
from edvac.machine.desk import Desk
from edvac.machine.driver import LEASE_S, Answer, Driver, Execute, Front, Look
from edvac.machine.entry import Entry
from edvac.machine.every import occurrence_key
from edvac.machine.executor import Execution, Executor
from edvac.machine.extending import Extending
from edvac.machine.fleet.errands import Fleet
from edvac.machine.fleet.travel import Travelling
from edvac.machine.growth import Growth, Writer
from edvac.machine.guarding import Guard
from edvac.machine.history import History, read_history
from edvac.machine.job import Job, begin, history_to_resume, program_parameters, run_name
from edvac.machine.ledger import Ledger, encode
from edvac.machine.notify import Waiting, notify
from edvac.machine.overlay import Overlay
from edvac.machine.previous import left_out, mentions_previous, previous_run, reuse_key
from edvac.machine.questions import nobody
from edvac.machine.report import Report, another_model, closed, note_rate, report_of
from edvac.machine.sites import browser_of, policy_of
from edvac.machine.storage import Storage
from edvac.processor import Processor
from edvac.program import Evaluator, Fuel, Program, parse
from edvac.store import Lease, RunInfo, Store

QUESTIONS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class _Again:
    """How a run goes on."""

    retry: bool
    budget: Budget


@dataclass(slots=True)
class Terminal:
    """How a run reaches people: events out, questions to somebody who may answer.

    Attributes:
        sample: elements of each outermost loop that are done before the run waits for a person who
            looks at them; 0 does all. `looks` says whether it may go on; without it the run parks.
        read_only: what writes, leaves the machine or asks a person is held back.
    """

    emit: event.Emit = lambda _: None
    answer: Answer | None = None
    ask: AskPerson | None = None
    sample: int = 0
    looks: Look | None = None
    read_only: bool = False
    on_driver: Callable[[Driver], None] = lambda _: None

    @property
    def attended(self) -> bool:
        return self.ask is not None or self.looks is not None


class Machine(Desk):
    """One open workspace. Use it as a context manager, from one event loop.

    Args:
        processor: executes model steps (the role *work*).
        plan: writes programs; the same as `processor` unless another is given.
        escalate: asked once where an answer did not fit its type twice.
        at_once: model steps in flight; 0 lets the processor decide.
        devices: further devices by name, beside the ones that come with edvac.
        notify: command and arguments to call when a run waits for a person.
        ahead: run ahead of undecided conditions where places are free.
        store: where runs are kept; the workspace's own directory unless given.
        workers: how to reach workers on other machines, which then do the steps that can travel.
        sites: what the pages of a browser may do beyond what programs spell.
    """

    def __init__(
        self,
        workspace: Path,
        processor: Processor,
        *,
        plan: Processor | None = None,
        escalate: Processor | None = None,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        at_once: int = 0,
        devices: Mapping[str, Device] | None = None,
        notify: Sequence[str] = (),
        ahead: bool = True,
        store: Storage | None = None,
        workers: Fleet | None = None,
        sites: Grants | None = None,
    ) -> None:
        self.ahead = ahead
        self.workers = workers
        self.sites = sites or Grants()
        self.browser: Callable[[str], Browser] = lambda text: browser_of(text, self.sites)
        self.guard: Callable[[Rules], Guard] = Guard  # of a run, and of its workers
        self.executes: Callable[[Execute], Execute] = lambda execute: execute
        self._notify = tuple(notify)
        self.workspace = workspace
        self.processor = processor
        self.plan = plan or processor
        self.escalate = escalate
        self.devices = dict(devices or {})
        self.apps = apps.approved(workspace)
        self.catalogue = apps.catalogue(self.apps, self.devices)
        self.rules = load(workspace / NAME, self.catalogue)
        self.clock = clock or SystemClock()
        self.entropy = entropy or SystemEntropy()
        self._at_once = at_once
        self._verified: Program | None = None
        self.ledger = Ledger(lambda: (store or Storage(workspace)).open(clock))

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.ledger.close()

    async def run(self, job: Job, terminal: Terminal | None = None) -> Report:
        """Run a program to its end; raises what `create` does."""
        return await self._drive(await self.create(job), terminal or Terminal())

    async def create(self, job: Job) -> str:
        """Store a run without beginning it: `resume` does that, here or in another process.

        Raises:
            ProgramError: the program is not legal; nothing was stored.
            ConfigError: an input directory or a setting is wrong; nothing was stored.
        """
        program = self._verified = parse(job.program, self.catalogue)
        program_parameters(program, job.settings)
        Roots(dict(job.roots)).close()
        await self.processor.open()  # a run records which model it is for
        if job.task:
            await self.plan.open()
        run = run_name(job, self.entropy)
        return await self.ledger.call(lambda store: self._create(store, run, job, program))

    def verified(self, text: str) -> Program:
        """The program of a run. The one created last was verified then."""
        known = self._verified
        return known if known and known.text == text else parse(text, self.catalogue)

    async def run_as_written(
        self, job: Job, write: Writer, terminal: Terminal | None = None
    ) -> Report:
        """Run a program while it is being written: steps that only read or compute begin as soon
        as their line is accepted, everything else when the program is whole.

        Args:
            write: writes the program, calling its argument with each draft; see `Planner.plan`.

        Raises:
            ProgramError: no legal program came out; the run is cancelled.
        """
        Roots(dict(job.roots)).close()
        program = parse("", self.catalogue)
        await self.processor.open()
        await self.plan.open()
        run = run_name(job, self.entropy)
        await self.ledger.call(lambda store: self._create(store, run, job, program, growing=True))
        growth = Growth(write, self.catalogue)
        terminal = terminal or Terminal()
        report = await self._drive(run, terminal, growth=growth)
        if report.state != "replanned":
            return report
        terminal.emit(event.Note(text="the plan was changed after steps had begun; starting over"))
        return await self.run(replace(job, program=await growth.text()), terminal)

    async def resume(
        self,
        run: str,
        terminal: Terminal | None = None,
        *,
        retry: bool = False,
        budget: Budget = UNLIMITED,
    ) -> Report:
        """Go on with a run; with `retry`, what failed is tried again.

        Args:
            budget: for the whole run, instead of what it had of the same kind; stays with it.

        Raises:
            UsageError: there is nothing to go on with.
            LeaseError: another process is running it.
        """
        info, _ = await self.ledger.call(lambda store: history_to_resume(store, run, retry=retry))
        return await self._drive(info.id, terminal or Terminal(), again=_Again(retry, budget))

    async def undo_effects(self, run: str, terminal: Terminal | None = None) -> Report:
        """Take back what a run has done outside, the latest first, by the steps that its program
        names with ``undo=``; again does the rest. The run itself goes on no more.

        Raises:
            UsageError: there is nothing to undo, or it is undone.
            LeaseError: somebody works on the run.
        """
        owner = self._owner()
        name = await self.ledger.call(
            lambda store: compensate.prepare(store, run, self.catalogue, self.clock, owner)
        )
        history = await self.ledger.call(lambda store: read_history(store, name, lazy=True))
        unknown = history.opened["unknown"]
        if unknown and terminal is not None:
            text = f"nobody knows whether these took effect, and they stay: {', '.join(unknown)}"
            terminal.emit(event.Note(text=text, level="warning"))
        return await self.resume(name, terminal, retry=True)

    def _create(
        self, store: Store, run: str, job: Job, program: Program, *, growing: bool = False
    ) -> str:
        wall = self.clock.wall()
        info = RunInfo(run, wall, task=job.task, program=program.digest, title=job.title)
        lease = begin(store, info, f"pid {os.getpid()} {run}", LEASE_S)
        if lease is None:
            return run
        name = job.name or job.task or program.digest
        opened = {
            "task": job.task,
            "settings": dict(job.settings),
            "roots": {name: str(path.resolve()) for name, path in job.roots.items()},
            "output": str(job.output.resolve()) if job.output else "",
            "date": iso_date(wall),
            "seed": job.seed or int(self.entropy.token(4), 16),
            "fresh": job.fresh,
            "budget": job.budget.stored(),
            "model": self.processor.identity,
            "model_name": job.model,
            "escalate_name": job.escalate_model,
            "shared": [list(pair) for pair in job.shared],
            "name": name,
            "growing": growing,
            "planner": self._planner() if job.task else "",
        }
        before = previous_run(store, name, growing or mentions_previous(program.text))
        opened["left_out"] = before.left_out
        records = [
            Record("opened", "", opened, before.value, reuse_key=occurrence_key(job.occurrence)),
            Record("program", "", {"text": program.text}),
        ]
        store.append(lease, [encode(store, record) for record in records])
        store.release(lease)
        return run

    async def _drive(
        self,
        run: str,
        terminal: Terminal,
        *,
        again: _Again | None = None,
        growth: Growth | None = None,
    ) -> Report:
        wall, start = self.clock.wall(), self.clock.now()
        owner = self._owner()
        lease = await self.ledger.call(lambda store: store.acquire(run, owner, LEASE_S, wall))
        try:
            if again is not None:
                await self.ledger.call(lambda store: store.set_state(lease, "open"))
            history = await self.ledger.call(lambda store: read_history(store, run))
            if again is not None and again.budget:
                history.budget = history.budget.raised(again.budget)
                given = Record("approved", "", {"verdict": "budget"} | history.budget.stored())
                await self.ledger.commit(lease, [given])
            session = await self._session(run, history, terminal)
            try:
                await self.processor.open()
                self._say_what_differs(history.opened, terminal, begins=again is None)
                if again is not None and again.retry:
                    await self._forget_failures(lease, session, history)
                replay = history.replay()
                history.entries.clear()  # what is needed of them is in the replay
                unit = session.unit(replay, self._at_once, growing=growth is not None)
                driver = await session.driver(unit, lease, replay.outcomes)
                if growth is not None:
                    growth.begin(driver)
                state = await driver.run(
                    lambda: terminal.emit(
                        event.RunOpened(
                            run=run,
                            task=history.opened["task"],
                            program=history.program,
                            resumed=again is not None,
                            replayed=unit.replayed,
                        )
                    )
                )
                report = report_of(run, state, self.clock.now() - start, unit)
                await session.apps.close()
                met = [*session.browser.contacted(), *session.apps.contacted()]
                contacted = await self._record_end(lease, report, unit, history, met)
                await session.travelling.end()
                if growth is None and not terminal.sample and not terminal.read_only:
                    model = history.opened["model_name"]
                    note_rate(model, self.processor, report, unit, replay.usage)
                terminal.emit(closed(report, unit, contacted))
            finally:
                await session.close()
            if growth is not None:
                await growth.end(report.state)
        finally:
            await self.ledger.call(lambda store: store.release(lease))
        if report.state == "waiting" and self._notify and not report.asleep:
            await self._tell(report, terminal)
        return report

    async def _session(self, run: str, history: History, terminal: Terminal) -> _Session:
        before = (await self.ledger.call(lambda store: store.run(run))).seconds
        session = _Session(self, run, history, terminal, before)
        undoes, name = history.opened.get(compensate.UNDOES), history.opened.get("name", "")
        if undoes:
            session.given = await self.ledger.call(
                lambda store: compensate.operands(store, undoes, self.catalogue)
            )
        session.past = await self.ledger.call(lambda store: past_of(store, name))
        return session

    def _say_what_differs(
        self, opened: Mapping[str, Any], terminal: Terminal, *, begins: bool
    ) -> None:
        if begins and opened.get("left_out"):
            terminal.emit(event.Note(text=left_out(opened["left_out"])))
        if opened["model"] != self.processor.identity:
            terminal.emit(another_model(opened["model"], self.processor.identity))

    async def _tell(self, report: Report, terminal: Terminal) -> None:
        waiting = Waiting(report.run, report.counts["questions"])
        wrong = await notify(self._notify, waiting, self.workspace)
        if wrong:
            terminal.emit(event.Note(text=f"nobody was notified: {wrong}", level="warning"))

    async def _forget_failures(self, lease: Lease, session: _Session, history: History) -> None:
        """Begin a retry, durably. A unit that executes nothing finds out first which failures
        nobody handled: only those are forgotten."""
        unit = session.unit(history.replay(), self._at_once)
        unit.start(self.clock.now())
        retry = Record.retry(step.slot for step in unit.failures())
        await self.ledger.commit(lease, [retry])
        history.entries.append(Entry(0, retry.kind, "", dict(retry.body)))

    def _contacted(self, history: History) -> list[str]:
        """What was connected to for this run, planning and earlier drives included. Of two runs at
        the same time in one machine the first to end names it all."""
        roles = [self.plan, self.processor, *([self.escalate] if self.escalate else [])]
        now = [endpoint for role in roles for endpoint in role.contacts.take()]
        return list(dict.fromkeys([*history.contacted, *now]))

    def _owner(self) -> str:
        """A name for one owner: two drives of one run in one process must not both own it."""
        return f"pid {os.getpid()} {self.entropy.token(4)}"

    async def _record_end(
        self,
        lease: Lease,
        report: Report,
        unit: ControlUnit,
        history: History,
        met: Collection[str],
    ) -> list[str]:
        """Close the journal; an interrupted or waiting run stays open, so that it can go on.
        Returns what was contacted, which is recorded either way."""
        contacted = list(dict.fromkeys([*self._contacted(history), *met]))
        state = "cancelled" if report.state in ("replanned", "unplanned") else report.state
        if state not in ("done", "partial", "cancelled"):
            if contacted != history.contacted:
                noted = {"verdict": "contacted", "contacted": contacted}
                await self.ledger.commit(lease, [Record("approved", "", noted)])
            await self.ledger.call(
                lambda store: store.set_state(
                    lease, "open", seconds=unit.seconds, counts=report.counts
                )
            )
            return contacted
        body: dict[str, Any] = {"state": state, "seconds": round(report.seconds, 3)} | report.counts
        failed = [step.slot for step in report.failures if step.state is StepState.FAILED]
        body["unhandled"] = failed
        body["contacted"] = contacted
        # Found by the next run of this program; see `previous` and `conditions`.
        name = history.opened.get("name", "")
        key = reuse_key(name) if state == "done" else ""
        records = [Record("closed", "", body, reuse_key=key)]
        if name and unit.conditions:
            records.insert(0, trail_record(name, unit.conditions))
        await self.ledger.commit(lease, records)
        await self.ledger.call(
            lambda store: store.set_state(
                lease,
                state,  # type: ignore[arg-type]
                closed=self.clock.wall(),
                seconds=unit.seconds,
                counts=report.counts,
            )
        )
        return contacted

    def known_program(self, task: str) -> str | None:
        """The program of an earlier run that the same model wrote for the same task, and that came
        to an end. `plan` has to be open."""
        runs = self.ledger.call_now(lambda store: store.runs(200, ("done", "partial")))
        for info in runs:
            if task and info.task == task:
                history = self.history(info.id)
                if history.whole and history.opened.get("planner") == self._planner():
                    return history.program
        return None

    def _planner(self) -> str:
        """What decides the plan of a task: the model and the planner's own version."""
        return f"{PLANNER_VERSION} {self.plan.identity}"


class _Session:
    """The parts of one run that live as long as it is driven."""

    def __init__(
        self, machine: Machine, run: str, history: History, terminal: Terminal, before: float
    ) -> None:
        opened = history.opened
        self._budget = history.budget
        self._previous = history.previous
        self._before = before
        self.past: list[Decided] = []
        self.given: dict[str, Value] = {}  # parameters that are no settings
        self._at_once: dict[str, int] = {}
        self._machine = machine
        self._run = run
        self._opened = opened
        self._terminal = terminal
        self._program = machine.verified(history.program)
        inputs = {name: Path(path) for name, path in opened["roots"].items()}
        self._roots = Roots(inputs)
        files = self._files = Files(self._roots, Overlay(machine.ledger, run, inputs))
        self._documents = Documents(files)
        self.devices: dict[str, Device] = {"files": files, "doc": self._documents}
        self._databases = self.devices["sql"] = Databases(files)
        self._processes = Processes(files)
        self.browser = self.devices["browser"] = machine.browser(history.program)
        self.devices |= {"python": self._processes, "shell": self._processes}
        self.devices |= {"human": Human(terminal.ask or nobody), "event": Events()}
        kept = apps.Kept(run, machine.apps, machine.ledger, machine.clock, terminal.ask)
        place, rules = machine.workspace, machine.rules
        self.apps = apps.RunApps(machine.apps, place, rules, self._program, kept)
        self.devices |= self.apps.devices | machine.devices
        self.travelling = Travelling(machine.workers, machine.ledger, machine.clock, terminal.emit)

    def unit(self, replay: Replay, at_once: int, *, growing: bool = False) -> ControlUnit:
        settings = program_parameters(self._program, self._opened["settings"]) | self.given
        date = dt.date.fromisoformat(self._opened["date"])
        cores, here = os.cpu_count() or 1, at_once or self._machine.processor.concurrency
        self._at_once = {"llm": here, "python": cores, "shell": cores}
        self._at_once |= dict.fromkeys(("human", "signal", "wait"), QUESTIONS_AT_ONCE)
        self._at_once |= self.travelling.at_once(at_once)
        limits = Limits(
            tokens=self._budget.tokens,
            money=self._budget.money,
            seconds=self._budget.seconds,
            before=self._before,
            slow_start=1,
            sample=self._terminal.sample,
            read_only=self._terminal.read_only,
            escalate=self._machine.escalate is not None,
            ahead=self._ahead(),
            at_once=self._at_once,
        )
        guard = self._machine.guard(self._machine.rules)
        unit = ControlUnit(
            lambda host: Evaluator(
                self._program,
                host,
                settings,
                date,
                Fuel(),
                previous=self._previous,
                grows=self._machine.catalogue,
            ),
            replay,
            limits,
            policy_of(guard, self._machine.rules, self._program.text, self._machine.sites),
            growing=growing,
            past=self.past,
        )
        return guard.watching(unit, replay.accepted)

    def _ahead(self) -> frozenset[str]:
        """Devices that nothing leaves the machine by. What is limited is not spent on guesses."""
        if not self._machine.ahead or self._budget:
            return frozenset()
        model = {"llm"} if self._machine.processor.local else set()
        return frozenset({"files", "doc", "sql", "python", "shell"} | model)

    async def driver(
        self, unit: ControlUnit, lease: Lease, journalled: Collection[str] = ()
    ) -> Driver:
        machine, opened, terminal = self._machine, self._opened, self._terminal
        processor, escalate = machine.processor, machine.escalate
        if machine.workers is not None:
            self._processes.carry = await self.travelling.begin(lease, journalled)
            processor = self.travelling.processor(processor)
            escalate = self.travelling.processor(escalate) if escalate else None
        execution = Execution(
            self._run,
            opened["seed"],
            opened["task"],
            opened["fresh"],
            terminal.emit,
            self._files.behind,
            self._files.inside,
            self._files.read_of,
            "online" if terminal.attended else "offline",
            escalate,
            limited=self.travelling.limited.union(self.apps.devices),
            extending=Extending(self._program.text, machine.plan, machine.catalogue, terminal.emit),
        )

        def executor(run: str, brief: Brief | None, child: DoWork | None = None) -> Executor:
            told = replace(execution, run=run, brief=brief, child=child)
            return Executor(self.devices, processor, machine.ledger, machine.clock, told)

        asks = terminal.ask is not None
        front = Front(machine.clock, terminal.emit, terminal.answer, asks, terminal.looks)
        around = Surroundings(
            self._run,
            dt.date.fromisoformat(opened["date"]),
            opened["seed"],
            machine._owner,
            machine.ledger,
            machine.clock,
            machine.catalogue,
            self._at_once,
            machine.processor,
            executor,
            machine.guard(machine.rules),
        )
        own = executor(self._run, None, Children(around).do)
        made = Driver(unit, machine.ledger, lease, machine.executes(own.execute), front)
        terminal.on_driver(made)
        return made

    async def close(self) -> None:
        await self.travelling.close()
        await self._documents.close()
        await self._databases.close()
        await self.browser.close()
        await self.apps.close()
        self._roots.close()
