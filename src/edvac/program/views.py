"""`text.view`, `text.patch`, `text.fenced`: parts of a text by symbol or by lines, edits that fit.

Works by lines and indentation, so it serves any language that is laid out as usual and never
runs a parser on text that a model wrote. Knows nothing of files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from edvac.core.schema import STR
from edvac.program.data import RecordView
from edvac.program.limits import TEXT_CHARS
from edvac.program.native import Registry, Work
from edvac.program.operate import too_large

VIEWS = Registry()
_put = VIEWS.add

_WORDS = "def|class|func|function|fn|struct|interface|type|enum|impl|trait|module|namespace"
_MODIFIERS = r"(?:(?:async|export|default|public|private|protected|static|abstract|pub)\s+)*"
_DEFINITION = re.compile(rf"(\s*){_MODIFIERS}(?:{_WORDS})\s+([A-Za-z_$][\w$]*)")
_BINDING = re.compile(r"(\s*)(?:(?:const|let|var)\s+)?([A-Za-z_$][\w$]*)\s*(?::[^=]*)?=(?!=)")
_LINES = re.compile(r"(\d+)-(\d+)")
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)
_OPEN_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[^\n`]*\n", re.MULTILINE)


@_put(
    "text.view",
    "A part of a file's text: all of it (''), 'outline' (the lines that define something), lines "
    "('10-40'), or a definition by name ('Store', 'Store.add').",
    result=STR,
)
def _view(work: Work, text: str, part: str = "", /) -> str:
    work.make(len(text) * 2)
    lines = text.splitlines()
    found = _LINES.fullmatch(part)
    if not part:
        return text
    if part == "outline":
        return "\n".join(_outline(lines))
    if found:
        first, last = int(found[1]), int(found[2])
        if not 1 <= first <= last:
            raise ValueError(f"{part!r} are no lines: the first is 1, and the last not before it")
        if first > len(lines):
            raise ValueError(f"there is no line {first}: the text has {len(lines)}")
        return "\n".join(lines[first - 1 : last])
    return "\n".join(_symbol(lines, part))


@_put(
    "text.fenced",
    "The code in an answer: what stands between its fences (```), or all of it if it has none.",
    result=STR,
)
def _fenced(work: Work, text: str, /) -> str:
    work.make(len(text) * 2)
    blocks = [found[2] for found in _FENCE.finditer(text)]
    if not blocks:
        opened = _OPEN_FENCE.search(text)
        blocks = [text[opened.end() :] if opened else text]
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n"


@_put(
    "text.patch",
    "The text with edits made, each a record with .old and .new: .old has to occur exactly once.",
    result=STR,
)
def _patch(work: Work, text: str, edits: list[Any], /) -> str:
    for edit in edits:
        old, new = _edit(edit)
        work.make(len(text) + len(new))
        count = text.count(old) if old else 0
        if count != 1:
            often = "does not occur" if count == 0 else f"occurs {count} times"
            raise ValueError(f"{old[:60]!r} {often} in the text; it has to once")
        if len(text) + len(new) > TEXT_CHARS:
            raise too_large("this text")
        text = text.replace(old, new)
    return text


def _edit(edit: Any) -> tuple[str, str]:
    fields = edit.fields if isinstance(edit, RecordView) else edit
    match fields:
        case {"old": str(old), "new": str(new)}:
            return old, new
    raise TypeError("an edit has the fields old and new, both texts")


def _outline(lines: Sequence[str]) -> list[str]:
    """The lines that define something, with the first line of the docstring below them."""
    found: list[str] = []
    for at, line in enumerate(lines):
        if not _DEFINITION.match(line):
            continue
        end = at
        while line.count("(") > line.count(")") and end + 1 < len(lines) and end - at < 20:
            end += 1
            line = f"{line.rstrip()} {lines[end].strip()}"
        found.append(line)
        below = lines[end + 1].strip() if end + 1 < len(lines) else ""
        if below[:3] in ('"""', "'''"):
            indent = lines[end + 1][: len(lines[end + 1]) - len(lines[end + 1].lstrip())]
            found.append(f'{indent}"""{below[3:].removesuffix(below[:3])}"""')
    return found


def _symbol(lines: Sequence[str], name: str) -> Sequence[str]:
    """The lines of one definition, decorators and comments directly above it included.

    Raises:
        ValueError: there is none of this name.
    """
    for part in name.split("."):
        around, lines = lines, _block(lines, part)
        if not lines:
            known = [found[2] for line in around if (found := _DEFINITION.match(line))]
            has = f"it defines {', '.join(known[:20])}" if known else "it defines nothing"
            raise ValueError(f"there is no {name!r} in the text; {has}")
    return lines


def _block(lines: Sequence[str], name: str) -> Sequence[str]:
    at = _found(lines, name, _DEFINITION)
    at = _found(lines, name, _BINDING) if at is None else at
    if at is None:
        return ()
    depth = _depth(lines[at])
    start = at
    while start > 0 and lines[start - 1].lstrip()[:1] in ("@", "#") and lines[start - 1].strip():
        start -= 1
    end = at + 1
    while end < len(lines):
        line = lines[end]
        closes = line.lstrip()[:1] in (")", "}", "]")
        if line.strip() and (_depth(line) < depth or (_depth(line) == depth and not closes)):
            break
        end += 1
    while end > at + 1 and not lines[end - 1].strip():
        end -= 1
    return lines[start:end]


def _found(lines: Sequence[str], name: str, kind: re.Pattern[str]) -> int | None:
    """The least indented line that defines the name, so that a class comes before a local."""
    places = [
        (len(found[1]), at)
        for at, line in enumerate(lines)
        if (found := kind.match(line)) and found[2] == name
    ]
    return min(places)[1] if places else None


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())
