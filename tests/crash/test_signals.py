"""A run that waits, killed on all sides while clocks jump: each signal is taken once, in order and
by one wait; none is lost; a time that was fixed stays."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from crash_kit import Server, lines
from crash_plants import SIGNAL_PLANTS

from edvac.core.value import Failed, plain
from edvac.machine.history import read_history
from edvac.machine.signals import signals
from edvac.store import Store

LIVES = int(os.environ.get("EDVAC_KILLS", "50")) // 12
DRIVE_POINTS = ("driver.before_commit", "driver.after_commit", "store.append.before_commit")
POST_POINTS = ("store.post.before_commit", "store.post.after_commit")
TURNS = 80


def life(server: Server, work: Path, chance: random.Random, plant: str = "") -> list[str]:
    """Send and drive in turns, killing half of the time, until the run is done; the faults."""
    work.mkdir(parents=True)
    order: dict[str, Any] = {"work": str(work), "plant": plant}
    for turn in range(TURNS):
        does = "wait" if turn % 3 == 0 else chance.choice(["send", "send", "wait"])
        more: dict[str, Any] = {"name": chance.choice("ab"), "number": turn} | kill(chance, does)
        said = server.do(do=does, **order, **more)
        if said not in ("killed", "ok"):
            return [said]
        if "done" in lines(work / "states"):
            return examine(work)
        set_clock(work, chance)
    return ["it never ended"]


def kill(chance: random.Random, does: str) -> dict[str, Any]:
    if chance.random() < (0.4 if does == "wait" else 0.7):
        return {}
    points, often = (DRIVE_POINTS, 8) if does == "wait" else (POST_POINTS, 1)
    return {"kill_at": f"{chance.choice(points)}:{chance.randint(1, often)}"}


def set_clock(work: Path, chance: random.Random) -> None:
    """Mostly forward, as time passes; sometimes back."""
    by = chance.choice([0.0, 0.0, 600.0, 1500.0, 4000.0, 4000.0, -300.0, -2000.0])
    kept = work / "clock"
    before = float(kept.read_text()) if kept.exists() else 0.0
    kept.write_text(str(before + by))


def examine(work: Path) -> list[str]:
    faults: list[str] = []
    took: dict[str, list[int]] = defaultdict(list)
    fixed: dict[str, list[float]] = {}
    names: dict[str, str] = {}
    with Store(work) as store:
        run = next(info for info in store.runs(5) if info.last_seq)
        ended: set[str] = set()
        for entry in read_history(store, run.id).entries:
            until = entry.body.get("until") if entry.kind == "intent" else None
            if until is not None and fixed.setdefault(entry.slot, until) != until:
                faults.append(f"{entry.address} was given another time")
            if entry.kind == "intent" and entry.body["op"] == "signal.wait":
                names[entry.slot] = plain(entry.value)["name"]
            if entry.kind == "outcome" and entry.slot in ended:
                faults.append(f"{entry.address} ended twice")
            if entry.kind == "outcome":
                ended.add(entry.slot)
                if entry.slot in names and not isinstance(entry.value, Failed):
                    took[names[entry.slot]].append(plain(entry.value))
        left = [(one.name, int(one.text)) for one in signals(store, run.id)]
        files = {one.path: store.read_file(run.id, one.path) for one in store.list_files(run.id)}
    if len(files) != 5:
        faults.append(f"files: {sorted(files)}")
    for name in "ab":
        tried = [int(line.split()[1]) for line in lines(work / "tried") if line[0] == name]
        sure = [int(line.split()[1]) for line in lines(work / "acknowledged") if line[0] == name]
        here = took[name] + [number for one, number in left if one == name]
        if here != sorted(set(here)):
            faults.append(f"{name}: taken out of order or twice: {here}")
        faults += [f"{name} {number} was lost" for number in sure if number not in here]
        faults += [f"{name} {number} was never sent" for number in here if number not in tried]
    return faults


def test_each_signal_is_taken_once_and_in_order(server: Server, tmp_path: Path) -> None:
    for number in range(LIVES):
        assert not life(server, tmp_path / f"life{number}", random.Random(number)), number


@pytest.mark.skipif("EDVAC_KILLS" not in os.environ, reason="takes half a minute: make crash")
def test_the_planted_bugs_of_waits_are_found(server: Server, tmp_path: Path) -> None:
    missed = []
    for plant in SIGNAL_PLANTS:
        lives = (tmp_path / f"{plant}{number}" for number in range(30))
        found = (life(server, work, random.Random(at), plant) for at, work in enumerate(lives))
        if not any(found):
            missed.append(plant)
    assert not missed
