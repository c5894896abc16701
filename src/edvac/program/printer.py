"""``edvac fmt``: one layout for a program, comments kept.

Line by line with the tokenizer: indentation becomes four spaces a level, blank lines at most two,
spaces between tokens as PEP 8 has them. Line breaks stay where the author put them, and no token
changes, so the tree of the text stays the same. Knows nothing of what a program means.
"""

from __future__ import annotations

import ast
import io
import keyword
import tokenize

from edvac.core.errors import InternalError
from edvac.program.source import read_source

OPENING, CLOSING = frozenset("([{"), frozenset(")]}")
TIGHT_AFTER = frozenset(["(", "[", "{", ".", "~"])
TIGHT_BEFORE = frozenset([")", "]", "}", ",", ":", ".", ";"])
SKIPPED = (tokenize.ENCODING, tokenize.ENDMARKER, tokenize.INDENT, tokenize.DEDENT)
UNARY = frozenset(["-", "+", "~"])


def format_program(text: str) -> str:
    """The text in canonical layout. Idempotent; the syntax tree stays the same.

    Raises:
        ProgramError: the text is not Python.
    """
    source = read_source(text)
    made = _layout(text)
    if ast.dump(source.tree) != ast.dump(read_source(made).tree):
        raise InternalError("format_changed", "formatting would have changed the program")
    return made


def _layout(text: str) -> str:
    lines: list[str] = []
    columns = [0]  # of the blocks that are open, as the author indented them
    blanks = 0
    opens = False  # did the last statement open a block?
    current: list[tokenize.TokenInfo] = []
    brackets = _Brackets()
    for token in tokenize.generate_tokens(io.StringIO(_plain_newlines(text)).readline):
        if token.type == tokenize.INDENT:
            columns.append(len(token.string.expandtabs()))
        elif token.type == tokenize.DEDENT:
            columns.pop()
        elif token.type in (tokenize.NEWLINE, tokenize.NL):
            if current:
                level = _level(current[0], columns, opens, inside=bool(brackets.open))
                depth = level + brackets.hanging(current)
                lines.append("    " * depth + brackets.line(current))
                blanks = 0
            elif not brackets.open and blanks < 2 and lines:
                blanks += 1
                lines.append("")
            if token.type == tokenize.NEWLINE:
                opens = any(one.string == ":" for one in current[-2:])
            current = []
        elif token.type not in SKIPPED:
            current.append(token)
    while lines and not lines[-1]:
        lines.pop()
    return "".join(f"{line}\n" for line in lines)


def _level(first: tokenize.TokenInfo, columns: list[int], opens: bool, *, inside: bool) -> int:
    """The level of a line. The tokenizer sees a comment before the block that it opens or closes,
    so a comment's level is read from where it stands."""
    if inside or first.type != tokenize.COMMENT:
        return len(columns) - 1
    column = len(first.line[: first.start[1]].expandtabs())
    if column > columns[-1]:
        return len(columns) - 1 + opens
    return max(at for at, one in enumerate(columns) if one <= column)


def _plain_newlines(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", " ")
    return text if text.endswith("\n") else text + "\n"


class _Brackets:
    """Brackets that are open across lines, and the spaces inside a line."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self._lambdas: list[int] = []
        self._last: tokenize.TokenInfo | None = None

    def hanging(self, tokens: list[tokenize.TokenInfo]) -> int:
        """Extra levels of a line inside brackets; one that begins by closing has one less."""
        depth = len(self.open)
        for token in tokens:
            if token.string not in CLOSING:
                break
            depth -= 1
        return max(depth, 0)

    def line(self, tokens: list[tokenize.TokenInfo]) -> str:
        """The tokens of one physical line with canonical spaces."""
        made = ""
        before: tokenize.TokenInfo | None = None
        unary = False
        for token in tokens:
            if before is not None:
                made += self._space(before, token, unary)
            unary = token.string in UNARY and _is_prefix(before if before else self._last, self)
            self._track(token)
            made += token.string
            before = token
        self._last = before
        return made

    def _track(self, token: tokenize.TokenInfo) -> None:
        if token.type == tokenize.OP and token.string in OPENING:
            self.open.append(token.string)
        elif token.type == tokenize.OP and token.string in CLOSING and self.open:
            self.open.pop()
        elif token.string == "lambda":
            self._lambdas.append(len(self.open))
        elif token.string == ":" and self._lambdas and self._lambdas[-1] == len(self.open):
            self._lambdas.pop()

    def _space(self, before: tokenize.TokenInfo, token: tokenize.TokenInfo, unary: bool) -> str:
        left, right = before.string, token.string
        if token.type == tokenize.COMMENT:
            return "  "
        if before.type == tokenize.COMMENT:
            return ""
        if unary or left in TIGHT_AFTER:
            return " " if left == "." and _is_word(before) else ""
        if right in TIGHT_BEFORE and token.type == tokenize.OP:
            return " " if right == "." and before.type == tokenize.NUMBER else ""
        if "=" in (left, right) and self.open and self.open[-1] == "(" and not self._lambdas:
            return ""
        if right in ("(", "[") and token.type == tokenize.OP:
            called = left in CLOSING or (
                before.type in (tokenize.NAME, tokenize.STRING) and not keyword.iskeyword(left)
            )
            return "" if called or left in ("True", "False", "None") else " "
        sliced = left == ":" and bool(self.open) and self.open[-1] == "["
        tight = (sliced and not self._lambdas) or ("=" in (left, right) and bool(self._lambdas))
        return "" if tight else " "


def _is_word(token: tokenize.TokenInfo) -> bool:
    return token.type in (tokenize.NAME, tokenize.NUMBER)


def _is_prefix(before: tokenize.TokenInfo | None, brackets: _Brackets) -> bool:
    """Is a sign here a prefix and not an operator between two operands?"""
    if before is None or before.type == tokenize.COMMENT:
        return True
    if before.type in (tokenize.NUMBER, tokenize.STRING):
        return False
    if before.type == tokenize.NAME:
        return keyword.iskeyword(before.string) and before.string not in ("True", "False", "None")
    return before.string not in CLOSING
