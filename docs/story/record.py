"""Record the ninety-second story: real commands with the real model, in a terminal of their own.

Usage: .venv/bin/python docs/story/record.py

Writes story.cast (asciicast v2, for `asciinema play`), story.txt (the same as text) and story.svg
(the picture of the README). Run it again whenever what the commands print has changed.
"""

from __future__ import annotations

import importlib.resources
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import sys
import tempfile
import termios
import time
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path

HERE = Path(__file__).parent
ROWS, COLUMNS = 40, 110
PICTURED = 3  # scenes that are in the picture: plan, kill, resume
LIMIT_S = 240.0  # of one command
TASK = (
    "Read the bills in inbox/. Write vendor, number, day and total of each to bills.csv with the "
    "columns file, vendor, number, day and total, and the total per vendor to totals.csv."
)

COUNT = 'files.write("count.txt", str(len(files.list("inbox/*"))))'


@dataclass(frozen=True, slots=True)
class Scene:
    """One command as somebody types it.

    Attributes:
        said: a comment above it.
        keys: what is typed, each when a text has appeared.
        kill: the text after whose third appearance it is killed with -9.
    """

    said: str
    command: str
    keys: tuple[tuple[str, str], ...] = ()
    kill: str = ""


STORY = (
    Scene("A task becomes a program that can be read and kept.",
          f'edvac run --plain --plan-only "{TASK}" > bills.edv'),
    Scene("Two items first, to see whether it is right; then the rest, until a kill -9.",
          "edvac run bills.edv --sample 2 --plain",
          (("Run it?", "y\n"), ("Go on with the rest?", "y\n")), kill="✓ ["),
    Scene("Go on. Nothing that was finished is done again.", "edvac resume --plain"),
    Scene("Nothing outside the run has changed; what would?", "edvac diff"),
    Scene("Where does a line come from? This is the mail that gives orders to the model.",
          "edvac trace bills.csv:8"),
    Scene("Ask for something else as well: only what is new runs.",
          f"echo '{COUNT}' >> bills.edv; edvac run bills.edv --yes --plain"),
    Scene("Make it real.", "edvac apply; ls"),
)  # fmt: skip


@dataclass(slots=True)
class Tape:
    """What appeared, and when, in seconds since the beginning."""

    start: float = field(default_factory=time.monotonic)
    events: list[tuple[float, str]] = field(default_factory=list)

    def show(self, text: str) -> None:
        self.events.append((time.monotonic() - self.start, text))
        sys.stdout.write(text)
        sys.stdout.flush()

    def type(self, text: str) -> None:
        for letter in text:
            self.show(letter)
            time.sleep(0.008)

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.events).replace("\r\n", "\n")


def play(scene: Scene, place: Path, tape: Tape) -> None:
    tape.show(f"# {scene.said}\r\n")
    tape.show("$ ")
    tape.type(scene.command)
    tape.show("\r\n")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(place)
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        os.execvp("sh", ["sh", "-c", scene.command])  # noqa: S606
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    try:
        _follow(scene, child, terminal, tape)
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    tape.show("\r\n")


def _follow(scene: Scene, child: int, terminal: int, tape: Tape) -> None:
    seen, keys, end = "", list(scene.keys), time.monotonic() + LIMIT_S
    after = 0
    while time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        if not ready:
            continue
        try:
            data = os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # the last process has let go of the terminal
            return
        if not data:
            return
        tape.show(data)
        seen += data
        if keys and keys[0][0] in seen:
            os.write(terminal, keys.pop(0)[1].encode())
            seen, after = "", 0
        elif scene.kill and not keys:
            after += data.count(scene.kill)
            if after >= 3:
                _kill_below(child)
                tape.show("Killed\r\n")
                return
    raise SystemExit(f"{scene.command}: still running after {LIMIT_S:.0f} s")


def _kill_below(shell: int) -> None:
    """The command that the shell runs, and the shell; both belong to this script."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == shell:
            os.kill(int(entry.parent.name), signal.SIGKILL)
    os.kill(shell, signal.SIGKILL)


def write(tape: Tape) -> None:
    head = {"version": 2, "width": COLUMNS, "height": ROWS, "idle_time_limit": 1.5,
            "title": "edvac: plan, sample, kill, resume, trace, edit, apply"}  # fmt: skip
    lines = [json.dumps(head), *(json.dumps([round(at, 3), "o", text]) for at, text in tape.events)]
    (HERE / "story.cast").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (HERE / "story.txt").write_text(tape.text, encoding="utf-8")
    shown = tape.text.split("\n# ", PICTURED)[:PICTURED]
    (HERE / "story.svg").write_text(picture("\n# ".join(shown)), encoding="utf-8")


def picture(text: str) -> str:
    """The text as a terminal window."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for line in text.rstrip().split("\n"):
        style = "bold" if line.startswith("$ ") else "dim" if line.startswith("# ") else ""
        style = "red" if line.startswith(("✗", "Killed")) else style
        style = "green" if line.startswith(("✓", "=")) else style
        console.print(Text(line, style=style, no_wrap=True, overflow="ellipsis"))
    drawn = console.export_svg(title="edvac")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # a picture loads nothing


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="edvac-story-") as root:
        place = Path(root) / "books"
        (place / "inbox").mkdir(parents=True)
        for entry in (importlib.resources.files("edvac.apps.demo") / "inbox").iterdir():
            (place / "inbox" / entry.name).write_bytes(entry.read_bytes())
        tape = Tape()
        for scene in STORY:
            play(scene, place, tape)
        for at, (when, text) in enumerate(tape.events):
            tape.events[at] = (when, re.sub(re.escape(root) + r"[^\s]*?/books", "~/books", text))
        write(tape)
        shutil.rmtree(place, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
