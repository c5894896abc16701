"""Random programs under random timing, failures, crashes and cancels equal one step after another.

EDVAC_SEEDS=N for more; a failure names its seed.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import Any

import pytest
import sim
from sim import Crash, Ended, Simulation, World, parsed, sequentially
from sim_programs import Writer

from edvac.control import Replay, Scoreboard, Step
from edvac.control.ahead import RunAhead
from edvac.control.external import ExternalOrder
from edvac.control.scoreboard import _Paths
from edvac.control.unit import ControlUnit
from edvac.core.errors import EdvacError
from edvac.machine.history import History

SEEDS = int(os.environ.get("EDVAC_SEEDS", "400"))


def program_of(seed: int) -> tuple[str, Any]:
    """The seed's program; texts that are not legal are passed over."""
    chance = random.Random(seed)
    while True:
        text = Writer(chance).program()
        try:
            return text, parsed(text)
        except EdvacError:
            continue


def lives(seed: int, *, crashes: bool, cancels: bool) -> tuple[Ended, Ended, World]:
    _, program = program_of(seed)
    chance = random.Random(f"{seed} lives")
    wanted = sequentially(program, seed)
    world = World()
    while True:
        options: dict[str, int] = {}
        if crashes and world.lives < 4:
            options["crash_at"] = chance.randint(1, 12)
        if cancels and world.lives < 3 and chance.random() < 0.5:
            options["cancel_at"] = chance.randint(1, 10)
        life = Simulation(program, world, seed, chance, **options)
        try:
            state = life.run()
        except Crash:
            continue
        if state not in ("cancelled", "unserved"):
            return life.ended(state), wanted, world


def check(seed: int, *, crashes: bool, cancels: bool) -> None:
    found, wanted, world = lives(seed, crashes=crashes, cancels=cancels)
    assert found.files == wanted.files
    assert found.steps == wanted.steps
    assert found.names == wanted.names
    assert found.mails == wanted.mails
    assert found.state == wanted.state
    sent = {slot: world.mails.count(slot) for slot in world.mails}
    assert all(count <= 1 + world.asked[slot] for slot, count in sent.items())
    outcomes = [record.slot for record in world.records if record.kind == "outcome"]
    assert len(outcomes) == len(set(outcomes)), "a step has two outcomes"


@pytest.mark.parametrize("kind", ["calm", "crashes", "cancels", "both"])
def test_any_order_equals_program_order(kind: str) -> None:
    for seed in range(["calm", "crashes", "cancels", "both"].index(kind), SEEDS, 4):
        try:
            check(seed, crashes=kind in ("crashes", "both"), cancels=kind in ("cancels", "both"))
        except (AssertionError, EdvacError) as problem:
            problem.add_note(f"seed {seed}, {kind}\n{program_of(seed)[0]}")
            raise


def test_the_programs_are_worth_it() -> None:
    """Together they have everything that the invariants speak of."""
    steps: dict[str, int] = {}
    mails = blocked = retried = escalated = ahead = taken_over = 0
    for seed in range(60):
        found, _, world = lives(seed, crashes=True, cancels=False)
        mails += len(found.mails)
        escalated += len(world.escalated)
        ahead += world.ahead
        taken_over += world.taken_over
        blocked += sum(state == "blocked" for state in found.steps.values())
        retried += sum(count > 1 for count in world.executed.values())
        for state in found.steps.values():
            steps[state] = steps.get(state, 0) + 1
    assert escalated > 10
    assert ahead > 100 and taken_over > 15
    assert mails > 20 and blocked > 50 and retried > 50 and steps["failed"] > 30


# -- planted bugs -------------------------------------------------------------------------------


def no_hazards(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Scoreboard, "hazard", lambda *_: None)


def no_war(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Paths, "add", _only_writes(_Paths.add))
    patch.setattr(_Paths, "remove", _only_writes(_Paths.remove))


def _only_writes(method: Any) -> Any:
    def kept(self: _Paths, claim: Any) -> None:
        if self._of(claim) is claim.access.writes:
            method(self, claim)

    return kept


def no_regions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ControlUnit, "open_region", lambda *_: 1)
    patch.setattr(ControlUnit, "close_region", lambda *_: None)


def eager_external(patch: pytest.MonkeyPatch) -> None:
    def at_once(self: ExternalOrder) -> list[Step]:
        waiting, self._waiting = self._waiting, []
        return waiting

    patch.setattr(ExternalOrder, "due", at_once)


def no_limits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ControlUnit, "_room", lambda *_: 1000)


def no_backoff(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sim, "LIMITS", replace(sim.LIMITS, backoff_s=0.0))


def impatient(patch: pytest.MonkeyPatch) -> None:
    """Who is told to come back in 7 s comes back at once."""
    retry = ControlUnit._fail_or_retry
    patch.setattr(
        ControlUnit, "_fail_or_retry", lambda self, s, f: retry(self, s, replace(f, wait_s=0.0))
    )


def forgotten_escalation(patch: pytest.MonkeyPatch) -> None:
    replay = History.replay
    patch.setattr(History, "replay", lambda self: replace(replay(self), escalated={}))


def escalated_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ControlUnit, "_may_escalate", lambda self, step: step.call.op == "llm.choose")


def forgotten_replay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(History, "replay", lambda _: Replay())


def forgotten_unknown(patch: pytest.MonkeyPatch) -> None:
    replay = History.replay

    def without(self: History) -> Replay:
        return replace(replay(self), unknown=frozenset())

    patch.setattr(History, "replay", without)


def issue_after_cancel(patch: pytest.MonkeyPatch) -> None:
    pump = ControlUnit._pump

    def goes_on(self: ControlUnit) -> Any:
        if self._stopping:
            self._issue()
        return pump(self)

    patch.setattr(ControlUnit, "_pump", goes_on)


def swallowed_failure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ExternalOrder, "_earlier_failure", lambda *_: None)


def reads_too_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Scoreboard, "conflicts", lambda *_: False)


def writes_ahead(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RunAhead, "_harmless", lambda *_: True)


PLANTS = [
    no_hazards,
    no_war,
    no_regions,
    eager_external,
    no_limits,
    no_backoff,
    impatient,
    forgotten_escalation,
    escalated_for_ever,
    forgotten_replay,
    forgotten_unknown,
    issue_after_cancel,
    swallowed_failure,
    reads_too_early,
    writes_ahead,
]


def test_the_simulation_bites() -> None:
    caught = {}
    for plant in PLANTS:
        with pytest.MonkeyPatch.context() as patch:
            plant(patch)
            caught[plant.__name__] = _is_caught()
    print(f"caught {sum(caught.values())} of {len(caught)} planted bugs")
    assert all(caught.values()), [name for name, found in caught.items() if not found]


def _is_caught() -> bool:
    for seed in range(200):
        try:
            check(seed, crashes=True, cancels=seed % 2 == 1)
        except (AssertionError, EdvacError, KeyError):
            return True
    return False
