"""The tour: real commands, one of them killed, and nothing lost."""

from __future__ import annotations

import csv
import importlib.resources
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edvac.apps.demo import Tour
from edvac.apps.demo import tour as module
from edvac.apps.demo.endpoint import answering
from edvac.core.errors import InternalError, UsageError
from edvac.machine.history import read_history
from edvac.store import Store


def edvac(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edvac", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=os.environ | variables,
    )


def laid_out(place: Path) -> Tour:
    tour = Tour(place, lambda _: None, lambda _: None, caught=True)
    tour.prepare()
    return tour


@pytest.mark.slow
def test_the_tour_plans_is_killed_goes_on_and_shows_where_a_line_comes_from(tmp_path: Path) -> None:
    place, config = tmp_path / "tour", tmp_path / "config"
    Store(tmp_path).close()  # a workspace around it, and settings of the user's: none counts
    (tmp_path / "edvac.toml").write_text('budget = "1"\n')
    (config / "edvac").mkdir(parents=True)
    (config / "edvac" / "config.toml").write_text('plan_model = "nowhere"\nbudget = "1"\n')
    ended = edvac("demo", str(place), "--json", XDG_CONFIG_HOME=str(config))
    assert ended.returncode == 0, ended.stderr
    with Store(tmp_path) as store:
        assert store.runs() == []
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


@pytest.mark.parametrize(
    "name", ["mine.edv", "out/sums.csv", "bills.edv", "inbox/mine.txt", "inbox/0304-nordwind.txt"]
)
def test_a_second_tour_removes_nothing_of_the_users(tmp_path: Path, name: str) -> None:
    place = tmp_path / "tour"
    tour = laid_out(place)
    program = importlib.resources.files("edvac.apps.demo") / "bills.edv"
    (place / "bills.edv").write_bytes(program.read_bytes())
    tour.prepare()  # all of that is the tour's own
    assert not (place / "bills.edv").exists() and len(list((place / "inbox").iterdir())) == 8
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text("mine")
    with pytest.raises(UsageError, match=f"not an earlier tour's: {name}"):
        tour.prepare()
    assert (place / name).read_text() == "mine"


def test_a_tour_has_a_store_of_its_own(tmp_path: Path) -> None:
    laid_out(tmp_path / "tour")
    assert (tmp_path / "tour" / ".edvac" / "store.db").is_file()


@pytest.mark.parametrize("at", ["end", "answers"])
def test_a_command_that_does_not_end_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))
    monkeypatch.setattr(module, "LIMIT_S", 0.2)
    tour = laid_out(tmp_path / "tour")
    with answering(str) as model, pytest.raises(InternalError) as broke:
        tour._do(["diff"], kill=model if at == "answers" else None)
    said = "did not end within 0.2 s" if at == "end" else "asked for no 4 answers in 0.2 s"
    assert broke.value.code == "demo_broke" and said in broke.value.what
