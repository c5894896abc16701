"""Mailboxes: where each message begins, and its bytes.

A message begins with a line ``From … 09:30:00 … 2026``, at the start of the file or after a blank
line, with a header below it. What only looks similar in a body stays in the body; the rest of
the forgeries no reader of this format can tell, because the format says nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import BLOCK, Source

MAX_MESSAGES = 200_000
_LINE = 4_096  # bytes in which the first two lines of a message must be told
_START = re.compile(
    rb"From [^\r\n]{0,900}\d\d?:\d\d[^\r\n]{0,60}\r?\n(?:>?From |[!-9;-~]{1,70}:[ \t\r\n])"
)
_BLANK = re.compile(rb"\n\r?\n(?=From )")
_YEAR = re.compile(rb"\b(?:19|20)\d\d\b")
_ESCAPED = re.compile(rb"^>(>*From )", re.M)


def messages(source: Source) -> Iterator[tuple[int, int]]:
    """Beginning and end of each message, its ``From`` line included."""
    begun: int | None = None
    for number, place in enumerate(_starts(source), 1):
        if begun is not None:
            yield begun, place
        begun = place
        if number > MAX_MESSAGES:
            why = f"it has more than {MAX_MESSAGES:,} messages"
            raise Unreadable(why, "too_large")
    if begun is not None:
        yield begun, source.size


def body(raw: bytes) -> bytes:
    """The mail in a message of a mailbox: without its ``From`` line, and with those of its body as
    they were before they were put in."""
    return _ESCAPED.sub(rb"\1", raw.partition(b"\n")[2])


def _starts(source: Source) -> Iterator[int]:
    if _is_start(source.at(0, _LINE)):
        yield 0
    for offset in range(0, source.size, BLOCK):
        before = min(3, offset)  # the blank line may lie in the last block, the header in the next
        window = source.at(offset - before, offset + BLOCK + _LINE)
        for found in _BLANK.finditer(window):
            start = offset - before + found.end()
            here = offset <= start < offset + BLOCK
            if here and _is_start(window[found.end() : found.end() + _LINE]):
                yield start


def _is_start(window: bytes) -> bool:
    found = _START.match(window)
    return bool(found and _YEAR.search(window.partition(b"\n")[0]))
