"""`doc.parts` and `doc.text` of a part: complete, stable under growth, never the whole file."""

from __future__ import annotations

import asyncio
import csv
import io
import resource
from pathlib import Path
from typing import Any

import pytest
from device_kit import World, make_call
from doc_maker import book, image, mail, mbox, pdf, picture, word
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edvac.core.label import UNBOUNDED, Label
from edvac.core.value import Instance, Sequence, total_label
from edvac.device import doc
from edvac.device.content import Content
from edvac.device.reading import mbox as mailbox
from edvac.device.reading import ocr
from edvac.device.reading.parts import parts
from edvac.device.reading.place import Place
from edvac.device.reading.plain import damaged
from edvac.device.reading.read import read
from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import BLOCK, Source

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def listed(name: str, data: bytes, size: int = 1000) -> list[dict[str, Any]]:
    return parts(name, Source.of(data), size)[0]


def texts(name: str, data: bytes, size: int = 1000) -> list[str]:
    source = Source.of(data)
    return [read(name, source, Place(**one)).text() for one in listed(name, data, size)]


LINES = st.lists(st.text("aäß€😀 ,'x", max_size=40), min_size=1, max_size=120)


@FEW
@given(lines=LINES, end=st.sampled_from(["\n", "\r\n"]), encoding=st.sampled_from(
    ["utf-8", "utf-8-sig", "utf-16"]), size=st.integers(50, 900))  # fmt: skip
def test_the_parts_of_a_log_are_the_log(
    lines: list[str], end: str, encoding: str, size: int
) -> None:
    whole = end.join(lines)
    if not whole.strip():
        return
    found = parts("a.log", Source.of(whole.encode(encoding)), size)[0]
    source = Source.of(whole.encode(encoding))
    read_back = []
    for one in found:
        text = read("a.log", source, Place(**one)).text()
        blank = text == f"[{one['name']}: no text]"
        read_back.append("\n" * (one["last"] - one["first"] + 1) if blank else text)
    assert "".join("".join(read_back).split()) == "".join(whole.split())
    joined = "".join(read_back).replace(end, "\n").split("\n")
    for one, text in zip(found, read_back, strict=True):
        first = text.split("\n")[0]
        if first.strip() and one["first"] != one["last"] and encoding != "utf-16":
            assert first == joined[one["first"] - 1]
    assert [one["number"] for one in found] == list(range(1, len(found) + 1))


def test_lines_are_counted_and_long_ones_cut_between_characters() -> None:
    data = "".join(f"line {n}\n" for n in range(1, 1001)).encode()
    found = listed("a.log", data, 1000)
    assert found[0]["name"] == "lines 1-123"
    assert found[1]["first"] == 124
    assert found[-1]["last"] == 1000
    for one, text in zip(found, texts("a.log", data), strict=True):
        assert text.startswith(f"line {one['first']}\n")
        assert text.endswith(f"line {one['last']}\n")
    long = ("äöü" * 1000 + "\nend\n").encode()
    assert "".join(texts("a.log", long)) == long.decode()


def test_an_encoding_is_found_for_the_whole_file() -> None:
    data = b"plain line\n" * 500_000 + "Müller zahlt für die Größe, schöne Grüße\n".encode("cp1252")
    found, notes = parts("a.log", Source.of(data), 1_000_000)
    assert notes == ["not UTF-8; read as cp1252"]
    assert {one["encoding"] for one in found} == {"cp1252"}
    last = read("a.log", Source.of(data), Place(**found[-1]))
    assert last.text().endswith("Müller zahlt für die Größe, schöne Grüße\n")
    assert last.notes == ["read as cp1252"]


def test_a_log_with_some_broken_bytes_is_utf8_and_says_so() -> None:
    lines = ["user Łukasz Żak logged in\n"] * 50 + ["plain\n"] * 50
    data = "".join(lines).encode() + b"a name that was cut: \xc5\n" + "Żaneta\n".encode()
    found, notes = parts("a.log", Source.of(data), 1000)
    assert notes == ["some bytes are not UTF-8 and are shown as \ufffd"]
    shown = texts("a.log", data)
    assert "".join(shown) == data.decode("utf-8", "replace")
    assert read("a.log", Source.of(data)).notes == notes
    assert [one["first"] for one in found[1:]] == [one["last"] + 1 for one in found[:-1]]


@pytest.mark.parametrize("encoding", ["cp1252", "cp1250", "cp1251", "shift_jis", "gb18030"])
def test_another_encoding_is_not_taken_for_broken_utf8(encoding: str) -> None:
    samples = {"cp1251": "Счёт за перевозку", "shift_jis": "請求書の合計", "gb18030": "发票总额"}
    data = f"{samples.get(encoding, 'Größe, čas, žádost' if encoding == 'cp1250' else 'Größe')}\n"
    assert not damaged([(data * 20).encode(encoding)])


def test_a_line_of_a_part_has_the_number_that_an_editor_gives_it() -> None:
    data = "one\x0c\ncopy 10%\rcopy 90%\nthree\u2028\x85\r\nfour\nfive\n".encode()
    data += "".join(f"more {n}\n" for n in range(6, 400)).encode()
    found = listed("a.log", data, 1000)
    for one, text in zip(found, texts("a.log", data), strict=True):
        lines = data.decode().split("\n")[one["first"] - 1 : one["last"]]
        assert text.removesuffix("\n").split("\n") == [line.rstrip("\r") for line in lines]


CELL = st.text('ab,"\n ', max_size=8)


@FEW
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=80), size=st.integers(60, 600))
def test_the_rows_of_a_table_come_below_its_header(rows: list[tuple[str, str]], size: int) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([("name", "of, column"), *rows])
    data = out.getvalue().encode()
    found = listed("a.csv", data, size)
    back = []
    for one, text in zip(found, texts("a.csv", data, size), strict=True):
        head, *below = csv.reader(io.StringIO(text))
        assert head == ["name", "of, column"]
        assert len(below) == one["last"] - one["first"] + 1
        assert one["first"] == len(back) + 1
        back += below
    assert back == [list(row) for row in rows]


def messages(count: int) -> list[bytes]:
    return [bytes(mail(f"body of {n}\n" * (n % 7 + 1), Subject=f"mail {n}")) for n in range(count)]


def test_a_mailbox_that_grows_keeps_the_parts_that_it_had() -> None:
    before, after = mbox(messages(40)), mbox(messages(45))
    assert listed("a.mbox", after)[:40] == listed("a.mbox", before)
    assert texts("a.mbox", after)[:40] == texts("a.mbox", before)
    without = mbox(messages(45)[:3] + messages(45)[4:])  # the others have moved
    assert sorted(texts("a.mbox", without)) == sorted(
        text for n, text in enumerate(texts("a.mbox", after)) if n != 3
    )


@pytest.mark.parametrize("shift", [0, 1, 2, 3, 4, 5, 40])
def test_messages_are_found_across_the_blocks_of_a_file(shift: int) -> None:
    one = mbox([bytes(mail("x" * 900))])
    count = BLOCK // len(one) + 2
    first = mbox([bytes(mail("y" * (900 + shift)))])
    data = first + one * count
    found = list(mailbox.messages(Source.of(data)))
    assert [start for start, _ in found] == [0, *range(len(first), len(data), len(one))]
    for pad in range(BLOCK - 20, BLOCK + 2):  # the start itself at every place around the edge
        data = first + b"z" * (pad - len(first) - 1) + b"\n\n" + one
        assert [s for s, _ in mailbox.messages(Source.of(data))] == [0, pad + 1]


def test_parts_of_every_kind() -> None:
    pages = pdf(["words on the first page to read", "", "words on the third page to read"])
    assert [one["name"] for one in listed("a.pdf", pages)] == ["page 1", "page 2", "page 3"]
    assert texts("a.pdf", pages[:])[2] == "words on the third page to read"
    sheets = book({"Costs 2026": [["a", 1]], "B": [["b"]]})
    assert [one["name"] for one in listed("a.xlsx", sheets)] == ["sheet Costs 2026", "sheet B"]
    assert texts("a.xlsx", sheets) == ["a,1\n", "b\n"]
    assert [one["name"] for one in listed("a.tif", image(["a", "b"], "TIFF"))] == [
        *("page 1", "page 2"),
    ]
    letter = word([f"paragraph {n} " + "word " * 30 for n in range(40)])
    assert "".join(texts("a.docx", letter)) == read("a.docx", Source.of(letter)).text()
    assert len(texts("a.docx", letter)) > 3


def test_an_empty_page_is_reported_not_returned_as_empty() -> None:
    pages = pdf(["words on the first page to read", ""])
    found = read("a.pdf", Source.of(pages), Place(**listed("a.pdf", pages)[1]))
    assert (found.text(), found.notes) == ("[page 2: no text]", ["no text on page 2"])
    log = b"a\n" * 1000 + b" \n" * 1000
    assert texts("a.log", log)[-1] == "[lines 1501-2000: no text]"


def test_a_page_that_only_ocr_could_read_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "program", lambda: None)
    pages = pdf(["words on the first page to read", picture("scan")])
    with pytest.raises(Unreadable) as refused:
        read("a.pdf", Source.of(pages), Place(**listed("a.pdf", pages)[1])).text()
    assert refused.value.kind == "ocr_missing"


# -- through the device --------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "m.mbox").write_bytes(mbox(messages(10)))
    (tmp_path / "a.pdf").write_bytes(pdf([f"words on page {n} to be read" for n in range(5)]))
    (tmp_path / "a.log").write_bytes(b"".join(b"line %d\n" % n for n in range(4000)))
    return World({"in": tmp_path})


async def all_parts(world: World, path: str, **more: Any) -> list[Instance]:
    value = (await world.call("doc.parts", path=path, **more)).value
    assert isinstance(value, Sequence)
    return list(value.items)


@pytest.mark.sandbox
@pytest.mark.parametrize("path", ["in/m.mbox", "in/a.pdf", "in/a.log"])
def test_parts_through_the_process_carry_the_label_of_the_file(world: World, path: str) -> None:
    async def go() -> None:
        found = await all_parts(world, path)
        mine = Label.of([f"file:{path}"], readers=["user"], bits=UNBOUNDED)
        assert all(total_label(one).sources == mine.sources for one in found)
        for one in found:
            reply = await world.call("doc.text", path=path, part=one)
            assert reply.value.label is mine
            assert str(reply.value.data).strip()  # type: ignore[union-attr]
        await world.documents.close()

    asyncio.run(go())


@pytest.mark.sandbox
def test_a_part_is_read_only_while_it_is_what_was_listed(world: World, tmp_path: Path) -> None:
    async def go() -> tuple[str, str, str]:
        found = await all_parts(world, "in/m.mbox")
        data = bytearray((tmp_path / "m.mbox").read_bytes())
        (tmp_path / "m.mbox").write_bytes(data + mbox(messages(1)))
        kept = await world.call("doc.text", path="in/m.mbox", part=found[9])
        data[data.index(b"mail 9")] ^= 1
        (tmp_path / "m.mbox").write_bytes(data)
        said = []
        for path, part in (("in/m.mbox", found[9]), ("in/a.log", found[3])):
            with pytest.raises(Exception, match=r"has no such part") as refused:
                await world.call("doc.text", path=path, part=part)
            said.append(refused.value.code)  # type: ignore[attr-defined]
        await world.documents.close()
        return str(kept.value.data), *said  # type: ignore[union-attr, return-value]

    text, *codes = asyncio.run(go())
    assert "Subject: mail 9" in text
    assert codes == ["part_unknown", "part_unknown"]


@pytest.mark.parametrize(
    "part",
    [
        {"name": "x"},
        {"name": "x", "kind": "lines", "number": 1, "first": 1, "last": 1, "place": "1:2"},
        {"name": "x", "kind": "lines", "number": True, "first": "1", "last": 1, "place": ""},
        {"name": "x", "kind": "page", "number": 77, "first": 1, "last": 1, "place": "0:0:0::"},
        {"name": "sheet x", "kind": "sheet", "number": 1, "first": 1, "last": 1,
         "place": "0:0:0::"},
        {"name": "x", "kind": "lines", "number": 1, "first": 1, "last": 1,
         "place": f"5:999999999999:0:utf-8:{'0' * 40}"},
        {"name": "x", "kind": "rows", "number": 1, "first": 1, "last": 1,
         "place": f"0:10:0:utf-7:{'0' * 40}"},
    ],
)  # fmt: skip
def test_a_part_made_by_hand_is_refused(world: World, part: dict[str, Any]) -> None:
    assert world.refused("doc.text", path="in/a.pdf", part=part).code == "part_unknown"


@pytest.mark.parametrize("size", [0, -1, 10, 10**9])
def test_a_size_beyond_the_bounds_is_refused(world: World, size: int) -> None:
    assert world.refused("doc.parts", path="in/a.log", size=size).code == "part_size"


async def version(world: World, op: str, **operands: Any) -> str:
    found = await world.documents.read_version(make_call(op, **operands))
    assert found
    return found


@pytest.mark.sandbox
def test_the_version_of_a_message_is_of_its_bytes_and_of_a_page_of_the_file(
    world: World, tmp_path: Path
) -> None:
    async def go() -> tuple[list[bool], list[bool]]:
        held = []
        for path, name in (("in/m.mbox", "m.mbox"), ("in/a.pdf", "a.pdf")):
            part = (await all_parts(world, path))[0]
            before = [await version(world, "doc.text", path=path, part=part)]
            before.append(await version(world, "doc.parts", path=path))
            with (tmp_path / name).open("ab") as file:
                file.write(b"\n% more\n")
            after = [await version(world, "doc.text", path=path, part=part)]
            after.append(await version(world, "doc.parts", path=path))
            held.append([a == b for a, b in zip(before, after, strict=True)])
        await world.documents.close()
        return held[0], held[1]

    assert asyncio.run(go()) == ([True, False], [False, False])


def test_a_file_that_lies_still_is_hashed_once(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    original = Content.fingerprint
    monkeypatch.setattr(
        Content,
        "fingerprint",
        lambda self, *stretches: hashed.append(1) or original(self, *stretches),
    )

    class Later:
        def now(self) -> float:
            return 0.0

        def wall(self) -> float:
            return (tmp_path / "a.pdf").stat().st_ctime + self.after

        after = 1.0

    clock = Later()
    world.documents = doc.Documents(world.files, clock)
    for after, times in ((1.0, 2), (9.0, 1)):  # just written: it may change within one tick
        hashed.clear()
        clock.after = after
        asyncio.run(version(world, "doc.text", path="in/a.pdf"))
        asyncio.run(version(world, "doc.text", path="in/a.pdf"))
        assert len(hashed) == times
    (tmp_path / "a.pdf").write_bytes(pdf(["another text of the same file"]))
    assert asyncio.run(version(world, "doc.text", path="in/a.pdf"))
    assert len(hashed) == 2


@pytest.mark.sandbox
def test_a_large_log_is_never_held(world: World, tmp_path: Path) -> None:
    """Neither here nor in the parser, which may hold less than the log has."""
    with (tmp_path / "big.log").open("wb") as file:
        for n in range(60):
            file.write((b"%03d " % n + b"words of a line of a log " * 40 + b"\n") * 1000)
    size = (tmp_path / "big.log").stat().st_size
    assert size > 60_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def go() -> tuple[int, str]:
        found = await all_parts(world, "in/big.log", size=1_000_000)
        reply = await world.call("doc.text", path="in/big.log", part=found[-1])
        error = None
        try:
            await world.call("doc.text", path="in/big.log")
        except Exception as problem:  # its code is compared below
            error = problem
        await world.documents.close()
        assert getattr(error, "code", "") == "document_too_large"
        return len(found), str(reply.value.data)  # type: ignore[union-attr]

    count, text = asyncio.run(go())
    assert count == -(-size // 999_900) or count > 60
    assert text.startswith("059 ")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 40_000  # KiB
