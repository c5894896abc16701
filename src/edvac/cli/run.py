"""`edvac run` and `edvac resume`."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edvac.cli import ui
from edvac.core import errors, event

if TYPE_CHECKING:
    from edvac.cli.view import View
    from edvac.compiler import Planner
    from edvac.machine import Job, Machine, Report
    from edvac.machine.driver import Driver

EXAMPLES = """\b
Examples:
  edvac run "Read the invoices in inbox/ and write totals per vendor to totals.csv"
  edvac run totals.edv --set limit=500 --output out/
  edvac run --plan-only "..." > totals.edv
"""


def common(command: Any) -> Any:
    """Options of everything that runs a model."""
    options = [
        click.option("--model", help="Model name, .gguf file, or URL#MODEL of an endpoint."),
        click.option("--budget", "tokens", type=click.IntRange(min=1), help="Tokens at most."),
        click.option("--yes", "-y", is_flag=True, help="Approve the plan without asking."),
        click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on stdout."),
        click.option("--plain", is_flag=True, help="Plain lines instead of a live panel."),
        click.option("--debug", is_flag=True, hidden=True),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command(epilog=EXAMPLES)
@click.argument("task")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter's value.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A directory to read, under its own name. May be given several times.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Apply the result there when done.")
@click.option("--plan-only", is_flag=True, help="Print the program and stop.")
@click.option("--fresh", is_flag=True, help="Take no results from earlier runs.")
@common
def run(task: str, **flags: Any) -> int:
    """Run TASK: a task in words, or the path of a program (.edv); - reads from stdin."""
    return asyncio.run(_Command(flags).run(task))


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--retry", is_flag=True, help="Try again what failed, and what that blocked.")
@common
def resume(run_id: str | None, retry: bool, **flags: Any) -> int:
    """Go on with RUN (default: the latest); nothing that is finished runs again."""
    return asyncio.run(_Command(flags).resume(run_id, retry=retry))


@dataclass(slots=True)
class _Source:
    """Where the program comes from."""

    task: str
    text: str | None


def read_source(task: str) -> _Source:
    """A task in words, a program file, or standard input."""
    if task == "-":
        text = sys.stdin.read()
        is_program = "\n" in text.strip() or "=" in text or "(" in text
        return _Source("", text) if is_program else _Source(text.strip(), None)
    path = Path(task)
    if task.endswith(".edv"):
        try:
            return _Source("", path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as problem:
            raise errors.UsageError(
                "program_unreadable",
                f"the program {task!r} cannot be read",
                str(problem),
                "Name a program file, or say the task in words.",
            ) from problem
    if not task.strip():
        raise errors.UsageError("task_empty", "the task is empty", "", "Say what is to be done.")
    return _Source(task, None)


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


class _Command:
    """One invocation: its flags, its view, its way to the end."""

    def __init__(self, flags: dict[str, Any]) -> None:
        from edvac.cli.view import choose
        from edvac.machine import settings

        self._flags = flags
        self._workspace = ui.workspace()
        chosen = {"model": flags["model"], "tokens": flags["tokens"]}
        self._settings, _ = settings.load(self._workspace, chosen)
        self._view: View = choose(plain=flags["plain"], as_json=flags["as_json"])
        self._driver: Driver | None = None
        self._signals = 0

    async def run(self, task: str) -> int:
        source = read_source(task)
        values = read_settings(self._flags["settings"])
        with self._machine() as machine, self._view:
            if source.text is None:
                await machine.processor.open()
            text = source.text or self._known(machine, source.task)
            if text is None and self._may_run_ahead():
                return await self._drive(machine, job=self._job("", source.task, values))
            if text is None:
                text = await self._planner(machine).plan(source.task)
            roots = self._check(text)
            if self._flags["plan_only"]:
                self._view.__exit__(None, None, None)
                ui.out(text.rstrip())
                return 0
            if source.text is None or not self._flags["yes"]:
                self._approve(text, roots, source)
            return await self._drive(machine, job=self._job(text, source.task, values, roots))

    def _job(
        self,
        text: str,
        task: str,
        values: dict[str, str],
        roots: dict[str, Path] | None = None,
    ) -> Job:
        from edvac.machine import Job
        from edvac.machine.inputs import given_roots

        return Job(
            text,
            task,
            roots if roots is not None else given_roots(self._flags["inputs"]),
            values,
            self._flags["output"],
            self._flags["fresh"],
            self._settings.tokens,
        )

    def _may_run_ahead(self) -> bool:
        """Steps may begin while the plan is being written: the user approved it unseen, and said
        what may be read."""
        flags = self._flags
        return flags["yes"] and flags["inputs"] and not flags["plan_only"] and not flags["settings"]

    def _known(self, machine: Machine, task: str) -> str | None:
        """The plan of an earlier run for the same task."""
        if self._flags["fresh"] or self._flags["plan_only"]:
            return None
        text = machine.known_program(task)
        if text is not None:
            self._view.show(
                event.Note(text="the plan of an earlier run is used; --fresh plans anew")
            )
            for number, line in enumerate(text.rstrip().split("\n"), 1):
                self._view.show(event.PlanLine(text=line, number=number))
        return text

    async def resume(self, run_id: str | None, *, retry: bool) -> int:
        with self._machine() as machine, self._view:
            info = machine.find(run_id)
            return await self._drive(machine, run=info.id, retry=retry)

    def _machine(self) -> Machine:
        from edvac.machine import Machine
        from edvac.machine.processors import choose_processor

        processor = choose_processor(self._settings, self._view.show)
        return Machine(self._workspace, processor, at_once=self._settings.at_once)

    def _planner(self, machine: Machine) -> Planner:
        """Writes programs, showing each line as it is accepted."""
        from edvac.compiler import Planner

        return Planner(machine.processor, machine.catalogue, self._view.show)

    def _check(self, text: str) -> dict[str, Path]:
        """Verify, and find the directories that the program reads."""
        from edvac.device import CATALOGUE
        from edvac.machine.inputs import derived_roots, given_roots
        from edvac.program import parse

        program = parse(text, CATALOGUE)
        if self._flags["inputs"]:
            return given_roots(self._flags["inputs"])
        return derived_roots(program.touches.reads, Path.cwd())

    def _approve(self, text: str, roots: dict[str, Path], source: _Source) -> None:
        """Show what the program will do; ask unless told not to."""
        from edvac.cli.plan import describe_plan

        self._view.pause()
        for line in describe_plan(text, roots, self._settings, with_text=source.text is None):
            ui.err(line)
        if not self._flags["yes"]:
            if not ui.is_terminal():
                raise errors.PolicyError(
                    "approval_needed",
                    "nobody is there to approve this program",
                    "Standard input or error is not a terminal.",
                    "Repeat with --yes, or look first with --plan-only.",
                )
            if not click.confirm("Run it?", default=True, err=True):
                raise errors.PolicyError(
                    "not_approved", "the program was not approved; nothing ran"
                )
        self._view.resume()

    async def _drive(
        self, machine: Machine, *, job: Job | None = None, run: str = "", retry: bool = False
    ) -> int:
        from edvac.machine.machine import Terminal

        asks = ui.is_terminal()
        terminal = Terminal(
            self._view.show,
            self._answer if asks else None,
            self._ask if asks else None,
            self._own,
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        try:
            if job is not None and not job.program:
                planner = self._planner(machine)
                report = await machine.run_as_written(
                    job, lambda draft: planner.plan(job.task, draft), terminal
                )
            elif job is not None:
                report = await machine.run(job, terminal)
            else:
                report = await machine.resume(run, terminal, retry=retry)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        self._view.__exit__(None, None, None)
        return self._finish(machine, report)

    def _own(self, driver: Driver) -> None:
        self._driver = driver

    def _interrupt(self) -> None:
        """First signal: a clean stop. Second: now."""
        self._signals += 1
        if self._signals > 1 or self._driver is None:
            import os

            self._view.__exit__(None, None, None)
            ui.err("stopped at once; what was finished is kept. Go on with `edvac resume`.")
            os._exit(errors.EXIT_INTERRUPTED)
        self._driver.stop("interrupted")

    async def _answer(self, question: event.Question) -> bool | None:
        return await asyncio.to_thread(self._prompt_yes, question.text)

    def _prompt_yes(self, text: str) -> bool | None:
        self._view.pause()
        try:
            return click.confirm(ui.safe(text), default=False, err=True)
        except click.Abort:
            return None
        finally:
            self._view.resume()

    async def _ask(self, address: str, text: str, options: list[str]) -> str:
        return await asyncio.to_thread(self._prompt_text, address, text, options)

    def _prompt_text(self, address: str, text: str, options: list[str]) -> str:
        self._view.pause()
        try:
            kind = click.Choice(options) if options else None
            return str(click.prompt(ui.safe(f"{address}: {text}"), type=kind, err=True))
        finally:
            self._view.resume()

    def _finish(self, machine: Machine, report: Report) -> int:
        from edvac.cli.summary import deliver, summarise

        applied = deliver(machine, report)
        if not self._flags["as_json"]:
            for line in summarise(machine, report, applied):
                ui.err(line)
        if report.spent:
            return errors.EXIT_BUDGET
        return {
            "done": errors.EXIT_DONE,
            "partial": errors.EXIT_FAILED,
            "waiting": errors.EXIT_DENIED,
        }.get(report.state, errors.EXIT_INTERRUPTED)
