"""Checkpoints of threads under kill -9: what was acknowledged is there, whole, and one goes on."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from thread_child import state, write

from edvac.store import DURABILITY_POINTS, Store

CHILD = Path(__file__).parent / "thread_child.py"
KILLS = int(os.environ.get("EDVAC_KILLS", "30")) // 5
POINTS = [point for point in DURABILITY_POINTS if point.startswith("store.thread.")]


def look(work: Path, acknowledged: int, cut: set[int]) -> None:
    """Everything that is there is whole; nothing that was acknowledged is missing. `cut` gathers
    the checkpoints that a kill parted from their writes, in this life or an earlier one."""
    with Store(work) as store:
        assert store.verify() == []
        found = [int(info.id) for info in store.checkpoints("t")]
        newest = found[0] if found else 0
        assert newest in (acknowledged, acknowledged + 1)
        if newest > acknowledged:
            cut.add(newest)
        least = 5 if newest >= 10 else newest
        assert found == list(range(newest, newest - len(found), -1)) and len(found) >= least
        for number in found:
            whole = store.checkpoint("t", "", f"{number:06}")
            assert whole is not None and whole.channels == {"items": state(number)}
            assert whole.writes in ((), (write(number),))
            assert whole.writes or number in cut


@pytest.mark.slow
def test_acknowledged_checkpoints_survive_kills_at_any_time(tmp_path: Path) -> None:
    chance, acknowledged, cut = random.Random(5), 0, set[int]()
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, str(CHILD), str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            acknowledged = int(child.stdout.readline())  # it has begun
            time.sleep(chance.uniform(0.0, 0.3))
            child.kill()
            for line in child.stdout:
                acknowledged = int(line)
        look(tmp_path, acknowledged, cut)
    assert acknowledged > KILLS


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("passes", [1, 2, 23])
def test_killed_at_each_point_of_a_put(tmp_path: Path, point: str, passes: int) -> None:
    passes = 1 if "prune" in point else passes
    done = subprocess.run(
        [sys.executable, str(CHILD), str(tmp_path)],
        env={**os.environ, "EDVAC_KILL_AT": f"{point}:{passes}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    look(tmp_path, int((done.stdout.split() or ["0"])[-1]), set())
