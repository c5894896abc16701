"""`doc.mails`: what headers say, hostile ones too; and each mail can then be read by itself."""

from __future__ import annotations

import datetime as dt
from email.message import EmailMessage
from pathlib import Path

import pytest
from device_kit import World
from doc_maker import mail, mbox
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edvac.core.schema import fits
from edvac.core.value import Sequence, total_label
from edvac.device.mails import MAIL
from edvac.device.reading import heads as module
from edvac.device.reading.heads import heads
from edvac.device.reading.mail import read_mail
from edvac.device.reading.marks import Reading, Section
from edvac.device.reading.place import MailHead
from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import Source


def head(**headers: str) -> MailHead:
    made = EmailMessage()
    for name, value in headers.items():
        made[name.replace("_", "-")] = value
    made.set_content("Hello\n")
    return heads("a.eml", Source.of(bytes(made)))[0][0]


def raw(*lines: bytes) -> MailHead:
    return heads("a.eml", Source.of(b"\r\n".join((*lines, b"", b"body"))))[0][0]


def test_a_header_in_the_words_of_a_program() -> None:
    found = head(
        From='"Ibsen, Ada" <Ada@Example.ORG>',
        To="a@b.c, Bo <BO@b.c>",
        Cc="d@e.f",
        Date="Wed, 04 Mar 2026 23:30:00 -0500",
        Subject="Größe?",
        Message_ID="<3@x>",
        In_Reply_To="<2@x>",
        References="<1@x> <2@x>",
    )
    assert (found.sender, found.name) == ("ada@example.org", "Ibsen, Ada")
    assert found.to == ["a@b.c", "bo@b.c", "d@e.f"]
    assert (found.date, found.sent) == ("2026-03-04", "2026-03-05T04:30:00Z")
    assert (found.subject, found.id, found.replies_to) == ("Größe?", "3@x", ["2@x", "1@x"])
    assert not found.automatic


def test_the_address_counts_and_not_the_name_that_looks_like_one() -> None:
    found = raw(b'From: "support@us.example" <evil@else.example>', b"Subject: hi")
    assert found.sender == "evil@else.example"


@pytest.mark.parametrize(
    "line",
    ["List-Id: <news.x>", "List-Unsubscribe: <mailto:a@b>", "Precedence: bulk",
     "Auto-Submitted: auto-replied", "Auto-Submitted: auto-generated; x=1"],
)  # fmt: skip
def test_what_no_person_sent_to_this_reader(line: str) -> None:
    assert raw(b"From: a@b.c", b"Subject: s", line.encode()).automatic
    assert not raw(b"From: a@b.c", b"Subject: s", b"Auto-Submitted: no").automatic


def test_broken_headers_give_empty_fields() -> None:
    found = raw(b"From: nobody", b"Date: 32 Foo 20266", b"Subject: \xff\xfe", b"Message-ID: none")
    assert (found.sender, found.date, found.sent, found.id) == ("", "", "", "")
    assert raw(b"Subject: x", b"From: a@b.c", b"Date: Fri, 31 Dec 9999 23:00:00 -2300").sent == ""


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(lines=st.lists(st.tuples(
    st.sampled_from(["From", "To", "Date", "Subject", "Message-ID", "References", "X"]),
    st.binary(max_size=60)), max_size=8))  # fmt: skip
def test_any_bytes_in_a_header_give_a_record_that_can_be_kept(
    lines: list[tuple[str, bytes]],
) -> None:
    data = b"".join(name.encode() + b": " + value + b"\n" for name, value in lines)
    try:
        [found], _ = heads("a.eml", Source.of(data + b"\nbody"))
    except Unreadable:
        return
    texts = (found.id, *found.replies_to, found.sender, found.name, *found.to, found.subject)
    "".join(texts).encode()  # no halves of surrogate pairs
    assert all(sign.isprintable() or sign == " " for sign in found.sender + found.id)


@pytest.mark.parametrize("coding", ["utf-8", "cp1252"])
def test_letters_that_stand_bare_in_a_header_are_kept(coding: str) -> None:
    lines = (
        "From: Inés López <ines@example.com>",
        "Subject: Factura del diseño",
        'Content-Disposition: attachment; filename="diseño.txt"',
    )
    data = "\r\n".join((*lines, "", "Buenas tardes")).encode(coding)
    found = heads("a.eml", Source.of(data))[0][0]
    assert (found.name, found.subject) == ("Inés López", "Factura del diseño")
    read = read_mail(data, lambda name, _: Reading([Section(name)], [])).sections
    assert "From: Inés López <ines@example.com>" in read[0].text
    assert read[1].mark == "attachment diseño.txt"


def test_what_is_left_out_is_noted() -> None:
    many = b", ".join(b"a%d@b.c" % n for n in range(1200))
    data = b"From: a@b.c\nSubject: s\nTo: " + many + b"\n\nbody"
    [found], notes = heads("a.eml", Source.of(data))
    assert len(found.to) == 1000
    assert notes == ["message 1: 1,000 of 1,200 addresses are given"]
    endless = b"From: a@b.c\nSubject: s\nX: " + b"x" * module.MAX_HEAD
    _, notes = heads("a.eml", Source.of(endless))
    assert notes == ["the header of message 1 is cut at 262,144 bytes"]


def test_brackets_without_end_cost_one_header_and_not_the_mailbox() -> None:
    hostile = b"From: " + b"(" * 3000 + b"\nTo: bo@b.c\nSubject: hi\n\nbody\n"
    good = b"From: ada@a.b\nSubject: hi\n\nbody\n"
    line = b"From a@b Thu Jan  1 00:00:00 2026\n"
    found, notes = heads("m.mbox", Source.of(line + hostile + b"\n" + line + good))
    assert [(one.sender, one.to) for one in found] == [("", ["bo@b.c"]), ("ada@a.b", [])]
    assert notes == ["message 1: From cannot be read: too many brackets"]


def test_too_many_mails_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MAILS", 2)
    with pytest.raises(Unreadable, match="more than 2 mails"):
        heads("a.mbox", Source.of(mbox([bytes(mail("x"))] * 3)))


def test_each_mail_of_a_mailbox_is_read_by_its_part(tmp_path: Path) -> None:
    mails = [bytes(mail(f"body of {n}\n", Subject=f"mail {n}")) for n in range(7)]
    (tmp_path / "a.mbox").write_bytes(mbox(mails))
    world = World({"": tmp_path})
    value = world.do("doc.mails", path="a.mbox").value
    assert isinstance(value, Sequence) and all(fits(one, MAIL) for one in value.items)
    assert total_label(value).integrity == {"file:a.mbox"}
    found = world.get("doc.mails", path="a.mbox")
    assert [one["subject"] for one in found] == [f"mail {n}" for n in range(7)]
    assert world.get("doc.text", path="a.mbox", part=found[4]["part"]).endswith("body of 4")
    assert [one["part"] for one in found] == world.get("doc.parts", path="a.mbox")


def test_a_file_of_one_mail_has_no_part(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(bytes(mail("x", Date="Wed, 04 Mar 2026 09:30:00 +0100")))
    [found] = World({"": tmp_path}).get("doc.mails", path="a.eml")
    assert found["part"] is None and found["date"] == dt.date(2026, 3, 4)


def test_what_is_no_mail_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("just words\n")
    (tmp_path / "b.mbox").write_text("")
    world = World({"": tmp_path})
    error = world.refused("doc.mails", path="a.txt")
    assert error.code == "document_unreadable" and "neither a mailbox" in error.why
    assert world.refused("doc.mails", path="b.mbox").code == "document_empty"
