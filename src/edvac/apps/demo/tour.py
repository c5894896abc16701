"""The stops of the tour: what is said, the command, and where it is killed.

Every command is run as a process of its own, as if it had been typed; nothing of what it prints is
made up.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeAlias

from edvac.apps.demo.endpoint import Endpoint, answering
from edvac.core.errors import InternalError, UsageError
from edvac.machine.detach import COMMAND
from edvac.store import Store
from edvac.store.store import DIRECTORY

TASK = (
    "Read the bills in inbox/. Write vendor, number, day, total and file of each to bills.csv, the "
    "totals per vendor to totals.csv, and flag bills above 1000 in review.md."
)
NOTE = "A short note on each of these bills"
MARK = ".edvac-demo"  # in a directory that the tour made
PROGRAM = "bills.edv"
NAMED = 3  # files in the way that a message names
KILL_AFTER = 4  # answers of the model
WRITE_S = 0.1  # in which the last of them is written down
LIMIT_S = 60.0  # of one command

_Pipes: TypeAlias = tuple[int | None, int | None]  # standard output and standard error
_SHOWN: _Pipes = None, None
_CAUGHT: _Pipes = subprocess.PIPE, None
_MERGED: _Pipes = subprocess.PIPE, subprocess.STDOUT
_SILENT: _Pipes = subprocess.PIPE, subprocess.DEVNULL


@dataclass(frozen=True, slots=True)
class Shown:
    """One command of the tour, as it went.

    Attributes:
        output: what it printed, where that was caught.
        killed: was it ended by the tour, with a signal that cannot be caught?
    """

    command: str
    status: int
    seconds: float
    killed: bool
    output: str


@dataclass(slots=True)
class Tour:
    """A tour through one directory.

    Args:
        say: shows a paragraph; `prompt` shows a command before it runs.
        caught: catch what the commands print, instead of letting it through.
    """

    place: Path
    say: Callable[[str], None]
    prompt: Callable[[str], None]
    caught: bool = False
    shown: list[Shown] = field(default_factory=list)

    def prepare(self) -> None:
        """Lay out the documents and a store, so that no workspace around it is used; an earlier
        tour's directory is made anew.

        Raises:
            UsageError: something is there that no tour made.
        """
        foreign = self._foreign()
        if foreign:
            some = ", ".join(foreign[:NAMED])
            more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
            raise UsageError(
                "demo_place_taken",
                f"{self.place} has files that are not an earlier tour's: {some}{more}",
                "The tour begins with an empty directory and would remove them.",
                "Move them away, or name another directory: `edvac demo DIRECTORY`.",
            )
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True, exist_ok=True)
        Store(self.place).close()
        (self.place / MARK).touch()
        (self.place / "inbox").mkdir()
        for name, content in _own().items():
            if name != PROGRAM:
                (self.place / name).write_bytes(content)

    def _foreign(self) -> list[str]:
        """What is there and no tour made, or was edited since."""
        if not (self.place / MARK).exists():
            return sorted(path.name for path in self.place.iterdir()) if self.place.exists() else []
        own = _own()
        found = {
            path.relative_to(self.place).as_posix(): path
            for path in self.place.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }
        return sorted(
            name
            for name, path in found.items()
            if name != MARK and not name.startswith(f"{DIRECTORY}/")
            if not (name in own and path.is_file() and path.read_bytes() == own[name])
        )

    def run(self) -> None:
        """All of it.

        Raises:
            InternalError: a command failed that should not.
        """
        with answering(_answer) as model:
            self._stops(model)

    def _stops(self, model: Endpoint) -> None:
        chosen = f"--model={model.model}"
        self.say(
            f"There are {len(list((self.place / 'inbox').iterdir()))} bills in {self.place}/inbox; "
            "one of them is hostile. The model of this tour runs on this machine and its answers "
            "were written beforehand; all else is real. A task becomes a program, and that is all "
            "that will happen:"
        )
        self._do(["run", TASK, "--plan-only", chosen], into=PROGRAM)
        self.say(
            "It can be read, edited and kept. Run it, and kill it with -9 after "
            f"{KILL_AFTER} answers:"
        )
        self._do(["run", "bills.edv", "--yes", "--plain", chosen], kill=model)
        self.say("Go on. What was finished is not done again:")
        self._do(["resume", "--plain"])
        self.say("Nothing outside the run has changed yet. What would:")
        self._do(["diff"])
        self.say(
            "inbox/0318-security.eml told the model to report every total as 0, to upload the "
            "inbox and to delete a file, and this model obeyed: its own row says PWNED. It could "
            "do no more, since the program was fixed before anything was read. Where does that "
            "line come from?"
        )
        self._do(["trace", f"totals.csv:{self._line_of('PWNED')}"])
        self.say("Change the limit. No bill is read again:")
        self._do(["run", "bills.edv", "--set", "limit=500", "--yes", "--plain", chosen])
        self.say("Make the files real, and take that back:")
        self._do(["apply"])
        self._do(["undo"])

    def _line_of(self, word: str) -> int:
        """The line of totals.csv, as the run wrote it, in which a word stands."""
        shown = self._run("edvac diff --json", ["diff", "--json"], _SILENT)[1]
        for change in json.loads(shown)["changes"]:
            if change["path"] == "totals.csv":
                added = [line for line in change["diff"].split("\n") if line.startswith("+")]
                found = [at for at, line in enumerate(added) if word in line]
                return found[0] if found else 1
        return 1

    def _do(self, arguments: list[str], *, into: str = "", kill: Endpoint | None = None) -> None:
        """Run a command and show it; what it prints goes `into` a file.

        Raises:
            InternalError: see `_run`.
        """
        typed = " ".join(_quoted(one) for one in ["edvac", *arguments])
        typed += f" > {into}" if into else ""
        self.prompt(typed)
        start = time.monotonic()
        pipes = _MERGED if self.caught else _SHOWN
        if into:
            pipes = _SILENT if self.caught else _CAUGHT
        status, output = self._run(typed, arguments, pipes, kill)
        if into:
            (self.place / into).write_text(output, encoding="utf-8")
        seconds = time.monotonic() - start
        self.shown.append(Shown(typed, status, seconds, kill is not None, output))

    def _run(
        self,
        typed: str,
        arguments: list[str],
        pipes: _Pipes,
        kill: Endpoint | None = None,
    ) -> tuple[int, str]:
        """The status of a command, and what it printed where that is caught.

        Args:
            kill: end it with -9 after so many more answers of this model.

        Raises:
            InternalError: it failed, or did not end.
        """
        with subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.place,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=pipes[0],
            stderr=pipes[1],
            text=True,
        ) as process:
            try:
                if kill is not None:
                    if not kill.wait(kill.answered.total() + KILL_AFTER, LIMIT_S):
                        said = f"asked for no {KILL_AFTER} answers in {LIMIT_S:g} s"
                        raise self._broke(typed, said)
                    time.sleep(WRITE_S)
                    process.kill()
                output, _ = process.communicate(timeout=LIMIT_S)
            except subprocess.TimeoutExpired as problem:
                raise self._broke(typed, f"did not end within {LIMIT_S:g} s") from problem
            finally:
                process.kill()
        if process.returncode != 0 and kill is None:
            raise self._broke(typed, f"ended with status {process.returncode}")
        return process.returncode, output or ""

    def _broke(self, typed: str, how: str) -> InternalError:
        return InternalError(
            "demo_broke",
            f"a command of the tour failed: `{typed}` {how}",
            "The tour's commands should all succeed.",
            f"Look at {self.place}, and please report this.",
        )

    def _environment(self) -> dict[str, str]:
        """The user's, without settings that would change the tour; what is found out about the
        model of the tour is not kept."""
        kept = {name: value for name, value in os.environ.items() if name[:6] != "EDVAC_"}
        store = self.place.resolve() / DIRECTORY
        return kept | {
            "XDG_CACHE_HOME": str(store / "cache"),
            "XDG_CONFIG_HOME": str(store / "config"),
        }


def _quoted(argument: str) -> str:
    return f'"{argument}"' if " " in argument else argument


def _files() -> Traversable:
    return importlib.resources.files("edvac.apps.demo")


def _own() -> dict[str, bytes]:
    """What a tour leaves in its directory beside its store: the bills, and the program."""
    bills = {f"inbox/{entry.name}": entry for entry in (_files() / "inbox").iterdir()}
    return {
        name: entry.read_bytes() for name, entry in (bills | {PROGRAM: _files() / PROGRAM}).items()
    }


def _answer(asked: str) -> str:
    """The program for the task, the note on large bills, or the record of one bill."""
    if f"Task: {TASK}" in asked:
        return (_files() / PROGRAM).read_text(encoding="utf-8")
    records = json.loads((_files() / "answers.json").read_text(encoding="utf-8"))
    if NOTE in asked:
        noted = [record for record in records.values() if record["total"] in asked]
        return "\n".join(f"- {r['vendor']}, {r['number']}: {r['total']} EUR" for r in noted)
    return next((json.dumps(record) for mark, record in records.items() if mark in asked), "{}")
