"""A work of two hundred files, killed at every point and at any moment: the files that come out are
those of the run that nobody disturbed. EDVAC_KILLS=N for more."""

from __future__ import annotations

import csv
import io
import os
import random
import time
from pathlib import Path

import crash_build
import pytest
from crash_kit import RUN_POINTS, Ended, Server, differences, lines, live, random_kills, workspace

pytestmark = pytest.mark.xdist_group("long outputs")  # one undisturbed run for all
KILLS = int(os.environ.get("EDVAC_KILLS", "2"))
SMALL = 12  # parts, where only the place of a kill matters


def written(server: Server, work: Path, kills: list[dict[str, object]], parts: int) -> Ended:
    return live(server, workspace(work), kills, parts=parts)


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, float, Path]:
    work = tmp_path_factory.mktemp("whole") / "work"
    start = time.monotonic()
    ended = written(server, work, [], crash_build.PARTS)
    assert not ended.faults
    return ended, time.monotonic() - start, work


def test_the_work_is_worth_killing(whole: tuple[Ended, float, Path]) -> None:
    """It is long, its checks fail, its contexts run full, and its report says so."""
    ended, _, work = whole
    table = csv.DictReader(io.StringIO(ended.files["made.csv"].decode()))
    rows = {int(row["path"][5:8]): row for row in table}
    assert len(rows) == crash_build.PARTS and len(ended.files) == crash_build.PARTS + 1
    for number, row in rows.items():
        wrong = crash_build.faults_of(number)
        assert row["tries"] == str(1 + min(wrong, 3)), number
        assert row["ok"] == str(wrong <= 3) and bool(row["said"]) == (wrong > 3), number
        assert row["shortened"] == str(crash_build.crowded(number)), number
    assert len(lines(work / "executed")) > 1_000
    saw = ended.files["lib/p003.py"].decode()
    assert "saw ['0', '2']" in saw, "the one before, and the first of its chain"
    outlined = ended.files["lib/p012.py"].decode()
    assert "saw []" in outlined, "outlines hold no bodies"


def test_killed_at_any_moment(
    server: Server, whole: tuple[Ended, float, Path], tmp_path: Path
) -> None:
    wanted, length, _ = whole
    kills = number = 0
    while kills < KILLS:
        chance = random.Random(number)
        plan = random_kills(chance, length * 0.5, 10)
        ended = written(server, tmp_path / f"life{number}", plan, crash_build.PARTS)
        assert not differences(ended, wanted, mails=True), (number, plan, ended.faults)
        kills += ended.kills
        number += 1
    print(f"{kills} kills in {number} lives of {crash_build.PARTS} parts")


@pytest.mark.parametrize("point", RUN_POINTS)
def test_killed_at_each_point(point: str, server: Server, small: Ended, tmp_path: Path) -> None:
    kills: list[dict[str, object]] = [{"kill_at": f"{point}:{count}"} for count in (1, 1, 7)]
    ended = written(server, tmp_path / "work", kills, SMALL)
    assert ended.kills >= 1, "the point was never passed"
    assert not differences(ended, small, mails=True)


@pytest.fixture(scope="module")
def small(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    ended = written(server, tmp_path_factory.mktemp("small") / "work", [], SMALL)
    assert not ended.faults
    return ended
