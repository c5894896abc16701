"""Kill -9 at random times and at every named point: nothing finished runs again, nothing external
happens twice unasked, and the end is that of the undisturbed run. EDVAC_KILLS=N for more."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from crash_kit import (
    POINTS,
    RUN_POINTS,
    Ended,
    Server,
    differences,
    lines,
    live,
    random_kills,
    tree,
    workspace,
)
from crash_plants import APPLY_PLANTS, RUN_PLANTS

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("EDVAC_KILLS", "30"))
Undisturbed = tuple[Ended, float, Path]


def test_the_program_is_worth_killing(undisturbed: Undisturbed) -> None:
    ended, _, work = undisturbed
    ops = {line.split()[3].split("[")[0] for line in lines(work / "executed")}
    assert len(lines(work / "executed")) >= 50
    assert len(ended.mails) >= 4 and len(ops) >= 8
    assert "failed" in ended.values.values()
    assert ended.files["log.txt"].startswith(b"begun big bernhard")


def test_every_durability_point_is_listed() -> None:
    found = set()
    for path in sorted((ROOT / "src").rglob("*.py")):
        found |= set(re.findall(r'durability_point\(\s*"([^"]+)"', path.read_text()))
    assert found == set(POINTS)


def test_a_run_that_is_killed_again_and_again_ends_as_if_undisturbed(
    server: Server, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    wanted, length, _ = undisturbed
    kills, number = 0, 0
    while kills < KILLS:
        chance = random.Random(number)
        work = workspace(tmp_path / f"life{number}")
        says = chance.choice(["yes", "yes", "no"])
        plan = random_kills(chance, length * 1.2, chance.randint(1, 5))
        ended = live(server, work, plan, answer=says)
        assert not differences(ended, wanted, mails=says == "yes"), (number, plan, ended.faults)
        kills += ended.kills
        number += 1
        assert number < 20 * KILLS, "the kills miss the run"
    print(f"{kills} kills in {number} lives")


@pytest.mark.parametrize("point", RUN_POINTS)
def test_killed_at(point: str, server: Server, undisturbed: Undisturbed, tmp_path: Path) -> None:
    work = workspace(tmp_path / "work")
    ended = live(server, work, [{"kill_at": f"{point}:1"}, {"kill_at": f"{point}:1"}])
    assert ended.kills >= 1, "the point was never passed"
    assert not differences(ended, undisturbed[0], mails=True)


def test_an_unknown_mail_is_asked_about_and_obeys_the_answer(
    server: Server, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    sent: dict[str, int] = {}
    for says in ("yes", "no"):
        work = workspace(tmp_path / says)
        kills = [{"kill_at": "test.after_mail:1"}, {"kill_at": "test.after_mail:2"}]
        ended = live(server, work, kills, answer=says)
        assert ended.kills == 2
        assert len(lines(work / "asked")) == 2, "each unknown mail is asked about"
        assert not differences(ended, undisturbed[0], mails=False)
        sent[says] = sum(ended.mails.values())
    wanted = sum(undisturbed[0].mails.values())
    assert sent["yes"] > wanted, "the person wanted the mail again"
    assert sent["no"] == wanted, "the person said that it is not to be sent again"


@pytest.mark.parametrize("does", ["apply", "undo"])
def test_killed_while_delivering(does: str, server: Server, done_workspace: Path) -> None:
    """Wherever an apply or undo is cut off, repeating it leaves what one in one go leaves."""
    before, after, points = _delivered(server, done_workspace)
    work = done_workspace
    wanted = after if does == "apply" else before
    killed = 0
    for point in points:
        for count in (1, 2, 5):
            _reset(server, work, before, applied=does == "undo")
            said = server.do(work=str(work), do=does, kill_at=f"{point}:{count}")
            killed += said == "killed"
            assert said in ("killed", "ok"), said
            assert server.do(work=str(work), do=does) == "ok"
            assert tree(work / "target") == wanted, (point, count)
    assert killed >= 6


def test_an_apply_cut_off_can_be_undone(server: Server, done_workspace: Path) -> None:
    before, _, _ = _delivered(server, done_workspace)
    for point in ("apply.before_file:3", "apply.after_file:3", "store.apply.begun:1"):
        _reset(server, done_workspace, before, applied=False)
        assert server.do(work=str(done_workspace), do="apply", kill_at=point) == "killed"
        assert server.do(work=str(done_workspace), do="undo") == "ok"
        assert tree(done_workspace / "target") == before, point


DELIVERY_POINTS = (
    *tuple(p for p in POINTS if p.split(".")[0] in ("apply", "undo")),
    "store.apply.before_commit",
    "store.apply.begun",
    "store.apply.finished",
    "store.blob.after_rename",
    "store.commit.before",
    "store.commit.after",
)


def _delivered(server: Server, work: Path) -> tuple[Any, Any, tuple[str, ...]]:
    """The target before and after an apply in one go."""
    target = work / "target"
    (target / "notes").mkdir(parents=True)
    (target / "notes" / "0.md").write_text("mine")
    (target / "notes" / "0.md").chmod(0o640)
    (target / "other.txt").write_text("not of the run")
    before = tree(target)
    assert server.do(work=str(work), do="apply") == "ok"
    after = tree(target)
    assert after["notes/0.md"][0] != b"mine" and after["notes/0.md"][1] == 0o640
    assert server.do(work=str(work), do="undo") == "ok"
    return before, after, DELIVERY_POINTS


def _reset(server: Server, work: Path, before: Any, *, applied: bool) -> None:
    assert server.do(work=str(work), do="undo") == "ok"
    assert tree(work / "target") == before
    if applied:
        assert server.do(work=str(work), do="apply") == "ok"


def test_the_variable_kills_a_real_process(tmp_path: Path) -> None:
    """As a user would set it, without the forking server."""
    code = (
        "from pathlib import Path; from edvac.store import Store; import sys;"
        "Store(Path(sys.argv[1])).close()"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"EDVAC_KILL_AT": "store.open.before_marker:1"},
        check=False,
    )
    assert said.returncode == -9


def _finds_run_plant(server: Server, wanted: Ended, length: float, root: Path, plant: str) -> bool:
    for number in range(24):
        chance = random.Random(1000 + number)
        work = workspace(root / f"{plant}{number}")
        kills = random_kills(chance, length, 3)
        if number % 3:  # at random moments two commits in a row are rarely torn apart
            point = ("driver.before_commit", "store.append.after_commit")[number % 3 - 1]
            kills = [{"kill_at": f"{point}:{5 + number + at}"} for at in range(12)]
        ended = live(server, work, kills, plant=plant)
        if differences(ended, wanted, mails=True):
            return True
    return False


def _finds_apply_plant(server: Server, work: Path, plant: str) -> bool:
    before, after, points = _delivered(server, work)
    for point in points:
        for count in (1, 3):
            for path in list((work / "target").rglob("*")):
                if path.is_file():
                    path.unlink()
            for path, (content, mode) in before.items():
                (work / "target" / path).write_bytes(content)
                (work / "target" / path).chmod(mode)
            server.do(work=str(work), do="apply", kill_at=f"{point}:{count}", plant=plant)
            if server.do(work=str(work), do="apply", plant=plant) != "ok":
                return True
            if tree(work / "target") != after:
                return True
            if server.do(work=str(work), do="undo", plant=plant) != "ok":
                return True
            if tree(work / "target") != before:
                return True
    return False


def test_the_harness_bites(
    server: Server, undisturbed: Undisturbed, tmp_path: Path, done_workspace: Path
) -> None:
    wanted, length, _ = undisturbed
    caught = {
        plant: _finds_run_plant(server, wanted, length, tmp_path, plant) for plant in RUN_PLANTS
    }
    for plant in APPLY_PLANTS:
        copy = Path(shutil.copytree(done_workspace, tmp_path / plant))
        caught[plant] = _finds_apply_plant(server, copy, plant)
    print(f"caught {sum(caught.values())} of {len(caught)} planted bugs")
    assert all(caught.values()), [plant for plant, found in caught.items() if not found]
