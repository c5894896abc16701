"""Program text to syntax tree, in bounded time and memory, with a Python's-eye error for each slip.

Nesting is counted before the parser sees the text, because a parser recurses. Knows nothing of what
the tree means.
"""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from dataclasses import dataclass, replace

from edvac.core.errors import ProgramError
from edvac.program.limits import LINE_CHARS, NESTING, TEXT_BYTES
from edvac.program.written import definitions_first, with_written

TREE_DEPTH = 90  # levels of one statement's tree: a + b + c ... is as deep as it has terms


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed text: its tree, and the comment at the end of each line that has one."""

    text: str
    tree: ast.Module
    comments: dict[int, str]


def read_whole(text: str) -> Source:
    """Parse a program, with what it uses of the library that is written in the language.

    Raises:
        ProgramError: it is too large, too deep, or not Python.
    """
    source = read_source(text)
    whole = with_written(text, source.tree)
    found = source if whole == text else read_source(whole)
    return replace(found, tree=definitions_first(found.text, found.tree))


def read_source(text: str) -> Source:
    """Parse a text as it is.

    Raises:
        ProgramError: it is too large, too deep, or not Python.
    """
    _bound_text(text)
    comments = _scan(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="exec")
    except SyntaxError as problem:
        raise _syntax(problem.msg, problem.lineno, problem.offset, text) from None
    except (RecursionError, MemoryError):
        raise too_deep(1) from None
    except ValueError as problem:
        raise _syntax(str(problem), 1, 1, text) from None
    _bound_depth(tree)
    return Source(text, tree, comments)


def _bound_text(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _syntax("the text holds half of a character (a lone surrogate)", 1, 1, "") from None
    if size > TEXT_BYTES:
        raise ProgramError(
            "program_too_large",
            f"the program has {size:,} bytes, the limit is {TEXT_BYTES:,}",
            "A program is read by people and parsed in bounded time.",
            "Put data into files and read them with files.read.",
        )
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > LINE_CHARS:
            raise ProgramError(
                "line_too_long",
                f"a line has {len(line):,} characters, the limit is {LINE_CHARS:,}",
                "",
                "Break it into several lines.",
                line=number,
                column=1,
            )


def _scan(text: str) -> dict[int, str]:
    """Trailing comments by line; refuses text that nests too deeply."""
    comments: dict[int, str] = {}
    depth = blocks = 0
    code_on: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.OP:
                depth += (token.string in "([{") - (token.string in ")]}")
            elif token.type == tokenize.INDENT:
                blocks += 1
            elif token.type == tokenize.DEDENT:
                blocks -= 1
            elif token.type == tokenize.COMMENT and token.start[0] in code_on:
                comments[token.start[0]] = token.string.lstrip("#").strip()
            if token.type not in (tokenize.COMMENT, tokenize.NL):
                code_on.add(token.end[0])
            if depth > NESTING or blocks > NESTING:
                raise too_deep(token.start[0])
    except (tokenize.TokenError, IndentationError, SyntaxError):
        pass  # the parser says it better
    return comments


def _bound_depth(tree: ast.Module) -> None:
    todo: list[tuple[ast.AST, int]] = [(stmt, 0) for stmt in tree.body]
    while todo:
        node, depth = todo.pop()
        if depth > TREE_DEPTH:
            raise too_deep(getattr(node, "lineno", 1))
        todo.extend((child, depth + 1) for child in ast.iter_child_nodes(node))


def too_deep(line: int) -> ProgramError:
    return ProgramError(
        "program_too_deep",
        "this is nested too deeply",
        f"Brackets and blocks may be {NESTING} levels deep, an expression {TREE_DEPTH}.",
        "Give parts of it names and put them on lines of their own.",
        line=line,
        column=1,
    )


def _syntax(message: str, line: int | None, column: int | None, text: str) -> ProgramError:
    lines = text.split("\n")
    at = min(max(line or 1, 1), len(lines))
    shown = lines[at - 1].strip()[:100]
    return ProgramError(
        "syntax",
        f"this line is not complete or not correct: {message}",
        f"The line reads: {shown}" if shown else "",
        "A program is written in Python's syntax; check brackets, quotes, colons and indentation.",
        line=at,
        column=max(column or 1, 1),
    )
