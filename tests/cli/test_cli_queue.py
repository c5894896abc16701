"""`queue`: put, served by a process of its own, seen, given up, taken up again."""

from __future__ import annotations

from typing import Any

import pytest
from cli_kit import Bench
from test_cli_detach import child


def put(edvac: Bench, *args: str) -> dict[str, Any]:
    done = edvac("queue", "put", "nightly", *args, "--yes", "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = done.document
    return found


def entries(edvac: Bench) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = edvac("queue", "show", "nightly", "--json").document["entries"]
    return found


def test_what_is_queued_runs_by_itself_with_its_flags(edvac: Bench) -> None:
    first = put(edvac, "p.edv", "--set", "limit=9", "--output", "o", "--key", "k")
    assert first["known"] is False and first["state"] == "waiting"
    assert put(edvac, "p.edv", "--key", "k") == first | {"known": True}
    put(edvac, "p.edv", "--set", "limit=5", "--output", "o2")
    assert edvac("ps").out.strip() == "no runs"
    said = child(edvac, "queue", "run", "--drain")
    assert said.returncode == 0, said.stderr
    assert [one["state"] for one in entries(edvac)] == ["done", "done"]
    assert (edvac.root / "o" / "limit.txt").read_text() == "9"
    assert (edvac.root / "o2" / "limit.txt").read_text() == "5"
    assert "2 done (1 at once, 3 attempts)" in edvac("queue").out
    counted = edvac("queue", "--json").document["queues"]
    assert counted == [
        {"queue": "nightly", "waiting": 0, "running": 0, "asking": 0, "done": 2, "dead": 0}
    ]


def test_what_cannot_run_is_given_up_and_may_be_taken_up_again(edvac: Bench) -> None:
    item = put(edvac, "p.edv")
    program = edvac.root / "p.edv"
    text = program.read_text()
    program.write_text(text + 'files.write("other.txt", "x")\n')
    child(edvac, "queue", "run", "--drain")
    [dead] = entries(edvac)
    assert dead["state"] == "dead" and "does other things" in dead["said"]
    assert "does other things" in edvac("queue", "show", "nightly").out
    program.write_text(text)
    assert edvac("queue", "retry", "nightly", str(item["id"])).code == 0
    assert "[queued_alive]" in edvac("queue", "retry", "nightly", str(item["id"])).err
    child(edvac, "queue", "run", "--drain")
    assert [one["state"] for one in entries(edvac)] == ["done"]


def test_what_failed_goes_on_when_it_is_taken_up_again(edvac: Bench) -> None:
    edvac.write("late.edv", 'files.write("out.txt", files.read("inbox/late.txt"))\n')
    edvac("queue", "set", "nightly", "--attempts", "1")
    item = put(edvac, "late.edv")
    child(edvac, "queue", "run", "--drain")
    [dead] = entries(edvac)
    assert dead["state"] == "dead" and "ended partial after one attempt" in dead["said"]
    edvac.write("inbox/late.txt", "there now")
    edvac("queue", "retry", "nightly", str(item["id"]))
    child(edvac, "queue", "run", "--drain")
    [done] = entries(edvac)
    assert (done["state"], done["run"]) == ("done", dead["run"])


def test_rules_are_set_and_told(edvac: Bench) -> None:
    said = edvac("queue", "set", "nightly", "--at-once", "4", "--rate", "6/h", "--most", "1")
    assert said.out.strip() == "nightly: 4 at once, 6 in 3600 s, 3 attempts"
    again = edvac("queue", "set", "nightly", "--attempts", "1", "--json").document
    assert (again["at_once"], again["starts"], again["attempts"]) == (4, 6, 1)
    put(edvac, "p.edv")
    full = edvac("queue", "put", "nightly", "p.edv", "--yes")
    assert full.code != 0 and "[queue_full]" in full.err


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["show", "none"], "queue_unknown"),
        (["drop", "nightly", "99"], "queued_unknown"),
        (["put", "../x", "p.edv", "--yes"], "queue_name"),
        (["put", "nightly", "p.edv", "--yes", "--after", "soon"], "delay_malformed"),
        (["put", "nightly", "none.edv", "--yes"], "program_unreadable"),
        (["put", "nightly", "p.edv"], "approval_needed"),
        (["set", "nightly", "--rate", "often"], "rate_malformed"),
        (["run", "none", "--drain"], "queue_unknown"),
    ],
)
def test_what_is_refused(edvac: Bench, args: list[str], code: str) -> None:
    put(edvac, "p.edv")
    said = edvac("queue", *args)
    assert said.code != 0 and f"[{code}]" in said.err


def test_entries_and_queues_are_taken_out(edvac: Bench) -> None:
    first, second = put(edvac, "p.edv"), put(edvac, "p.edv", "--priority", "3")
    assert [one["id"] for one in entries(edvac)] == [second["id"], first["id"]]
    assert edvac("queue", "drop", "nightly", str(first["id"])).code == 0
    assert [one["id"] for one in entries(edvac)] == [second["id"]]
    assert edvac("queue", "drop", "nightly").code == 0
    assert "there are no queues" in edvac("queue").out


def test_what_is_put_again_and_again_runs_when_it_is_quiet(edvac: Bench) -> None:
    quiet = ("--key", "k", "--after-quiet")
    first = put(edvac, "p.edv", "--set", "limit=1", *quiet, "1h")
    again = put(edvac, "p.edv", "--set", "limit=2", *quiet, "2h")
    assert again["id"] == first["id"] and again["known"] and again["due"] > first["due"]
    assert [one["flags"] for one in entries(edvac)] == [["--set=limit=2"]]
    for wrong in (["--after-quiet", "1h"], ["--after", "1h", *quiet, "1h"]):
        refused = edvac("queue", "put", "nightly", "p.edv", "--yes", "--json", *wrong)
        assert refused.document["error"]["code"] == "quiet_without_key"
