"""`signal`, and what the other commands say of a run that waits."""

from __future__ import annotations

import pytest
from cli_kit import Bench

PROGRAM = """\
class Yes:
    by: str

event.set("stage", "asked")
a = signal.wait("approved", Yes)
files.write("out.txt", a.by)
event.set("stage", "approved")
wait.days(2)
files.write("late.txt", "x")
"""


@pytest.fixture
def waiting(edvac: Bench) -> Bench:
    edvac.write("w.edv", PROGRAM)
    done = edvac("run", "w.edv", "--yes")
    assert done.code == 4 and "waits for a signal" in done.err
    return edvac


def test_what_a_run_waits_for_is_said(waiting: Bench) -> None:
    assert "waiting for 1 signal" in waiting("ps").out
    assert "approved  Yes  (a)" in waiting("signal").out
    assert waiting("show", "--events").out == 'stage: "asked"\n'
    shown = waiting("show", "--json").document
    assert shown["signals"] == [{"signal": "approved", "type": "Yes", "step": "a", "until": None}]
    assert shown["standing"] == "waiting" and shown["counts"]["signals"] == 1


def test_a_signal_from_a_script_goes_on_with_the_run(waiting: Bench) -> None:
    run = waiting("ps", "--json").document["runs"][0]["id"]
    early = waiting("signal", run, "later", "--json").document
    assert early == {
        "run": run,
        "signal": "later",
        "ahead": 0,
        "from": "script",
        "running": False,
    }
    done = waiting("signal", run, "approved", '{"by": "ann"}', "--from", "boss", "--resume")
    assert done.code == 3, "it waits for a time"
    assert "It waits until" in done.err and "waiting until" in waiting("ps").out
    assert waiting("ps", "--json").document["runs"][0]["until"]
    assert "sender:boss" in waiting("show", run, "a").out
    found = waiting("signal", run, "--json").document
    assert found["waits"] == [] and [one["signal"] for one in found["untaken"]] == ["later"]
    events = waiting("show", run, "--events", "--json").document["events"]
    assert [(one["event"], one["value"]) for one in events] == [("stage", "approved")]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["approved", "5"], "signal_misfit"),
        (["approved", "{"], "signal_not_json"),
        (["no name"], "signal_name"),
        (["approved", "1", "--from", "a b"], "signal_name"),
        (["approved", "1", "--from", ""], "signal_name"),
        (["--resume"], "signal_name"),
    ],
)
def test_what_is_no_signal_is_refused(waiting: Bench, args: list[str], code: str) -> None:
    run = waiting("ps", "--json").document["runs"][0]["id"]
    refused = waiting("signal", run, *args, "--json")
    assert refused.code == 2 and refused.document["error"]["code"] == code
    assert waiting("signal", run, "--json").document["untaken"] == []


def test_a_signal_to_a_run_that_is_over_is_refused(edvac: Bench) -> None:
    edvac.write("w.edv", "files.write('a', 'b')\n")
    edvac("run", "w.edv", "--yes")
    run = edvac("ps", "--json").document["runs"][0]["id"]
    refused = edvac("signal", run, "go", "--json")
    assert refused.document["error"]["code"] == "run_over"
    assert edvac("show", "--events").out == f"run {run} has set no event\n"
