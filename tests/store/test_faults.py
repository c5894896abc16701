"""Each operation of the store fails once, or it and all after it: nothing acknowledged is lost.

``EDVAC_FAULTS=1000`` tries every operation instead of a few of each kind.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable

import crash_harness as harness
import pytest
from fault_disk import REACH, FaultDisk
from sim_disk import Choose, State, discard, scratch

from edvac.core.errors import DamageError, StoreError
from edvac.store import database

MOST = int(os.environ.get("EDVAC_FAULTS", "4"))  # of each kind of operation
# What the caller is told; a database that cannot be opened may have been refused for any reason.
CODES = {
    "full": {"disk_full"},
    "io": {"store_io_failed", "store_unwritable"},
    "files": {"store_files_exhausted", "store_unwritable"},
}


@pytest.fixture(autouse=True)
def small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints fall into the workload."""
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", 24)


class Life:
    """The workload on a disk that strikes; each step is tried three times, as a caller may."""

    def __init__(self, reason: str, strike: Callable[[int], bool], states: list[object]) -> None:
        self.root = scratch()
        self.disk = FaultDisk(self.root, reason, strike)
        self.states = states
        self.reached = 0
        self.broken = ""
        self.struck = [0, 0]  # strikes before the last step and before this one
        self.codes: Counter[str] = Counter()
        self.work = harness.Workload(
            lambda: harness.open_store(self.root, vfs=self.disk.vfs_name, files=self.disk.files)
        )

    def live(self) -> harness.Recorded:
        try:
            for number, step in enumerate(harness.steps(), start=1):
                self.work.at = number
                self.struck = [self.struck[1], self.disk.strikes]
                if not self._insist(step):
                    break
                self.disk.ack(number)
                self.reached = number
                self._look(number)
        finally:
            if self.work.store is not None:
                self.work.store._db.drop()  # a store on a dead disk cannot be closed in order
            self.disk.calm()
            discard(self.root)
        return harness.Recorded(self.disk, self.states, self.work.blobs)

    def _insist(self, step: harness.Step) -> bool:
        blobs = len(self.work.blobs)
        for _ in range(3):
            try:
                step(self.work)
                return True
            except StoreError as error:
                self._told(error)
                del self.work.blobs[blobs:]
            if self.work.at in harness.CLOSES:
                return True  # closed all the same; what was acknowledged is durable
            if self.work.at not in harness.APPENDS and self._is_at(self.work.at):
                return True
        return False

    def _told(self, error: StoreError) -> None:
        self.codes[error.code] += 1
        if isinstance(error, DamageError):
            self.broken = self.broken or f"step {self.work.at}: {error!r}"

    def _look(self, number: int) -> None:
        if self.work.store is None or number in harness.CLOSES:
            return
        if self.disk.strikes == self.struck[0]:
            return  # of an earlier strike the images tell what came of it
        strikes = self.disk.strikes
        if not self._is_at(number) and strikes == self.disk.strikes:
            self.broken = self.broken or f"step {number} did not happen once"

    def _is_at(self, number: int) -> bool:
        try:
            found = self.work.store is not None and harness.dump(self.work.store)
        except StoreError as error:
            self._told(error)
            return False
        return bool(found == self.states[number])


def spread(ops: list[str]) -> list[int]:
    """Numbers of operations to strike at, spread over each kind."""
    found: list[int] = []
    for kind in sorted(set(ops)):
        numbers = [number for number, op in enumerate(ops, start=1) if op == kind]
        found += numbers[:: -(-len(numbers) // MOST)]
    return found


def faults(reason: str, ever: bool) -> tuple[harness.Tally, Counter[str]]:
    """Strike at an operation and look at what a crash could leave after that life."""
    states = harness.oracle()
    tally, seen = harness.Tally(), Counter[str]()
    quiet = Life(reason, lambda number: False, states)
    quiet.live()
    assert quiet.reached == len(harness.steps()) and not quiet.codes
    seen["operations"] = len(quiet.disk.ops)
    for k in spread(quiet.disk.ops):
        life = Life(reason, lambda n, k=k: n >= k if ever else n == k, states)
        recorded = life.live()
        op = next(op for op in recorded.disk.log if op[0] == "struck")[1]
        where = f"{reason}, {op} {k} failed {'for ever' if ever else 'once'}"
        assert not life.broken, f"{where}: {life.broken}"
        assert set(life.codes) <= CODES[reason], f"{where}: {life.codes}"
        assert sum(life.codes.values()) or not ever, f"{where}: nobody was told"
        if not ever:
            assert life.reached == len(harness.steps()), f"{where}: gave up, {life.codes}"
        seen.update([op, "runs"])
        seen["told"] += sum(life.codes.values())
        _check(recorded, life.reached, tally, where, k)
    return tally, seen


def _check(
    recorded: harness.Recorded, reached: int, tally: harness.Tally, where: str, seed: int
) -> None:
    rng, state, root = random.Random(seed), State(), scratch()
    try:
        for op in recorded.disk.log:
            state.apply(op)
        for how in ("all", "none", "random"):
            image = root / how
            state.image(Choose(how, rng), image)
            harness.check(image, recorded, reached, tally, f"{where}, {how}")
    finally:
        discard(root)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("reason", list(REACH))
def test_an_operation_that_fails_loses_nothing_acknowledged(reason: str, ever: bool) -> None:
    tally, seen = faults(reason, ever)
    print(f"{reason}, {'for ever' if ever else 'once'}: {dict(seen)}, {tally}")
    assert tally.images == 3 * seen["runs"] >= 12
    assert not tally.bad, tally
