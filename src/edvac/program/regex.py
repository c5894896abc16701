"""Regular expressions, kept from running away: Python's `re` backtracks.

A pattern whose repeated group repeats or chooses inside, or that refers back, can take exponential
time and is refused; what is left is at worst polynomial, and is bounded by the length of the text's
lines before it runs. Knows nothing of programs.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from edvac.core.errors import OperandError
from edvac.core.schema import INT, STR, ListOf, TupleOf
from edvac.program.limits import PATTERN_CHARS, SEARCHED_CHARS
from edvac.program.native import Registry, Work
from edvac.program.operate import too_large

REGEX = Registry()
_put = REGEX.add
BUDGET = 2_000_000_000  # comparisons in the worst case
REPEATS = 12  # unbounded repetitions in one pattern
REPEATED = 1_000  # times in {n,m}


@functools.lru_cache(maxsize=1_000)
def compiled(pattern: str) -> tuple[re.Pattern[str], int, bool]:
    """The pattern, its number of unbounded repetitions, and whether they may cross lines.

    Raises:
        OperandError: it could take exponential time, or is malformed.
    """
    if len(pattern) > PATTERN_CHARS:
        raise _refused("it is too long")
    repeats, crosses = _weigh(pattern)
    if repeats > REPEATS:
        raise _refused("it repeats too often")
    try:
        return re.compile(pattern), repeats, crosses
    except (re.error, OverflowError, RecursionError) as problem:
        raise _refused(str(problem)) from None


def _weigh(pattern: str) -> tuple[int, bool]:
    """Count repetitions; refuse nested ones. One pass over the text of the pattern."""
    repeats, crosses, at = 0, False, 0
    groups: list[bool] = []  # for each open group: does it repeat or choose inside?
    closed: bool | None = None  # the group just closed, with the same meaning
    atom = ""
    while at < len(pattern):
        piece = _token(pattern, at)
        at += len(piece)
        if piece == "(":
            groups.append(False)
            if pattern.startswith("?P=", at) or pattern.startswith("?(", at):
                raise _refused("it refers back")
            opened = re.match(r"\?(:|P<\w+>|=|!|<=|<!)", pattern[at:])
            if pattern.startswith("?", at) and opened is None:
                raise _refused("it sets flags; write (?i) as [Aa] or compare text.lower()")
            at += opened.end() if opened else 0
            closed, atom = None, ""
            continue
        if piece == ")":
            closed = groups.pop() if groups else None
            if groups and closed:
                groups[-1] = True
            atom = ")"
            continue
        if piece == "|" and groups:
            groups[-1] = True
        bounds = _bounds(piece)
        if bounds is None:
            closed, atom = None, piece
            continue
        if bounds[1] is not None and bounds[1] > REPEATED:
            raise _refused("it counts too far")
        if bounds[1] is None or bounds[1] > 1:
            if closed:
                raise _refused("a repeated group repeats or chooses inside")
            if groups:
                groups[-1] = True
        if bounds[1] is None:
            repeats += 1
            crosses = crosses or _meets_newline(atom)
        if pattern[at : at + 1] in ("?", "+"):
            at += 1
    return repeats, crosses


def _token(pattern: str, at: int) -> str:
    sign = pattern[at]
    if sign == "\\":
        following = pattern[at + 1 : at + 2]
        if following.isdigit() and following != "0":
            raise _refused("it refers back")
        return pattern[at : at + 2]
    if sign == "[":
        end = pattern.find("]", at + 2 + (pattern[at + 1 : at + 2] == "^"))
        while end > 0 and pattern[end - 1] == "\\":
            end = pattern.find("]", end + 1)
        return pattern[at : end + 1] if end > 0 else sign
    if sign == "{":
        found = re.match(r"\{\d*,?\d*\}", pattern[at:])
        return found.group() if found else sign
    return sign


def _bounds(piece: str) -> tuple[int, int | None] | None:
    """Least and most times that a repetition piece repeats; None for any other piece."""
    match piece:
        case "*" | "+":
            return 0, None
        case "?":
            return 0, 1
    found = re.fullmatch(r"\{(\d*)(,?)(\d*)\}", piece)
    if found is None or piece in ("{}", "{,}"):
        return None
    low = int(found[1] or 0)
    return (low, low) if not found[2] else (low, int(found[3]) if found[3] else None)


def _meets_newline(atom: str) -> bool:
    return atom.startswith("[^") or atom in (r"\s", r"\D", r"\W", r"\n", ")") or "\\s" in atom


def _refused(why: str) -> OperandError:
    return OperandError(
        "pattern_refused",
        f"this regular expression cannot be used: {why}",
        "Python could need exponential time for it.",
        "Write it simpler, or use text.between, text.lines and split.",
    )


def _ready(work: Work, pattern: str, text: str) -> re.Pattern[str]:
    """The pattern, once this search is seen to end soon; charged as what makes about as much text
    as it searches."""
    work.make(len(text) * 2)
    return _bounded(pattern, text)


def _bounded(pattern: str, text: str) -> re.Pattern[str]:
    found, repeats, crosses = compiled(pattern)
    if len(text) > SEARCHED_CHARS:
        raise too_large("the search; split the text first, it")
    longest = len(text) if crosses else max(map(len, text.split("\n")), default=0)
    if len(text) * float(longest) ** min(repeats, 3) > BUDGET:
        raise OperandError(
            "search_too_large",
            "this search could take too long",
            f"The pattern repeats {repeats} times over lines of {longest:,} characters.",
            "Search line by line: [re.findall(p, line) for line in text.lines(t)].",
        )
    return found


@_put(
    "text.grep",
    "Number and text of each line in which a pattern is found, counted as editors and grep do; the "
    "first line has number `first`.",
    result=ListOf(TupleOf((INT, STR))),
)
def _grep(work: Work, text: str, pattern: str, first: int = 1) -> list[tuple[int, str]]:
    work.spend(1 + (len(text) >> 8))  # what is kept is charged below: of a log it is little
    searched = _bounded(pattern, text)
    lines = text.split("\n")  # and at no other sign that Python calls a line's end
    if not lines[-1]:
        lines.pop()
    numbered = ((number, line.removesuffix("\r")) for number, line in enumerate(lines, first))
    found = [(number, line) for number, line in numbered if searched.search(line)]
    work.make(sum(64 + len(line) for _, line in found))
    return found


@_put("re.findall", "Every match, or the groups of every match.", result=ListOf(STR))
def _findall(work: Work, pattern: str, text: str, /) -> list[Any]:
    return _ready(work, pattern, text).findall(text)


@_put("re.search", "The first match: its text, or the list of its groups; None for no match.")
def _search(work: Work, pattern: str, text: str, /) -> Any:
    return _given(_ready(work, pattern, text).search(text))


@_put("re.match", "The same, only at the start.")
def _match(work: Work, pattern: str, text: str, /) -> Any:
    return _given(_ready(work, pattern, text).match(text))


@_put("re.fullmatch", "The same, only for the whole text.")
def _fullmatch(work: Work, pattern: str, text: str, /) -> Any:
    return _given(_ready(work, pattern, text).fullmatch(text))


def _given(found: re.Match[str] | None) -> Any:
    if found is None:
        return None
    return list(found.groups()) if found.re.groups else found.group()


@_put("re.sub", "The text with every match replaced; \\1 stands for a group.", result=STR)
def _sub(work: Work, pattern: str, new: str, text: str, /) -> str:
    found = _ready(work, pattern, text)
    pieces = sum(1 for _ in found.finditer(text))
    work.make(pieces * (len(new) + new.count("\\") * len(text)))
    try:
        return found.sub(new, text)
    except re.error as problem:
        raise _refused(str(problem)) from None


@_put("re.split", "The parts between matches.", result=ListOf(STR))
def _split(work: Work, pattern: str, text: str, /) -> list[Any]:
    return _ready(work, pattern, text).split(text)


@_put("re.escape", "The text as a pattern that matches only itself.", result=STR)
def _escape(work: Work, text: str, /) -> str:
    return re.escape(text)
