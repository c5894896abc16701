"""Where the statements of a program begin and end, also of one that is still being written."""

from __future__ import annotations

from edvac.compiler.grammar import END


def first_statement(text: str) -> str | None:
    """The first statement of a text that goes on, or None while it may not be complete.

    A plain statement ends with its line; a block ends where a line begins at the margin.
    """
    if text.startswith(END):
        return END
    head, newline, rest = text.partition("\n")
    if not newline:
        return None
    if not head.endswith(":"):
        return head + newline
    taken = [head]
    while rest:
        line, newline, after = rest.partition("\n")
        if line and not line.startswith(" "):
            if _continues(head, line):
                taken.append(line)
            elif _may_continue(head, line, bool(newline)):
                return None
            else:
                return "\n".join(taken) + "\n"
        elif not newline:
            return None
        elif line:
            taken.append(line)
        rest = after
    return None


def _continues(head: str, line: str) -> bool:
    return head.startswith("if ") and line.startswith(("else:", "elif "))


def _may_continue(head: str, line: str, whole: bool) -> bool:
    """Could an unfinished line still become ``else:`` or ``elif``?"""
    return (
        not whole and head.startswith("if ") and any(w.startswith(line) for w in ("else:", "elif "))
    )


def statements(program: str) -> list[str]:
    """A whole program in its statements at the margin, without the blank lines between them."""
    found = []
    rest = program.lstrip("\n")
    while rest:
        piece = first_statement(f"{rest}\n{END}")
        assert piece is not None  # behind a whole program nothing may follow
        found.append(piece)
        rest = rest[len(piece) :].lstrip("\n")
    return found
