"""Transcripts of meetings in four layouts, with what was really decided and promised in them."""

from __future__ import annotations

import datetime as dt
import json
import random
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit import check_delivery, data_of, rows

from edvac.bench.jobs import Scene, Size, Truth, Turn
from edvac.processor import Request

TITLE = "24 meeting transcripts to decisions and actions with quotes, owners and dates"
SPOILED = [
    ("- day.weekday() - 1) % 7 + 1", "- day.weekday() - 1) % 7"),
    ("found = [line for line in lines if start in line]", "found = lines"),
    ("in enumerate(chunk(lines, at_once)):", "in enumerate(chunk(lines, at_once)[1:]):"),
]
MEETINGS = {"small": 3, "full": 24}
TURNS = {"small": 70, "full": 350}

PEOPLE = ("Maria Lindt", "Tom O'Neill", "Łucja Wrona", "Priya Nair", "Jan van der Berg",
          "Ole Bakke", "Fatima Haddad", "Greg Sutter", "Ines Caldas", "Yusuf Demir")  # fmt: skip
CLIENTS = ("Norvik Shipping", "Casa Verde", "the Halm clinic", "Petrolux", "Arden & Sons",
           "the city library", "Blue Kite", "Tavola", "Ostmark Rail", "Fenwick Dairy")  # fmt: skip
PAPERS = ("offer", "signed contract", "cost estimate", "test report", "floor plan", "invoice list",
          "security form", "training plan", "price table")  # fmt: skip
DECISIONS = (
    "we stay with {client} for another year",
    "the pilot at {client} begins in {month}",
    "{client} gets a discount of {n} percent",
    "we do not bid for the {paper} of {client}",
    "support for {client} moves to the Lisbon office",
    "every {paper} for {client} is read by two people from now on",
)
AGREED = ("So we agree: {}.", "Right, that is settled then: {}.", "Decided: {}.",
          "Nobody objects, so {}.")  # fmt: skip
WORDS = (
    "The numbers look a bit better than last month, but I would not read too much into it.",
    "Sorry, I was on mute. Can you hear me now?",
    "I think we talked about that in the spring and never came back to it.",
    "Let me share my screen. Do you all see the table?",
    "We could also ask {client} whether they want the {paper}, but not today.",
    "Last year I sent the {paper} by Friday and nobody read it.",
    "That depends on what {client} says, and they have not answered.",
    "Hm. I see it differently, the customers asked for exactly that.",
    "Can we come back to this at the end?",
    "It took us {n} days last time, mostly waiting for the {paper}.",
    "Yes.",
    "I had a long call with {client} on Monday: they are happy with the new people.",
    "Honestly, I would rather not decide on that without the {paper} in front of me.",
    "Who was it that wrote to {client}? It does not matter, they have it.",
    "If we did it in {month}, we would be in the middle of the holidays.",
    "There is a typo on page {n} of the {paper}, by the way.",
)
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip


@dataclass(slots=True)
class Item:
    """What was decided or promised: the sentence, and what is true of it."""

    quote: str
    short: str
    owner: str | None = None
    words: str | None = None
    due: str = ""
    time: str = ""


@dataclass(slots=True)
class Meeting:
    name: str
    day: dt.date
    timed: bool = True  # does the transcript say when?
    turns: list[tuple[int, str, str]] = field(default_factory=list)  # second, speaker, words
    decisions: list[Item] = field(default_factory=list)
    actions: list[Item] = field(default_factory=list)


def _due(dice: random.Random, day: dt.date) -> tuple[str | None, str]:
    """How a date is said, and which one is meant."""
    ahead = dice.randrange(1, 8)
    weekday = (day + dt.timedelta(days=ahead)).strftime("%A")
    later = day + dt.timedelta(days=dice.randrange(10, 40))
    later = min(later, dt.date(day.year, 12, 30))
    month = (day.replace(day=1) + dt.timedelta(days=32)).replace(day=1) - dt.timedelta(days=1)
    exact = f"{later.day} {MONTHS[later.month - 1]}"
    return dice.choice([
        (f"by {weekday}", str(day + dt.timedelta(days=ahead))),
        (f"by {weekday}", str(day + dt.timedelta(days=ahead))),
        (f"until {exact}", str(later)),
        ("by the end of the month", str(month)),
        ("tomorrow", str(day + dt.timedelta(days=1))),
        (None, ""),
    ])  # fmt: skip


def _action(dice: random.Random, meeting: Meeting, what: str) -> tuple[str, Item]:
    """Who speaks, and what is promised."""
    speaker, other = dice.sample(PEOPLE, 2)
    words, due = _due(dice, meeting.day)
    when = f" {words}" if words else ""
    first = other.split()[0]
    said, owner = dice.choice([
        (f"I will {what}{when}.", speaker),
        (f"{first}, could you {what}{when}, please?", other),
        (f"{first} will {what}{when}.", other),
        (f"Somebody has to {what}{when}, we will see who.", None),
    ])  # fmt: skip
    return speaker, Item(said, what, owner, words, due)


def _meeting(dice: random.Random, number: int, length: int) -> Meeting:
    day = dt.date(2026, 3, 2) + dt.timedelta(days=number * 5)
    meeting = Meeting(f"meeting-{number:02}", day)
    pairs = [(client, paper) for client in CLIENTS for paper in PAPERS]
    dice.shuffle(pairs)
    spots = sorted(dice.sample(range(4, length - 3), 8))
    second = 3
    for turn in range(length):
        client, paper = dice.choice(pairs)
        free = {"client": client, "paper": paper, "month": dice.choice(MONTHS)}
        speaker = dice.choice(PEOPLE)
        words = " ".join(dice.sample(WORDS, dice.choice([1, 1, 2, 3])))
        if turn in spots:
            client, free["paper"] = pairs[spots.index(turn)]
            item = Item("", "")
            if spots.index(turn) % 2:
                speaker, item = _action(dice, meeting, f"send the {free['paper']} to {client}")
                meeting.actions.append(item)
            else:
                item.short = DECISIONS[spots.index(turn) // 2 + dice.randrange(3)].format(
                    **free | {"client": client}, n=dice.randrange(3, 20)
                )
                item.quote = dice.choice(AGREED).format(item.short)
                meeting.decisions.append(item)
            item.time = _clock(second)
            words = dice.choice(["{}", "OK, one more thing. {}", "{} Good."]).format(item.quote)
        words = words.format(**free, n=dice.randrange(2, 60))
        if meeting.turns and meeting.turns[-1][1] == speaker:
            speaker = next(one for one in PEOPLE if one != speaker and one.split()[0] not in words)
            _speaks_instead(meeting, words, speaker)
        meeting.turns.append((second, speaker, words))
        second += 2 + len(words) // 12 + dice.randrange(5)
    return meeting


def _speaks_instead(meeting: Meeting, words: str, speaker: str) -> None:
    """A promise in the first person is that of whoever says it."""
    for item in meeting.actions[-1:]:
        if item.quote in words and item.quote.startswith("I will"):
            item.owner = speaker


def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"


# -- how the four programs write a transcript ------------------------------------------------------


def _bracketed(meeting: Meeting) -> str:
    head = f"Project meeting\nDate: {meeting.day.day} {meeting.day:%B %Y}\nPresent: all\n\n"
    return head + "\n".join(f"[{_clock(at)}] {who}: {said}" for at, who, said in meeting.turns)


def _captions(meeting: Meeting) -> str:
    """Web captions: turns are cut into cues, and cues into lines."""
    made, number = [f"WEBVTT - recording\n\nNOTE {meeting.day}\n"], 0
    for at, who, said in meeting.turns:
        for place, cue in enumerate(textwrap.wrap(said, 90)):
            number += 1
            start = _clock(at + place)
            lines = "\n".join(textwrap.wrap(cue, 42))
            made.append(f"{number}\n{start}.000 --> {start}.900\n<v {who}>{lines}</v>\n")
    return "\n".join(made)


def _plain(meeting: Meeting) -> str:
    head = f"Notes of {meeting.day.day} {meeting.day:%B %Y}, typed from the recording\r\n\r\n"
    return head + "\r\n\r\n".join(
        f"{who}: " + "\r\n".join(textwrap.wrap(said, 72)) for _, who, said in meeting.turns
    )


def _headed(meeting: Meeting) -> str:
    return f"{meeting.day}\n\n" + "\n".join(
        f"{who}   {_clock(at)}\n{said}\n" for at, who, said in meeting.turns
    )


LAYOUTS: tuple[tuple[str, Callable[[Meeting], str]], ...] = (
    ("txt", _bracketed),
    ("vtt", _captions),
    ("txt", _plain),
    ("txt", _headed),
)


def make(place: Path, size: Size) -> Truth:
    dice = random.Random(6)
    (place / "meetings").mkdir()
    meetings = {}
    for number in range(MEETINGS[size]):
        meeting = _meeting(dice, number, TURNS[size])
        suffix, layout = LAYOUTS[number % len(LAYOUTS)]
        if layout is _plain:
            meeting.timed = False
            for item in [*meeting.decisions, *meeting.actions]:
                item.time = ""
        name = f"{meeting.name}.{suffix}"
        (place / "meetings" / name).write_bytes(layout(meeting).encode())
        meetings[name] = meeting
    (place / "meetings" / "recording-failed.vtt").write_bytes(b"")
    return Truth(lambda request: _oracle(request, list(meetings.values())), meetings)


def _oracle(request: Request, meetings: list[Meeting]) -> str:
    data = data_of(request)
    if request.schema is None:
        return "The meeting came to what is listed. Nothing else was decided."
    actions: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []
    for meeting in meetings:
        for item in meeting.actions:
            if item.quote in data[0]:
                owner = "I" if item.quote.startswith("I will") else item.owner
                task = {"quote": item.quote, "value": item.short}
                actions.append({"task": task, "owner": owner, "due": item.words})
        for item in meeting.decisions:
            if item.quote in data[0]:
                decisions.append({"quote": item.quote, "value": item.short})
    return json.dumps({"decisions": decisions, "actions": actions})


async def play(scene: Scene, truth: Truth) -> None:
    meetings: dict[str, Meeting] = truth.facts
    first = await scene.run()
    scene.check("the run is done", first.report.state == "done")
    _check_quotes(scene, first, meetings)
    unread = rows(first.text("unread.csv"))
    empty = "meetings/recording-failed.vtt"
    scene.check("the broken recording is named", empty in [row["file"] for row in unread])
    for name, meeting in meetings.items():
        _score(scene, first, name, meeting)
    files = {"actions.csv", "decisions.csv", "unread.csv"}
    files |= {f"minutes/{meeting.name}.md" for meeting in meetings.values()}
    await check_delivery(scene, first.report.run, files)
    await _one_more(scene, first, meetings)


def _check_quotes(scene: Scene, turn: Turn, meetings: dict[str, Meeting]) -> None:
    """Every quote is what somebody said, at the time that stands beside it."""
    for row in rows(turn.text("actions.csv")) + rows(turn.text("decisions.csv")):
        meeting = meetings[row["file"]]
        start = row["quote"].split("\n")[0].strip()
        said = [at for at, who, words in meeting.turns if start in f"{who}: {words}" or start in
                f"[{_clock(at)}] {who}: {words}"]  # fmt: skip
        scene.check(f"somebody said {start[:50]!r}", said)
        timed = {_clock(at) for at in said} if row["time"] else {""}
        scene.check(f"the time of {start[:50]!r}", row["time"] in timed)
        scene.check("the day is that of the meeting", row["day"] == str(meeting.day))
    for meeting in meetings.values():
        lines = [f"[{_clock(at)}] {who}: {words}" if meeting.timed else f"{who}: {words}"
                 for at, who, words in meeting.turns]  # fmt: skip
        same = turn.text(f"transcripts/{meeting.name}.txt") == "\n".join(lines) + "\n"
        scene.check(f"{meeting.name} is read turn by turn", same)
        minutes = turn.text(f"minutes/{meeting.name}.md")
        scene.check(f"{meeting.name} has minutes", minutes.startswith(f"# {meeting.name}\n"))


def _score(scene: Scene, turn: Turn, name: str, meeting: Meeting) -> None:
    """Each true item is found once, with its owner and date; and nothing that is none."""
    tables = (("decisions.csv", meeting.decisions), ("actions.csv", meeting.actions))
    for table, items in tables:
        found = [row for row in rows(turn.text(table)) if row["file"] == name]
        matched = set()
        for item in items:
            ours = [place for place, row in enumerate(found) if _same(row["quote"], item.quote)]
            scene.score(f"{name}: {item.quote!r} is found", bool(ours), True)
            matched.update(ours)
            if ours and table == "actions.csv":
                row = found[ours[0]]
                owner = item.owner or ""
                scene.score(f"{item.quote!r}: owner", _first(row["owner"]), _first(owner))
                scene.score(f"{item.quote!r}: due", row["due"], item.due)
            if ours:
                scene.score(f"{item.quote!r}: time", found[ours[0]]["time"], item.time)
        scene.score(f"{name}: found besides in {table}", len(found) - len(matched), 0)


def _same(quote: str, sentence: str) -> bool:
    return len(quote) > 12 and (quote in sentence or sentence in quote)


def _first(name: str) -> str:
    return name.split(maxsplit=1)[0] if name else ""


async def _one_more(scene: Scene, first: Turn, meetings: dict[str, Meeting]) -> None:
    """The next meeting comes in: only it is read."""
    more = _meeting(random.Random(7), 40, 30)
    (scene.place / "meetings" / f"{more.name}.txt").write_text(_bracketed(more), encoding="utf-8")
    second = await scene.run()
    again = sum(row["from"] != "" for row in rows(first.text("unread.csv")))  # tried once more
    # three stretches of twelve turns, each twice at most, and two sentences about them
    scene.check("only the new meeting is asked", 1 <= second.calls <= 7 + 2 * again)
    kept = [row for row in rows(second.text("actions.csv")) if row["file"] in meetings]
    if not again:
        scene.check("the other rows are as they were", kept == rows(first.text("actions.csv")))
