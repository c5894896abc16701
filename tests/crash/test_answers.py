"""A run that asks, killed on both sides: no answer is lost, none counts twice."""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from crash_kit import Server, lines
from crash_plants import ANSWER_PLANTS

from edvac.core.value import Failed, plain
from edvac.machine.history import read_history
from edvac.store import Store

LIVES = int(os.environ.get("EDVAC_KILLS", "32")) // 4
DRIVE_POINTS = ("driver.before_commit", "driver.after_commit", "store.append.before_commit")
# Where bugs show that kills at all points would find too, but after many lives.
SHOWS_AT = dict.fromkeys(
    ("answers_taken_after_they_act", "retries_not_durable"), ("driver.after_commit",)
)
POST_POINTS = ("store.post.before_commit", "store.post.after_commit")


def life(
    server: Server,
    work: Path,
    chance: random.Random,
    plant: str = "",
    points: tuple[str, ...] = DRIVE_POINTS,
) -> list[str]:
    """Drive and answer in turns, killing most of the time, until the run is done; the faults."""
    (work / "inbox").mkdir(parents=True)
    for name in ("ann", "bert", "cleo"):
        (work / "inbox" / f"{name}.txt").write_text(name)
    for turn in range(40):
        for does in ("asking", "reply", "reply"):
            said = server.do(
                work=str(work), do=does, text=str(turn), plant=plant, **kill(chance, does, points)
            )
            if said not in ("killed", "ok"):
                return [said]
        if lines(work / "states")[-1:] == ["answered"] and "done" in lines(work / "states"):
            return examine(work)
    return ["it never ended"]


def kill(chance: random.Random, does: str, driving: tuple[str, ...]) -> dict[str, Any]:
    if chance.random() < 0.3:
        return {}
    points = driving if does == "asking" else POST_POINTS
    return {"kill_at": f"{chance.choice(points)}:{chance.randint(1, 9 if does == 'asking' else 4)}"}


def examine(work: Path) -> list[str]:
    faults = []
    tried: dict[str, set[str]] = defaultdict(set)
    acknowledged: dict[str, list[str]] = defaultdict(list)
    for name, into in (("tried", tried), ("acknowledged", acknowledged)):
        for line in lines(work / name):
            slot, key, said = line.split(" ", 2)
            found = into[f"{slot} {key}"]
            found.add(said) if isinstance(found, set) else found.append(said)
    took: Counter[str] = Counter()
    agreed: Counter[str] = Counter()  # a mail whose fate is unknown is asked about again
    with Store(work) as store:
        run = next(info for info in store.runs(5) if info.last_seq)
        open_now: dict[str, str] = {}
        for entry in read_history(store, run.id).entries:
            if "key" in entry.body:
                open_now[entry.slot] = f"{entry.slot} {entry.body['key']}"
            elif entry.slot in open_now and (said := effect(entry)):
                question = open_now.pop(entry.slot)
                took[question] += 1
                agreed[entry.slot] += said == "True"
                if said not in tried[question]:
                    faults.append(f"{said!r} was never given to {question}")
                if acknowledged[question] and acknowledged[question] != [said]:
                    faults.append(f"{question}: {acknowledged[question]} became {said!r}")
        faults += [f"messages left: {len(store.inbox(run.id))}"] if store.inbox(run.id) else []
    faults += [f"{question} took {count} answers" for question, count in took.items() if count > 1]
    faults += [f"{question} was lost" for question in acknowledged if not took[question]]
    mails = Counter(lines(work / "mailbox"))
    more = [slot for slot, count in mails.items() if count > agreed[slot]]
    return faults + [f"{slot} was mailed more often than agreed to" for slot in more]


def effect(entry: Any) -> str:
    """What a record makes of an answer; nothing for the end of a step that was refused."""
    if entry.kind == "approved":
        return str(entry.body["verdict"] == "yes")
    if entry.kind == "outcome" and not isinstance(entry.value, Failed):
        return str(plain(entry.value))
    return ""


def test_no_answer_is_lost_and_none_counts_twice(server: Server, tmp_path: Path) -> None:
    for number in range(LIVES):
        assert not life(server, tmp_path / f"life{number}", random.Random(number)), number


def test_the_planted_bugs_are_found(server: Server, tmp_path: Path) -> None:
    missed = []
    for plant in ANSWER_PLANTS:
        lives = (tmp_path / f"{plant}{number}" for number in range(40))
        points = SHOWS_AT.get(plant, DRIVE_POINTS)
        found = (life(server, work, random.Random(at), plant, points)
                 for at, work in enumerate(lives))  # fmt: skip
        if not any(found):
            missed.append(plant)
    assert not missed
