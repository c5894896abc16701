"""What outsiders write changes nothing of what is done, but where the policy or a person says so:
random programs with pairs of inputs, through the whole machine under real policies.

The claim is that of a termination-insensitive noninterference (Volpano, Irvine and Smith 1996): a
life that somebody could stop shows a prefix of the other. EDVAC_PAIRS=N for more; a failure names
its seed.
"""

from __future__ import annotations

import operator
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from interference import POLICIES, Case, Life, Seen, Shown, program, seen, strangers

from edvac.core.errors import ProgramError

PAIRS = int(os.environ.get("EDVAC_PAIRS", "40"))


def case_of(seed: int, mode: str) -> Case:
    """One mode runs ahead of conditions, one does not; in one both processes are killed, the disk
    fills up and the model goes away."""
    chance = random.Random(f"case {seed}")
    policy, says = chance.choice(list(POLICIES)), chance.choice([False, False, True, None])
    text = program(seed)
    if mode == "killed":
        return Case(seed, text, policy, says=True, trouble=1 + seed % 6)
    return Case(seed, text, policy, says, ahead=mode == "ahead")


def pair(seed: int, place: Path, mode: str) -> tuple[Seen, Seen] | None:
    """Both lives as they are seen; None where the program is not legal."""
    case = case_of(seed, mode)
    views = []
    for number, stranger in enumerate(strangers(random.Random(f"strangers {seed}"))):
        life = Life(case, stranger, place / f"{seed} {number}")
        try:
            views.append(seen(life, life.live()))
        except ProgramError:
            return None
    return views[0], views[1]


def agree(one: Seen, other: Seen) -> None:
    """Raises AssertionError where a difference is explained by no exception."""
    ours, theirs = one.mails, other.mails
    if len(ours) != len(theirs) or any(map(operator.ne, ours, theirs)):
        ours, theirs = _unendorsed(ours), _unendorsed(theirs)
    shared = min(len(ours), len(theirs))
    assert ours[:shared] == theirs[:shared]
    assert len(ours) == shared or other.stopped
    assert len(theirs) == shared or one.stopped
    if not (one.stopped or other.stopped):
        assert one.names == other.names
        assert one.files == other.files


def _unendorsed(mails: list[Shown]) -> list[Shown]:
    return [mail for mail in mails if not mail.endorsed]


@pytest.mark.parametrize("mode", ["ahead", "behind", "killed"])
def test_outsiders_change_nothing_but_what_is_listed(tmp_path: Path, mode: str) -> None:
    met: Counter[str] = Counter()
    for seed in range(PAIRS):
        try:
            views = pair(seed, tmp_path, mode)
            if views is None:
                continue
            agree(*views)
        except BaseException as problem:
            case = case_of(seed, mode)
            problem.add_note(f"seed {seed}, policy {case.policy}, says {case.says}\n{case.text}")
            raise
        exceptions = {*views[0].exceptions, *views[1].exceptions}
        met.update(exceptions)
        met["stopped"] += views[0].stopped or views[1].stopped
        met["programs"] += 1
        met["without exception"] += not exceptions
        met["mails"] += len(views[0].mails)
        met["files"] += len(views[0].files)
        met["hidden names"] += sum(one == "hidden" for one in views[0].names.values())
        met["names"] += len(views[0].names)
    print(dict(met))
