"""On a real terminal: questions, Ctrl-C once and twice, SIGTERM, the live panel."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_kit import Bench
from forked import CHILD, Forked

SLOW = 'x = files.write("a.txt", "a")\nn = llm.write("Slow", x)\nfiles.write("b.txt", n)\n'


class Terminal:
    """A child on a pseudo-terminal; `seen` is everything it printed."""

    def __init__(self, root: Path, *args: str, delay: float = 0.0) -> None:
        self._mine, theirs = pty.openpty()
        name = os.ttyname(theirs)
        size = {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        self._process = Forked(root, (name, name, name), args, delay, **size)
        os.close(theirs)
        self.seen = ""

    def until(self, text: str, limit_s: float = 20.0) -> None:
        end = time.monotonic() + limit_s
        while text not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} did not come: {self.seen!r}"
            assert self._read(left), f"it ended without {text!r}: {self.seen!r}"

    def type(self, text: str) -> None:
        os.write(self._mine, text.encode())

    def send(self, number: int) -> None:
        self._process.send(number)

    def ended(self) -> int:
        while self._read(20.0):
            pass
        os.close(self._mine)
        return self._process.wait()

    def _read(self, limit_s: float) -> bool:
        if not select.select([self._mine], [], [], limit_s)[0]:
            raise AssertionError(f"nothing came for {limit_s} s: {self.seen!r}")
        try:
            data = os.read(self._mine, 65_536)
        except OSError:
            return False  # the other side is closed
        self.seen += data.decode(errors="replace")
        return bool(data)


def test_a_person_approves(edvac: Bench) -> None:
    terminal = Terminal(edvac.root, "run", "p.edv")
    terminal.until("Run it? [Y]es, [e]dit, [s]ample, [n]o:")
    assert "inbox/ is" in terminal.seen
    terminal.type("perhaps\n")
    terminal.until("Please answer one of: y, e, s, n.")
    terminal.type("\n")
    assert terminal.ended() == 0
    assert "steps finished" in terminal.seen


def test_a_person_edits_the_plan(edvac: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "sed -i s/limit.txt/most.txt/")
    terminal = Terminal(edvac.root, "run", "p.edv")
    terminal.until("Run it?")
    terminal.type("e\n")
    terminal.until('files.write("most.txt"')
    monkeypatch.setenv("EDITOR", "sed -i s/most.txt/limit.txt/")
    terminal.type("yes\n")
    assert terminal.ended() == 0
    assert "most.txt" in edvac("diff").out
    assert "most.txt" not in (edvac.root / "p.edv").read_text()


@pytest.mark.parametrize(
    ("editor", "said"),
    [
        ("sed -i s/limit/import/", "this is not a legal program"),
        ("true", "the program was not changed"),
        ("false", "the editor could not be used"),
    ],
)
def test_an_edit_that_is_none_keeps_the_plan(
    edvac: Bench, monkeypatch: pytest.MonkeyPatch, editor: str, said: str
) -> None:
    monkeypatch.setenv("EDITOR", editor)
    terminal = Terminal(edvac.root, "run", "p.edv")
    terminal.until("Run it?")
    terminal.type("e\n")
    terminal.until(said)
    terminal.type("y\n")
    assert terminal.ended() == 0
    assert "limit.txt" in edvac("diff").out


@pytest.mark.parametrize("flags", [["--sample", "1", "--yes"], []])
@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 4)])
def test_a_sample_is_shown_and_the_run_goes_on(
    edvac: Bench, flags: list[str], answer: str, code: int
) -> None:
    terminal = Terminal(edvac.root, "run", "p.edv", *flags)
    if not flags:
        terminal.until("Run it?")
        terminal.type("s\n")
        terminal.until("How many items? [3]")
        terminal.type("0\n")
        terminal.until("above zero")
        terminal.type("1\n")
    terminal.until("Go on with the rest?")
    assert "notes[0]: " in terminal.seen and "notes[1]: " not in terminal.seen
    terminal.type(answer)
    assert terminal.ended() == code
    (run,) = edvac("ps", "--json").document["runs"]
    assert run["state"] == ("done" if code == 0 else "open")
    if code:
        assert "`edvac resume" in terminal.seen
        assert edvac("resume").code == 0


@pytest.mark.parametrize(("answer", "code"), [("n\n", 4), ("\x04", 4), ("\x03", 130)])
def test_a_person_does_not_approve(edvac: Bench, answer: str, code: int) -> None:
    terminal = Terminal(edvac.root, "run", "p.edv")
    terminal.until("Run it?")
    terminal.type(answer)
    assert terminal.ended() == code
    assert not edvac.stored
    assert "error: " in terminal.seen


def test_the_cursor_comes_back_however_it_ends(edvac: Bench) -> None:
    terminal = Terminal(edvac.root, "run", "p.edv", "--model", "missing")
    terminal.until("Run it?")
    terminal.type("y\n")
    assert terminal.ended() == 2 and "model_missing" in terminal.seen
    assert terminal.seen.rindex("\x1b[?25h") > terminal.seen.rindex("\x1b[?25l")
    edvac.write("q.edv", 'a = human.ask("Which?")\nb = llm.write("x", files.read("inbox/a.txt"))\n')
    assert edvac("run", "q.edv", "--yes", "--budget", "1").code in (4, 5)
    flags = ("--detach", "--model", "https://api.example.com/v1#m", "--budget", "100000")
    terminal = Terminal(edvac.root, "resume", *flags)
    terminal.until("[o]nce")
    terminal.type("o\n")
    assert terminal.ended() == 0
    shown, _, after = terminal.seen.partition("goes on by itself")
    assert after and shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "left before it is said"


@pytest.mark.parametrize(("stream", "flags"), [("stdout", ["--json"]), ("stderr", ["--plain"])])
def test_a_reader_that_goes_away_stops_a_run_cleanly(
    edvac: Bench, stream: str, flags: list[str]
) -> None:
    edvac.write("slow.edv", SLOW)
    command = [sys.executable, CHILD, "1.5", "run", "slow.edv", "--yes", *flags]
    run = subprocess.Popen(
        command, cwd=edvac.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    read, other = run.stdout, run.stderr
    if stream == "stderr":
        read, other = other, read
    assert read is not None and other is not None
    while "a.txt" not in read.readline():
        pass
    read.close()
    said = other.read()
    other.close()
    assert run.wait(30) == 130
    assert ("`edvac resume` goes on" in said) == (stream == "stdout") and "Traceback" not in said
    assert edvac("ps", "--json").document["runs"][0]["standing"] == "interrupted"
    assert edvac("resume").code == 0


def test_a_reader_that_goes_away_before_steps_begin(edvac: Bench) -> None:
    edvac.write("slow.edv", SLOW)
    command = [sys.executable, CHILD, "0", "run", "slow.edv", "--yes", "--json"]
    mine, theirs = os.pipe()
    os.close(mine)
    run = subprocess.run(
        command, cwd=edvac.root, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(theirs)
    assert run.returncode == 130 and "Traceback" not in run.stderr


def test_ctrl_c_once_stops_cleanly_and_resume_goes_on(edvac: Bench) -> None:
    edvac.write("slow.edv", SLOW)
    terminal = Terminal(edvac.root, "run", "slow.edv", "--yes", delay=30.0)
    terminal.until("wrote a.txt")
    terminal.until("  n  ")  # the panel shows the step that runs
    terminal.type("\x03")
    assert terminal.ended() == 130
    assert "stopping; once more" in terminal.seen
    assert re.search(r"interrupted after .*1 step finished", terminal.seen)
    run = edvac("ps", "--json").document["runs"][0]
    assert run["id"] in terminal.seen
    assert (run["state"], run["running"]) == ("open", False)
    resumed = edvac("resume", run["id"])
    assert resumed.code == 0
    assert "already there: 1 step" in resumed.err
    assert edvac.processors[-1].calls == 1


def test_ctrl_c_twice_stops_at_once_and_loses_nothing(edvac: Bench) -> None:
    edvac.write("slow.edv", SLOW)
    terminal = Terminal(edvac.root, "run", "slow.edv", "--yes", delay=30.0)
    terminal.until("  n  ")
    terminal.type("\x03\x03")
    assert terminal.ended() == 130
    assert edvac("show").code == 0


def test_sigterm_is_a_clean_stop(edvac: Bench) -> None:
    edvac.write("slow.edv", SLOW)
    terminal = Terminal(edvac.root, "run", "slow.edv", "--yes", "--plain", delay=30.0)
    terminal.until("wrote a.txt")
    terminal.send(signal.SIGTERM)
    assert terminal.ended() == 130
    assert "interrupted" in terminal.seen
    assert edvac("resume").code == 0


def test_a_question_of_the_program_is_answered(edvac: Bench) -> None:
    edvac.write("q.edv", 'a = human.ask("Which?", ["red", "blue"])\nfiles.write("a.txt", a)\n')
    terminal = Terminal(edvac.root, "run", "q.edv", "--yes", "--output", "o")
    terminal.until("Which? (red, blue):")
    terminal.type("green\n")
    terminal.until("Please answer one of: red, blue.")
    terminal.type("blue\n")
    assert terminal.ended() == 0
    assert (edvac.root / "o" / "a.txt").read_text() == "blue"


@pytest.mark.parametrize(("typed", "code"), [("\x03", 130), ("\x04", 4)])
def test_a_question_can_be_left(edvac: Bench, typed: str, code: int) -> None:
    edvac.write("q.edv", 'a = human.ask("Which?")\n')
    terminal = Terminal(edvac.root, "run", "q.edv", "--yes")
    terminal.until("Which?")
    terminal.type(typed)
    assert terminal.ended() == code
    assert "edvac resume" in terminal.seen


def test_two_questions_at_once_come_one_after_the_other(edvac: Bench) -> None:
    edvac.write("q.edv", 'a = human.ask("One?")\nb = human.ask("Two?")\nfiles.write("a", a + b)\n')
    terminal = Terminal(edvac.root, "run", "q.edv", "--yes", "--output", "o")
    terminal.until("?: ")
    terminal.type("1\n2\n")  # the second is typed ahead
    assert terminal.ended() == 0
    assert (edvac.root / "o" / "a").read_text() in ("12", "21")


def test_a_prompt_on_a_terminal_is_made_visible(edvac: Bench) -> None:
    edvac.write("inbox/a.txt", "x\x1b]52;c;aGk=\x07y")
    edvac.answer = lambda request: "z\x1b[2Jz"
    edvac("run", "p.edv", "--yes")
    run = edvac("ps", "--json").document["runs"][0]["id"]
    terminal = Terminal(edvac.root, "show", run, "notes[0]", "--prompt")
    assert terminal.ended() == 0
    assert "\\x1b]52" in terminal.seen
    assert "\x1b" not in terminal.seen
    assert "\x1b]52" in edvac("show", run, "notes[0]", "--prompt").out  # exact, where it is read
