"""Who wrote each mail, to whom, when, about what and in reply to what, as its header says.

Nothing is true because a header says it: anybody can write any header.
"""

from __future__ import annotations

import datetime as dt
import email.parser
import email.utils
import re
from collections.abc import Iterator
from email.message import Message

from edvac.device.reading import kinds, mbox
from edvac.device.reading.mail import AS_SENT, decoded
from edvac.device.reading.place import MailHead
from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import Source, fingerprint

MAX_MAILS = 50_000
MAX_HEAD = 256 * 1024  # bytes in which the header of a mail has to end
MAX_LIST = 1_000  # addresses, or references, of one mail
_FROM_LINE = 1_000  # bytes of the line before a mail in a mailbox
_END = re.compile(rb"\r?\n\r?\n")
_ID = re.compile(r"<([!-;=?-~]{1,990})>")
_BULK = frozenset({"bulk", "list", "junk", "auto_reply"})


def heads(name: str, source: Source) -> tuple[list[MailHead], list[str]]:
    """The mails of a mailbox, or the one that a file is, in order; and notes.

    Raises:
        Unreadable: it is neither, or has too many.
    """
    if source.size == 0:
        raise Unreadable("the file is empty", "empty")
    notes: list[str] = []
    match kinds.kind_of(name, source):
        case "mail":
            return [_Head(source.at(0, MAX_HEAD), 1, notes).found()], notes
        case "mbox":
            return list(_mailbox(source, notes)), notes
    raise Unreadable("it is neither a mailbox nor an e-mail")


def _mailbox(source: Source, notes: list[str]) -> Iterator[MailHead]:
    for number, (start, end) in enumerate(mbox.messages(source), 1):
        if number > MAX_MAILS:
            raise Unreadable(f"it has more than {MAX_MAILS:,} mails", "too_large")
        raw = source.at(start, end)
        head = _Head(mbox.body(raw[: MAX_HEAD + _FROM_LINE]), number, notes)
        yield head.found(start, end, fingerprint(raw))


class _Head:
    """One header; what is left out of it is noted."""

    def __init__(self, data: bytes, number: int, notes: list[str]) -> None:
        self._number = number
        self._notes = notes
        end = _END.search(data)
        if end is None and len(data) >= MAX_HEAD:
            notes.append(f"the header of message {number} is cut at {MAX_HEAD:,} bytes")
        parser = email.parser.BytesHeaderParser(policy=AS_SENT)
        self._message: Message = parser.parsebytes(data[: end.end() if end else MAX_HEAD])

    def found(self, start: int = 0, end: int = 0, digest: str = "") -> MailHead:
        name, sender = next(iter(self._people("From")), ("", ""))
        sent = self._sent()
        answered = self._ids("References", "In-Reply-To")
        return MailHead(
            number=self._number,
            id=next(iter(self._ids("Message-ID")), ""),
            replies_to=list(dict.fromkeys(reversed(answered))),
            sender=sender,
            name=name,
            to=[address for _, address in self._people("To", "Cc")],
            date=sent.date().isoformat() if sent else "",
            sent=_utc(sent) if sent else "",
            subject=decoded(self._message.get("Subject", "")),
            automatic=self._is_automatic(),
            start=start,
            end=end,
            digest=digest,
        )

    def _all(self, *names: str) -> list[str]:
        return [str(value) for name in names for value in self._message.get_all(name, [])]

    def _people(self, *names: str) -> list[tuple[str, str]]:
        """Name and address of each, the address in small letters."""
        try:
            found = [one for one in email.utils.getaddresses(self._all(*names)) if "@" in one[1]]
        except RecursionError:  # it calls itself for each bracket
            what = " and ".join(names)
            self._notes.append(f"message {self._number}: {what} cannot be read: too many brackets")
            return []
        if len(found) > MAX_LIST:
            self._left_out(len(found), "addresses")
        return [(decoded(name), decoded(address).lower()) for name, address in found[:MAX_LIST]]

    def _ids(self, *names: str) -> list[str]:
        found: list[str] = _ID.findall(" ".join(self._all(*names)))
        if len(found) > MAX_LIST:
            self._left_out(len(found), "references")
        return found[-MAX_LIST:]

    def _left_out(self, count: int, what: str) -> None:
        self._notes.append(f"message {self._number}: {MAX_LIST:,} of {count:,} {what} are given")

    def _sent(self) -> dt.datetime | None:
        try:
            return email.utils.parsedate_to_datetime(str(self._message.get("Date", ""))[:200])
        except (ValueError, TypeError, OverflowError):
            return None

    def _is_automatic(self) -> bool:
        """Does it say that no person sent it to this reader: a list, a newsletter, a notice?"""
        auto = str(self._message.get("Auto-Submitted", "no")).partition(";")[0].strip().lower()
        bulk = str(self._message.get("Precedence", "")).strip().lower() in _BULK
        return auto not in ("", "no") or bulk or bool(self._all("List-Id", "List-Unsubscribe"))


def _utc(sent: dt.datetime) -> str:
    """In one zone and form, so that texts sort as times do; a time without a zone is taken as
    UTC."""
    aware = sent if sent.tzinfo else sent.replace(tzinfo=dt.UTC)
    try:
        return aware.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return ""
