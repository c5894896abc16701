"""A shelf of letters, scanned: names that a scanner gave become names that say what each is."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import kit
import paper
from paper import Page

from edvac.bench.jobs import Scene, Size, Truth, Turn
from edvac.core.errors import UsageError
from edvac.processor import Request

TITLE = "Scans renamed by date, sender and kind; staged, applied and undone byte for byte"
SPOILED = [
    ('free(f"{scan.date} {plain(scan.sender)} {scan.kind}", taken)',
     'f"{scan.date} {plain(scan.sender)} {scan.kind}"'),
    ("taken = {path.stem(p).lower(): p for p in named}", "taken = {'': ''}"),
    ("new = [p for p in paths if p not in named]", "new = paths"),
    ("left.append(", "named.append("),
]  # fmt: skip
BLANK, TORN = "scan0003.png", "scan0004.png"
KEPT = "2026-02-11 Stadtwerke Auental invoice.png"  # named in an earlier month
NAME = re.compile(r"(\d{4}-\d\d-\d\d) (.+) (\w+?)( \(\d+\))?\.\w+")


@dataclass(frozen=True, slots=True)
class Letter:
    """A piece of paper, and what is true of it."""

    file: str
    kind: str
    sender: str
    day: dt.date
    form: str
    page: Page


# -- what is printed ----------------------------------------------------------------------------

Body = Callable[[dt.date, random.Random], list[str]]


def invoice(day: dt.date, rng: random.Random) -> list[str]:
    return [f"Invoice no. {rng.randint(10000, 99999)}", "",
        f"Supply from {day - dt.timedelta(60):%d.%m.%Y} to {day - dt.timedelta(30):%d.%m.%Y}",
        f"Amount due: EUR {rng.randint(20, 900)}.{rng.randint(10, 99)}",
        f"Please pay by {day + dt.timedelta(14):%d.%m.%Y}."]  # fmt: skip


def reminder(day: dt.date, rng: random.Random) -> list[str]:
    return ["Payment reminder", "", f"Our claim {rng.randint(10000, 99999)} is still open.",
        f"It was due on {day - dt.timedelta(40):%d.%m.%Y}.",
        f"Please transfer EUR {rng.randint(20, 900)}.00 and a fee of EUR 5.00 now."]  # fmt: skip


def contract(day: dt.date, rng: random.Random) -> list[str]:
    return [f"Contract {rng.randint(10000, 99999)}", "", "between us and M. Brandt, Am Bach 7.",
        f"1. The contract begins on {day + dt.timedelta(25):%d.%m.%Y} and runs for two years.",
        "2. Either side may end it three months before it runs out.",
        "3. Signed by both parties."]  # fmt: skip


def statement(day: dt.date, rng: random.Random) -> list[str]:
    a, b = rng.randint(100, 9000), rng.randint(100, 9000)
    return [f"Statement of account {rng.randint(10000, 99999)}", "",
        f"Balance on {day - dt.timedelta(30):%d.%m.%Y}: EUR {a}.00",
        f"Transactions: {rng.randint(3, 40)}", f"Balance now: EUR {b}.00"]  # fmt: skip


def certificate(day: dt.date, rng: random.Random) -> list[str]:
    return [f"Certificate {rng.randint(10000, 99999)}", "",
        "This is to certify that Marta Brandt, born 17.08.1984,",
        "has taken part in the course and passed its examination."]  # fmt: skip


def receipt(day: dt.date, rng: random.Random) -> list[str]:
    return [f"Receipt {rng.randint(10000, 99999)}", "", f"2 x lamp    {rng.randint(10, 50)}.90",
        f"1 x cable   {rng.randint(3, 9)}.50", "Paid in cash, thank you."]  # fmt: skip


def letter(day: dt.date, rng: random.Random) -> list[str]:
    return [f"Your file {rng.randint(10000, 99999)}", "", "Dear Ms Brandt,",
        f"thank you for your letter of {day - dt.timedelta(9):%d.%m.%Y}. We have looked at it and",
        "will come back to you as soon as we know more.", "Kind regards"]  # fmt: skip


BODIES: dict[str, Body] = {
    "invoice": invoice, "reminder": reminder, "contract": contract, "statement": statement,
    "certificate": certificate, "receipt": receipt, "letter": letter,
}  # fmt: skip
SENDERS = {  # as printed, and as people say it
    "Stadtwerke Auental GmbH": "Stadtwerke Auental",
    "Nordlicht Bank AG": "Nordlicht Bank",
    "K/L Architects": "K/L Architects",
    "Finanzamt Maulburg": "Finanzamt Maulburg",
    "Harbour Insurance Ltd": "Harbour Insurance",
    "Dr. Ines Falk, Dentist": "Dr. Ines Falk",
    "Lumen Lighting Ltd": "Lumen Lighting",
    "College of Further Education": "College of Further Education",
    "Veltins & Partner Solicitors": "Veltins & Partner Solicitors",
    "Society for the Preservation of Historic Waterworks": "Society for the Preservation of Historic Waterworks",  # noqa: E501
}
DAYS = ("{0:%d.%m.%Y}", "{0.day} {0:%B %Y}", "{0:%B} {0.day}, {0.year}", "{0:%Y-%m-%d}")


def sheet(kind: str, printed: str, day: dt.date, rng: random.Random) -> Page:
    """Letterheads on the left, in the middle or on the right; the date near it or in the text."""
    page = Page(height=rng.choice([297, 210, 148]))
    x = rng.choice([20, 60, 110])
    page.put(x, 20, printed, rng.choice([12, 13, 15]), bold=True)
    page.put(x, 27, f"{rng.choice(['Hafenstr.', 'Mill Lane', 'Ringweg'])} {rng.randint(2, 99)}", 8)
    if kind != "receipt":
        page.lines(20, 42, ["M. Brandt", "Am Bach 7", "79689 Maulburg"])
    when = rng.choice(DAYS).format(day)
    if rng.random() < 0.5:
        page.put(140, 62, when)
        page.lines(20, 76, BODIES[kind](day, rng))
    else:
        y = page.lines(20, 66, BODIES[kind](day, rng))
        page.put(20, y + 6, f"Maulburg, {when}")
    return page


def letters(count: int, rng: random.Random) -> list[Letter]:
    made: list[Letter] = []
    suffixes = {"PNG": "png", "JPEG": "JPG", "TIFF": "tif"}
    for place in range(count):
        printed = rng.choice(list(SENDERS))
        kind = rng.choice(list(BODIES))
        day = dt.date(2026, 1, 2) + dt.timedelta(rng.randint(0, 150))
        if place == 0:  # as one that has its name already
            printed, kind, day = "Stadtwerke Auental GmbH", "invoice", dt.date(2026, 2, 11)
        elif place in (3, 40, 41) or (place > 50 and place % 12 == 0):  # two of one day
            kind, day = made[-1].kind, made[-1].day
            printed = next(long for long, short in SENDERS.items() if short == made[-1].sender)
        form = ("PNG", "PNG", "JPEG", "TIFF")[place % 4]
        stem = rng.choice(["scan{:04}", "IMG_2026{:04}", "Scan {}", "Unbenannt-{}"])
        file = f"{stem.format(place + 10)}.{suffixes[form]}"
        page = sheet(kind, printed, day, rng)
        made.append(Letter(file, kind, SENDERS[printed], day, form, page))
    return made


def make(place: Path, size: Size) -> Truth:
    rng = random.Random(41)
    scans = place / "scans"
    scans.mkdir()
    known = letters(6 if size == "small" else 297, rng)
    for one in known:
        picture = paper.to_picture(one.page, rng)
        data = paper.to_file([picture], one.form, turned=one.form == "JPEG")
        (scans / one.file).write_bytes(data)
    old = paper.to_picture(
        sheet("invoice", "Stadtwerke Auental GmbH", dt.date(2026, 2, 11), rng), rng
    )
    (scans / KEPT).write_bytes(paper.to_file([old], "PNG"))
    empty = paper.to_picture(Page(height=100), rng, worn=0)
    (scans / BLANK).write_bytes(paper.to_file([empty], "PNG"))
    (scans / TORN).write_bytes((scans / KEPT).read_bytes()[:5000])
    return Truth(Reader(known), {one.file: one for one in known})


class Reader:
    """Answers for the letter with which a text shares most words."""

    def __init__(self, known: list[Letter]) -> None:
        texts = [" ".join(mark.text for mark in one.page.marks) for one in known]
        self._find = kit.Finder(dict(zip(texts, known, strict=True)))

    def __call__(self, request: Request) -> str:
        one = self._find(kit.data_of(request)[0])
        facts = {"date": one.day.isoformat(), "sender": one.sender, "kind": one.kind}
        return json.dumps(facts)


# -- what must come out -------------------------------------------------------------------------


async def play(scene: Scene, truth: Truth) -> None:
    before = kit.snapshot(scene.place)
    first = await scene.run()
    scene.check("the run moves nothing", kit.snapshot(scene.place) == before)
    left = {row["file"]: row["reason"] for row in kit.rows(first.text("left.csv"))}
    moved = {path for path in before if path.partition("/")[2] not in {*left, KEPT}}
    shown = [one for one in await scene.changes(first.report.run) if one.path != "left.csv"]
    told = all(one.kind == "moved" for one in shown) and {one.source for one in shown} == moved
    scene.check("diff shows for every scan that gets a name which one it gets", told)
    scene.check("the empty page is left, with the reason", "document_empty" in left.get(BLANK, ""))
    scene.check("the torn file is left", "document_unreadable" in left.get(TORN, ""))
    try:
        await scene.apply(first.report.run)
    except UsageError as refusal:  # apply overwrites nothing that it did not make
        scene.check(f"apply finds every new name free: {refusal.what}", False)
        return
    after = kit.snapshot(scene.place)
    scans = {path: data for path, data in after.items() if path != "left.csv"}
    scene.check("no scan is lost or changed", Counter(scans.values()) == Counter(before.values()))
    scene.check("none leaves its folder", all(re.fullmatch("scans/[^/]+", path) for path in scans))
    scene.check("what had its name keeps it", after.get(f"scans/{KEPT}") == before[f"scans/{KEPT}"])
    _score(scene, before, scans, truth.facts)
    again = await scene.run()
    _check_again(scene, again, left)
    await scene.undo(first.report.run)
    scene.check("undo gives every old name back", kit.snapshot(scene.place) == before)


def _score(
    scene: Scene, before: dict[str, bytes], after: dict[str, bytes], known: dict[str, Letter]
) -> None:
    """How well the names tell what the scans are."""
    now = {data: path.partition("/")[2] for path, data in after.items()}
    for file, one in known.items():
        name = now.get(before[f"scans/{file}"], "")
        found = NAME.fullmatch(name)
        date, sender, kind = found.groups()[:3] if found else ("", "", "")
        scene.score(f"{name or file} date", date, one.day.isoformat())
        scene.score(f"{name or file} sender", kit.letters(sender), kit.letters(one.sender[:40]))
        scene.score(f"{name or file} kind", kind, one.kind)


def _check_again(scene: Scene, again: Turn, left: dict[str, str]) -> None:
    """The next run finds names that it must leave alone."""
    unclear = {name for name in left if not left[name].startswith("document_")}
    scene.check("a second run asks nothing", again.calls == 0 or unclear)
    scene.check("and moves nothing", set(again.files) == {"left.csv"} or unclear)
