"""What a power cut leaves: acknowledged steps are there, the one under way is there or not.

``EDVAC_CRASH_IMAGES=N`` tries N images instead of a few thousand, ``EDVAC_CUT_EVERY=1`` fails each
sync instead of every other one.
"""

from __future__ import annotations

import os
import random

import crash_harness as harness
import pytest
from sim_disk import Choose, State, discard, scratch

from edvac.store import database

IMAGES = int(os.environ.get("EDVAC_CRASH_IMAGES", "1200"))
EVERY = int(os.environ.get("EDVAC_CUT_EVERY", "2"))  # 1 fails each sync
SEED = int(os.environ.get("EDVAC_CRASH_SEED", "1"))


@pytest.fixture(autouse=True)
def small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints fall into the workload."""
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", 24)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_every_image_holds_what_was_acknowledged() -> None:
    tally = harness.crash(harness.record(), IMAGES, SEED)
    print(tally)
    assert tally.images >= IMAGES * 0.8
    assert not tally.bad, tally


def outages(ever: bool) -> tuple[harness.Tally, int]:
    """Fail a sync of the workload, one a run (or all from it on), and look at the disk after."""
    tally = harness.Tally()
    count = harness.record().disk.syncs
    for k in range(1, count + 1, EVERY):
        outage = harness.record_failing(lambda n, k=k: n >= k if ever else n == k)
        assert not outage.broken, f"sync {k}: {outage.broken}"
        if not ever:
            assert outage.reached == len(harness.steps()), f"sync {k}: gave up"
            assert outage.failures <= 1
        check_after(outage, tally, k)
    return tally, count


def check_after(outage: harness.Outage, tally: harness.Tally, k: int) -> None:
    rng = random.Random(k)
    state, root = State(), scratch()
    for op in outage.recorded.disk.log:
        state.apply(op)
    for number, how in enumerate(("all", "none", "random")):
        image = root / str(number)
        state.image(Choose(how, rng), image)
        where = f"sync {k} failed, {how}"
        harness.check(image, outage.recorded, outage.reached, tally, where)
    discard(root)


@pytest.mark.slow
@pytest.mark.parametrize("ever", [False, True], ids=["once", "for ever"])
def test_failed_syncs_lose_nothing_acknowledged(ever: bool) -> None:
    tally, count = outages(ever)
    assert count > 60
    assert not tally.bad, tally
