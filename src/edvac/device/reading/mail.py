"""E-mail to text: some headers, the body, and what is attached, each below its mark.

Nesting, number and size are bounded, and what lies beyond is said to be missing.
"""

from __future__ import annotations

import email
import email.errors
import email.header
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from email.policy import Compat32
from typing import Any, TypeAlias

from edvac.device.reading import plain
from edvac.device.reading.html import visible
from edvac.device.reading.marks import Reading, Section, label
from edvac.device.reading.refusal import Unreadable

MAX_DEPTH = 8  # mails inside each other, and parts inside parts
MAX_PARTS = 1_000  # of one mail, those of attached mails included
MAX_HEADERS = 10_000
MAX_HEADER = 4_000  # characters shown of one header
SHOWN = ("From", "To", "Cc", "Date", "Subject")

Nested: TypeAlias = Callable[[str, bytes], Reading]  # how an attached document is read


class _AsSent(Compat32):
    """Bytes beyond ASCII that stand in a header bare are text, as most programs send them; Python
    makes signs of question of them."""

    def header_fetch_parse(self, name: str, value: str) -> str:
        raw = value.encode("utf-8", "surrogateescape")
        return value if value.isascii() else _word(raw, None)


AS_SENT = _AsSent()


@dataclass(slots=True)
class _Mail:
    """What has been found in one mail so far."""

    nested: Nested
    notes: list[str] = field(default_factory=list)
    left: int = MAX_PARTS

    def take(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Unreadable(f"it has more than {MAX_PARTS:,} parts", "too_large")


@dataclass(slots=True)
class _Parts:
    plain: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    attached: list[Message] = field(default_factory=list)
    related: list[Message] = field(default_factory=list)  # pictures that belong to the page

    def add(self, other: _Parts) -> None:
        self.plain += other.plain or other.pages
        self.attached += other.attached
        self.related += other.related

    @property
    def text(self) -> str:
        return "\n\n".join(part.strip("\n") for part in self.plain or self.pages)


def read_mail(data: bytes, nested: Nested) -> Reading:
    """Headers, body and attachments.

    Raises:
        Unreadable: no mail, or one nested or split beyond the bounds.
    """
    mail = _Mail(nested)
    try:
        message = email.message_from_bytes(data, policy=AS_SENT)
        sections = list(_sections(message, mail, "", 0))
    except RecursionError as problem:
        raise Unreadable("its parts lie too deep in each other", "too_large") from problem
    return Reading(sections, mail.notes)


def _sections(message: Message, mail: _Mail, above: str, depth: int) -> Iterator[Section]:
    """The mail's own text, without a mark, and its attachments with theirs."""
    if depth > MAX_DEPTH:
        raise Unreadable(f"mails lie more than {MAX_DEPTH} deep in each other", "too_large")
    head = _head(message)
    parts = _gather(message, mail, 0)
    text = parts.text
    if not text.strip() and not parts.attached:
        mail.notes.append(f"{above.rstrip(' >') or 'the e-mail'} has no body")
    yield Section(f"{head}\n\n{text}" if text.strip() else head)
    for number, part in enumerate(parts.attached, 1):
        mail.take()
        yield from _attachment(part, mail, above + _name(part, number), depth)
    for number, part in enumerate(parts.related, 1):
        name = above + _name(part, number)
        yield Section("", f"attachment {name}", "not read: a picture in the page")


def _attachment(part: Message, mail: _Mail, name: str, depth: int) -> Iterator[Section]:
    mark = f"attachment {name}"
    inner = part.get_payload()
    try:
        if part.get_content_type() == "message/rfc822" and isinstance(inner, list) and inner:
            found = list(_sections(_message(inner[0]), mail, f"{name} > ", depth + 1))
        else:
            reading = mail.nested(name, _bytes(part))
            found = reading.sections
            mail.notes += [f"{name}: {note}" for note in reading.notes]
            if not any(section.text.strip() or section.missing for section in found):
                raise Unreadable("it holds no text")
    except Unreadable as problem:
        if problem.kind == "too_large" and depth == 0 and mail.left < 0:
            raise
        mail.notes.append(f"attachment {name} not read: {problem}")
        yield Section("", mark, f"not read: {problem}")
        return
    first, *rest = found
    if first.mark:
        yield Section("", mark)
        yield first
    else:
        yield Section(first.text, mark)
    yield from rest


def _gather(part: Message, mail: _Mail, depth: int) -> _Parts:
    """The texts and attachments below a part of a mail."""
    mail.take()
    if depth > MAX_DEPTH * 2:
        raise Unreadable(f"its parts lie more than {MAX_DEPTH * 2} deep in each other", "too_large")
    found = _Parts()
    kind, payload = part.get_content_type(), part.get_payload()
    if isinstance(payload, list) and kind != "message/rfc822":
        below = [_gather(_message(child), mail, depth + 1) for child in payload]
        if kind == "multipart/alternative":
            written = [one for one in below if any(text.strip() for text in one.plain)]
            best = written[:1] or [one for one in below if one.pages][-1:]
            for one in below:
                found.add(one if one in best else _Parts([], [], one.attached, one.related))
            return found
        for one in below:
            found.add(one)
        return found
    named = part.get_filename() is not None or part.get_content_disposition() == "attachment"
    if part.get_content_maintype() == "image" and part.get("Content-ID") and depth:
        found.related.append(part)
    elif kind == "message/rfc822" or named or part.get_content_maintype() != "text":
        odd = part.get_content_maintype() == "multipart"  # says so, but has no parts
        if odd and not named:
            found.plain.append(_text(part, mail))
        else:
            found.attached.append(part)
    elif kind == "text/html":
        found.pages.append(visible(_text(part, mail)))
    else:
        found.plain.append(_text(part, mail))
    return found


def _message(part: object) -> Message:
    if not isinstance(part, Message):
        raise Unreadable("its parts are broken")
    return part


def _bytes(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text(part: Message, mail: _Mail) -> str:
    raw = _bytes(part)
    charset = _ascii(part.get_content_charset()) or ""
    how = _ascii(part.get("Content-Transfer-Encoding", "")).lower().strip()
    if not raw.strip():
        return ""
    if charset and plain.known(charset) and plain.fits(raw, charset):
        text, notes = raw.decode(charset), []
        if charset not in ("utf-8", "us-ascii"):
            notes = [f"body read as {charset}, as it says"]
    else:
        text, notes = plain.decode(raw)
    if how == "quoted-printable":
        notes = [*notes, "body decoded from quoted-printable"]
    mail.notes += [note for note in notes if note not in mail.notes]
    return text


def _ascii(text: object) -> str:
    return str(text or "").encode("ascii", "ignore").decode()


def _name(part: Message, number: int) -> str:
    try:
        given = part.get_filename()
    except (ValueError, TypeError, IndexError, LookupError):  # a parameter in parts, badly joined
        given = None
    if given:
        return label(decoded(given)) or f"{number}"
    kind = part.get_content_type()
    if kind == "message/rfc822":
        return f"{number}.eml"
    return f"{number}.{label(kind.partition('/')[2])}"


def _head(message: Message) -> str:
    headers = getattr(message, "_headers", [])  # counted before they are looked through
    if len(headers) > MAX_HEADERS:
        raise Unreadable(f"it has {len(headers):,} headers, the limit is {MAX_HEADERS:,}")
    lines = []
    for name in SHOWN:
        found = message.get(name)
        if found:
            lines.append(f"{name}: {decoded(found)}")
    if not lines:
        raise Unreadable("it is no e-mail: it has no headers")
    return "\n".join(lines)


def decoded(value: Any) -> str:
    """A header on one line, its encoded words read, cut where it is beyond any use."""
    raw = str(value)
    cut = raw[:MAX_HEADER]
    try:
        found = email.header.decode_header(cut)
        text = "".join(_word(part, charset) for part, charset in found)
    except (ValueError, LookupError, email.errors.MessageError):
        text = cut
    text = " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text).split())
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text + (" …" if len(raw) > MAX_HEADER else "")


def _word(part: bytes | str, charset: str | None) -> str:
    if isinstance(part, str):
        return part
    if charset and plain.known(charset) and plain.fits(part, charset):
        return part.decode(charset)
    try:
        return part.decode("utf-8")
    except UnicodeDecodeError:
        return part.decode("cp1252", "replace")
