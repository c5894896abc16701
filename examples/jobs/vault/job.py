"""A vault of notes as they grow in years: some moved and renamed, some synchronised twice, front
matter here and there, made on three systems."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import kit

from edvac.bench.jobs import Scene, Size, Truth, Turn
from edvac.machine import delivery
from edvac.processor import Request

TITLE = "A vault of 300 Markdown notes: links, front matter and duplicates, as a patch"
SPOILED = [
    ('inside = before.count("```") % 2 == 1 or', "inside ="),
    ("if target(link) in names or name is None:", "if name is None or len(link) > 12:"),
    ("for part in parts[::2]]", "for part in parts]"),
    ('== "one note, kept twice":\n', '!= "":\n'),
    ("if not has(head, field)])", "])"),
]
BULK: dict[Size, int] = {"small": 3, "full": 274}
OPTIONS = ("one note, kept twice", "two notes")

LINES = {
    "work": ["The offer for the school has to leave by Thursday.",
             "Jens wants the numbers by team and not by region.",
             "Moved the release to the 14th; marketing knows.",
             "Asked procurement for a second quote for the servers.",
             "Performance talks: Mira first, then Tom, both before the holidays."],
    "home": ["The boiler makes that noise again after the second start.",
             "Paint for the hall: two coats of chalk white, eleven litres are enough.",
             "The neighbours take in our parcels until the 20th.",
             "Insurance of the flat runs out in March, compare before.",
             "Under the sink the valve drips; a new seal did not help."],
    "garden": ["The tomatoes by the wall need string, not wire.",
               "Sow the beans a week later than last year, the frost came back.",
               "Aphids on the roses; soap and water every second evening.",
               "Turn the compost before the leaves come down.",
               "Quince: cut only the shoots that cross."],
    "health": ["Blood pressure was 128 over 82 after the walk.",
               "The physio wants three sets for the left knee, slowly.",
               "Next tetanus shot is due in two years.",
               "Slept six hours, woke at four, no coffee after noon from now on.",
               "Magnesium in the evening seems to stop the cramps."],
    "travel": ["The night train to Vienna has a coach with bicycles.",
               "Pension Alma: ask for a room to the yard.",
               "Ferry leaves at 7:40, be at the pier half an hour before.",
               "Packing: adapter, rain jacket, the small lens.",
               "Museum closes on Mondays, so the castle first."],
    "reading": ["Chapter four turns the argument round; the table on page 88 is the heart of it.",
                "She writes about islands as if they were people.",
                "Find the essay that he quotes, the library has only the second volume.",
                "The translation loses the joke with the two clocks.",
                "Half of it is about bees, and that is the better half."],
}  # fmt: skip


@dataclass
class Note:
    """`mended`: what its broken links become; `dead`: links that nobody can mend; `named`: names
    in it that are to become links."""

    path: str
    topic: str
    text: str
    mended: dict[str, str] = field(default_factory=dict)
    dead: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    raw: bytes = b""


@dataclass
class Facts:
    notes: list[Note]
    twice: dict[str, str]  # stem of a copy, and of the note that it is
    unread: list[str]


def _by_hand() -> list[Note]:
    """Each with something that goes wrong easily."""
    return [
        Note(
            "vault/Garden plan.md",
            "garden",
            "# Garden plan\n\nBeds by the wall: see [[seed-list]] and [[Seed List|the list]].\n"
            "Aphids on the roses; soap and water every second evening.\n![[bed.png]]\n",
            {
                "seed-list": "[[Seed list|seed-list]]",
                "Seed List|the list": "[[Seed list|the list]]",
            },
        ),
        Note(
            "vault/garden/Seed list.md",
            "garden",
            "---\ntitle: Seeds\ntags: [a, b]\n---\nBeans, chard, the old marigold.\n\n"
            "# Garden plan and this list\nOrder by February, for Garden plan 2026 not later.\n",
            named=["Garden plan 2026"],
        ),
        Note(
            "vault/garden/Garden plan 2026.md",
            "garden",
            "Turn the compost before the leaves come down. What was wrong with the Garden plan: "
            "too much shade.\n\nSee [[Garden plan 2024]].",
            dead=["Garden plan 2024"],
            named=["Garden plan"],
        ),
        Note(
            "vault/work/Hallmann account.md",
            "work",
            '---\r\ntopic: work\r\nsummary: "An account."\r\ntitle: Hallmann\r\n---\r\n'
            "The offer has to leave by Thursday. Ask [[people/mira Vogt#phone]] first.\r\n",
            {"people/mira Vogt#phone": "[[Mira Vogt#phone|people/mira Vogt#phone]]"},
        ),
        Note(
            "vault/people/Mira Vogt.md",
            "work",
            "Performance talk in June. She looks after the Hallmann account, and only she.\r\n"
            "```\r\n[[not a link]] Garden plan\r\n```\r\nCode above is an example.\r\n",
            named=["Hallmann account"],
        ),
        Note(
            "vault/Über Bücher.md",
            "reading",
            "Half of it is about bees, and that is the better half. She writes about islands "
            "as if they were people.\n[[über-bücher]] [[Nobody knows this]] [[Trip Plan]]\n",
            {"über-bücher": "[[Über Bücher|über-bücher]]"},
            ["Nobody knows this", "Trip Plan"],
        ),
        Note("vault/Trip-plan.md", "travel", "The night train to Vienna takes bicycles.\n"),
        Note(
            "vault/travel/Trip plan.md",
            "travel",
            "Ferry leaves at 7:40, be at the pier half an hour before. Budget: 400, see Budgets.\n",
        ),
        Note("vault/Budget.md", "home", "---\n---\nBudget by month: rent, food, the boiler.\n"),
        Note("vault/empty.md", "home", ""),
    ]


def _story(topic: str, number: int, rng: random.Random) -> str:
    place = rng.choice(["Linz", "Ghent", "Malmö", "Turin", "Leeds", "Brno", "Cork"])
    lines = rng.sample(LINES[topic], 3)
    extra = [f"Item {rng.randint(100, 9999)}: {word} for {place}, {rng.randint(2, 60)} of them, by "
             f"day {rng.randint(1, 300)}." for word in rng.sample(["check", "call", "order", "read",
             "return", "print", "measure"], 4)]  # fmt: skip
    return "\n".join([*lines, f"- [ ] {number}", *extra]) + "\n"


def _form(day: int, rng: random.Random) -> str:
    """A weekly form: these look alike and are not the same."""
    people = ", ".join(rng.sample(["Jens", "Mira", "Tom", "Ada", "Kofi"], 3))
    return (
        "## Weekly meeting\n\nRoom 2.14, Monday at nine, minutes go to everybody in the team.\n"
        "Whoever cannot come writes before eight what the others should know, and to whom a "
        "question can go while they are away.\n"
        f"Present: {people}\nDay: 2026-0{day % 9 + 1}-{day % 27 + 1:02}\n\n### Agenda\n"
        "1. What is done since the last time\n2. What is in the way, and who helps\n"
        f"3. {LINES['work'][day % 5]}\n\n### Decisions\nWe do number {day * 7} first, then the "
        "rest in the order of the board.\n\n### Next time\nSame room, same hour.\n"
    )


def _bulk(size: Size) -> tuple[list[Note], dict[str, str]]:
    rng = random.Random(11)
    notes = [Note(f"vault/meetings/Meeting {n:03}.md", "work", _form(n, rng))
             for n in range(max(2, BULK[size] // 12))]  # fmt: skip
    twice: dict[str, str] = {}
    topics = list(LINES)
    for number in range(BULK[size]):
        topic = topics[number % len(topics)]
        name = f"{topic.title()} {rng.choice(['notes', 'log', 'ideas'])} {number:03}"
        note = Note(f"vault/{topic}/{name}.md", topic, _story(topic, number, rng))
        draw = rng.random() if size == "full" else number / 4 + 0.1
        if draw < 0.2 and notes:
            other = rng.choice(notes)
            stem = Path(other.path).stem
            note.text += f"This belongs to {stem} as well.\n"
            note.named = [stem]
        elif draw < 0.3:
            note.text += "See [[Old notes|those]], they are gone.\n"
            note.dead = ["Old notes|those"]
        elif draw < 0.4:
            note.text = f"---\naliases: [n{number}]\n---\n# {name}\n" + note.text.removesuffix("\n")
        elif draw < 0.5:
            note.text = note.text.replace("\n", "\r\n")
        elif draw < 0.65:
            text = note.text.replace("Item", "Point", 1) if rng.random() < 0.5 else note.text
            copy = Note(note.path.replace(".md", " (1).md"), topic, text)
            if copy.text == note.text:  # of two equal ones the first stays
                twice[Path(note.path).stem] = Path(copy.path).stem
            else:
                note.text += "One more line that the copy lacks.\n"
                twice[Path(copy.path).stem] = Path(note.path).stem
            notes.append(copy)
        notes.append(note)
    return notes, twice


def make(place: Path, size: Size) -> Truth:
    more, twice = _bulk(size)
    notes = _by_hand() + more
    for note in notes:
        note.raw = note.text.encode()
        target = place / note.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(note.raw)
    (place / "vault" / "Latin.md").write_bytes("Größe in alter Schreibweise".encode("latin-1"))
    (place / "vault" / "bed.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    return Truth(_oracle(notes, twice), Facts(notes, twice, ["Latin"]))


def _rest(text: str) -> str:
    """Without front matter."""
    found = re.match(r"---\r?\n(?:.*\n)*?---\r?\n", text)
    return text[found.end() :] if found else text


def _oracle(notes: list[Note], twice: dict[str, str]) -> Callable[[Request], str]:
    known = {note.text.strip(): note for note in notes}
    stems = {Path(note.path).stem: _rest(note.text).strip() for note in notes}
    same = {frozenset((stems[one], stems[other])) for one, other in twice.items()}

    def answer(request: Request) -> str:
        data = [one.strip() for one in kit.data_of(request)]
        if len(data) == 2:
            return json.dumps({"answer": OPTIONS[frozenset(data) not in same]})
        note = known[data[0]]
        return json.dumps({"topic": note.topic, "summary": f'About "{note.topic}":\nwords'})

    return answer


# -- what came out --------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """What a reader sees: without front matter, links by their text."""
    shown = re.sub(r"\[\[(?:[^\]|\n]*\|)?([^\]\n]*)\]\]", r"\1", _rest(text))
    return shown.strip()


async def play(scene: Scene, truth: Truth) -> None:
    facts: Facts = truth.facts
    before = kit.snapshot(scene.place)
    first = await scene.run()
    run = first.report.run
    scene.check("the run ends well", first.report.state == "done")
    again = await scene.run()
    scene.check("a second run asks nothing", again.calls == 0)
    after = _patched(scene, await _patch(scene, run))
    scene.check("the run changed no file", kit.snapshot(scene.place) == before)
    await scene.apply(run)
    scene.check("the patch gives what apply gives", kit.snapshot(scene.place) == after)
    _look_at_notes(scene, facts, after)
    _look_at_report(scene, facts, first)
    third = await scene.run()
    changed = set(third.files) - {"look-at.md"}
    scene.check("what is in order stays as it is", not changed)
    await scene.undo(run)
    scene.check("undo restores every byte", kit.snapshot(scene.place) == before)


async def _patch(scene: Scene, run: str) -> bytes:
    return await scene.machine.ledger.call(lambda store: delivery.patch(store, run, scene.place))


def _patched(scene: Scene, patch: bytes) -> dict[str, bytes]:
    """The user's directory after `git apply`, in a copy."""
    copy = scene.place.parent / "copy"
    shutil.copytree(scene.place, copy)
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    done = subprocess.run(command, cwd=copy, input=patch, capture_output=True, check=False)
    scene.check("git takes the patch", done.returncode == 0)
    return kit.snapshot(copy)


def _look_at_notes(scene: Scene, facts: Facts, after: dict[str, bytes]) -> None:
    for note in facts.notes:
        name, text = Path(note.path).stem, after[note.path].decode()
        rest = _rest(text)
        scene.check(f"{name}: reads as before", _plain(text) == _plain(note.text))
        if "\r\n" in note.text:
            scene.check(f"{name}: line ends stay", "\n" not in text.replace("\r\n", ""))
        for link, right in note.mended.items():
            scene.check(f"{name}: {link} is mended", right in rest and f"[[{link}]]" not in rest)
        for link in note.dead:
            scene.check(f"{name}: {link} is left alone", f"[[{link}]]" in rest)
        links = set(re.findall(r"\[\[([^\]\n]+)\]\]", rest)) - set(
            re.findall(r"\[\[([^\]\n]+)\]\]", note.text)
        )
        made = {link for link in links if f"[[{link}]]" not in note.mended.values()}
        scene.check(f"{name}: names become links", made == set(note.named))
        if not note.text:
            continue
        head = text[: len(text) - len(rest)]
        fields = re.findall(r"(?m)^(title|topic|summary|duplicate_of): ?(.*?)\r?$", head)
        own = sorted(key for key, _ in fields if key != "duplicate_of")
        scene.check(f"{name}: each field once", own == ["summary", "title", "topic"])
        got = dict(fields)
        scene.score(f"topic of {name}", got.get("topic", "").strip('"'), note.topic)
        wanted = f'"[[{facts.twice[name]}]]"' if name in facts.twice else None
        scene.score(f"{name} is a copy of", got.get("duplicate_of"), wanted)


def _look_at_report(scene: Scene, facts: Facts, turn: Turn) -> None:
    report = turn.text("look-at.md")
    links = report.partition("# Links that lead nowhere")[2].partition("# Not read")[0]
    listed = {line for line in links.strip().split("\n") if line}
    dead = {f"{Path(note.path).stem}: {link}" for note in facts.notes for link in note.dead}
    empty = {f"{Path(n.path).stem}: (the note is empty)" for n in facts.notes if not n.text}
    scene.check("dead links are listed, each once", listed == dead | empty)
    scene.check("what is not UTF-8 is listed", "Latin: is no UTF-8" in report)
