"""Real apps for tests: Python modules and servers in their sandboxes, in a workspace of the test's.

Whatever an app is told it writes into its own folder, which is all that it can write to; `heard`
reads it there.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edvac.control import StepState
from edvac.device.app.device import offered_by
from edvac.device.app.manifest import App, Installed, approve
from edvac.device.app.types import written
from edvac.machine import Job, Machine, Report
from edvac.machine.apps import installed
from edvac.machine.machine import Terminal
from edvac.processor.scripted import ScriptedProcessor

HEARD = "heard.jsonl"
# Stands before the text of each module: what it is told, it keeps.
HEAD = f"""\
import json
def _heard(**told):
    with open("/app/{HEARD}", "a") as file:
        file.write(json.dumps(told) + "\\n")
"""


@dataclass
class Apps:
    """A workspace with apps, and a model that answers as the test says."""

    work: Path
    model: Callable[[Any], str] = lambda _: "x"
    prompts: list[str] = field(default_factory=list)  # all that the model has seen

    @property
    def place(self) -> Installed:
        return installed(self.work)

    def module(self, name: str, text: str, **more: Any) -> App:
        """An app that is a Python module with this text."""
        path = self.work / "code" / f"{name}_app.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(HEAD + text)
        return self.keep(App(name=name, module=path.stem, code=(str(path),)), **more)

    def server(self, name: str, text: str, *, timeout_s: float = 60.0, **more: Any) -> App:
        """An app that is a server with this text."""
        path = self.work / "code" / f"{name}_server.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        command = (sys.executable, str(path))
        app = App(name=name, command=command, code=(str(path),), timeout_s=timeout_s)
        return self.keep(app, **more)

    def keep(
        self,
        app: App,
        *,
        reads: Collection[str] = (),
        returns: Mapping[str, str] | None = None,
        only: Collection[str] = (),
    ) -> App:
        offered = asyncio.run(offered_by(app, self.place.folder(app.name)))
        kinds = {tool: written(text) for tool, text in (returns or {}).items()}
        made = approve(app, offered, only=only, reads=reads, returns=kinds)
        self.place.keep(made)
        return self.place.get(app.name)

    def heard(self, name: str) -> list[dict[str, Any]]:
        path = self.place.folder(name) / HEARD
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def open(self) -> Machine:
        def answer(request: Any) -> str:
            text = "\n".join(message.text for message in request.messages)
            self.prompts.append(text)
            return self.model(text)

        return Machine(self.work, ScriptedProcessor(answer))

    def job(self, program: str) -> Job:
        inbox = self.work / "inbox"
        inbox.mkdir(exist_ok=True)
        return Job(program, roots={"inbox": inbox}, seed=1)

    def run(self, program: str, terminal: Terminal | None = None) -> Report:
        with self.open() as machine:
            return asyncio.run(machine.run(self.job(program), terminal))

    def resume(self, run: str, terminal: Terminal | None = None, *, retry: bool = True) -> Report:
        with self.open() as machine:
            return asyncio.run(machine.resume(run, terminal, retry=retry))

    def files(self, run: str) -> dict[str, str]:
        with self.open() as machine:
            return machine.ledger.call_now(
                lambda s: {f.path: s.read_file(run, f.path).decode() for f in s.list_files(run)}
            )

    def labels(self, run: str) -> dict[str, Any]:
        """What steps came to, by address."""
        with self.open() as machine:
            entries = machine.history(run).entries
        return {e.address: e.value for e in entries if e.kind == "outcome"}


def codes(report: Report) -> list[str]:
    """Of what failed itself, not of what was held up."""
    failed = (s for s in report.failures if s.state is StepState.FAILED)
    return [step.failure.code for step in failed if step.failure]


class Person:
    """Somebody at the terminal, who answers as written and remembers what was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.offered: list[list[str]] = []

    async def __call__(self, address: str, text: str, options: list[str]) -> str:
        self.asked.append(f"{address}: {text}")
        self.offered.append(options)
        return self.answers.pop(0)

    @property
    def terminal(self) -> Terminal:
        return Terminal(ask=self)
