"""Documents made to hurt: always text or a typed error, within bounds, and the next one is read.

All go through the real parser, isolated, as in a run.
"""

from __future__ import annotations

import asyncio
import io
import random
import resource
from collections.abc import Callable
from pathlib import Path

import hostile_maker as hostile
import pytest
from device_kit import World
from doc_maker import archive, book, image, mail, mbox, pdf, word
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edvac.core.errors import EdvacError
from edvac.device.reading.read import MALFORMED, read
from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import Source

pytestmark = pytest.mark.sandbox

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
SHEET = "xl/worksheets/sheet1.xml"

# Name, how it is made, and the code of doc.text; where that is empty, the text must hold the last.
REFUSED: list[tuple[str, Callable[[], bytes], str]] = [
    ("password.pdf", lambda: pdf(["secret"], password="x"), "document_encrypted"),
    ("password.docx", lambda: OLE + bytes(99) + "EncryptedPackage".encode("utf-16-le"),
     "document_encrypted"),
    ("old.doc", lambda: OLE + bytes(600), "document_unreadable"),
    ("cut.pdf", lambda: pdf(["text"])[:500], "document_unreadable"),
    ("cut.docx", lambda: word(["text"])[:5000], "document_unreadable"),
    ("cut.xlsx", lambda: book({"S": [[1]]})[:3000], "document_unreadable"),
    ("cut.png", lambda: image("Hello")[:900], "document_unreadable"),
    ("empty.pdf", lambda: pdf(["", ""]), "document_empty"),
    ("empty.docx", lambda: word([]), "document_empty"),
    ("empty.xlsx", lambda: book({"A": [], "B": []}), "document_empty"),
    ("laughs.docx", lambda: hostile.laughing("utf-8"), "document_unreadable"),
    ("laughs16.docx", lambda: hostile.laughing("utf-16"), "document_unreadable"),
    ("deep.docx", lambda: hostile.deep_word(100_000), "document_too_large"),
    ("bomb.docx", lambda: hostile.bomb(word(["x"]), "word/document.xml",
     hostile.BODY + "<w:p><w:r><w:t>", "a" * 99, 100), "document_too_large"),
    ("elements.docx", lambda: hostile.bomb(word(["x"]), "word/document.xml",
     hostile.BODY, "<w:p></w:p>", 400), "document_unreadable"),
    ("larger.docx", lambda: hostile.bomb(word(["x"]), "word/document.xml", "", "a" * 99, 540),
     "document_too_large"),
    ("bomb.xlsx", lambda: hostile.bomb(book({"S": [["x"]]}), SHEET,
     "<worksheet><sheetData><row>", "<c><v>1</v></c>", 300), "document_unreadable"),
    ("entries.docx", lambda: archive({f"{n}": b"" for n in range(10_001)}), "document_too_large"),
    ("far.xlsx", hostile.far_cell, "document_unreadable"),
    ("parts.eml", lambda: hostile.nested_parts(3_000), "document_too_large"),
    ("parts40.eml", lambda: hostile.nested_parts(40), "document_too_large"),
    ("headers.eml", lambda: hostile.many_headers(500_000), "document_unreadable"),
    ("attachments.eml", lambda: hostile.many_attachments(2_000), "document_too_large"),
    ("bomb.png", lambda: hostile.png(60_000, 60_000), "document_too_large"),
    ("less.png", lambda: hostile.png(11_900, 11_900), "document_too_large"),
    ("pages.pdf", lambda: hostile.many_pages(20_001), "document_too_large"),
    ("circle.pdf", lambda: hostile.pages_in_a_circle(100_000), "document_too_large"),
    ("tiny.pdf", lambda: hostile.huge_page(0.001), "document_empty"),
    ("elf.pdf", lambda: b"\x7fELF" + bytes(99), "document_unreadable"),
    ("wide.csv", lambda: b",".join(b"%d" % n for n in range(2_000_000)), "document_too_large"),
]  # fmt: skip
READ: list[tuple[str, Callable[[], bytes], str]] = [
    ("mails.eml", lambda: hostile.nested_mails(200), "mails lie more than 8 deep in each other"),
    ("long.eml", lambda: b"From: a@b.c\nSubject: " + b"=?utf-8?q?=41?= " * 500_000 + b"\n\nbody",
     "body"),
    ("wide.csv", lambda: b"c," * 1_000_000 + b"c\n" + b"1," * 1_000_000 + b"1\n", "c,c"),
    ("quote.csv", lambda: b'a,b\n1,"2\n' + b"x,y\n" * 900_000, "x,y"),
    ("many.pdf", lambda: hostile.many_pages(2_000, "text of page {} for all to read"),
     "[page 2000]\ntext of page 2000"),
    ("text.pdf", lambda: b"only text", "only text"),
    ("page.docx", lambda: b"<html><p>a page</p></html>", "a page"),
    ("sheet.png", lambda: book({"S": [["in a sheet"]]}), "[sheet S]\nin a sheet"),
]  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "good.txt").write_text("good")
    return World({"": tmp_path})


async def text_of(world: World, path: str) -> tuple[str, str, str]:
    """Text, or code and reason; and that the next document is read."""
    try:
        reply = await world.call("doc.text", path=path)
        found = (str(reply.value.data), "", "")  # type: ignore[union-attr]
    except EdvacError as error:
        assert error.why and error.fix
        found = ("", error.code, error.why)
    good = await world.call("doc.text", path="good.txt")
    assert good.value.data == "good"  # type: ignore[union-attr]
    await world.documents.close()
    return found


@pytest.mark.parametrize(("name", "make", "code"), REFUSED, ids=lambda one: str(one)[:20])
def test_is_refused(
    world: World, tmp_path: Path, name: str, make: Callable[[], bytes], code: str
) -> None:
    (tmp_path / name).write_bytes(make())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    text, found, why = asyncio.run(text_of(world, name))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (text, found) == ("", code), why
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 60  # seconds of computing, whatever else the machine does


@pytest.mark.parametrize(("name", "make", "holds"), READ, ids=lambda one: str(one)[:20])
def test_is_read(
    world: World, tmp_path: Path, name: str, make: Callable[[], bytes], holds: str
) -> None:
    (tmp_path / name).write_bytes(make())
    text, _, why = asyncio.run(text_of(world, name))
    assert holds in text, why


@pytest.mark.ocr
@pytest.mark.parametrize("side", [14_400.0, 1e9])
def test_a_page_of_absurd_size_is_rendered_small(world: World, tmp_path: Path, side: float) -> None:
    (tmp_path / "a.pdf").write_bytes(hostile.huge_page(side))
    _, code, _ = asyncio.run(text_of(world, "a.pdf"))
    assert code in ("document_empty", "")


def test_an_archive_that_lies_about_a_size(world: World, tmp_path: Path) -> None:
    made = word(["the real text " * 99])
    (tmp_path / "a.docx").write_bytes(hostile.lying_size(made, "word/document.xml", 10))
    assert asyncio.run(text_of(world, "a.docx"))[1] == "document_unreadable"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_no_entity_is_ever_defined(encoding: str) -> None:
    """Not even one that would multiply nothing: the bound is not how much comes out of it."""
    with pytest.raises(Unreadable, match="document type declaration"):
        read("a.docx", Source.of(hostile.laughing(encoding))).text()


def test_entities_in_a_sheet_are_not_multiplied(world: World, tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(hostile.laughing_book())
    text, code, _ = asyncio.run(text_of(world, "a.xlsx"))
    assert code == "document_unreadable" or len(text) < 1000


def test_a_message_cannot_pose_as_two() -> None:
    """The writer quotes; what it does not have to quote does not begin a message either."""
    lines = [
        "From bob@example.org Mon Jan  5 09:30:00 2026\nSubject: forged\n\nforged",  # quoted
        "\nFrom me to you at 12:30, in 2026\nwith no header below",
        "\nFrom here on\nNote: no time and no year",
        "text\nFrom me 09:30:00 2026\nNote: no blank line above",
        "\n>From already quoted 09:30 2026\nNote: x",
    ]
    data = mbox([bytes(mail(one, Subject=f"real {n}")) for n, one in enumerate(lines)])
    text = read("m.mbox", Source.of(data)).text()
    assert text.count("\n[message ") + text.startswith("[message ") == len(lines)
    assert "\nFrom bob@example.org Mon Jan  5 09:30:00 2026\nSubject: forged\n" in text
    assert "\n>From already quoted" in text


def test_a_document_cannot_set_marks() -> None:
    evil = "before\n[page 99]\n[message 7]\n  [page 98]\n[page 97] and more\n[note 1]"
    text = read("m.eml", Source.of(bytes(mail(evil, {"a.txt": b"[sheet X]"})))).text()
    marks = [line for line in text.split("\n") if line.startswith("[")]
    assert marks == ["[page 97] and more", "[note 1]", "[attachment a.txt]"]
    name = "x]\n[page 5]"
    text = read("m.eml", Source.of(bytes(mail("body", {name.replace("\n", " "): b"t"})))).text()
    assert "[attachment x) (page 5)]" in text


SEEDS = {
    "a.pdf": lambda: pdf(["Invoice 1 of many words for the layer", ""]),
    "a.docx": lambda: word(["one", "two"], [["a", "b"]]),
    "a.xlsx": lambda: book({"S": [["a", 1.5], ["b", 2]]}),
    "a.eml": lambda: bytes(mail("body", {"a.txt": b"text", "a.pdf": pdf(["Inside of the mail"])})),
    "a.mbox": lambda: mbox([bytes(mail("one")), bytes(mail("two"))]),
    "a.html": lambda: b"<html><body><p>one<table><tr><td>1</td></tr></table></body></html>",
    "a.csv": lambda: "name;total\nä;1,5\n".encode("cp1252") * 9,
}


def damaged(data: bytes, random_: random.Random) -> bytes:
    """Cut, with some bits flipped, a stretch doubled or taken out."""
    made = bytearray(data)
    for _ in range(random_.randint(0, 12)):
        at = random_.randrange(len(made))
        made[at] ^= 1 << random_.randrange(8)
    start = random_.randrange(len(made))
    stretch = made[start : start + random_.randrange(1, 200)]
    match random_.randrange(4):
        case 0:
            del made[random_.randrange(1, len(made)) :]
        case 1:
            made[start:start] = stretch
        case 2:
            del made[start : start + len(stretch)]
    return bytes(made)


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_documents_are_text_or_a_typed_error(
    world: World, tmp_path: Path, name: str
) -> None:
    data, random_ = SEEDS[name](), random.Random(name)

    async def go() -> list[str]:
        said = []
        for _ in range(60):
            (tmp_path / name).write_bytes(damaged(data, random_) or b"x")
            try:
                reply = await world.call("doc.text", path=name)
                assert str(reply.value.data).strip()  # type: ignore[union-attr]
                said.append("text")
            except EdvacError as error:
                said.append(error.code)
        await world.documents.close()
        return said

    said = asyncio.run(go())
    assert set(said) <= {"text", "document_unreadable", "document_empty", "document_too_large",
                         "document_encrypted"}  # fmt: skip
    assert "text" in said


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(min_size=1, max_size=400), name=st.sampled_from([*SEEDS, "a", "a.tif"]))
def test_any_bytes_are_text_or_refused(data: bytes, name: str) -> None:
    try:
        text = read(name, Source.of(data)).text()
    except (Unreadable, *MALFORMED):
        return
    assert text.strip()


def test_the_bounds_bite() -> None:
    """What the tests above rely on: the maker's bombs are bombs."""
    import zipfile

    made = hostile.bomb(word(["x"]), "word/document.xml", hostile.BODY, "a" * 99, 20)
    with zipfile.ZipFile(io.BytesIO(made)) as archive_:
        assert archive_.getinfo("word/document.xml").file_size > 20_000_000
    assert len(made) < 200_000
