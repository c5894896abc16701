"""The mails of a mailbox as values of a program: what their headers say, and where each lies."""

from __future__ import annotations

import datetime as dt
from typing import Any

from edvac.core.label import Label
from edvac.core.schema import BOOL, DATE, INT, STR, Field, ListOf, Maybe, Record
from edvac.core.value import Instance, Scalar, Value, lift
from edvac.device.parts import PART, value_of
from edvac.device.reading.place import MailHead, Place

MAIL = Record(
    "Mail",
    (
        Field("number", INT, "from 1, in order"),
        Field("id", STR, "its Message-ID; empty where it has none"),
        Field("replies_to", ListOf(STR), "ids of what it answers, the nearest first"),
        Field("sender", STR, "the address in From, in small letters"),
        Field("name", STR, "the name in From"),
        Field("to", ListOf(STR), "the addresses in To and Cc"),
        Field("date", Maybe(DATE), "the day in Date, as the sender wrote it"),
        Field("sent", STR, "the time in Date as 2026-03-04T09:30:00Z, which sorts; empty for none"),
        Field("subject", STR),
        Field("automatic", BOOL, "a list, newsletter or automatic answer, as its header says"),
        Field("part", Maybe(PART), "for doc.text(path, mail.part); None in a file of one mail"),
    ),
)


def mail_of(head: MailHead, label: Label) -> Value:
    """The record of a mail; its fields come from the file, and have its label."""
    data: dict[str, Any] = {
        "number": head.number,
        "id": head.id,
        "replies_to": head.replies_to,
        "sender": head.sender,
        "name": head.name,
        "to": head.to,
        "date": _day(head.date),
        "sent": head.sent,
        "subject": head.subject,
        "automatic": head.automatic,
    }
    fields = {name: lift(value, label) for name, value in data.items()}
    fields["part"] = value_of(_place(head), label) if head.end else Scalar(None, label)
    return Instance(MAIL.name, fields, label)


def _day(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:  # none; or the parser, which reads hostile files, says nonsense
        return None


def _place(head: MailHead) -> Place:
    return Place(
        name=f"message {head.number}",
        kind="message",
        number=head.number,
        first=head.number,
        last=head.number,
        start=head.start,
        end=head.end,
        head=0,
        encoding="",
        digest=head.digest,
    )
