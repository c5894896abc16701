"""Threads for what others leave free."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from edvac.engine import cores
from edvac.engine.cores import Cores, Usage


class Machine:
    """Counts that move as told, and the clock of the module under test."""

    def __init__(self) -> None:
        self.wall = self.busy = self.own = 0.0

    def monotonic(self) -> float:
        return self.wall

    def look(self) -> Usage:
        return Usage(self.wall, self.busy, self.own)

    def passes(self, seconds: float, ours: float, others: float) -> None:
        self.wall += seconds
        self.own += ours * seconds
        self.busy += (ours + others) * seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(cores, "time", made)
    return made


def test_others_get_their_cores_and_give_them_back(machine: Machine) -> None:
    found = Cores(4, 4, machine.look)
    for ours, others, threads in (
        (4.0, 0.0, 4),  # alone, however busy itself
        (3.3, 0.7, 3),  # one other process gets what four spinning threads leave it
        (3.0, 1.0, 3),
        (1.0, 3.0, 1),
        (0.5, 3.5, 1),  # never less than one
        (1.0, 0.3, 4),  # a little beside it is no reason
    ):
        machine.passes(1.0, ours, others)
        found.adapt()
        assert found.threads == threads, (ours, others)


def test_fewer_threads_than_cores_leave_room_for_others(machine: Machine) -> None:
    found = Cores(2, 4, machine.look)
    machine.passes(1.0, 2.0, 2.0)
    assert not found.adapt()
    machine.passes(1.0, 1.0, 3.0)
    assert found.adapt()
    assert found.threads == 1


def test_it_looks_only_now_and_then(machine: Machine) -> None:
    found = Cores(2, 2, machine.look)
    machine.passes(0.1, 1.0, 1.0)
    assert not found.adapt()
    assert found.threads == 2
    machine.passes(0.9, 1.0, 1.0)
    assert found.adapt()


@pytest.mark.skipif(not cores.can_look(), reason="this system does not tell what its cores do")
def test_a_look_tells_our_own_work_from_that_of_others() -> None:
    before = cores.look()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    between = cores.look()
    script = "import time\nwhile time.process_time() < 0.4: pass"
    subprocess.run([sys.executable, "-c", script], check=True)
    after = cores.look()
    tick = 2 / os.sysconf("SC_CLK_TCK")
    assert between.own - before.own >= 0.2
    assert between.busy - before.busy >= 0.2 - tick
    assert after.busy - between.busy >= 0.4 - tick
    assert after.own - between.own < 0.2
