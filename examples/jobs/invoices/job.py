"""Invoices as they come: PDFs of five makers of software, scans, a credit note, a locked file and a
broken one."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import kit
import paper
from paper import Page

from edvac.bench.jobs import Scene, Size, Truth
from edvac.device.reading.read import read
from edvac.device.reading.source import Source
from edvac.processor import Request

TITLE = "Invoices, printed and scanned, to a ledger with page and quote of each total"
SPOILED = [
    ("marks[-1]", "marks[0]"),
    ('sign = -1 if found.kind == "credit note" else 1', "sign = 1"),
    ('files.list("inbox/*")', 'files.list("inbox/*.pdf")'),
    ('unread.append({"file": path.name(p), "reason": why})', "unread = []"),
]
LOCKED, BROKEN = "Kontoauszug_gesch\u00fctzt.pdf", "download(3).pdf"
SMALL = ("letter", "grid", "box", "roll", "prose", "letter", "grid")


@dataclass
class Invoice:
    """One invoice as it is; `layout` says how it is printed and `form` what became of the paper."""

    vendor: str
    number: str
    day: dt.date
    layout: str
    currency: str
    rate: Decimal  # of tax, in percent
    lines: list[tuple[str, int, Decimal]]
    form: str = "pdf"
    credit: bool = False
    file: str = ""
    buyer: str = "Wiesental Drucklufttechnik"
    pages: list[Page] = field(default_factory=list)

    @property
    def net(self) -> Decimal:
        return sum((count * price for _, count, price in self.lines), Decimal())

    @property
    def tax(self) -> Decimal:
        return (self.net * self.rate / 100).quantize(Decimal("0.01"))

    @property
    def total(self) -> Decimal:
        return self.net + self.tax


def money(amount: Decimal, style: str) -> str:
    """1.234,56 or 1,234.56 or 1 234,56 or 1'234.56."""
    plain = f"{amount:,.2f}"
    group, point = {"de": (".", ","), "en": (",", "."), "fr": (" ", ","), "ch": ("'", ".")}[style]
    return plain.replace(",", "\0").replace(".", point).replace("\0", group)


# -- layouts ------------------------------------------------------------------------------------


def letter(one: Invoice, rng: random.Random) -> list[Page]:
    """German: the sender small above the address, numbers in a block on the right, sums carried."""
    page = Page()
    page.put(20, 20, one.vendor, 15, bold=True)
    page.put(20, 44, f"{one.vendor} · Industriestraße {rng.randint(2, 90)} · 70565 Stuttgart", 7)
    page.lines(20, 52, [one.buyer, "Buchhaltung", "Am Bach 7", "79689 Maulburg"])
    title = "Gutschrift" if one.credit else "Rechnung"
    page.lines(130, 52, [f"{title}s-Nr.: {one.number}",
        f"Datum: {one.day:%d.%m.%Y}", f"Kundennummer: {rng.randint(10000, 99999)}",
        f"Ihre Bestellung: B-{rng.randint(1000, 9999)}"])  # fmt: skip
    page.put(20, 92, title, 14, bold=True)
    pages, y, sum_so_far = [page], 104.0, Decimal()
    for place, (what, count, price) in enumerate(one.lines, 1):
        if y > 262:
            page.put(20, y, "Übertrag")
            page.put(190, y, money(sum_so_far, "de"), right=True)
            page = Page()
            page.put(20, 20, f"{title} {one.number}, Seite {len(pages) + 1}", 8)
            page.put(190, 30, money(sum_so_far, "de"), right=True)
            page.put(20, 30, "Übertrag")
            pages, y = [*pages, page], 38.0
        page.put(20, y, f"{place}")
        page.put(30, y, what)
        page.put(150, y, f"{count} x {money(price, 'de')}", right=True)
        page.put(190, y, money(count * price, "de"), right=True)
        sum_so_far += count * price
        y += 6
    page.rule(y)
    page.put(110, y + 7, "Nettobetrag")
    page.put(190, y + 7, money(one.net, "de"), right=True)
    page.put(110, y + 13, f"zzgl. {one.rate} % USt.")
    page.put(190, y + 13, money(one.tax, "de"), right=True)
    page.put(110, y + 20, "Gesamtbetrag", 11, bold=True)
    page.put(190, y + 20, f"{money(one.total, 'de')} EUR", 11, bold=True, right=True)
    due = one.day + dt.timedelta(30)
    page.put(20, y + 30, f"Zahlbar bis {due:%d.%m.%Y} ohne Abzug. IBAN DE02 1203 0000 0020 51", 8)
    return pages


def grid(one: Invoice, rng: random.Random) -> list[Page]:
    """English: a large title, a table with a description last, the sum at the foot."""
    page = Page()
    title = "CREDIT NOTE" if one.credit else "INVOICE"
    page.put(190, 24, title, 20, bold=True, right=True)
    page.lines(20, 24, [one.vendor, f"{rng.randint(1, 99)} Quay Street", "Bristol BS1 4DA",
        f"VAT GB {rng.randint(100, 999)} 4{rng.randint(100, 999)} 12"])  # fmt: skip
    page.lines(20, 56, ["Bill to:", one.buyer, "Accounts payable"])
    page.lines(130, 56, [f"No. {one.number}",
        f"Issued {one.day:%B} {one.day.day}, {one.day.year}",
        f"Due {one.day + dt.timedelta(14):%b %d, %Y}", f"PO 4{rng.randint(10, 99)}"])  # fmt: skip
    for x, word in ((20, "Qty"), (40, "Unit price"), (75, "Amount"), (110, "Description")):
        page.put(x, 88, word, 9, bold=True)
    pages, y = [page], 96.0
    sign = "-" if one.credit else ""
    for what, count, price in one.lines:
        if y > 268:
            page.put(110, 282, f"Page {len(pages)}, continued", 8)
            page = Page()
            pages, y = [*pages, page], 24.0
        page.put(20, y, str(count))
        page.put(40, y, money(price, "en"))
        page.put(75, y, sign + money(count * price, "en"))
        page.put(110, y, what)
        y += 6.5
    page.rule(y)
    for word, amount in (("Subtotal", one.net), (f"VAT {one.rate}%", one.tax)):
        y += 6.5
        page.put(75, y, sign + money(amount, "en"))
        page.put(110, y, word)
    word = "Credited to your account" if one.credit else "Balance due"
    page.put(20, y + 9, f"{word}: {sign}{one.currency} {money(one.total, 'en')}", 12, bold=True)
    return pages


def box(one: Invoice, rng: random.Random) -> list[Page]:
    """French: the buyer on the right, sums in a box of their own."""
    page = Page()
    page.lines(20, 22, [one.vendor, f"{rng.randint(1, 60)} rue des Tanneurs", "67000 Strasbourg",
        f"SIRET {rng.randint(100, 999)} {rng.randint(100, 999)} 00147"])  # fmt: skip
    page.lines(120, 46, [one.buyer, "Am Bach 7", "D-79689 Maulburg"])
    page.put(20, 76, f"FACTURE N° {one.number}", 13, bold=True)
    page.put(20, 84, f"Strasbourg, le {one.day:%d/%m/%Y}")
    y = 98.0
    for what, count, price in one.lines:
        page.put(20, y, f"{what} ({count} à {money(price, 'fr')})")
        page.put(190, y, f"{money(count * price, 'fr')} €", right=True)
        y += 6.5
    page.rule(y)
    sums = (("Total HT", one.net), (f"TVA {one.rate} %", one.tax), ("Net à payer TTC", one.total))
    for word, amount in sums:
        y += 7
        page.put(120, y, word, bold=amount == one.total)
        page.put(190, y, f"{money(amount, 'fr')} €", right=True, bold=amount == one.total)
    page.put(20, y + 20, "En votre aimable règlement à 30 jours. Escompte néant.", 8)
    return [page]


def roll(one: Invoice, rng: random.Random) -> list[Page]:
    """A long narrow receipt of a till, Swiss."""
    page = Page(height=105 + 6 * len(one.lines))
    page.put(60, 15, one.vendor, 13, bold=True)
    page.put(60, 22, f"Filiale {rng.randint(2, 30)}   CHE-{rng.randint(100, 999)}.482.113 MWST", 8)
    page.put(60, 32, f"Rechnung {one.number}")
    page.put(
        60, 38, f"{one.day:%d.%m.%Y} {rng.randint(8, 18):02}:{rng.randint(0, 59):02}   Kasse 3"
    )
    page.put(60, 44, f"Kunde: {one.buyer}", 8)
    y = 54.0
    for what, count, price in one.lines:
        page.put(60, y, f"{count} {what}")
        page.put(160, y, money(count * price, "ch"), right=True)
        y += 6
    gross = money(one.total, "ch")
    page.put(60, y + 5, "TOTAL CHF", 12, bold=True)
    page.put(160, y + 5, gross, 12, bold=True, right=True)
    page.put(60, y + 12, f"Bar {money(one.total + 20 - one.total % 20, 'ch')}", 8)
    page.put(
        60,
        y + 18,
        f"exkl. MWST {money(one.net, 'ch')}   MWST {one.rate}% {money(one.tax, 'ch')}",
        8,
    )
    return [page]


def prose(one: Invoice, rng: random.Random) -> list[Page]:
    """A letter of somebody who works alone: the sums stand in sentences."""
    page = Page()
    page.lines(120, 24, [one.vendor, f"{rng.randint(2, 80)} Mill Lane", "Leeds LS2 7EQ"])
    page.put(120, 46, f"{one.day.day} {one.day:%B %Y}")
    page.lines(20, 60, [one.buyer, "Maulburg, Germany"])
    page.put(20, 82, f"Invoice {one.number}", 11, bold=True)
    y = page.lines(
        20, 94, ["Dear all,", "", "thank you for the work in the past weeks. I did:", ""]
    )
    for what, count, price in one.lines:
        page.put(26, y, f"- {what}, {count} at {one.currency} {money(price, 'en')}")
        y += 6
    net, tax, total = (f"{one.currency} {money(m, 'en')}" for m in (one.net, one.tax, one.total))
    page.lines(20, y + 4, [f"Together this is {net}, and with tax of {tax} ({one.rate} %)",
        f"please pay {total} within three weeks.", "", "Kind regards"])  # fmt: skip
    return [page]


LAYOUTS: dict[str, Callable[[Invoice, random.Random], list[Page]]] = {
    "letter": letter, "grid": grid, "box": box, "roll": roll, "prose": prose,
}  # fmt: skip
VENDORS = {
    "letter": [
        "Hebelwerk Maschinen GmbH",
        "Kranz & Sohn Elektro",
        "Stadtwerke Auental",
        "Ortlieb Büro",
    ],
    "grid": ["Pennant Tooling Ltd", "Graywater Software Inc", "Fenwick Freight", "Orchard Hosting"],
    "box": ["Atelier Vauclair", "Transports Berthomier", "Imprimerie du Canal"],
    "roll": ["Bergli Markt AG", "Velo Zürcher", "Papeterie Stadler"],
    "prose": ["Maud Ellery Translations", "J. Okonjo Photography", "Rowan Blythe"],
}
WHAT = {
    "letter": [
        "Dichtring 40 mm",
        "Montage vor Ort",
        "Druckluftschlauch",
        "Wartung Kompressor",
        "Fracht",
    ],
    "grid": ["Carbide insert", "Support, monthly", "Pallet to Basel", "Licence", "Calibration"],
    "box": ["Impression brochure", "Transport palette", "Papier 170 g", "Maquette"],
    "roll": ["Ordner A4", "Kaffee 1 kg", "Schlauch 28", "Druckerpapier", "Klebeband"],
    "prose": [
        "Translation of a manual",
        "Photographs of the hall",
        "Proofreading",
        "Day on site",
    ],
}
MONEY = {
    "letter": ("EUR", "19"),
    "grid": ("GBP", "20"),
    "box": ("EUR", "20"),
    "roll": ("CHF", "8.1"),
    "prose": ("GBP", "20"),
}
FORMS = ("pdf", "pdf", "PNG", "pdf", "JPEG", "pdf", "PDF", "pdf", "TIFF")


def invoices(count: int, rng: random.Random) -> list[Invoice]:
    kinds = [*SMALL, *(rng.choice(list(LAYOUTS)) for _ in range(count))][:count]
    made = []
    for place, layout in enumerate(kinds):
        currency, rate = MONEY[layout]
        long = layout in ("letter", "grid") and place % 6 == 1
        many = rng.randint(45, 70) if long else rng.randint(1, 7)
        lines = [
            (rng.choice(WHAT[layout]), rng.randint(1, 12), Decimal(rng.randint(199, 48999)) / 100)
            for _ in range(many)
        ]
        shape = rng.choice(["RE-{y}-{n:04}", "{n:05}", "{y}/{n}", "INV{n:06}", "{y}{n:03}-A"])
        day = dt.date(2026, 1, 5) + dt.timedelta(rng.randint(0, 170))
        number = shape.format(y=day.year, n=100 + 7 * place + rng.randint(0, 6))
        credit = layout in ("letter", "grid") and place in (5, 22, 41)
        vendor = rng.choice(VENDORS[layout])
        one = Invoice(vendor, number, day, layout, currency, Decimal(rate), lines, credit=credit)
        one.form = FORMS[place % len(FORMS)]
        one.pages = LAYOUTS[layout](one, rng)
        if one.form in ("PNG", "JPEG") and len(one.pages) > 1:
            one.form = "TIFF"
        one.file = _file(one, place, rng)
        made.append(one)
    return made


def _file(one: Invoice, place: int, rng: random.Random) -> str:
    suffix = {"pdf": "pdf", "PNG": "png", "JPEG": "JPG", "PDF": "pdf", "TIFF": "tif"}[one.form]
    plain = re.sub(r"\W", "_", one.number)
    stem = rng.choice([f"{plain}", f"Rechnung {plain}", f"{one.day:%Y%m%d}_{place}"])
    return f"{stem if one.form == 'pdf' else f'Scan{place:04}'}.{suffix}"


def make(place: Path, size: Size) -> Truth:
    rng = random.Random(11)
    inbox = place / "inbox"
    inbox.mkdir()
    known = invoices(7 if size == "small" else 58, rng)
    for one in known:
        if one.form == "pdf":
            data = paper.to_pdf(one.pages)
        else:
            scans = [paper.to_picture(page, rng) for page in one.pages]
            data = paper.to_file(scans, one.form, turned=one.form == "JPEG")
        (inbox / one.file).write_bytes(data)
    last = invoices(1, random.Random(12))[0]
    last.file, last.number = LOCKED, "G-77120"
    last.pages = LAYOUTS[last.layout](last, rng)
    (inbox / LOCKED).write_bytes(paper.to_pdf(last.pages, password="geheim"))
    (inbox / BROKEN).write_bytes(paper.to_pdf(known[0].pages)[:700] + b"\0" * 300)
    return Truth(Reader([*known, last]), {one.file: one for one in [*known, last]})


class Reader:
    """Answers for the invoice with which a text shares most words."""

    def __init__(self, known: list[Invoice]) -> None:
        texts = [" ".join(m.text for page in one.pages for m in page.marks) for one in known]
        self._find = kit.Finder(dict(zip(texts, known, strict=True)))

    def __call__(self, request: Request) -> str:
        [body] = kit.data_of(request)
        one = self._find(body)
        sums = [money(one.total, style) for style in ("de", "en", "fr", "ch")]
        lines = [line for line in body.split("\n") if any(text in line for text in sums)]
        facts = {
            "kind": "credit note" if one.credit else "invoice",
            "vendor": one.vendor,
            "number": one.number,
            "date": one.day.isoformat(),
            "net": str(one.net),
            "tax": str(one.tax),
            "total": {"quote": lines[-1] if lines else "", "value": str(one.total)},
            "currency": one.currency,
        }
        return json.dumps(facts)


async def play(scene: Scene, truth: Truth) -> None:
    known: dict[str, Invoice] = truth.facts
    first = await scene.run()
    ledger, unread = kit.rows(first.text("ledger.csv")), kit.rows(first.text("unread.csv"))
    named = sorted(row["file"] for row in [*ledger, *unread])
    scene.check("every file is in the ledger or among the unread, once",
        named == sorted(path.name for path in (scene.place / "inbox").iterdir()))  # fmt: skip
    why = {row["file"]: row["reason"] for row in unread}
    scene.check("the locked file says so", "document_encrypted" in why.get(LOCKED, ""))
    scene.check("the broken file says so", "document_unreadable" in why.get(BROKEN, ""))
    for row in ledger:
        _look(scene, row, known[row["file"]])
    in_it = {row["file"] for row in ledger}
    for file in known.keys() - {LOCKED} - in_it:
        scene.score(f"{file} in the ledger", why.get(file), "a row of the ledger")
    _add_up(scene, ledger, kit.rows(first.text("totals.csv")))
    await kit.check_delivery(scene, first.report.run, {"ledger.csv", "totals.csv", "unread.csv"})
    again = await scene.run()
    misread = any(reason.startswith("answer_") for reason in why.values())
    scene.check("a second run asks only for what the model got wrong", misread or not again.calls)
    scene.check("the second run says the same", misread or again.files == first.files)
    (scene.place / "inbox" / LOCKED).write_bytes(paper.to_pdf(known[LOCKED].pages))
    third = await scene.run()
    scene.check("a mended file costs one call", misread or third.calls == 1)
    files = [row["file"] for row in kit.rows(third.text("ledger.csv"))]
    scene.check("and is in the ledger then", misread or LOCKED in files)


def _look(scene: Scene, row: dict[str, str], one: Invoice) -> None:
    """The row of one invoice: what code must have done, and what the model found."""
    page = int(row["page"]) - 1
    if one.form == "pdf":  # of a scan nobody knows the text but OCR
        text = read(one.file, Source.of((scene.place / "inbox" / one.file).read_bytes())).text()
        pages = re.split(r"\[page \d+\]", text)[1:]
        scene.check(f"{one.file}: the quote stands on its page", row["quote"] in pages[page])
    sums = [abs(Decimal(row[name] or "0")) for name in ("net", "tax", "total")]
    if row["net"] and row["tax"] and sums[0] + sums[1] != sums[2]:
        scene.check(f"{one.file}: what does not add up is marked", row["look"])
    sign = -1 if one.credit else 1
    scene.score(f"{one.file} total", Decimal(row["total"]), sign * one.total)
    scene.score(f"{one.file} page", page + 1, len(one.pages))
    scene.score(f"{one.file} kind", row["kind"], "credit note" if one.credit else "invoice")
    scene.score(f"{one.file} vendor", kit.letters(row["vendor"]), kit.letters(one.vendor))
    scene.score(f"{one.file} number", row["number"], one.number)
    scene.score(f"{one.file} date", row["date"], one.day.isoformat())
    scene.score(f"{one.file} currency", row["currency"], one.currency)


def _add_up(scene: Scene, ledger: list[dict[str, str]], totals: list[dict[str, str]]) -> None:
    wanted: dict[tuple[str, str], Decimal] = {}
    for row in ledger:
        key = (row["vendor"], row["currency"])
        wanted[key] = wanted.get(key, Decimal()) + Decimal(row["total"])
    found = {(row["vendor"], row["currency"]): Decimal(row["total"]) for row in totals}
    scene.check("the totals are the sums of the ledger", found == wanted)
