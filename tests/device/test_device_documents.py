"""Facts put into documents by other libraries come back under the right mark."""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
import zipfile
from decimal import Decimal
from email.message import EmailMessage

import openpyxl
import pytest
from device_kit import to_text
from doc_maker import Cell, book, image, mail, mbox, pdf, picture, word
from hostile_maker import changed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reportlab.pdfgen.canvas import Canvas

from edvac.device.reading import ocr, plain
from edvac.device.reading.refusal import Unreadable

FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

WORDS = st.text("abcdefghijklmnopqrstuvwxyzäöüßéñ0123456789", min_size=1, max_size=12)
LINE = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)
LINES = st.lists(LINE, min_size=1, max_size=5).map("\n".join)


def under(text: str) -> dict[str, str]:
    """What stands below each mark."""
    parts = re.split(r"^\[(.*)\]$", text, flags=re.M)
    return {mark: body.strip("\n") for mark, body in zip(parts[1::2], parts[2::2], strict=True)}


def squeezed(text: str) -> str:
    return " ".join(text.split())


@FEW
@given(pages=st.lists(LINES | st.just(""), min_size=1, max_size=6))
def test_pdf(pages: list[str]) -> None:
    if not any(pages):
        with pytest.raises(Unreadable, match="no text"):
            to_text("a.pdf", pdf(list(pages)))
        return
    text, notes = to_text("a.pdf", pdf(list(pages)))
    found = under(text)
    for number, page in enumerate(pages, 1):
        if page:
            assert squeezed(found[f"page {number}"]) == squeezed(page)
        else:
            assert found[f"page {number}: no text"] == ""
    assert any(note.startswith("no text on page") for note in notes) is ("" in pages)


def drawn(*texts: tuple[float, float, str], turned: float = 0) -> str:
    """The text of a page on which these are drawn, each at its place."""
    out = io.BytesIO()
    canvas = Canvas(out)
    canvas.rotate(turned)
    for x, y, text in texts:
        canvas.drawString(x, y, text)
    canvas.showPage()
    canvas.save()
    return under(to_text("a.pdf", out.getvalue())[0])["page 1"]


def test_lines_of_a_pdf_are_those_on_the_page() -> None:
    column = [(60, 700 - 14 * n, sign) for n, sign in enumerate("137")]
    assert drawn((60, 720, "quantity ordered by whom?"), *column).split("\n")[1:] == [*"137"]
    row = [(60, 700, "pen"), (200, 700, "1"), (300, 700, "2.50"), (60, 686, "ink"), (200, 686, "3")]
    assert drawn((60, 720, "item and quantity and price"), *row).split("\n")[1:] == [
        "pen 1 2.50",
        "ink 3",
    ]
    turned = drawn((60, -300, "these words are turned"), (60, -320, "so are these"), turned=90)
    assert turned == "these words are turned\nso are these"


def test_form_fields_of_a_pdf() -> None:
    out = io.BytesIO()
    canvas = Canvas(out)
    canvas.drawString(60, 720, "application for a new card")
    for number, value in enumerate(["Ada Lovelace", "", "Größe 7"]):
        canvas.acroForm.textfield(name=f"field {number}", value=value, x=60, y=600 - 40 * number)
    canvas.showPage()
    canvas.save()
    found = under(to_text("a.pdf", out.getvalue())[0])["page 1"].split("\n")
    assert found[0] == "application for a new card"
    assert found[-2:] == ["field 0: Ada Lovelace", "field 2: Größe 7"]


CELLS = st.one_of(
    LINES,
    st.integers(-(10**12), 10**12),
    st.decimals(-(10**6), 10**6, places=3).map(float),
    st.booleans(),
    st.dates(dt.date(1950, 1, 1), dt.date(2100, 1, 1)),
    st.datetimes(dt.datetime(1950, 1, 1), dt.datetime(2100, 1, 1)).map(
        lambda when: when.replace(microsecond=0)
    ),
)


def shown(cell: Cell) -> str:
    """What a program expects to see of a cell."""
    match cell:
        case bool():
            return str(cell).upper()
        case dt.datetime():
            if cell.time() == dt.time():
                return cell.date().isoformat()
            return cell.isoformat(sep=" ")
        case dt.date():
            return cell.isoformat()
        case float():
            return format(Decimal(str(cell)).normalize(), "f")
    return str(cell)


@FEW
@given(
    sheets=st.dictionaries(
        st.text("ABCabc -_9", min_size=1, max_size=9).map(str.strip).filter(bool),
        st.lists(st.lists(CELLS, min_size=2, max_size=4), min_size=1, max_size=5),
        min_size=1,
        max_size=3,
    )
)
def test_sheets(sheets: dict[str, list[list[Cell]]]) -> None:
    folded = [name.casefold() for name in sheets]
    if len(set(folded)) < len(folded):
        return  # a spreadsheet takes them for one name
    text, _ = to_text("a.xlsx", book(sheets))
    found = under(text)
    for name, rows in sheets.items():
        read = list(csv.reader(io.StringIO(found[f"sheet {' '.join(name.split())}"])))
        wide = max(map(len, rows))
        assert read == [[shown(c) for c in row] + [""] * (wide - len(row)) for row in rows]


def test_formulas_merged_and_hidden_cells_are_stated() -> None:
    made = openpyxl.Workbook()
    sheet = made.active
    assert sheet is not None
    sheet.title = "Sum"
    sheet.append(["a", 1])
    sheet.append(["b", "=SUM(B1:B1)"])
    sheet.merge_cells("A1:A2")
    made.create_sheet("Secret").append(["x"])
    made["Secret"].sheet_state = "hidden"
    out = io.BytesIO()
    made.save(out)
    text, notes = to_text("a.xlsx", out.getvalue())
    assert "1 formulas have no stored result" in " ".join(notes)
    assert "sheet Sum: 1 merged cells" in " ".join(notes)
    assert "sheet Secret is hidden in the file" in notes
    name = "xl/worksheets/sheet1.xml"  # as a spreadsheet program saves it: with the result
    with zipfile.ZipFile(io.BytesIO(out.getvalue())) as archive:
        old = archive.read(name).decode()
    new = re.sub(r"</f><v\s*/>|</f><v></v>", "</f><v>41.5</v>", old)
    assert new != old
    text, notes = to_text("a.xlsx", changed(out.getvalue(), name, new.encode()))
    assert "41.5" in text
    assert "stored" not in " ".join(notes)


@FEW
@given(
    paragraphs=st.lists(LINE, min_size=1, max_size=5),
    table=st.lists(st.lists(LINE, min_size=2, max_size=2), min_size=1, max_size=3),
    header=LINE,
)
def test_word(paragraphs: list[str], table: list[list[str]], header: str) -> None:
    text, notes = to_text("a.docx", word(paragraphs, table, header))
    lines = [squeezed(line) for line in text.split("\n") if line.strip()]
    rows = [" | ".join(map(squeezed, row)) for row in table]
    assert lines == [squeezed(header), *map(squeezed, paragraphs), *rows]
    assert notes == []


W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def test_word_keeps_what_document_models_leave_out() -> None:
    def run(text: str) -> str:
        return f"<w:r><w:t>{text}</w:t></w:r>"

    mc = "http://schemas.openxmlformats.org/markup-compatibility/2006"
    box = (
        f"<mc:AlternateContent xmlns:mc='{mc}'><mc:Choice><w:txbxContent><w:p>{run('in a box')}"
        f"</w:p></w:txbxContent></mc:Choice><mc:Fallback><w:p>{run('in a box')}</w:p>"
        "</mc:Fallback></mc:AlternateContent>"
    )
    body = (
        f"<w:document xmlns:w='{W}'><w:body>"
        f"<w:p>{run('kept')}<w:ins>{run(' inserted')}</w:ins>"
        "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
        f"<w:sdt><w:sdtContent><w:p>{run('controlled')}</w:p></w:sdtContent></w:sdt>"
        f"<w:p><w:r>{box}</w:r>{run('around')}</w:p>"
        f"<w:p>{run('one')}<w:r><w:tab/><w:t>two</w:t><w:br/><w:t>three</w:t></w:r></w:p>"
        f"<w:p><w:moveFrom>{run('moved')}</w:moveFrom></w:p>"
        "</w:body></w:document>"
    )
    notes_xml = f"<w:footnotes xmlns:w='{W}'><w:footnote><w:p>{run('small print')}</w:p>"
    made = changed(word(["x"]), "word/document.xml", body.encode())
    made = changed(made, "word/footnotes.xml", (notes_xml + "</w:footnote></w:footnotes>").encode())
    text, notes = to_text("a.docx", made)
    lines = [line for line in text.split("\n") if line]
    assert lines == [
        *("kept inserted", "controlled", "in a box", "around", "one\ttwo", "three"),
        "Footnote: small print",
    ]
    assert notes == ["1 deletions under tracked changes left out"]


@FEW
@given(body=LINES, files=st.dictionaries(WORDS.map(lambda w: f"{w}.txt"), LINES, max_size=3))
def test_mail_with_attachments(body: str, files: dict[str, str]) -> None:
    made = mail(body, {name: text.encode() for name, text in files.items()})
    text, _ = to_text("a.eml", bytes(made))
    assert squeezed(text.split("\n\n", 1)[1].split("\n\n[")[0]) == squeezed(body)
    found = under(text)
    assert {f"attachment {name}": squeezed(one) for name, one in files.items()} == {
        mark: squeezed(one) for mark, one in found.items()
    }


def test_attachments_of_every_kind_and_in_each_other() -> None:
    inner = mail("inner body", {"in.xlsx": book({"S": [["cell"]]})}, Subject="Inner")
    outer = mail("outer body", {"a.pdf": pdf(["first page of it", "second page of it"])})
    outer.add_attachment(inner, filename="fwd.eml")
    outer.add_attachment(b"", maintype="text", subtype="plain", filename="empty.txt")
    text, notes = to_text("m.eml", bytes(outer))
    found = under(text)
    assert found["page 2"] == "second page of it"
    assert "Subject: Inner" in found["attachment fwd.eml"]
    assert "inner body" in found["attachment fwd.eml"]
    assert found["sheet S"] == "cell"
    order = [text.index(f"[{m}]") for m in ("attachment a.pdf", "page 2", "attachment fwd.eml",
             "attachment fwd.eml > in.xlsx", "sheet S")]  # fmt: skip
    assert order == sorted(order)
    assert "attachment empty.txt: not read: it is empty" in found
    assert "attachment empty.txt not read: it is empty" in notes


def test_mail_says_its_encodings() -> None:
    for charset in ("iso-8859-2", "utf-8", "koi8-r"):
        body = "Zażółć" if charset != "koi8-r" else "Привет"
        message = EmailMessage()
        message["From"], message["Subject"] = "a@b.c", "s"
        message.set_content(body, charset=charset, cte="quoted-printable")
        text, notes = to_text("m.eml", bytes(message))
        assert body in text
        assert "body decoded from quoted-printable" in notes
        assert (f"body read as {charset}, as it says" in notes) is (charset != "utf-8")


@FEW
@given(bodies=st.lists(LINES, min_size=1, max_size=6), forged=st.booleans())
def test_mailbox(bodies: list[str], forged: bool) -> None:
    if forged:
        bodies = [*bodies, "x\n\nFrom a@b.c Mon Jan  5 09:30:00 2026\nSubject: no\n\nend"]
    text, _ = to_text("m.mbox", mbox([bytes(mail(one)) for one in bodies]))
    found = under(text)
    assert list(found) == [f"message {n}" for n in range(1, len(bodies) + 1)]
    for number, body in enumerate(bodies, 1):
        head, _, rest = found[f"message {number}"].partition("\n\n")
        assert head.startswith("From: ann@example.org\nTo: ")
        assert squeezed(rest) == squeezed(body)


@pytest.mark.ocr
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_pictures_are_read(kind: str) -> None:
    text, notes = to_text(f"a.{kind.lower()}", image("Invoice 4711\nTotal 99.50 EUR", kind))
    assert squeezed(text) == "Invoice 4711 Total 99.50 EUR"
    assert notes == [f"read by OCR (tesseract, {ocr.languages()})"]


@pytest.mark.ocr
def test_pages_of_a_tiff_and_scanned_pages_of_a_pdf() -> None:
    found = under(to_text("a.tif", image(["Page one 111", "Page two 222"], "TIFF"))[0])
    assert found == {"page 1": "Page one 111", "page 2": "Page two 222"}
    made = pdf(["typed words on the first page", picture("Scanned words 815"), ""])
    text, notes = to_text("a.pdf", made)
    assert under(text) == {
        "page 1": "typed words on the first page",
        "page 2": "Scanned words 815",
        "page 3: no text": "",
    }
    assert f"page 2 read by OCR (tesseract, {ocr.languages()})" in notes
    assert "no text on page 3" in notes


def test_without_tesseract_a_scan_is_an_error_and_a_scanned_page_is_marked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ocr, "program", lambda: None)
    for name, data in (("a.png", image("x")), ("a.pdf", pdf([picture("x")]))):
        with pytest.raises(Unreadable, match="tesseract is not installed") as refused:
            to_text(name, data)
        assert refused.value.kind == "ocr_missing"
    text, notes = to_text("a.pdf", pdf(["typed words on the first page", picture("x")]))
    assert "[page 2: not read: tesseract is not installed]" in text
    assert "page 2 not read: tesseract is not installed" in notes
    text, notes = to_text("m.eml", bytes(mail("body", {"scan.png": image("x")})))
    assert "[attachment scan.png: not read: tesseract is not installed]" in text


@pytest.mark.parametrize("module", ["pypdfium2", "python_calamine", "PIL"])
def test_without_the_extra_an_error_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    data = {"pypdfium2": pdf(["x"]), "python_calamine": book({"S": [[1]]}), "PIL": image("x")}
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(Unreadable) as refused:
        to_text("a", data[module])
    assert refused.value.kind == "library_missing"


SENTENCES = {
    "cp1252": "Größe und Preis für die Prüfung, schöne Grüße – 5 € “so”",
    "cp1250": "Zażółć gęślą jaźń, proszę o szybką odpowiedź w sprawie faktury",
    "cp1251": "Просим оплатить счёт до конца месяца, спасибо за работу",
    "koi8_r": "Просим оплатить счёт до конца месяца, спасибо за работу",
    "cp1253": "Παρακαλούμε να πληρώσετε το τιμολόγιο μέχρι το τέλος του μήνα",
    "shift_jis": "請求書の合計金額は十二万円です。お支払いは来月末までにお願いします。",
    "utf-16-le": "Invoice 4711: total 99.50 EUR",
    "utf-16-be": "Invoice 4711: total 99.50 EUR",
}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_encodings_are_found_and_stated(encoding: str) -> None:
    sentence = SENTENCES[encoding] + "\n"
    text, notes = to_text("a.txt", (sentence * 3).encode(encoding))
    assert text == sentence * 3
    said = notes[0].replace("cp932", "shift_jis")
    assert re.search(rf"read as {encoding.replace('_', '.')}", said)


def test_two_umlauts_are_enough_to_tell_the_usual_encoding() -> None:
    rows = "".join(f'"0{n}.05.2025";"Delphin Supermarket";"-{n}2,75";"EUR"\n' for n in range(1, 10))
    table = '"Buchungstag";"Auftraggeber/Empfänger";"Betrag";"Währung"\n' + rows * 3
    text, notes = to_text("a.csv", table.encode("cp1252"))
    assert text == table and notes[0] == "not UTF-8; read as cp1252"


DIALECTS = [
    ("a,b\n1,2\n", ",", []),
    ("Datum;Betrag;Zweck\n01.02.2026;-1.250,00;Miete\n02.02.2026;12,50;Essen\n", ";",
     ["columns are separated by ';'", "numbers have a decimal comma"]),
    ("when\tsum\n2026-01-05\t1.5\n", "\t", ["columns are separated by '\\t'"]),
    ("a|b|c\n1|2|3\n", "|", ["columns are separated by '|'"]),
    ('"a, b";"c"\n"1, 2";"3"\n', ";", ["columns are separated by ';'"]),
    ("one column\nonly\n", ",", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sign", "notes"), DIALECTS)
def test_dialects_are_found_and_stated(text: str, sign: str, notes: list[str]) -> None:
    assert plain.delimiter(text) == sign
    assert to_text("a.csv", text.encode()) == (text, notes)


@FEW
@given(
    sign=st.sampled_from(",;\t|"),
    rows=st.lists(st.lists(LINE | st.just("a;b,c|d"), min_size=3, max_size=3), min_size=2),
)
def test_the_delimiter_is_the_one_it_was_written_with(sign: str, rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=sign, quoting=csv.QUOTE_ALL).writerows(rows)
    assert plain.delimiter(out.getvalue()) == sign
