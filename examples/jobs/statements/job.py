"""A year at three banks, each with its own format, encoding and way of writing a payee."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import kit

from edvac.bench.jobs import Scene, Size, Truth
from edvac.processor import Request

TITLE = "Bank statements of three banks to categories and payments that nobody thinks of any more"
SPOILED = [
    (r'r"(\*|//|\s[^\s*/]*\d).*$"', 'r"//.*$"'),
    ("day_first=False", "day_first=True"),
    ('- Decimal(r["Paid out"]', '+ Decimal(r["Paid out"]'),
    ("len(months) >= least", "len(months) >= 9 * least"),
    ("unknown.append(path.name(p))", "found = []"),
]
KINDS = {  # words that say what a payee is, and from .. to of an amount
    "groceries": (("Supermarket", "Bäckerei", "Greengrocer", "Metzgerei"), 4, 140),
    "eating out": (("Pizzeria", "Ramen Bar", "Coffee House", "Burger Grill", "Bistro"), 5, 90),
    "transport": (("Railways", "Taxi", "Petrol Station", "Car Sharing", "Airport Parking"), 3, 200),
    "housing": (("Property Rent", "Hausverwaltung Miete"), 600, 1400),
    "energy and phone": (("Electricity", "Mobile Phone", "Internet", "Water Works"), 15, 130),
    "insurance": (("Insurance", "Life Assurance"), 9, 90),
    "health": (("Pharmacy", "Dental Practice", "Optician", "Physiotherapy"), 6, 180),
    "shopping": (("Shoes", "Electronics", "Bookshop", "Furniture", "Fashion"), 9, 300),
    "streaming and apps": (("Music Streaming", "Video Streaming", "Cloud App", "News App"), 3, 20),
    "sports and clubs": (("Gym", "Yoga Studio", "Tennis Club", "Climbing Hall"), 15, 60),
    "income": (("Salary Payroll",), 2100, 3900),
}  # fmt: skip
MONTHLY = {"housing", "energy and phone", "insurance", "streaming and apps", "sports and clubs"}
NAMES = ("Lohmann", "Kvikk", "Fjell", "Aurora", "Bramble", "Corvo", "Delphin", "Ember", "Falko",
    "Grünwald", "Hollis", "Iduna", "Jasmin", "Korda", "Lindqvist", "Meridian", "Nimbus", "Örtli",
    "Pavo", "Quill", "Rosso", "Silva", "Tamarind", "Ursa", "Vela", "Wicker", "Xenia", "Yarrow",
    "Zephyr", "Amsel")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Payee:
    """Attributes:
    months: in which it is paid, where that is every month of a stretch.
    """

    name: str
    kind: str
    bank: str
    amount: Decimal
    day: int
    months: range | None
    rise: Decimal = Decimal()

    @property
    def key(self) -> str:
        """As the program has to call it."""
        signs = {"Ä": "AE", "Ö": "OE", "Ü": "UE"}
        return "".join(signs.get(sign, sign) for sign in self.name.upper())


@dataclass(frozen=True, slots=True)
class Booking:
    payee: Payee
    day: dt.date
    amount: Decimal  # below zero: money out
    bank: str


def payees(count: int, months: int, rng: random.Random) -> list[Payee]:
    """Of every kind; those that are paid each month, since the beginning, from some month on, or
    until one."""
    every = [
        (word, name, kind)
        for kind, (words, _, _) in KINDS.items()
        for word in words
        for name in NAMES
    ]
    first = [next(one for one in every if one[2] == kind) for kind in KINDS]
    rest = [one for one in rng.sample(every, len(every)) if one not in first and one[2] != "income"]
    made = []
    for place, (word, name, kind) in enumerate([*first, *rest][:count]):
        low, high = KINDS[kind][1:]
        amount = Decimal(rng.randint(low * 100, high * 100)) / 100
        begin = rng.choice([0, 0, 0, 2 if months > 6 else 1])
        end = months if place % 5 or months < 8 else months - 4
        stretch = range(begin, end) if kind in MONTHLY or kind == "income" else None
        rise = amount * rng.choice([0, 0, 0, 1]) / 10
        full = f"{name} {word}" if rng.random() < 0.7 else f"{word} {name}"
        bank = rng.choice(list(BANKS))
        made.append(Payee(full, kind, bank, amount, rng.randint(3, 25), stretch, rise))
    return made


def month_of(number: int, known: list[Payee], count: int, rng: random.Random) -> list[Booking]:
    """The bookings of one month: what comes every month, then as much else."""
    year, month = 2025 + (number + 3) // 12, (number + 3) % 12 + 1
    made = []
    for one in known:
        if one.months is not None and number in one.months:
            day = dt.date(year, month, one.day) + dt.timedelta(rng.randint(0, 2))
            paid = one.amount + (one.rise if number >= one.months.stop - 2 else 0)
            paid = paid.quantize(Decimal("0.01"))
            made.append(Booking(one, day, paid if one.kind == "income" else -paid, one.bank))
    other = [one for one in known if one.months is None]
    for place in range(max(0, count - len(made))):
        one = other[(number * 7 + place) % len(other)] if place < len(other) else rng.choice(other)
        factor = rng.choice([Decimal("0.4"), Decimal("1"), Decimal("1.9")])
        day = dt.date(year, month, rng.randint(1, 28))
        bank = one.bank if rng.random() < 0.7 else rng.choice(list(BANKS))
        amount = (one.amount * factor).quantize(Decimal("0.01"))
        back = rng.random() < 0.02  # money back
        made.append(Booking(one, day, amount if back else -amount, bank))
    return sorted(made, key=lambda one: one.day)


# -- how banks write ----------------------------------------------------------------------------


def nordbank(bookings: list[Booking], rng: random.Random) -> bytes:
    out = io.StringIO()
    table = csv.writer(out, delimiter=";", quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    table.writerow(
        ["Buchungstag", "Valuta", "Auftraggeber/Empfänger", "Verwendungszweck", "Betrag", "Währung"]
    )
    for one in bookings:
        forms = ["{} GmbH", "Lastschrift {}", "{} FIL.{:04} STUTTGART", "{}//Maulburg/DE", "{}"]
        name = rng.choice(forms).format(one.payee.name, rng.randint(1, 999))
        amount = f"{one.amount:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".")
        purpose = f"Ref {rng.randint(10**6, 10**7)}; danke"
        table.writerow([f"{one.day:%d.%m.%Y}", f"{one.day:%d.%m.%Y}", name, purpose, amount, "EUR"])
    return out.getvalue().encode("cp1252")


def halden(bookings: list[Booking], rng: random.Random) -> bytes:
    out = io.StringIO()
    table = csv.writer(out, delimiter="\t", lineterminator="\n")
    table.writerow(["Date", "Type", "Details", "Paid out", "Paid in", "Balance"])
    balance = Decimal(4000)
    for one in bookings:
        forms = ["PAYPAL *{}", "{}*{}AB", "CARD PAYMENT: {} {:04} LEEDS GB", "{} LTD", "{}"]
        name = rng.choice(forms).format(one.payee.name.upper(), rng.randint(1, 999))
        balance += one.amount
        out_, in_ = (f"{-one.amount:,}", "") if one.amount < 0 else ("", f"{one.amount:,}")
        table.writerow([f"{one.day:%d %b %Y}", "CRD", name, out_, in_, f"{balance:,}"])
    return out.getvalue().encode("utf-8-sig")


def union(bookings: list[Booking], rng: random.Random) -> bytes:
    out = io.StringIO()
    out.write('Account statement\n"Holder","M. Brandt"\n"Account","DE02 4300 0000 1234"\n\n')
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["Posting date", "Description", "Reference", "Amount"])
    for one in bookings:
        forms = ["SUMUP *{}", "{} SAGT DANKE {:04}", "{}, INC", "{}  {:05} BERN CH"]
        name = rng.choice(forms).format(one.payee.name, rng.randint(1, 999))
        table.writerow([f"{one.day:%m/%d/%Y}", name, f"R{rng.randint(1, 10**6)}", one.amount])
    total = sum(one.amount for one in bookings)
    out.write(f',"Closing balance",,{total}\nThis is no proof for the tax office.\n')
    return out.getvalue().encode("utf-16")


BANKS: dict[str, Callable[[list[Booking], random.Random], bytes]] = {
    "nordbank": nordbank, "halden": halden, "union": union,
}  # fmt: skip


def write_month(folder: Path, number: int, bookings: list[Booking], rng: random.Random) -> None:
    names = {"nordbank": "Umsaetze_{}.csv", "halden": "halden-{}.txt", "union": "export({}).csv"}
    for bank, write in BANKS.items():
        own = [one for one in bookings if one.bank == bank]
        (folder / names[bank].format(number + 1)).write_bytes(write(own, rng))


@dataclass
class Facts:
    """Attributes:
    more: bookings of the month that comes later, with payees that were not there before.
    """

    bookings: list[Booking]
    more: list[Booking]
    months: int


def make(place: Path, size: Size) -> Truth:
    rng = random.Random(21)
    months, count, many = (4, 34, 45) if size == "small" else (12, 300, 500)
    folder = place / "statements"
    folder.mkdir()
    (folder / "terms.txt").write_text("Terms and conditions of the account, in small print.\n")
    every = payees(count + 2, months, rng)
    late = [one for one in every if one.months is None][-2:]
    known = [one for one in every if one not in late]
    bookings: list[Booking] = []
    for number in range(months):
        made = month_of(number, known, many, rng)
        write_month(folder, number, made, rng)
        bookings += made
    more = month_of(months, [*known, *late], many, rng)
    more += [Booking(one, more[-1].day, -one.amount, one.bank) for one in late]
    kinds = {one.key: one.kind for one in [*known, *late]}

    def oracle(request: Request) -> str:
        return json.dumps({"answer": kinds.get(kit.data_of(request)[0].upper(), "other")})

    return Truth(oracle, Facts(bookings, more, months))


# -- what must come out -------------------------------------------------------------------------


async def play(scene: Scene, truth: Truth) -> None:
    facts: Facts = truth.facts
    first = await scene.run()
    distinct = {one.payee.key: one.payee for one in facts.bookings}
    rows = kit.rows(first.text("transactions.csv"))
    wanted = sorted((one.day.isoformat(), one.payee.key, one.amount) for one in facts.bookings)
    found = sorted((row["day"], row["payee"], Decimal(row["amount"])) for row in rows)
    scene.check("every booking is there once, with its day, payee and amount", found == wanted)
    scene.check("each payee is asked about once", first.calls == len(distinct))
    scene.check("what no reader knows is named", first.text("unknown.txt") == "terms.txt")
    _check_regular(scene, kit.rows(first.text("regular.csv")), facts)
    for row in kit.rows(first.text("payees.csv")):
        one = distinct.get(row["payee"])
        scene.score(f"{row['payee']} kind", row["kind"], one.kind if one else "")
    _check_optional(scene, first.text("subscriptions.csv"), first.text("regular.csv"))
    names = {"transactions.csv", "payees.csv", "regular.csv", "subscriptions.csv", "unknown.txt"}
    await kit.check_delivery(scene, first.report.run, names)
    again = await scene.run()
    scene.check("a second run asks nothing", again.calls == 0 and again.files == first.files)
    write_month(scene.place / "statements", facts.months, facts.more, random.Random(22))
    grown = await scene.run()
    new = {one.payee.key for one in facts.more} - distinct.keys()
    scene.check("another month asks only about new payees", grown.calls == len(new) == 2)
    count = len(kit.rows(grown.text("transactions.csv")))
    scene.check("and has its bookings", count == len(facts.bookings) + len(facts.more))


def _check_regular(scene: Scene, rows: list[dict[str, str]], facts: Facts) -> None:
    """Code finds what comes back, whichever model works."""
    monthly = {one.payee for one in facts.bookings if one.payee.months is not None}
    wanted = {one.key for one in monthly if one.kind != "income" and len(one.months or ()) >= 3}
    found = {row["payee"] for row in rows}
    scene.check("what is paid every month is found, and nothing else", found == wanted)
    ended = {row["payee"] for row in rows if row["ended"] == "True"}
    stopped = {one.key for one in monthly if one.months and one.months.stop < facts.months - 1}
    scene.check("what has ended is marked", ended == stopped & wanted)


def _check_optional(scene: Scene, optional: str, regular: str) -> None:
    kinds = {"streaming and apps", "sports and clubs"}
    wanted = {r["payee"] for r in kit.rows(regular) if r["kind"] in kinds and r["ended"] == "False"}
    found = {row["payee"] for row in kit.rows(optional)}
    scene.check("the subscriptions are those of the regular ones", found == wanted and wanted)
