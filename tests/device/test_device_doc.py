"""`doc.text`: encodings, formats and hostile documents; the parser's process is isolated."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import struct
from email.message import EmailMessage
from pathlib import Path

import pytest
from device_kit import World, few_files, to_text

from edvac.core.errors import DeviceError, ProcessorError
from edvac.core.label import UNBOUNDED, Label
from edvac.device import parser
from edvac.device.reading import marks, ocr, serve
from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import MAX_WHOLE, Source
from edvac.sandbox import Isolation, bubblewrap

GERMAN = "Rechnung über 1.250,00 € für Müller & Söhne, fällig am 3. März. Größe: äöüß."
JAPANESE = "請求書の合計金額は十二万円です。お支払いは来月末までにお願いします。" * 3


def text_of(name: str, data: bytes) -> str:
    return to_text(name, data)[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_german_is_read_in_any_of_its_encodings(encoding: str) -> None:
    text, notes = to_text("r.txt", GERMAN.encode(encoding))
    assert text == GERMAN
    assert bool(notes) is (encoding not in ("utf-8", "utf-8-sig"))


def test_latin_1_and_shift_jis_are_found_and_stated() -> None:
    text, notes = to_text("r.txt", "Müller zahlt für die Größe, schöne Grüße".encode("latin-1"))
    assert text.startswith("Müller")
    assert "not UTF-8" in notes[0]
    text, notes = to_text("j.txt", JAPANESE.encode("shift_jis"))
    assert text == JAPANESE
    assert "shift_jis" in notes[0] or "cp932" in notes[0]


def test_line_ends_become_one_kind() -> None:
    assert text_of("a.txt", b"a\r\nb\rc\n") == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b" \n\t ", "empty"),
        ("a.txt", b"%PDF-1.7 ...", "a broken PDF"),
        ("a.docx", b"PK\x03\x04xxxx", "Office"),
        ("a.txt", b"\x7fELF....", "a program"),
        ("a.txt", bytes(range(256)) * 4, "binary"),
        ("a.txt", b"\xff\xfea\x00b", "does not fit"),  # UTF-16 cut in the middle
        ("a.html", b"<html><script>x()</script></html>", "no text"),
        ("a.eml", b"\n\nno headers here", "no headers"),
        ("a.txt", b"x" * (marks.MAX_TEXT + 1), "limit"),
        ("a.txt", b"x" * (MAX_WHOLE + 1), "limit"),
    ],
)
def test_what_has_no_text_says_why(name: str, data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        to_text(name, data)


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<nav><a>Home</a> <a>Sale</a></nav><h1>Title</h1>", "Home Sale\nTitle"),
        ("before<div>in<div>ner</div></div>after", "before\nin\nner\n\nafter"),
        ("<p>one</p><p>two</p>\x1f<footer>end", "one\ntwo\nend"),
        ("<ul>list<li>1<li>2</ul>", "list\n1\n2"),
        ("<table><tr><td><p>a</p></td><td><div>b</div></td></tr></table>", "a | b"),
        ("a<br>b <i>c</i>d", "a\nb cd"),
    ],
)
def test_a_block_of_a_page_begins_a_line(page: str, text: str) -> None:
    assert to_text("p.html", f"<html><body>{page}".encode())[0] == text


def test_html_keeps_what_a_reader_sees() -> None:
    page = """<!DOCTYPE html><html><head><title>t</title><style>b{}</style></head><body>
    <h1>Order</h1><p>Two&nbsp;lines<br>here</p><script>alert(1)</script>
    <table><tr><td>A</td><td>1</td></tr><tr><td>B</td><td>2</td></tr></table></body></html>"""
    text = text_of("order", page.encode())
    assert text.split("\n")[0] == "Order"
    assert "Two lines\nhere" in text
    assert "A | 1\nB | 2" in text
    assert "alert" not in text
    assert "b{}" not in text


def test_a_page_is_read_as_it_says() -> None:
    page = f'<html><meta charset="shift_jis"><p>{"金額"}</p></html>'.encode("shift_jis")
    text, notes = to_text("p.html", page)
    assert text == "金額"
    assert "shift_jis" in notes[0]
    lying = b'<html><meta charset="utf-7"><p>Gr+AN8A+</p></html>'
    assert "Gr" in text_of("p.html", lying)


def mail(**headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in ({"From": "a@b.c", "Subject": "Größe", "To": "x@y.z"} | headers).items():
        message[name] = value
    return message


def test_mail_in_quoted_printable_and_base64() -> None:
    for transfer in ("quoted-printable", "base64"):
        message = mail()
        message.set_content(GERMAN, cte=transfer)
        text = text_of("m.eml", bytes(message))
        assert text.startswith("From: a@b.c\nTo: x@y.z\nSubject: Größe\n\n")
        assert GERMAN in text


def test_mail_prefers_the_plain_part_and_reads_attachments() -> None:
    message = mail()
    message.set_content("the plain part")
    message.add_alternative("<p>the <b>page</b></p>", subtype="html")
    message.add_attachment("Betrag: 5 €", filename="notiz.txt")
    message.add_attachment(b"\x7fELF", maintype="application", subtype="x", filename="setup.exe")
    text, notes = to_text("m.eml", bytes(message))
    assert "the plain part" in text
    assert "page" not in text
    assert "\n\n[attachment notiz.txt]\nBetrag: 5 €\n\n" in text
    why = "not read: it is a program, which doc.text does not read"
    assert text.endswith(f"\n\n[attachment setup.exe: {why}]")
    assert notes == [f"attachment setup.exe {why}"]


def test_mail_with_only_a_page_and_with_a_wrong_charset() -> None:
    message = mail()
    message.set_content("<p>nur <b>Seite</b></p>", subtype="html")
    assert "nur Seite" in text_of("m.eml", bytes(message))
    raw = b"From: a@b.c\nSubject: s\nContent-Type: text/plain; charset=us-ascii\n\n"
    text, notes = to_text("m.eml", raw + GERMAN.encode("cp1252"))
    assert GERMAN in text
    assert notes
    raw = b"From: a@b.c\nSubject: s\nContent-Type: text/plain; charset=no-such\n\nbody"
    assert "body" in text_of("m.eml", raw)


def test_a_header_cannot_fake_another_line() -> None:
    raw = b"From: a@b.c\nSubject: =?utf-8?q?one=0ATo=3A_boss=40b.c?=\n\nbody\n"
    head = text_of("m.eml", raw).split("\n\n")[0]
    assert len(head.split("\n")) == 2


def test_csv_with_other_separators_says_so() -> None:
    text, notes = to_text("d.csv", b"name;total\nann;1,5\nbob;2,5\n")
    assert text.startswith("name;total")
    assert notes == ["columns are separated by ';'", "numbers have a decimal comma"]
    assert to_text("d.tsv", b"name\ttotal\nann\t1\nbob\t2\n")[1] == [
        "columns are separated by '\\t'"
    ]
    assert to_text("d.csv", b"name,total\nann,1\n")[1] == []


# -- the process --------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "cp1252.txt").write_bytes(GERMAN.encode("cp1252"))
    (tmp_path / "empty.txt").write_bytes(b"")
    return World({"in": tmp_path})


@pytest.mark.sandbox
def test_a_document_through_the_process(world: World) -> None:
    reply = world.do("doc.text", path="in/cp1252.txt")
    assert reply.value.label is Label.of(["file:in/cp1252.txt"], readers=["user"], bits=UNBOUNDED)
    assert reply.notes == ("not UTF-8; read as cp1252",)
    error = world.refused("doc.text", path="in/empty.txt")
    assert (error.code, error.why) == ("document_empty", "The file is empty.")


def evil(tmp_path: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that does `body` for a document called ``evil``, as if it had taken it over."""
    made = tmp_path / "evil" / "edvac" / "device" / "reading"
    shutil.copytree(parser.READING, made, dirs_exist_ok=True)
    for above in (made.parent, made.parent.parent):
        (above / "__init__.py").write_text("")
    hook = "    if source.size == 0"
    lines = "".join(f"        {line}\n" for line in ["import os, struct", *body.split("\n")])
    change(made / "read.py", hook, f"    if name.startswith('evil'):\n{lines}{hook}")
    monkeypatch.setattr(parser, "READING", made)
    (tmp_path / "evil.txt").write_text("evil")


def change(path: Path, old: str, new: str) -> None:
    source = path.read_text()
    assert source.count(old) == 1
    path.write_text(source.replace(old, new))


async def good_after_evil(world: World) -> list[str]:
    """What becomes of the evil document, and of the next one with the same parser."""
    said = []
    for path in ("in/evil.txt", "in/good.txt"):
        try:
            said.append(str((await world.call("doc.text", path=path)).value.data))  # type: ignore[union-attr]
        except Exception as error:  # what it is, the caller compares
            said.append(f"{type(error).__name__}: {getattr(error, 'why', error)}")
    await world.documents.close()
    return said


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("os.kill(os.getpid(), 9)", "Its parser died (status -9)"),
        ("os.write(1, b'junk')\nassert os.read(0, 9) == b''", "evil"),
        ("os.abort()", "Its parser died (status -6)"),
        ("os._exit(7)", "Its parser died (status 7)"),
        ("os.write(3, b'x'); raise KeyError('x')", "KeyError"),
        ("x = 'x' * 10**10", "MemoryError"),
        ("raise BufferError", "Its parser died (status 1)"),
        ("raise Unreadable('e' * 50)", "E" + "e" * 49),
        (
            "for f in range(3, 40):\n    try: os.write(f, b'junk')\n    except OSError: pass",
            "Its parser",
        ),
        ("os.write(4, struct.pack('>cQI', b'R', 0, 1 << 30))", "Its parser"),
        ("os.write(4, struct.pack('>cQI', b'R', 1 << 60, 9))", "Its parser"),
        ("os.write(4, struct.pack('>cQI', b'A', 0, 1 << 31))", "Its parser"),
        ("os.write(4, struct.pack('>cQI', b'A', 0, 99) + b'{'); os._exit(0)", "Its parser"),
        ("os.write(4, struct.pack('>cQI', b'A', 0, 2) + b'no'); os._exit(0)", "ProcessorError"),
    ],
)
def test_a_bad_document_does_not_touch_the_next(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, expected: str
) -> None:
    evil(tmp_path, body, monkeypatch)
    said, good = asyncio.run(good_after_evil(world))
    assert expected.lower() in said.lower()
    assert good == "good"


@pytest.mark.sandbox
def test_endless_computing_ends(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil(tmp_path, "while True: pass", monkeypatch)
    monkeypatch.setattr(parser, "SECONDS", 1)
    said, good = asyncio.run(good_after_evil(world))
    assert "more than 1 s" in said
    assert good == "good"


PROBES = {
    "network": "import socket\nsocket.create_connection(('127.0.0.1', PORT))\nfound = 'out'",
    "file": "found = open(r'SECRET').read()",
    "environment": "found = open('/proc/1/environ').read() + str(os.environ)",
    "write": "open('/tmp/../w', 'w').write('x')\nfound = 'out'",
}


@pytest.mark.sandbox
@pytest.mark.parametrize("probe", PROBES)
def test_the_parser_has_no_network_and_no_files(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: str
) -> None:
    monkeypatch.setenv("CANARY", "canary-value")
    secret = tmp_path / "secret"
    secret.write_text("out")

    async def go() -> tuple[list[str], list[str]]:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        body = PROBES[probe].replace("PORT", str(port)).replace("SECRET", str(secret))
        evil(tmp_path, f"{body}\nreturn Reading([Section(found)])", monkeypatch)
        held = await good_after_evil(world)
        with monkeypatch.context() as context:  # the same parser without a sandbox gets out
            context.setattr(bubblewrap, "probe", lambda: Isolation(False, "none", "none"))
            free = await good_after_evil(world)
        server.close()
        await server.wait_closed()
        return held, free

    held, free = asyncio.run(go())
    assert "out" not in held[0].split()
    assert "canary" not in held[0]
    assert held[1] == free[1] == "good"
    if probe != "environment":
        assert free[0] == "out"
    Path("/w").unlink(missing_ok=True)


@pytest.mark.sandbox
def test_a_killed_parser_is_replaced(world: World) -> None:
    async def go() -> str:
        await world.call("doc.text", path="in/good.txt")
        process = world.documents._parsers._idle[0]._process
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        with pytest.raises(ProcessorError) as died:
            await world.call("doc.text", path="in/good.txt")
        assert (died.value.code, died.value.retryable) == ("parser_died", True)
        reply = await world.call("doc.text", path="in/good.txt")
        await world.documents.close()
        return str(reply.value.data)  # type: ignore[union-attr]

    assert asyncio.run(go()) == "good"


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "reply",
    [
        struct.pack(">cQI", b"A", 0, 1 << 31),
        struct.pack(">cQI", b"A", 0, 2) + b"no",
        struct.pack(">cQI", b"A", 0, 4) + b"true",
        struct.pack(">cQI", b"A", 0, 10) + b'{"text":5}',
        struct.pack(">cQI", b"R", 3, 9),  # more than there is
        struct.pack(">cQI", b"R", 0, 1 << 30),
        struct.pack(">cQI", b"R", 0, 4) * 1000,  # again and again
        b"junk" * 9,
        b"",
    ],
)
def test_a_lying_parser_is_an_error(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    evil(tmp_path, "pass", monkeypatch)
    code = f"""
import sys
def serve():
    while sys.stdout.buffer.write({reply!r}):
        sys.stdout.flush()
"""
    (parser.READING / "serve.py").write_text(code)
    error = world.refused("doc.text", path="in/good.txt")
    assert error.code == "parser_died"


@pytest.mark.sandbox
def test_many_documents_at_once_and_one_cancelled(world: World) -> None:
    async def go() -> list[object]:
        tasks = [asyncio.create_task(world.call("doc.text", path="in/good.txt")) for _ in range(12)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await world.documents.close()
        return list(ended)

    ended = asyncio.run(go())
    assert sum(isinstance(one, asyncio.CancelledError) for one in ended) == 1
    assert sum(getattr(getattr(one, "value", None), "data", "") == "good" for one in ended) == 11


def test_without_isolation_a_note_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "probe", lambda: Isolation(False, "none here", "install it"))
    reply = world.do("doc.text", path="in/good.txt")
    assert "without a sandbox" in reply.notes[0]


def test_the_version_asks_the_tesseract_that_reads_and_survives_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake").mkdir()
    (tmp_path / "system").mkdir()
    for name, said in ("fake", "echo wrong"), ("system", 'test -z "$SECRET" && echo "real $1"'):
        program = tmp_path / name / "tesseract"
        program.write_text(f"#!/bin/sh\n{said}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "fake"), prepend=os.pathsep)
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setattr(ocr, "PATH", str(tmp_path / "system"))
    assert parser.ocr_version() == "real --version/real --list-langs"
    (tmp_path / "system" / "tesseract").write_text("#!/nowhere\n")
    assert parser.ocr_version() == "tesseract ?"
    (tmp_path / "system" / "tesseract").unlink()
    assert parser.ocr_version() == ""


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    escaped = b'<html><meta charset="unicode_escape"><p>\xe9 \\ud800</p></html>'
    found = serve.answer({"op": "text", "name": "a.html"}, Source.of(escaped))
    assert "\\ud800" in found["text"]


def test_a_parser_that_cannot_be_started_is_a_failed_step_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(GERMAN)
    bubblewrap.probe()

    async def read() -> DeviceError:
        world = World({"": tmp_path})
        with few_files(3), pytest.raises(DeviceError) as refused:
            await world.call("doc.text", path="a.txt")
        assert (await world.call("doc.text", path="a.txt")).value is not None
        await world.documents.close()
        return refused.value

    error = asyncio.run(read())
    assert error.code == "document_unreadable"
    assert "Too many open files" in error.why
