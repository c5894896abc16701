"""The crash harness: a run killed again and again must end as one that was never disturbed.

It knows the truth from three files outside the store: each execution, each mail and each question
is a line there, written before it happens.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edvac.core.value import Failed, plain
from edvac.machine import delivery
from edvac.machine.driver import DURABILITY_POINTS as DRIVER_POINTS
from edvac.machine.history import read_history
from edvac.store import DURABILITY_POINTS as STORE_POINTS
from edvac.store import Store

POINTS = tuple(sorted((*STORE_POINTS, *DRIVER_POINTS, *delivery.DURABILITY_POINTS)))
# Passed while a program runs; the others belong to apply, undo, removal, recovery and threads.
_ELSEWHERE = ("apply", "gc", "remove", "post", "recover", "open", "blob", "release", "checkpoint")
RUN_POINTS = tuple(
    point
    for point in POINTS
    if point.split(".")[0] in ("driver", "store")
    and point.split(".")[1] not in (*_ELSEWHERE, "thread", "queue")
)
# How often a point is passed in one life: kills are spread over all of them.
OFTEN = ("store.append", "store.commit", "driver")


class Server:
    """The forking server, one for the whole session."""

    def __init__(self) -> None:
        here = Path(__file__).parent
        self._process = subprocess.Popen(
            [sys.executable, str(here / "crash_child.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said()  # that it is ready

    def do(self, **order: Any) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._said()

    def _said(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server of the crash harness has died"
        return str(json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@dataclass
class Ended:
    """A run at its end, as the store and the world show it."""

    files: dict[str, bytes]
    values: dict[str, Any]
    mails: Counter[str]
    faults: list[str] = field(default_factory=list)
    kills: int = 0


def workspace(root: Path) -> Path:
    inbox = root / "inbox"
    inbox.mkdir(parents=True)
    names = ["ann", "bernhard", "cleo", "dagobert", "eve", "friedrich", "gus", "hannibal"]
    for number, name in enumerate(names):
        text = f"item {number} " + ("wobbly " if number == 2 else "")
        text += "poison " if number == 4 else ""
        (inbox / f"{number}.txt").write_text(f"{text}name={name}\n")
    return root


def live(server: Server, work: Path, kills: list[dict[str, Any]], **order: Any) -> Ended:
    """One run's life: each order of `kills` cuts it once, then it is let go to its end."""
    faults: list[str] = []
    killed = 0
    for kill in [*kills, {}, {}]:
        said = server.do(work=str(work), do="drive", **{"answer": "yes"} | order | kill)
        killed += said == "killed"
        if said not in ("killed", "ok"):
            faults.append(said)
            break
        if said == "ok":
            break
    return examine(work, faults, killed)


def examine(work: Path, faults: list[str], kills: int) -> Ended:
    ended = Ended({}, {}, Counter(line.split()[0] for line in lines(work / "mailbox")))
    ended.faults, ended.kills = faults, kills
    with Store(work) as store:
        runs = [info for info in store.runs() if info.last_seq]
        if len(runs) != 1:
            faults.append(f"{len(runs)} runs")
            return ended
        run = runs[0]
        if run.state != "done":
            faults.append(f"the run is {run.state}")
        for entry in read_history(store, run.id).entries:
            if entry.kind == "outcome":
                failed = isinstance(entry.value, Failed)
                ended.values[entry.address] = "failed" if failed else plain(entry.value)
        for file in store.list_files(run.id):
            ended.files[file.path] = store.read_file(run.id, file.path)
        _check_executions(work, store, run.id, faults)
    _check_mails(work, ended)
    return ended


def _check_executions(work: Path, store: Store, run: str, faults: list[str]) -> None:
    """No step runs again once its outcome is durable, and none that is unknown without a question.

    The number of the owner (its fencing number) orders executions against records.
    """
    done: dict[str, int] = {}
    for record in store.records(run, kinds=["outcome"]):
        if record.slot in done:
            faults.append(f"two outcomes of {record.slot}")
        done[record.slot] = record.epoch
    seen: set[tuple[str, str, str]] = set()
    for line in lines(work / "executed"):
        epoch, slot, attempt, address = line.split(" ", 3)
        if slot not in done:
            faults.append(f"{address} ran and has no outcome")
        elif int(epoch) > done[slot]:
            faults.append(f"{address} ran again after its outcome was durable")
        if (epoch, slot, attempt) in seen:
            faults.append(f"{address} ran twice for one attempt")
        seen.add((epoch, slot, attempt))


def _check_mails(work: Path, ended: Ended) -> None:
    agreed = Counter(line.split()[0] for line in lines(work / "asked") if line.split()[1] == "yes")
    ended.faults += [
        f"a mail went out {count} times and was agreed to {agreed[slot]} times"
        for slot, count in ended.mails.items()
        if count > 1 + agreed[slot]
    ]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def differences(ended: Ended, wanted: Ended, *, mails: bool) -> list[str]:
    """What is not as in the undisturbed run."""
    found = list(ended.faults)
    if ended.files != wanted.files:
        paths = {*ended.files, *wanted.files}
        differ = [p for p in paths if ended.files.get(p) != wanted.files.get(p)]
        found.append(f"files differ: {sorted(differ)}")
    if mails and ended.values != wanted.values:
        found.append("values differ")
    if mails and set(ended.mails) != set(wanted.mails):
        found.append("mails are missing or new")
    return found


def random_kills(chance: random.Random, length_s: float, count: int) -> list[dict[str, Any]]:
    """When and where to kill: half at a random time, half at a named point."""
    found: list[dict[str, Any]] = []
    for _ in range(count):
        if chance.random() < 0.5:
            found.append({"kill_after": chance.uniform(0.0, length_s)})
            continue
        point = chance.choice(RUN_POINTS)
        often = point.startswith(OFTEN)
        found.append({"kill_at": f"{point}:{chance.randint(1, 40 if often else 2)}"})
    return found


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    """Files, their modes too; directories do not count."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
