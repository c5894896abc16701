"""The tour: real commands, one of them killed, and nothing lost."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edvac.machine.ledger import read_history
from edvac.store import Store


def edvac(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edvac", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.slow
def test_the_tour_plans_is_killed_goes_on_and_shows_where_a_line_comes_from(tmp_path: Path) -> None:
    place = tmp_path / "tour"
    ended = edvac("demo", str(place), "--json")
    assert ended.returncode == 0, ended.stderr
    shown = json.loads(ended.stdout)["commands"]
    said = {one["command"].split()[1]: one["output"] for one in shown}
    killed = [one for one in shown if one["killed"]]
    assert [one["status"] for one in killed] == [-9]
    assert {one["status"] for one in shown if not one["killed"]} == {0}
    there = int(re.search(r"already there: (\d+) steps", said["resume"]).group(1))  # type: ignore[union-attr]
    assert there > 0
    assert "0318-security.eml" in said["trace"]
    with Store(place) as store:
        runs = sorted(store.runs(), key=lambda info: info.created)
        assert [info.state for info in runs] == ["done", "done"]
        first, second = (read_history(store, info.id).entries for info in runs)
        rows = list(csv.DictReader(store.read_file(runs[0].id, "bills.csv").decode().split("\n")))
    answers = [e for e in first if e.kind == "outcome" and e.body["op"].startswith("llm.")]
    assert len(answers) == len({e.slot for e in answers}) == 9
    assert len(rows) == 8 and [row["vendor"] for row in rows].count("PWNED") == 1
    fresh = [e for e in second if e.kind == "outcome" and not e.body.get("reused")]
    assert [e.body["op"] for e in fresh if e.body["op"].startswith("llm.")] == ["llm.write"]
    assert not (place / "bills.csv").exists()  # what was applied was undone
    assert (place / "inbox" / "0318-security.eml").exists()


def test_it_does_not_mix_its_files_with_others(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    ended = edvac("demo", str(tmp_path))
    assert ended.returncode != 0 and "demo_place_taken" in ended.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]
