"""Where a part of a document lies, and the head of a mail, as both sides of the pipe to the parser
say them.

Imports nothing: the side that asks must not load what reads hostile documents.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """One part of a document; `edvac.device.parts` says what its fields mean."""

    name: str
    kind: str
    number: int
    first: int
    last: int
    start: int
    end: int
    head: int
    encoding: str
    digest: str


@dataclass(frozen=True, slots=True)
class MailHead:
    """One mail by its header, and where it lies in a mailbox; `edvac.device.mails` says what its
    fields mean."""

    number: int
    id: str
    replies_to: list[str]
    sender: str
    name: str
    to: list[str]
    date: str
    sent: str
    subject: str
    automatic: bool
    start: int = 0
    end: int = 0
    digest: str = ""
