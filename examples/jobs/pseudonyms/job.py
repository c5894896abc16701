"""Letters, mails and case notes about invented people, who must not be in what is released."""

from __future__ import annotations

import json
import random
import re
import textwrap
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path

from docx import Document
from kit import check_delivery, data_of, rows, snapshot

from edvac.bench.jobs import Scene, Size, Truth, Turn
from edvac.processor import Request

TITLE = "120 letters and case notes pseudonymised, with a key and a list of the doubtful ones"
SPOILED = [
    ("key=lambda pair: len(pair[0]), reverse=True", "key=lambda pair: len(pair[0])"),
    ("    if why:", "    if False:"),
    ("word not in TITLES]", "word]"),
]
RECORDS = {"small": 5, "full": 120}

FIRST = ("Anna", "Peter", "Ingrid", "Samir", "Grażyna", "Declan", "Mehmet", "Renée", "Lukas",
         "Oona", "Victor", "Salome", "Hanne", "Piotr", "Noor")  # fmt: skip
LAST = ("Keller", "Brandvold", "O'Shea", "Haddad", "Wiśniewska", "Lindqvist", "Yıldız", "Marchetti",
        "Thornbury", "Ferreira", "Grünwald", "Okafor", "Szabo", "Penhaligon")  # fmt: skip
STREETS = ("Mill Lane", "Harbour Road", "Linden Avenue", "Castle Street", "Quarry Road")
TOWNS = ("Ostbrück", "Wellhaven", "Kirkfold", "Marendal", "Steinach")


@dataclass(slots=True)
class Person:
    first: str
    last: str
    phone: str
    email: str
    account: str
    address: str

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"


@dataclass(slots=True)
class Record:
    """A record as it was made.

    Attributes:
        spans: what names somebody in it, as it is written there, and what it is.
        secret: of these, what nobody finds but the patterns.
    """

    text: str
    people: list[Person]
    spans: list[tuple[str, str]] = field(default_factory=list)
    secret: str = ""


def _digits(dice: random.Random, form: str) -> str:
    return re.sub("#", lambda _: str(dice.randrange(1, 10)), form)


def _people(dice: random.Random, count: int) -> list[Person]:
    names = [(first, last) for first in FIRST for last in LAST]
    made = []
    for first, last in dice.sample(names, count):
        plain = re.sub(r"[^a-z]", "", last.lower()) or "x"
        made.append(
            Person(
                first,
                last,
                _digits(dice, "0## #### ###"),
                f"{first[0].lower()}.{plain}{dice.randrange(99)}@mail.example",
                _digits(dice, "QX## #### #### ##"),
                f"{dice.randrange(1, 140)} {dice.choice(STREETS)}, "
                f"{dice.randrange(10000, 99999)} {dice.choice(TOWNS)}",
            )
        )
    return made


# {name}, {first}, {last}, {phone} … are those of the one whom the record is about; 2 is another.
LETTER = (
    "{name}\n{address}\n\nDear Sir or Madam,\n\nsince the water damage of 12/02/2026 I have waited "
    "for an answer. My account is {account}. Please call me on {phone}; my neighbour, Mr {last2}, "
    "saw how it happened.\n\nKind regards,\n{name}",
    "Dear Mrs {last},\n\nthank you for your letter of 3 March 2026. We have written to {name2}, "
    "who looks after contract {account}. The refund goes to the address that we have: {address}. "
    "If that is wrong, write to us.\n\nKind regards,\nthe customer office",
)
NOTE = (
    "Case note, 2026-03-09. Visited {name} at home ({address}). {first} says that the knee is "
    "better. Sister {name2} takes over the shopping on Thursdays. Next visit in two weeks. Phone "
    "of the sister: {phone2}.",
    "{last}, {first}: seen on 2026-03-11, blood pressure 140 over 90, no fever. Dr. {last2} agrees "
    "to go on with half the dose. Reachable under {phone}. No change of insurance ({account}).",
    "Telephone call with {name2} about {first} {last}. {first2} is worried: {first} does not open "
    "the door. Agreed: we try again on 14 March, then the caretaker opens.",
)
MAIL = (
    "Hello,\n\nplease change my number to {phone} and delete the old one. The contract is "
    "{account}.\n\nThanks, {first}",
    "Good morning,\n\nmy colleague {name2} <{email2}> asked me to send you the form. It is "
    "attached. Mrs {last} signed it.\n\nBest, {first}",
)
CHATTER = (
    "The file is complete apart from the second page of the form.",
    "Nothing else was discussed.",
    "The amount in question is 412.50, as in the year before.",
    "We have asked the technician for a date and will come back to you within ten days.",
    "The attachment could be opened and is filed under the month.",
)
HIDDEN = " Ring the back office at {} if nobody is there."  # which the oracle overlooks


def _fill(dice: random.Random, text: str, people: list[Person], hidden: bool) -> Record:
    """The text about two people, and every span of it that names one."""
    kinds = {"name": "person", "first": "person", "last": "person", "address": "address",
             "phone": "phone", "email": "e-mail", "account": "account"}  # fmt: skip
    spans = []
    for number, person in enumerate(people, 1):
        for part, kind in kinds.items():
            mark = f"{{{part}{number if number > 1 else ''}}}"
            value = str(getattr(person, part))
            if mark in text:
                spans.append((value, kind))
                text = text.replace(mark, value)
    ways = [f"{people[0].last}, {people[0].first}"]
    ways += [f"{title} {one.last}" for one in people for title in ("Mr", "Mrs", "Dr.")]
    spans += [(way, "person") for way in ways if way in text]
    record = Record(text, people, spans)
    if hidden:
        record.secret = _digits(dice, "0## #### ###")
        record.text += HIDDEN.format(record.secret)
    record.text += " " + " ".join(dice.sample(CHATTER, 2))
    return record


def _put(place: Path, number: int, kind: str, record: Record) -> str:
    """Write the record in the layout of its kind; its path."""
    if kind == "mail":
        message = EmailMessage()
        person = record.people[0]
        message["From"] = f"{person.name} <{person.email}>"
        message["To"] = "office@clinic.example"
        message["Date"] = "Mon, 09 Mar 2026 10:11:00 +0000"
        message["Subject"] = f"Contract of {person.name}"
        message.set_content(record.text)
        record.spans += [(person.name, "person"), (person.email, "e-mail"),
                         ("office@clinic.example", "e-mail")]  # fmt: skip
        name = f"records/{number:03}.eml"
        (place / name).write_bytes(message.as_bytes())
    elif kind == "letter":
        name = f"records/{number:03}.docx"
        document = Document()
        for paragraph in record.text.split("\n"):
            document.add_paragraph(paragraph)
        document.save(str(place / name))
    else:
        name = f"records/{number:03}.txt"
        wrapped = textwrap.fill(record.text, 60)
        encoding = "latin-1" if wrapped.isascii() else "utf-8"
        (place / name).write_bytes(wrapped.replace("\n", "\r\n").encode(encoding))
    return name


def make(place: Path, size: Size) -> Truth:
    dice = random.Random(8)
    (place / "records").mkdir()
    people = _people(dice, max(5, RECORDS[size] // 3))
    records = {}
    for number in range(RECORDS[size]):
        kind = ("letter", "note", "mail")[number % 3]
        texts = {"letter": LETTER, "note": NOTE, "mail": MAIL}[kind]
        text = texts[number // 3 % len(texts)]
        record = _fill(dice, text, _two(dice, people), hidden=number % 20 == 4)
        records[_put(place, number, kind, record)] = record
    (place / "records" / "900-scan.docx").write_bytes(b"PK\x03\x04 a broken file")
    return Truth(lambda request: _oracle(request, list(records.values())), (people, records))


def _two(dice: random.Random, people: list[Person]) -> list[Person]:
    """Two people who share no name: who is meant by it would be for nobody to say."""
    first = dice.choice(people)
    rest = [one for one in people if one.last != first.last and one.first != first.first]
    return [first, dice.choice(rest)]


def _flat(text: str) -> str:
    return " ".join(text.split())


def _oracle(request: Request, records: list[Record]) -> str:
    data = _flat(data_of(request)[0])
    record = max(records, key=lambda one: sum(span in data for span, _ in one.spans) + 100 * (
        _flat(one.text)[:60] in data))  # fmt: skip
    spans = [
        {"quote": span, "value": kind} for span, kind in dict(record.spans).items() if span in data
    ]
    return json.dumps({"spans": spans})


async def play(scene: Scene, truth: Truth) -> None:
    people, records = truth.facts
    first = await scene.run()
    scene.check("the run is done", first.report.state == "done")
    key = {(row["kind"], row["original"]): row["pseudonym"]
           for row in rows(first.text("private/key.csv"))}  # fmt: skip
    listed = {row["file"]: row["why"] for row in rows(first.text("private/doubtful.csv"))}
    released = _released(first, key)
    given = {str(path) for path in snapshot(scene.place)}
    scene.check("each record is released or listed", released.keys() | listed.keys() == given)
    scene.check("and none is both", not released.keys() & listed.keys())
    scene.check("the broken file is listed", "records/900-scan.docx" in listed)
    scene.check("the key is the only file with names in it", _key_alone(first, key))
    for name, record in records.items():
        _score(scene, name, record, released.get(name), listed.get(name, ""))
    _score_key(scene, people, records, key)
    await check_delivery(scene, first.report.run, set(first.files))
    await _one_more(scene, first, people)


def _released(turn: Turn, key: dict[tuple[str, str], str]) -> dict[str, str]:
    """The released texts, by the record that each was made of."""
    numbers = {
        pseudonym: original for (kind, original), pseudonym in key.items() if kind == "record"
    }
    return {
        numbers[Path(path).stem]: turn.text(path)
        for path in turn.files
        if path.startswith("released/")
    }


def _key_alone(turn: Turn, key: dict[tuple[str, str], str]) -> bool:
    """No released text holds what the key says that it replaced."""
    originals = [original for kind, original in key if kind in ("e-mail", "phone") and original]
    texts = [turn.text(path).lower() for path in turn.files if path.startswith("released/")]
    return not any(original.lower() in text for original in originals for text in texts)


def _score(scene: Scene, name: str, record: Record, text: str | None, why: str) -> None:
    if record.secret:  # a model may find it; else the patterns must
        kept = "number" in why if text is None else record.secret not in _flat(text)
        scene.score(f"{name}: what was overlooked stays in", kept, True)
    else:
        scene.score(f"{name}: is released", why or "yes", "yes")
    words = [word for one in record.people for word in (one.first, one.last) if word in record.text]
    private = [*words, *(span for span, kind in record.spans if kind != "person"), record.secret]
    left = [one for one in private if one and one in _flat(text or "")]
    scene.score(f"{name}: left of people", left, [])


def _score_key(
    scene: Scene, people: list[Person], records: dict[str, Record], key: dict[tuple[str, str], str]
) -> None:
    """Whoever is named in full has one pseudonym, and nobody else has the same."""
    full = {one.name.lower() for record in records.values() for one in record.people
            if any(one.name in span for span, _ in record.spans)}  # fmt: skip
    seen = set()
    for person in people:
        if person.name.lower() in full:
            pseudonym = key.get(("person", person.name.lower()), "")
            scene.score(f"{person.name} has a pseudonym", bool(pseudonym), True)
            scene.score(f"{person.name} has one alone", pseudonym in seen, False)
            seen.add(pseudonym)
    titled = [name for kind, name in key if kind == "person" and re.match(r"(mr|mrs|dr)\b", name)]
    scene.check("no title is part of a name", not titled)


async def _one_more(scene: Scene, first: Turn, people: list[Person]) -> None:
    """Delivered, and a record more that sorts before the others: who has a pseudonym keeps it."""
    await scene.apply(first.report.run)
    text = f"Case note, 2026-03-20. {people[0].name} was not at home. {CHATTER[1]}"
    (scene.place / "records" / "000-a.txt").write_text(text, encoding="utf-8")
    second = await scene.run()
    scene.check("only the new record is asked", second.calls <= 1 + 2 * _failed(first))
    old = rows(first.text("private/key.csv"))
    new = rows(second.text("private/key.csv"))
    scene.check("the key has grown and not changed", new[: len(old)] == old)
    for path in first.files:
        if path.startswith("released/"):
            scene.check(f"{path} is as it was", second.files.get(path) == first.files[path])


def _failed(turn: Turn) -> int:
    return sum("no answer" in row["why"] for row in rows(turn.text("private/doubtful.csv")))
