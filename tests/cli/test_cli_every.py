"""`every`: schedules added, listed, removed and served."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from cli_kit import Bench
from test_cli_detach import CHILD, child, until

from edvac.machine import detach, every
from edvac.store import Schedule, Store


def schedule(edvac: Bench, *args: str) -> dict[str, Any]:
    done = edvac("every", *args, "--yes", "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = done.document
    return found


def make_due(edvac: Bench) -> None:
    """As if it had been made a week ago and nobody had watched since."""
    with Store(edvac.root) as store:
        for one in store.schedules():
            store.keep_schedule(Schedule(one.id, one.spec, one.created, "0"))


def test_a_schedule_is_kept_listed_and_removed(edvac: Bench) -> None:
    made = schedule(edvac, "mon 07:00", "p.edv", "--set", "limit=9", "--output", "o")
    assert made["flags"] == ["--set=limit=9", "--output=o"]
    listed = edvac("every", "--json").document["schedules"]
    assert [one["id"] for one in listed] == [made["id"]]
    assert listed[0]["next"].startswith("Mon ") and listed[0]["next"].endswith("07:00")
    assert "p.edv" in edvac("every").out
    assert edvac("every", "--remove", made["id"]).code == 0
    assert "[schedule_unknown]" in edvac("every", "--remove", made["id"]).err
    assert "nothing is scheduled" in edvac("every").out


def test_what_is_due_runs_by_itself_with_its_flags(edvac: Bench) -> None:
    schedule(edvac, "hourly", "p.edv", "--set", "limit=9", "--output", "o")
    assert child(edvac, "every", "--due").returncode == 0
    assert edvac("ps").out.strip() == "no runs"
    make_due(edvac)
    said = child(edvac, "every", "--due")
    assert "run " in said.stderr and "missed" in said.stderr
    until(edvac, lambda run: run["state"] == "done")
    listed = edvac("every", "--json").document["schedules"][0]
    assert listed["run"] == edvac("ps", "--json").document["runs"][0]["id"]
    for _ in range(100):
        if (edvac.root / "o" / "limit.txt").exists():
            break
        time.sleep(0.05)
    assert (edvac.root / "o" / "limit.txt").read_text() == "9"
    assert child(edvac, "every", "--due").stderr == ""


def test_an_edit_that_touches_more_needs_a_new_yes(edvac: Bench) -> None:
    schedule(edvac, "hourly", "p.edv")
    text = (edvac.root / "p.edv").read_text()
    edvac.write("p.edv", text + 'files.write("more.txt", "x")\n')
    make_due(edvac)
    assert "schedule it again" in child(edvac, "every", "--due").stderr
    assert "schedule it again" in edvac("every").out
    edvac.write("p.edv", text.replace("Shorten", "Make it short"))
    make_due(edvac)
    assert "not run" not in child(edvac, "every", "--due").stderr
    until(edvac, lambda run: run["state"] == "done")


def test_a_program_that_is_gone_is_said(edvac: Bench) -> None:
    schedule(edvac, "hourly", "p.edv")
    (edvac.root / "p.edv").unlink()
    make_due(edvac)
    assert "p.edv cannot be run" in child(edvac, "every", "--due").stderr


def test_a_start_that_fails_says_why(edvac: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (
        "import json; print(json.dumps({'error': {'code': 'c', 'what': 'no model'}})); exit(2)"
    )
    monkeypatch.setattr(every, "COMMAND", (sys.executable, "-c", command))
    spec = every.Spec("hourly", "p.edv", [], str(edvac.root), "")
    assert every.start_detached(spec, "s 1").problem == "no model [c]"
    command = "import sys; sys.exit('loading the model …\\nError: no such option')"
    monkeypatch.setattr(every, "COMMAND", (sys.executable, "-c", command))
    assert every.start_detached(spec, "s 1").problem == "Error: no such option"
    monkeypatch.setattr(every, "COMMAND", ("/does/not/exist",))
    assert "could not be started" in every.start_detached(spec, "s 1").problem
    assert detach.COMMAND != every.COMMAND


def test_the_scheduler_runs_until_it_is_stopped_and_alone(edvac: Bench) -> None:
    schedule(edvac, "hourly", "p.edv")
    make_due(edvac)
    served = subprocess.Popen(
        [sys.executable, CHILD, "0", "every", "--run"], cwd=edvac.root, stderr=subprocess.PIPE
    )
    until(edvac, lambda run: run["state"] == "done") if _any_run(edvac) else None
    second = child(edvac, "every", "--run")
    assert second.returncode == 3 and "[scheduler_running]" in second.stderr
    served.send_signal(signal.SIGTERM)
    assert served.wait(20) == 0
    assert served.stderr is not None
    assert b"1 schedule" in served.stderr.read()
    served.stderr.close()


def _any_run(edvac: Bench) -> bool:
    end = time.monotonic() + 20
    while not edvac("ps", "--json").document["runs"]:
        assert time.monotonic() < end
        time.sleep(0.1)
    return True


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["7 o'clock", "p.edv"], "schedule_malformed"),
        (["07:00", "Read the inbox"], "schedule_without_program"),
        (["07:00", "-"], "schedule_without_program"),
        (["07:00"], "task_empty"),
        (["07:00", "gone.edv"], "program_unreadable"),
        (["07:00", "p.edv", "--set", "nothing=1"], "parameter_unknown"),
    ],
)
def test_what_cannot_be_scheduled(edvac: Bench, args: list[str], code: str) -> None:
    done = edvac("every", *args, "--yes")
    assert done.code == 2 and f"[{code}]" in done.err
    assert not edvac.stored


def test_nobody_there_to_approve(edvac: Bench) -> None:
    done = edvac("every", "07:00", "p.edv")
    assert done.code == 4 and "writes" in done.err and not edvac.stored


def test_lines_to_paste(edvac: Bench) -> None:
    text = edvac("every", "--unit").out
    assert f"WorkingDirectory={edvac.root}" in text and "KillMode=process" in text
    assert "edvac every --due" in text and "* * * * *" in text
