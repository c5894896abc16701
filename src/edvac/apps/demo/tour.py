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
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path

from edvac.apps.demo.endpoint import Endpoint, serving
from edvac.core.errors import InternalError, UsageError

TASK = (
    "Read the bills in inbox/. Write vendor, number, day, total and file of each to bills.csv, the "
    "totals per vendor to totals.csv, and flag bills above 1000 in review.md."
)
NOTE = "A short note on each of these bills"
MARK = ".edvac-demo"  # in a directory that the tour made
KILL_AFTER = 4  # answers of the model
WRITE_S = 0.1  # in which the last of them is written down
LIMIT_S = 60.0  # of one command


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
        """Lay out the documents; an earlier tour's directory is made anew.

        Raises:
            UsageError: something else is there.
        """
        if self.place.exists() and not (self.place / MARK).exists() and any(self.place.iterdir()):
            raise UsageError(
                "demo_place_taken",
                f"{self.place} is there already, and is not from an earlier tour",
                "The tour would mix its files with yours.",
                "Name another directory: `edvac demo DIRECTORY`.",
            )
        shutil.rmtree(self.place, ignore_errors=True)
        (self.place / ".edvac").mkdir(mode=0o700, parents=True)
        (self.place / MARK).touch()
        (self.place / "inbox").mkdir()
        for entry in (_files() / "inbox").iterdir():
            (self.place / "inbox" / entry.name).write_bytes(entry.read_bytes())

    def run(self) -> None:
        """All of it.

        Raises:
            InternalError: a command failed that should not.
        """
        with serving(_answer) as model:
            self._stops(model)

    def _stops(self, model: Endpoint) -> None:
        chosen = f"--model={model.url}"
        self.say(
            f"There are {len(list((self.place / 'inbox').iterdir()))} bills in {self.place}/inbox; "
            "one of them is hostile. The model of this tour runs on this machine and its answers "
            "were written beforehand; all else is real. A task becomes a program, and that is all "
            "that will happen:"
        )
        self._do(["run", TASK, "--plan-only", chosen], into="bills.edv")
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
        shown = self._quietly(["diff", "--json"])
        for change in json.loads(shown)["changes"]:
            if change["path"] == "totals.csv":
                added = [line for line in change["diff"].split("\n") if line.startswith("+")]
                found = [at for at, line in enumerate(added) if word in line]
                return found[0] if found else 1
        return 1

    def _do(self, arguments: list[str], *, into: str = "", kill: Endpoint | None = None) -> str:
        """Run a command and show it; what it printed where that was caught or went `into` a file.

        Raises:
            InternalError: it failed, or did not end.
        """
        typed = " ".join(_quoted(one) for one in ["edvac", *arguments])
        typed += f" > {into}" if into else ""
        self.prompt(typed)
        start = time.monotonic()
        catch = subprocess.PIPE if self.caught or into else None
        beside = subprocess.STDOUT if not into else subprocess.DEVNULL
        process = subprocess.Popen(
            _command(arguments),
            cwd=self.place,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=catch,
            stderr=beside if self.caught else None,
            text=True,
        )
        try:
            if kill is not None:
                kill.wait(KILL_AFTER, LIMIT_S)
                time.sleep(WRITE_S)
                process.kill()
            output, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
            process.wait()
        if into:
            (self.place / into).write_text(output, encoding="utf-8")
        seconds = time.monotonic() - start
        self.shown.append(Shown(typed, process.returncode, seconds, kill is not None, output or ""))
        if process.returncode != 0 and kill is None:
            raise InternalError(
                "demo_broke",
                f"`{typed}` ended with status {process.returncode}",
                "The tour's commands should all succeed.",
                f"Look at {self.place}, and please report this.",
            )
        return output or ""

    def _quietly(self, arguments: list[str]) -> str:
        done = subprocess.run(
            _command(arguments),
            cwd=self.place,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        return done.stdout

    def _environment(self) -> dict[str, str]:
        """The user's, without settings that would change the tour; what is found out about the
        model of the tour is not kept."""
        kept = {name: value for name, value in os.environ.items() if name[:6] != "EDVAC_"}
        return kept | {"XDG_CACHE_HOME": str(self.place.resolve() / ".edvac" / "cache")}


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "edvac", *arguments]


def _quoted(argument: str) -> str:
    return f'"{argument}"' if " " in argument else argument


def _files() -> Traversable:
    return importlib.resources.files("edvac.apps.demo")


def _answer(asked: str) -> str:
    """The program for the task, the note on large bills, or the record of one bill."""
    if f"Task: {TASK}" in asked:
        return (_files() / "bills.edv").read_text(encoding="utf-8")
    records = json.loads((_files() / "answers.json").read_text(encoding="utf-8"))
    if NOTE in asked:
        noted = [record for record in records.values() if record["total"] in asked]
        return "\n".join(f"- {r['vendor']}, {r['number']}: {r['total']} EUR" for r in noted)
    return next((json.dumps(record) for mark, record in records.items() if mark in asked), "{}")
