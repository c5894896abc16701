"""What is still to be written, as comments between the statements of a program: the words of the
task about the next file, put where a small model heeds them most."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from edvac.compiler.brief import read_brief, words_about
from edvac.compiler.review import unwritten
from edvac.core.signature import Catalogue
from edvac.program import parse

LENGTH = 200  # characters of the task's words about a file
_WRITES = re.compile(r"\bfiles\.(?:write|copy|move)\(")


def annotated(
    task: str, statements: Sequence[str], catalogue: Catalogue, *, whole: bool = False
) -> str:
    """Statements with a comment before the first one and behind each that writes: which file is
    next, and what the task says of it.

    Args:
        statements: a legal program, or the beginning of one.
        whole: is it all of a program? The file that it writes next is the next one then; otherwise
            it is the first one that the task names and the statements do not write.
    """
    left = [_left(task, "".join(statements[:n]), catalogue) for n in range(len(statements) + 1)]
    made: list[str] = []
    for place in range(len(statements) + 1):
        if place == 0 or _WRITES.search(statements[place - 1]):
            later = left[place + 1 :] if whole else ()
            made.append(_comment(task, left[place], later))
        made += statements[place : place + 1]
    return "".join(made)


def _left(task: str, text: str, catalogue: Catalogue) -> list[str]:
    """Files, and folders once something is read, that the task names and nothing touches."""
    brief = read_brief(task)
    if not text:
        return list(brief.results)
    program = parse(text, catalogue)
    known = {*brief.results, *(f"{name}/" for name in brief.folders if program.touches.reads)}
    return [name for name in unwritten(program, task) if name in known]


def _comment(task: str, left: Sequence[str], later: Iterable[Sequence[str]]) -> str:
    if not left:
        return ""
    written = (name for after in later for name in left if name not in after)
    name = next(written, left[0])
    return f"# next: {name}: {words_about(task, name)[:LENGTH]}\n"
