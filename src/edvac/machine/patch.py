"""A run's files as a patch in git's format: what `git apply` and `patch -p1` make of it is, byte
for byte, what `edvac apply` makes.

Lines end with a line feed and nothing else does, so that carriage returns and other separators stay
inside their lines. What has a NUL is written as a binary patch, which only git takes.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import re
import zlib
from collections.abc import Iterator

LARGE = 20_000  # lines on both sides; beyond, the whole file is replaced: finding what differs
# takes time that grows with their product
AROUND = 3  # lines that a hunk shows before and after
MODE = "100644"
_NOTHING = "0" * 40
_PIECE = 52  # bytes on a line of a binary patch
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_PLAIN = frozenset(range(0x21, 0x7F)) - {ord('"'), ord("\\")}
_SHORT = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\"}


def file_patch(path: str, before: bytes | None, after: bytes | None, mode: int = 0o644) -> bytes:
    """The patch of one file; None where there is none. Empty where nothing changes."""
    if before == after:
        return b""
    old_name, new_name = _quoted(f"a/{path}"), _quoted(f"b/{path}")
    kind = "100755" if mode & 0o111 else MODE
    lines = [f"diff --git {old_name} {new_name}"]
    index = f"index {_object(before)}..{_object(after)}"
    if before is None:
        lines += [f"new file mode {MODE}", index]
    elif after is None:
        lines += [f"deleted file mode {kind}", index]
    else:
        lines.append(f"{index} {kind}")
    old, new = before or b"", after or b""
    if b"\x00" in old + new:
        return _text(lines) + b"GIT binary patch\n" + _literal(new) + _literal(old)
    if old or new:  # an empty file that comes or goes has no lines
        lines.append(f"--- {old_name if before is not None else '/dev/null'}")
        lines.append(f"+++ {new_name if after is not None else '/dev/null'}")
    return _text(lines) + b"".join(_hunks(_LINE.findall(old), _LINE.findall(new)))


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _hunks(old: list[bytes], new: list[bytes]) -> Iterator[bytes]:
    if not old or not new or len(old) + len(new) > LARGE:
        groups = [[("replace", 0, len(old), 0, len(new))]] if old or new else []
    else:
        groups = list(difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(AROUND))
    for group in groups:
        first, last = group[0], group[-1]
        yield b"@@ -%s +%s @@\n" % (_range(first[1], last[2]), _range(first[3], last[4]))
        for kind, old_from, old_to, new_from, new_to in group:
            if kind == "equal":
                yield from (_marked(b" ", line) for line in old[old_from:old_to])
            else:
                yield from (_marked(b"-", line) for line in old[old_from:old_to])
                yield from (_marked(b"+", line) for line in new[new_from:new_to])


def _range(start: int, end: int) -> bytes:
    """Lines of a side, counted from 1; of no lines, the one before."""
    return b"%d,%d" % (start + 1 if end > start else start, end - start)


def _marked(mark: bytes, line: bytes) -> bytes:
    return (
        mark + line if line.endswith(b"\n") else mark + line + b"\n\\ No newline at end of file\n"
    )


def _literal(content: bytes) -> bytes:
    """Content as a binary patch spells it."""
    packed = zlib.compress(content)
    lines = [b"literal %d\n" % len(content)]
    for start in range(0, len(packed), _PIECE):
        piece = packed[start : start + _PIECE]
        size = len(piece) + (ord("A") - 1 if len(piece) <= 26 else ord("a") - 27)
        lines.append(bytes([size]) + base64.b85encode(piece, pad=True) + b"\n")
    return b"".join(lines) + b"\n"


def _object(content: bytes | None) -> str:
    """The name that git gives the content; it looks whether the file is the one that was meant."""
    if content is None:
        return _NOTHING
    head = b"blob %d\x00" % len(content)
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()


def _quoted(name: str) -> str:
    """A name as git writes it: between quotes where a plain one could be misread."""
    raw = name.encode()
    if all(byte in _PLAIN for byte in raw):
        return name
    return '"' + "".join(chr(b) if b in _PLAIN or b == 32 else _escape(b) for b in raw) + '"'


def _escape(byte: int) -> str:
    return _SHORT.get(byte) or f"\\{byte:03o}"
