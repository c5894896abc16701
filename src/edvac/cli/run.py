"""`edvac run` and `edvac resume`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edvac.cli import ui
from edvac.cli.approve import Approval, Plan
from edvac.cli.grants import Agreement
from edvac.cli.names import RUN, complete_model
from edvac.cli.source import Source, read_source
from edvac.cli.talk import Talk
from edvac.cli.ui import open_store
from edvac.core import errors, event
from edvac.machine import processors
from edvac.machine.budget import parse_budget, require_price
from edvac.machine.inputs import given_roots
from edvac.machine.storage import Storage, require_server

if TYPE_CHECKING:
    from edvac.cli.view import View
    from edvac.compiler import Planner
    from edvac.machine import Job, Machine, Report
    from edvac.machine.fleet.errands import Fleet
    from edvac.processor import Processor

EXAMPLES = """\b
Examples:
  edvac run "Read the invoices in inbox/ and write totals per vendor to totals.csv"
  edvac run totals.edv --set limit=500 --output out/
  edvac run --plan-only "..." > totals.edv
"""


# A run keeps what it has made: by default the collector goes through all of it again and again.
RUN_COLLECTS = (100_000, 20, 100)
_BUDGET_HELP = (
    "What the run may use: 100000 (tokens), 2.50USD, 10min, or several. What runs when it is spent "
    "still ends; the rest waits for `edvac resume --budget`."
)
_JSON_HELP = "Events as JSON lines on stdout; with --detach one document, and events on stderr."
_WORKERS_HELP = "Let workers of the store do the steps that can travel; see `edvac worker`."
_UNDO_HELP = "Take back what it did outside, by the steps that its program names with undo=."
_OUTPUT_HELP = "Apply the files there when the run has ended, also where some of it failed."


def _model(name: str, text: str) -> Any:
    return click.option(name, help=text, shell_complete=complete_model)


def common(command: Any) -> Any:
    """Options of everything that runs a model."""
    options = [
        _model("--model", "Model name, .gguf file, or URL#MODEL of an endpoint."),
        _model("--plan-model", "Another one that writes the program."),
        _model("--escalate-model", "One to ask where --model has failed twice."),
        click.option("--budget", multiple=True, metavar="AMOUNT", help=_BUDGET_HELP),
        click.option("--workers/--no-workers", default=None, help=_WORKERS_HELP),
        click.option("--detach", is_flag=True, help="Go on without this terminal."),
        click.option("--yes", "-y", is_flag=True, help="Approve the plan without asking."),
        click.option("--json", "as_json", is_flag=True, help=_JSON_HELP),
        click.option("--plain", is_flag=True, help="Plain lines instead of a live panel."),
        click.option("--debug", is_flag=True, hidden=True),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command(epilog=EXAMPLES)
@click.argument("task", default="")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter's value.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME=]DIRECTORY",
    help="A directory to read, under its own name or NAME. May be given several times.",
)
@click.option("--output", type=click.Path(path_type=Path), help=_OUTPUT_HELP)
@click.option("--plan-only", is_flag=True, help="Print the program and stop.")
@click.option("--sample", type=click.IntRange(min=1), help="Do so many items first, and show them.")
@click.option("--read-only", is_flag=True, help="Only read and compute; list what it would do.")
@click.option("--fresh", is_flag=True, help="Take no results from earlier runs.")
@click.option("--explain", is_flag=True, help="Say at the end why each step ran or did not.")
@click.option("--occurrence", default="", hidden=True)  # given by a schedule
@common
def run(task: str, **flags: Any) -> int:
    """Run TASK: a task in words, or the path of a program (.edv); - reads from stdin.

    What comes from stdin is a program if it is Python or has lines that look like it (NAME = ...,
    files.write(...), for NAME in ...:), and otherwise a task, of any number of lines.
    """
    return _carry_out(flags, lambda command: command.run(task))


@click.command()
@RUN
@click.option("--retry", is_flag=True, help="Try again what failed, and what that blocked.")
@click.option("--undo-effects", is_flag=True, help=_UNDO_HELP)
@common
def resume(run_id: str | None, retry: bool, undo_effects: bool, **flags: Any) -> int:
    """Go on with RUN (default: the latest); nothing that is finished runs again.

    The models and the budget are the run's own, unless others are given.
    """
    if undo_effects:
        return _carry_out(flags, lambda command: command.undo_effects(run_id))
    return _carry_out(flags, lambda command: command.resume(run_id, retry=retry))


def _carry_out(flags: dict[str, Any], work: Callable[[_Command], Coroutine[Any, Any, int]]) -> int:
    gc.set_threshold(*RUN_COLLECTS)
    command = _Command(flags)
    try:
        return asyncio.run(command.talk.whole(work(command)))
    finally:
        command.talk.view.__exit__(None, None, None)  # asking may have begun it anew


def read_settings(pairs: tuple[str, ...]) -> dict[str, str]:
    """``NAME=VALUE`` pairs."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or not name.isidentifier():
            raise errors.UsageError(
                "set_malformed", f"--set {pair!r} is not NAME=VALUE", "", "Such as --set limit=500."
            )
        found[name] = value
    return found


def check_output(output: Path | None) -> None:
    """Refuse early what could not be written at the end.

    Raises:
        ConfigError: something else is there, or it may not be written.
    """
    if output is None:
        return
    there = next(place for place in (output, *output.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "is no directory" if not there.is_dir() else "may not be written"
        raise errors.ConfigError(
            "output_unwritable",
            f"the output directory {str(output)!r} cannot be used",
            f"{str(there)!r} {why}.",
            "Name another with --output.",
        )


class _Command:
    """One invocation: its flags, its view, its way to the end."""

    def __init__(self, flags: dict[str, Any]) -> None:
        from edvac.cli.view import choose
        from edvac.machine import settings

        self._flags = flags
        self._workspace = ui.workspace()
        names = ("model", "plan_model", "escalate_model")
        chosen = {name: flags[name] for name in names}
        chosen["budget"] = ",".join(flags["budget"]) or None
        chosen["workers"] = {True: "on", False: "off"}.get(flags["workers"])
        self._settings, _ = settings.load(self._workspace, chosen)
        if self._settings.workers == "on":
            require_server(self._settings.store)
        self._given = parse_budget(flags["budget"], self._settings.currency)
        one_document = flags["as_json"] and (flags["detach"] or flags.get("plan_only", False))
        self._view: View = choose(
            plain=flags["plain"] or one_document, as_json=flags["as_json"] and not one_document
        )
        read_only = bool(flags.get("read_only"))
        self.talk = Talk(self._view, flags.get("sample") or 0, read_only=read_only)

    async def run(self, task: str) -> int:
        source = read_source(task)
        if self.talk.sample and self._flags["detach"]:
            raise errors.UsageError(
                "sample_detached",
                "a detached run shows no sample",
                "",
                "Leave out --detach for the sample; `edvac resume --detach` does the rest.",
            )
        values = read_settings(self._flags["settings"])
        check_output(self._flags["output"])
        given_roots(self._flags["inputs"])
        if source.text is not None:
            return await self._run_program(source, source.text, values)
        if self._flags["plan_only"]:
            return await self._plan_only(source.task, values)
        async with self._machine() as machine:
            await machine.plan.open()
            text = self._known(machine, source.task)
            if text is None and self._may_run_ahead():
                job = self._job("", source.task, values)
                return await self._drive(machine, await self._agreement().for_job(machine, job))
            if text is None:
                text = await self._planner(machine.plan).plan(source.task)
            plan = self._check(text, values)
            planner = self._planner(machine.plan)

            async def replan(text: str, remark: str) -> str:
                return await planner.revise(source.task, text, remark)

            plan = await self._approve(plan, values, source.task, replan)
            return await self._begin(machine, self._job(plan.text, source.task, values, plan.roots))

    async def _run_program(self, source: Source, text: str, values: dict[str, str]) -> int:
        """Nothing is opened or stored before the program is found to be legal and approved."""
        plan = self._check(text, values)
        if self._flags["plan_only"]:
            self._print_plan(plan, values, "")
            return 0
        if not self._flags["yes"]:
            plan = await self._approve(plan, values, "", None)
        async with self._machine() as machine:
            job = self._job(plan.text, source.task, values, plan.roots)
            return await self._begin(
                machine, replace(job, name=self._name(source), occurrence=self._flags["occurrence"])
            )

    def _name(self, source: Source) -> str:
        """A program file is the same program whatever is edited in it; a workspace may move."""
        return os.path.relpath(source.path.resolve(), self._workspace) if source.path else ""

    async def _begin(self, machine: Machine, job: Job) -> int:
        """Here, or in a process of its own that goes on with the stored run."""
        job = await self._agreement().for_job(machine, job)
        if not self._flags["detach"]:
            return await self._drive(machine, job)
        return self._detach(await machine.create(job), self._workers_again())

    def _agreement(self) -> Agreement:
        return Agreement(self._settings, self.talk.asker, self._view, yes=self._flags["yes"])

    def _detach(self, run: str, flags: list[str]) -> int:
        from edvac.machine.detach import log_path, start

        self._view.__exit__(None, None, None)
        log = log_path(self._workspace, run)
        start(["resume", run, "--plain", *flags], log)
        if self._flags["as_json"]:
            ui.out_json({"run": run, "log": str(log)})
        else:
            ui.out(f"run {run} goes on by itself; what it says goes to {log}")
            ui.out(f"Watch it with `edvac log -f {run}`, stop it with `edvac kill {run}`.")
        return errors.EXIT_DONE

    async def _plan_only(self, task: str, values: dict[str, str]) -> int:
        roles = processors.choose_roles(self._settings, self.talk.show)
        try:
            with self._view:
                await roles.plan.open()
                text = await self._planner(roles.plan).plan(task)
        finally:
            await roles.close()
        self._print_plan(self._check(text, values), values, task)
        return 0

    def _print_plan(self, plan: Plan, values: dict[str, str], task: str) -> None:
        """The program where programs go, and what it will do beside it."""
        if self._flags["as_json"]:
            ui.out_json({"program": plan.text})
            return
        ui.out(plan.text.rstrip())
        for line in self._described(plan, values, task, with_text=False):
            ui.err(line)

    def _job(
        self,
        text: str,
        task: str,
        values: dict[str, str],
        roots: dict[str, Path] | None = None,
    ) -> Job:
        from edvac.machine import Job

        return Job(
            text,
            task,
            roots if roots is not None else given_roots(self._flags["inputs"]),
            values,
            self._flags["output"],
            self._flags["fresh"],
            parse_budget(filter(None, [self._settings.budget]), self._settings.currency),
            model=self._settings.model,
            escalate_model=self._settings.escalate_model,
        )

    def _may_run_ahead(self) -> bool:
        """Steps may begin while the plan is being written: the user approved it unseen, and said
        what may be read."""
        flags = self._flags
        other = flags["plan_only"] or flags["settings"] or flags["detach"]
        return flags["yes"] and flags["inputs"] and not other

    def _known(self, machine: Machine, task: str) -> str | None:
        """The plan of an earlier run for the same task."""
        if self._flags["fresh"] or self._flags["plan_only"]:
            return None
        text = machine.known_program(task)
        if text is not None:
            self.talk.show(
                event.Note(text="the plan of an earlier run is used; --fresh plans anew")
            )
            for number, line in enumerate(text.rstrip().split("\n"), 1):
                self.talk.show(event.PlanLine(text=line, number=number))
        return text

    async def resume(self, run_id: str | None, *, retry: bool) -> int:
        """With the models that the run was begun with, unless others are named."""
        from edvac.machine.job import history_to_resume

        with open_store() as store:
            info, history = history_to_resume(store, run_id, retry=retry)
        opened, flags = history.opened, self._flags
        if flags["model"] is None and opened["model_name"]:
            self._settings = replace(self._settings, model=opened["model_name"])
        if flags["escalate_model"] is None:
            begun_with = opened.get("escalate_name", "")
            self._settings = replace(self._settings, escalate_model=begun_with)
        prices, budget = dict(self._settings.prices), history.budget.raised(self._given)
        require_price(self._settings.model, prices, budget)
        await self._agreement().for_run(info, history)
        if flags["detach"]:
            return self._detach(info.id, self._given_again(retry))
        async with self._machine() as machine:
            return await self._drive(machine, run=info.id, retry=retry)

    async def undo_effects(self, run_id: str | None) -> int:
        """Take back what the run has done outside; it goes on no more."""
        with open_store() as store:
            info = store.find_run(run_id)
        async with self._machine() as machine:
            report = await machine.undo_effects(info.id, self.talk.terminal(machine))
            self._view.__exit__(None, None, None)
            return self._finish(machine, report)

    def _given_again(self, retry: bool) -> list[str]:
        """The flags of this resume, for the process that carries it out."""
        names = ("model", "plan_model", "escalate_model")
        given = [(name.replace("_", "-"), self._flags[name]) for name in names]
        given += [("budget", amount) for amount in self._flags["budget"]]
        flags = [f"--{name}={value}" for name, value in given if value is not None]
        flags += self._workers_again()
        return [*flags, "--retry"] if retry else flags

    def _workers_again(self) -> list[str]:
        given = self._flags["workers"]
        return [] if given is None else ["--workers" if given else "--no-workers"]

    def _storage(self) -> Storage:
        """The workspace's store, which is waited for; the person is told, on the event loop."""
        loop = asyncio.get_running_loop()

        def waits(seconds: float) -> None:
            text = f"waiting for the store's server: it has been away for {seconds:.0f} s"
            note = event.Note(text=text, level="warning")
            loop.call_soon_threadsafe(self.talk.show, note)

        settings = self._settings
        return Storage(self._workspace, settings.store, float(settings.store_wait_s), waits)

    def _fleet(self) -> Fleet | None:
        from edvac.machine.fleet.postgresql import fleet

        settings = self._settings
        return fleet(float(settings.workers_wait_s)) if settings.workers == "on" else None

    @contextlib.asynccontextmanager
    async def _machine(self) -> AsyncIterator[Machine]:
        """The workspace with its model ready, and the view on it."""
        from edvac.machine import Machine
        from edvac.machine.sites import grants_of

        roles = processors.choose_roles(self._settings, self.talk.show)
        try:
            with self._view:
                await roles.work.open()
                store = self._storage()
                await asyncio.to_thread(store.reach)  # so that what it waits for is shown
                with Machine(
                    self._workspace,
                    roles.work,
                    plan=roles.plan,
                    escalate=roles.escalate,
                    at_once=self._settings.at_once,
                    notify=self._settings.notify,
                    ahead=self._settings.ahead == "on",
                    store=store,
                    workers=self._fleet(),
                    sites=grants_of(self._settings),
                ) as machine:
                    yield machine
        finally:
            await roles.close()

    def _planner(self, processor: Processor) -> Planner:
        """Writes programs, showing each line as it is accepted."""
        from edvac.compiler import Planner
        from edvac.machine.sight import FileSight
        from edvac.processor.patient import Patient

        patient = Patient(processor, lambda text: self.talk.show(event.Note(text=text)))
        sight = FileSight(given_roots(self._flags["inputs"]) or {"": Path.cwd()})
        return Planner(patient, ui.catalogue(), self.talk.show, sight=sight)

    def _check(self, text: str, values: dict[str, str]) -> Plan:
        """Verify, and find the directories that the program reads."""
        from edvac.machine.inputs import derived_roots, missing_directories
        from edvac.machine.job import program_parameters
        from edvac.program import parse

        program = parse(text, ui.catalogue())
        program_parameters(program, values)
        if self._flags["inputs"]:
            return Plan(text, given_roots(self._flags["inputs"]))
        for name in missing_directories(program.touches, Path.cwd()):
            note = f"the program reads {name}/, and there is no such directory here"
            self.talk.show(event.Note(text=note, level="warning"))
        return Plan(text, derived_roots(program.touches.reads, Path.cwd()))

    async def _approve(
        self,
        plan: Plan,
        values: dict[str, str],
        task: str,
        replan: Callable[[str, str], Awaitable[str]] | None,
    ) -> Plan:
        """Show what the program will do, and talk about it unless told not to."""

        def describe(plan: Plan, with_text: bool) -> list[str]:
            return self._described(plan, values, task, with_text=with_text)

        self._view.pause()
        with_text = replan is not None and not self._view.has_shown(plan.text)
        if self._flags["yes"]:
            self.talk.say(describe(plan, with_text))
        else:
            approval = Approval(
                self.talk.asker, describe, lambda text: self._check(text, values), replan
            )
            plan = await approval.agreed(plan, with_text=with_text)
            self.talk.sample = self.talk.sample or plan.sample
        self._view.resume()
        return plan

    def _described(
        self, plan: Plan, values: dict[str, str], task: str, *, with_text: bool
    ) -> list[str]:
        from edvac.cli.plan import describe_plan
        from edvac.machine.job import program_parameters
        from edvac.program import parse

        given = program_parameters(parse(plan.text, ui.catalogue()), values)
        return describe_plan(
            plan.text, plan.roots, self._settings, values=given, task=task, with_text=with_text
        )

    async def _drive(
        self, machine: Machine, job: Job | None = None, *, run: str = "", retry: bool = False
    ) -> int:
        terminal = self.talk.terminal(machine)
        if job is not None and not job.program:
            planner = self._planner(machine.plan)
            report = await machine.run_as_written(
                job, lambda draft: planner.plan(job.task, draft), terminal
            )
        elif job is not None:
            report = await machine.run(job, terminal)
        else:
            report = await machine.resume(run, terminal, retry=retry, budget=self._given)
        self._view.__exit__(None, None, None)
        return self._finish(machine, report)

    def _finish(self, machine: Machine, report: Report) -> int:
        from edvac.cli.summary import deliver, summarise
        from edvac.machine.retention import forget_expired

        applied: list[str] | None = None
        refused: errors.EdvacError | None = None
        try:
            applied = deliver(machine, report)
        except (errors.UsageError, errors.StoreError) as error:
            refused = error
        as_json, days = self._flags["as_json"], self._settings.keep_days
        self.talk.say([] if as_json else summarise(machine, report, applied))
        if self._flags.get("explain") and not as_json:
            self.talk.say(self._reasons(machine, report.run))
        if refused is not None:
            ui.report_error(refused, as_json=as_json)
        wall = machine.clock.wall()
        gone = machine.ledger.call_now(lambda store: forget_expired(store, days, wall))
        self.talk.say([] if as_json else ui.removed(gone, days))
        if refused is not None:  # it ran: only a damaged store is worse than files left alone
            damaged = isinstance(refused, errors.DamageError)
            return errors.EXIT_DAMAGED if damaged else errors.EXIT_FAILED
        return self._exit_code(report)

    @staticmethod
    def _reasons(machine: Machine, run: str) -> list[str]:
        from edvac.cli.explained import told
        from edvac.machine.explain import explain

        before, reasons = machine.ledger.call_now(lambda store: explain(store, run))
        return ["", *told(before, reasons)]

    @staticmethod
    def _exit_code(report: Report) -> int:
        if report.spent:
            return errors.EXIT_BUDGET
        if report.state == "waiting" and (report.away or report.asleep):
            return errors.EXIT_TRANSIENT
        return {
            "done": errors.EXIT_DONE,
            "partial": errors.EXIT_FAILED,
            "waiting": errors.EXIT_DENIED,
        }.get(report.state, errors.EXIT_INTERRUPTED)
