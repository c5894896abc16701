"""The proof: three workers on hosts of their own, one killed, one cut off and back late, the
database restarted over and over; every step has one outcome, the one that it has without workers.

``EDVAC_SCALE=2000`` runs the whole, as `make crash` does.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hosts
import postgresql_server
import pytest
import scale_kit
from hosts import Hosts
from postgresql_server import Cluster

from edvac.machine import Job, Machine
from edvac.store import open_store

STEPS = int(os.environ.get("EDVAC_SCALE", "100"))
WHOLE = STEPS > 500
LEASE_S, DELAY_S = (6.0, 0.25) if WHOLE else (1.5, 0.15)
CUT_S = 12.0 if WHOLE else 2.5  # longer than a lease
RESTART_S = 4.0 if WHOLE else 1.5
NAMES = ("one", "two", "three")
HERE = Path(__file__).parent


@pytest.fixture
def place() -> Iterator[tuple[Hosts, Cluster]]:
    why = postgresql_server.missing() or hosts.missing()
    if why:
        pytest.skip(why)
    made = Hosts.make(NAMES)
    try:
        cluster = Cluster(listen=made.address)
        try:
            yield made, cluster
        finally:
            cluster.close()
    finally:
        made.close()


@dataclass
class Stage:
    """The processes of one proof."""

    hosts: Hosts
    cluster: Cluster
    root: Path
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    restarts: int = 0

    @property
    def url(self) -> str:
        return f"postgresql://edvac@{self.hosts.address}/postgres?schema=proof"

    def start(self, name: str) -> None:
        command = [sys.executable, str(HERE / "scale_worker.py"), self.url, name]
        command += [str(self.root / f"{name}.log"), str(LEASE_S), str(DELAY_S)]
        with (self.root / f"{name}.events").open("ab") as out:
            self.workers[name] = subprocess.Popen(
                [*self.hosts.inside(name), *command], stdout=out, stderr=out
            )

    def own(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "scale_owner.py"), self.url]
        work = self.root / "work"
        work.mkdir()
        with (self.root / "owner.err").open("wb") as errors:
            return subprocess.Popen(
                [*command, str(work), str(STEPS)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def restart_over_and_over(self, over: threading.Event) -> None:
        while not over.wait(RESTART_S):
            self.cluster.restart("immediate" if self.restarts % 2 else "fast")
            self.restarts += 1

    def executed(self, name: str) -> list[str]:
        log = self.root / f"{name}.log"
        return log.read_text().splitlines() if log.exists() else []

    def events(self, name: str) -> Counter[str]:
        lines = (self.root / f"{name}.events").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return Counter(one["how"] for one in found if one["event"] == "step_returned")

    def wait_for(self, count: int, limit_s: float = 60.0) -> None:
        until = time.monotonic() + limit_s
        while sum(len(self.executed(name)) for name in NAMES) < count:
            assert time.monotonic() < until, "the workers do not come on"
            time.sleep(0.05)

    def close(self) -> None:
        for process in self.workers.values():
            process.kill()
            process.wait()


def alone(root: Path) -> str:
    """What the program makes without workers."""
    root.mkdir()
    with Machine(root, scale_kit.processor(None, 0.0)) as machine:
        report = asyncio.run(machine.run(Job(scale_kit.program(STEPS), seed=1)))
        assert report.state == "done"
        made = machine.ledger.call_now(lambda store: store.read_file(report.run, "notes.txt"))
    return made.decode()


def disturb(stage: Stage) -> None:
    """One worker is killed in the middle of its steps, another loses its cable for a while."""
    stage.wait_for(STEPS // 5)
    stage.workers["one"].send_signal(signal.SIGKILL)
    stage.wait_for(STEPS * 2 // 5)
    stage.hosts.cut("two")
    time.sleep(CUT_S)
    stage.hosts.mend("two")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_and_nothing_doubled(
    place: tuple[Hosts, Cluster], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = alone(tmp_path / "alone")
    stage, over = Stage(*place, tmp_path), threading.Event()
    restarting = threading.Thread(target=stage.restart_over_and_over, args=(over,))
    began = time.monotonic()
    try:
        for name in NAMES:
            stage.start(name)
        owner = stage.own()
        restarting.start()
        disturb(stage)
        said, _ = owner.communicate(timeout=600)
    finally:
        over.set()
        if restarting.is_alive():
            restarting.join()
        took = time.monotonic() - began
        stage.close()
    last = said.strip().split("\n")[-1].split(" ", 3)
    assert last[0] == "run" and last[2] == "done", said + (tmp_path / "owner.err").read_text()
    check(stage, last[1], truth)
    report(stage, took, capsys)


def check(stage: Stage, run: str, truth: str) -> None:
    with open_store(stage.url, stage.root / "work") as store:
        assert store.read_file(run, "notes.txt").decode() == truth
        records = list(store.records(run, kinds=["outcome"]))
        slots = Counter(record.slot for record in records)
        assert len(slots) == STEPS + 1, "each step has an outcome, and the file that is written"
        assert set(slots.values()) == {1}, "and no step has two"
        assert store.verify() == []
    left: list[Any] = stage.cluster.sql("SELECT slot, state FROM queue", "proof")
    assert left == [], "the queue is empty"
    done = Counter(one for name in NAMES for one in stage.executed(name))
    assert set(done) == {f"item {n}" for n in range(STEPS)}
    assert stage.restarts >= 2


def report(stage: Stage, took: float, capsys: pytest.CaptureFixture[str]) -> None:
    """How often work was done, and how often it counted."""
    done = Counter(one for name in NAMES for one in stage.executed(name))
    with capsys.disabled():
        print(f"\n{STEPS} steps in {took:.1f} s over {stage.restarts} restarts of the database")
        print(f"executed {sum(done.values())}, of them again {sum(done.values()) - len(done)}")
        for name in NAMES:
            print(f"  {name}: executed {len(stage.executed(name))}, {dict(stage.events(name))}")
