"""Contracts of 8 to 25 pages from four drafters, with amendments that contradict them, figures that
contradict their words, and sentences that only look like the clauses that are wanted."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import docx
import kit
import pypdf
from reportlab.lib.pagesizes import A4, LETTER
from reportlab.lib.styles import ParagraphStyle
from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate

from edvac.bench.jobs import Scene, Size, Truth, Turn
from edvac.device.reading.pdf import read_pdf
from edvac.device.reading.read import read
from edvac.device.reading.source import Source
from edvac.processor import Request

TITLE = "30 long contracts, DOCX and PDF, to a matrix of clauses; a person decides the unsure ones"
SPOILED = [
    (' and all([agrees(one["value"]) for one in mine])', ""),
    ("page = part.number if", "page = part.number + 1 if"),
    ("in mine])) == 1", "in mine])) > 0"),
    ("range(-3, 4)", "range(1, 2)"),
]
COUNT: dict[Size, int] = {"small": 3, "full": 30}
CLAUSES = ("term", "renewal", "notice", "cap", "law")
QUESTIONS = {  # how the program asks for them
    "term": "runs at first",
    "renewal": "has run its time",
    "notice": "ends the agreement without",
    "cap": "liable at most",
    "law": "law governs",
}
LOCKED = "NDA (signed, locked).pdf"

SENTENCES: dict[str, dict[str, str]] = {
    "services": {
        "term": "This Agreement remains in force for an initial term of {v} from its start.",
        "automatic": "It renews by itself for further periods of one year unless a Party objects.",
        "by agreement": "It can be renewed only if both Parties agree to it in writing before.",
        "notice": "Either Party may terminate this Agreement without cause by {v} written notice.",
        "cap": "The aggregate liability of a Party under this Agreement is limited to {v}.",
        "law": "This Agreement is governed by the laws of {v}, without its conflict rules.",
    },
    "licence": {
        "term": "The Term of this License begins on the date of signing and continues for {v}.",
        "automatic": "Upon expiry the Term shall renew automatically for like periods.",
        "by agreement": "There is no renewal of the Term except by a new signed order.",
        "notice": "Licensee may cancel for convenience upon not less than {v} prior notice.",
        "cap": "IN NO EVENT SHALL LICENSOR'S TOTAL LIABILITY EXCEED {v}.",
        "law": "The laws of {v} govern this License and all claims that arise from it.",
    },
    "rahmen": {
        "term": "Der Rahmenvertrag läuft zunächst {v} ab Unterzeichnung.",
        "automatic": "Er verlängert sich jeweils um ein weiteres Jahr, wenn ihn keiner kündigt.",
        "by agreement": "Eine Verlängerung bedarf einer schriftlichen Vereinbarung der Parteien.",
        "notice": "Die ordentliche Kündigung ist mit einer Frist von {v} zum Monatsende möglich.",
        "cap": "Die Haftung jeder Partei aus diesem Vertrag ist insgesamt auf {v} begrenzt.",
        "law": "Auf diesen Vertrag findet das Recht der {v} Anwendung.",
    },
}
SENTENCES["supply"] = SENTENCES["services"] | {
    "term": "The supply under this contract is agreed for {v} and in force from delivery on.",
    "law": "The contract shall be construed and governed under the law of {v}.",
}
VALUES: dict[str, dict[str, list[str]]] = {
    "en": {"term": ["three (3) years", "two (2) years", "36 months", "five (5) years"],
           "notice": ["ninety (90) days", "sixty (60) days", "six (6) months", "30 days"],
           "cap": ["EUR 500,000", "USD 1,000,000", "the fees paid in the last twelve months"],
           "law": ["England and Wales", "the State of New York", "Ireland", "Singapore"]},
    "de": {"term": ["drei Jahre", "24 Monate", "fünf Jahre"],
           "notice": ["drei Monaten", "sechs Wochen", "90 Tagen"],
           "cap": ["250.000 EUR", "1 Mio. EUR"],
           "law": ["Bundesrepublik Deutschland", "Republik Österreich"]},
}  # fmt: skip
FILLER = {
    "en": ["Defects are to be shown within ten (10) days of delivery, or the goods are accepted.",
           "The Supplier is insured for at least EUR 5,000,000 for each event of damage.",
           "Goods carry a warranty of 24 months, which is not renewed by repair.",
           "Invoices are due thirty (30) days after receipt; interest is two per cent above base.",
           "Each Party keeps secret what it learns of the other, for five years after the end.",
           "A notice under this clause goes to the address on the first page, by courier.",
           "Neither Party answers for delay by fire, flood, strike or acts of public bodies.",
           "Personal data are handled on instruction alone, as the schedule on data says.",
           "Changes are made in writing and signed; this holds for this sentence as well.",
           "The Parties meet each quarter and look at the figures of the last three months.",
           "Work results belong to the Customer as soon as they are paid in full."],
    "de": ["Mängel sind innerhalb von zehn Tagen nach Lieferung schriftlich anzuzeigen.",
           "Der Auftragnehmer ist mit mindestens 5 Mio. EUR je Schadensfall versichert.",
           "Die Gewährleistung beträgt 24 Monate und beginnt mit der Abnahme.",
           "Rechnungen sind 30 Tage nach Zugang fällig, Skonto wird nicht gewährt.",
           "Über Geschäftsgeheimnisse ist auch nach dem Ende fünf Jahre zu schweigen.",
           "Personenbezogene Daten werden nur nach Weisung verarbeitet, siehe Anlage 3.",
           "Änderungen bedürfen der Schriftform, auch die Änderung dieses Satzes.",
           "Höhere Gewalt befreit für ihre Dauer von der Pflicht zur Leistung."],
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """A sentence that states a clause. `place` is how far down the contract it stands."""

    clause: str
    value: str
    quote: str
    place: float


@dataclass
class Contract:
    name: str
    family: str
    pages: int
    said: list[Said] = field(default_factory=list)
    right: dict[str, str] = field(default_factory=dict)  # by clause; of an unsure one the answer
    unsure: set[str] = field(default_factory=set)


def _contract(number: int, size: Size) -> Contract:
    rng = random.Random(900 + number)
    family = list(SENTENCES)[number % 4]
    tongue = "de" if family == "rahmen" else "en"
    pages = rng.randint(8, 25) if size == "full" else rng.randint(8, 10)
    suffix = "docx" if family in ("rahmen", "supply") else "pdf"
    one = Contract(f"{family.title()} {number:02} {rng.choice(['v2', 'final', 'sgd'])}.{suffix}",
                   family, pages)  # fmt: skip
    for at, clause in enumerate(CLAUSES):
        if clause == "cap" and number % 5 == 4:
            continue  # nobody has thought of it
        if clause == "renewal":
            value = rng.choice(["automatic", "by agreement"])
            quote = SENTENCES[family][value]
        else:
            value = rng.choice(VALUES[tongue][clause])
            quote = SENTENCES[family][clause].format(v=value)
        place = (0.12, 0.18, 0.4, 0.6, 0.8)[at] + rng.random() * 0.05
        one.said.append(Said(clause, value, quote, place))
        one.right[clause] = value
    _unsettle(one, number, tongue)
    return one


def _unsettle(one: Contract, number: int, tongue: str) -> None:
    """What a person has to decide: an amendment at the end, or words that are not the figures."""
    form = SENTENCES[one.family]["notice"]
    if number % 3 == 0:
        old = "sechs Wochen" if tongue == "de" else "30 days"
        new = "drei Monaten" if tongue == "de" else "ninety (90) days"
        one.said = [one for one in one.said if one.clause != "notice"]
        one.said += [Said("notice", old, form.format(v=old), 0.42),
                     Said("notice", new, form.format(v=new), 0.97)]  # fmt: skip
        one.right["notice"] = new
        one.unsure.add("notice")
    if number % 4 == 1 and tongue == "en":
        value = "three (2) years"
        quote = SENTENCES[one.family]["term"].format(v=value)
        one.said = [one for one in one.said if one.clause != "term"] + [
            Said("term", value, quote, 0.14)
        ]
        one.right["term"] = "three (3) years"
        one.unsure.add("term")


def _paragraphs(one: Contract) -> list[tuple[str, bool]]:
    """The text in order, and whether a paragraph states a clause."""
    rng = random.Random(one.name)
    filler = FILLER["de" if one.family == "rahmen" else "en"]
    count = one.pages * (9 if one.name.endswith("pdf") else 12)
    made = [(" ".join(rng.choices(filler, k=rng.randint(3, 6))), False) for _ in range(count)]
    for said in sorted(one.said, key=lambda said: -said.place):
        before, after = rng.choice(filler), rng.choice(filler)
        if said.place > 0.9:
            before = (
                "Amendment. The clause on termination is replaced by the following."
                if one.family != "rahmen"
                else "Nachtrag. Der Absatz zum Ende lautet nun wie folgt."
            )
        made.insert(int(said.place * count), (f"{before} {said.quote} {after}", True))
    mark = {"services": "{0}.{1}", "licence": "SECTION {0}.{1}.", "rahmen": "§ {0} ({1})"}
    numbered = mark.get(one.family, "{0}.{1}")
    return [
        (f"{numbered.format(place // 6 + 1, place % 6 + 1)} {text}", stated)
        for place, (text, stated) in enumerate(made)
    ]


# -- layouts ------------------------------------------------------------------------------------


def _pdf(one: Contract) -> bytes:
    licence = one.family == "licence"
    style = ParagraphStyle("text", fontName="Times-Roman" if licence else "Helvetica",
                           fontSize=10.5, leading=14, spaceAfter=7,
                           alignment=4 if licence else 0)  # fmt: skip
    flow: list[Flowable] = [Paragraph(f"<b>{one.family.upper()} AGREEMENT</b><br/>between the "
                            "Parties named on the signature page", style)]  # fmt: skip
    for text, stated in _paragraphs(one):
        paragraph = Paragraph(text.replace("&", "&amp;"), style)
        flow.append(KeepTogether([paragraph]) if stated else paragraph)

    def foot(canvas: object, document: object) -> None:
        canvas.setFont("Helvetica", 7)  # type: ignore[attr-defined]
        canvas.drawString(60, 30, f"{one.name} - confidential - {document.page}")  # type: ignore[attr-defined]

    sink = io.BytesIO()
    document = SimpleDocTemplate(sink, pagesize=LETTER if licence else A4, invariant=1)
    document.build(flow, onFirstPage=foot, onLaterPages=foot)
    return sink.getvalue()


def _word(one: Contract) -> bytes:
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = f"{one.name} / Entwurf 3"
    document.add_heading("Rahmenvertrag" if one.family == "rahmen" else "Supply contract")
    table = document.add_table(2, 2)
    for row, (left, right) in enumerate([("Party A", "Lindqvist AB"), ("Party B", "Tamarind Ltd")]):
        table.cell(row, 0).text, table.cell(row, 1).text = left, right
    for place, (text, _) in enumerate(_paragraphs(one)):
        if place % 6 == 0:
            document.add_heading(f"{place // 6 + 1}", 2)
        document.add_paragraph(text)
    sink = io.BytesIO()
    document.save(sink)
    return sink.getvalue()


def _locked() -> bytes:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(300, 300)
    writer.encrypt("secret", algorithm="RC4-128")
    sink = io.BytesIO()
    writer.write(sink)
    return sink.getvalue()


def make(place: Path, size: Size) -> Truth:
    contracts = [_contract(number, size) for number in range(COUNT[size])]
    folder = place / "contracts"
    folder.mkdir()
    for one in contracts:
        (folder / one.name).write_bytes(_pdf(one) if one.name.endswith("pdf") else _word(one))
    (folder / LOCKED).write_bytes(_locked())
    return Truth(_oracle(contracts), contracts)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _oracle(contracts: list[Contract]) -> Callable[[Request], str]:
    every = {said.quote: said for one in contracts for said in one.said}

    def answer(request: Request) -> str:
        data, asked = _flat(kit.data_of(request)[0]), kit.asked(request)
        clause = next(one for one in CLAUSES if QUESTIONS[one] in asked)
        for said in every.values():
            if said.clause == clause and said.quote in data:
                return json.dumps({"found": {"quote": said.quote, "value": said.value}})
        return json.dumps({"found": None})

    return answer


# -- a person decides -----------------------------------------------------------------------------


async def play(scene: Scene, truth: Truth) -> None:
    contracts: list[Contract] = truth.facts
    first = await scene.run()
    run = first.report.run
    asked = await scene.questions(run)
    if asked:
        scene.check("the run waits for a person", first.report.state == "waiting")
    shown = {json.dumps(question.data) for question in asked}
    scene.check("equal questions are asked once", len(shown) == len(asked))
    steps = sum(len(question.steps) for question in asked)
    given = {question.number: _answer(contracts, question.data) for question in asked}
    decided = await scene.answer(run, given)
    scene.check("one table decides all of them", decided == steps)
    last = await scene.resume(run) if asked else first
    scene.check("the run ends well", last.report.state == "done" and not await scene.questions(run))
    scene.check("going on asks no model", not asked or last.calls == 0)
    _look_at_rows(scene, contracts, last, set(given.values()))
    again = await scene.run()
    failed = sum(row["contract"] != LOCKED for row in kit.rows(last.text("unread.csv")))
    scene.check("another run reads no part again", again.calls <= 4 * failed)
    await kit.check_delivery(scene, run, {"clauses.csv", "matrix.csv", "unread.csv"})


def _answer(contracts: list[Contract], data: list[object]) -> str:
    """What the person knows: of an amendment the later one, of words and figures the words."""
    clause, quotes = str(data[0]), {str(one) for one in data[1]}  # type: ignore[attr-defined]
    for one in contracts:
        if clause in one.unsure and quotes == {s.quote for s in one.said if s.clause == clause}:
            return one.right[clause]
    return "see the contract"


def _look_at_rows(scene: Scene, contracts: list[Contract], turn: Turn, given: set[str]) -> None:
    rows = {(row["contract"], row["clause"]): row for row in kit.rows(turn.text("clauses.csv"))}
    wanted = {(one.name, clause) for one in contracts for clause in CLAUSES}
    scene.check("every clause of every contract has a row", rows.keys() == wanted)
    unread = [row["contract"] for row in kit.rows(turn.text("unread.csv"))]
    scene.check("what cannot be read is listed", LOCKED in unread)
    matrix = {row["contract"]: row for row in kit.rows(turn.text("matrix.csv"))}
    scene.check("the matrix says the same", all(
        matrix[name][clause] == row["value"] for (name, clause), row in rows.items()))  # fmt: skip
    answered = {row["value"] for row in rows.values() if row["state"] == "answered"}
    scene.check("answers land in the matrix", answered <= given and bool(answered) == bool(given))
    for one in contracts:
        _look_at_quotes(scene, one, [row for (name, _), row in rows.items() if name == one.name])
        for clause in CLAUSES:
            row = rows.get((one.name, clause), {"value": "", "state": ""})
            what = f"{one.name}: {clause}"
            scene.score(what, _figures(row["value"]), _figures(one.right.get(clause, "")))
            scene.score(f"{what} unsure", row["state"] == "answered", clause in one.unsure)


def _look_at_quotes(scene: Scene, one: Contract, rows: list[dict[str, str]]) -> None:
    """Each stands in the contract literally, and on its page where it has one."""
    source = Source.of((scene.place / "contracts" / one.name).read_bytes())
    whole = _flat(read(one.name, source).text())
    for row in rows:
        if row["state"] != "stated":
            continue
        text = whole
        if one.name.endswith("pdf"):
            text = _flat(read_pdf(source, int(row["page"])).text())
        scene.check(
            f"{one.name}: the quote of {row['clause']} is there", _flat(row["quote"]) in text
        )


def _figures(value: str) -> str:
    plain = re.sub(r"[\w-]+ \((\d+)\)", r"\1", value.lower())
    return re.sub(r"^(the|der) |[^\w ]", "", plain).strip()
