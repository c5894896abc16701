"""`--read-only`: what observes and computes is done, what acts is listed and waits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edvac.core import event
from edvac.machine import Job, Machine, Report
from edvac.machine.machine import Terminal
from edvac.processor.scripted import ScriptedProcessor

PROGRAM = """\
body = files.read("in/a.txt")
note = llm.write("note", body)
files.write("note.txt", note)
again = files.read("note.txt")
more = llm.write("more", again)
"""


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("apple")
    (tmp_path / "ws").mkdir()
    return tmp_path


def drive(place: Path, program: str, run: str = "") -> tuple[Report, list[str]]:
    processor = ScriptedProcessor(lambda request: request.messages[-1].text.split()[0])
    with Machine(place / "ws", processor) as machine:
        if run:
            report = asyncio.run(machine.resume(run))
        else:
            job = Job(program, roots={"in": place / "in"}, name="p")
            report = asyncio.run(machine.run(job, Terminal(read_only=True)))
        files = machine.ledger.call_now(lambda store: store.list_files(report.run))
    return report, [found.path for found in files]


def test_it_stops_before_what_acts_and_goes_on_when_told(inbox: Path) -> None:
    report, files = drive(inbox, PROGRAM)
    assert report.state == "waiting" and files == []
    assert [step.call.op for step in report.actions] == ["files.write"]
    assert report.counts["finished"] == 2
    after, files = drive(inbox, PROGRAM, report.run)
    assert after.state == "done" and files == ["note.txt"]
    assert after.counts["replayed"] == 2


def test_a_run_that_only_reads_ends_as_always(inbox: Path) -> None:
    report, _ = drive(inbox, "\n".join(PROGRAM.splitlines()[:2]) + "\n")
    assert report.state == "done" and report.actions == ()


@pytest.mark.skipif(not Path("/usr/bin/bwrap").exists(), reason="needs bubblewrap")
def test_a_command_that_may_write_nothing_observes_and_the_kernel_holds_it_to_that(
    inbox: Path,
) -> None:
    """It tries to write to its input and outside: the kernel refuses; what it says is
    there, and the step that may write waits."""
    program = """\
said = shell.run("(echo x > in/a.txt; echo x > /etc/x) 2>&1; cat in/a.txt", reads=["in/*"])
made = shell.run("echo x > out.txt", writes=["out.txt"])
"""
    report, files = drive(inbox, program)
    assert report.state == "waiting" and files == []
    assert [step.call.address for step in report.actions] == ["made"]
    assert report.counts["finished"] == 1
    assert (inbox / "in" / "a.txt").read_text() == "apple"
    assert [path.name for path in (inbox / "in").iterdir()] == ["a.txt"]
    with Machine(inbox / "ws", ScriptedProcessor(str)) as machine:
        said = next(
            e
            for e in machine.history(report.run).entries
            if e.address == "said" and e.kind == "outcome"
        )
    assert said.value is not None and "Read-only file system" in str(said.value)


def test_who_reads_events_is_told_what_would_act(inbox: Path) -> None:
    seen: list[event.Event] = []
    processor = ScriptedProcessor(lambda request: request.messages[-1].text.split()[0])
    with Machine(inbox / "ws", processor) as machine:
        job = Job(PROGRAM, roots={"in": inbox / "in"}, name="p")
        asyncio.run(machine.run(job, Terminal(seen.append, read_only=True)))
    [closed] = [one for one in seen if isinstance(one, event.RunClosed)]
    assert closed.actions == ["files.write@3: files.write"]
