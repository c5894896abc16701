"""Program text to syntax tree, in bounded time and memory, with a Python's-eye error for each slip.

Python's parser bounds its own recursion; ours recurses less deeply, so nesting is counted before
anything else sees the tree. Knows nothing of what the tree means.
"""

from __future__ import annotations

import ast
import tokenize
import warnings
from dataclasses import dataclass, replace

from edvac.core.errors import ProgramError
from edvac.program.limits import LINE_CHARS, NESTING, TEXT_BYTES
from edvac.program.tree import children
from edvac.program.written import definitions_first, with_written

TREE_DEPTH = 90  # levels of one statement's tree: a + b + c ... is as deep as it has terms


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed text.

    Attributes:
        nodes: the whole tree, level by level; walked once, because walking takes its time.
        comments: those at the ends of lines in records and functions, by line.
    """

    text: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]
    comments: dict[int, str]


def read_whole(text: str) -> Source:
    """Parse a program, with what it uses of the library that is written in the language.

    Raises:
        ProgramError: it is too large, too deep, or not Python.
    """
    source = read_source(text)
    whole = with_written(text, source.nodes)
    found = source if whole == text else read_source(whole)
    return replace(found, tree=definitions_first(found.text, found.tree))


def read_source(text: str) -> Source:
    """Parse a text as it is.

    Raises:
        ProgramError: it is too large, too deep, or not Python.
    """
    _bound_text(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="exec")
    except SyntaxError as problem:
        if problem.msg.startswith("too many"):  # nested parentheses, levels of indentation
            raise too_deep(problem.lineno or 1) from None
        raise _syntax(problem.msg, problem.lineno, problem.offset, text) from None
    except (RecursionError, MemoryError):
        raise too_deep(1) from None
    except ValueError as problem:
        raise _syntax(str(problem), 1, 1, text) from None
    return Source(text, tree, _flat(tree), _comments(text, tree))


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


def _comments(text: str, tree: ast.Module) -> dict[int, str]:
    """The comments of records by line.

    Raises:
        ProgramError: brackets or blocks nest too deeply.
    """
    found: dict[int, str] = {}
    lines = text.splitlines(keepends=True)
    for stmt in tree.body:
        part = lines[stmt.lineno - 1 : stmt.end_lineno]
        compound = isinstance(stmt, ast.If | ast.For | ast.FunctionDef | ast.ClassDef)
        if compound or sum(map(_openers, part)) > NESTING:
            found.update(_scan(part, stmt.lineno - 1))
    return found


def _openers(line: str) -> int:
    """No fewer than the brackets that the line opens."""
    return line.count("(") + line.count("[") + line.count("{")


def _scan(lines: list[str], above: int) -> dict[int, str]:
    """Trailing comments by line; refuses what nests too deeply."""
    comments: dict[int, str] = {}
    depth = blocks = 0
    code_on: set[int] = set()
    for token in tokenize.generate_tokens(iter(lines).__next__):
        line = above + token.end[0]
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
        elif token.type == tokenize.INDENT:
            blocks += 1
        elif token.type == tokenize.DEDENT:
            blocks -= 1
        elif token.type == tokenize.COMMENT and line in code_on:
            comments[line] = token.string.lstrip("#").strip()
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            code_on.add(line)
        if depth > NESTING or blocks > NESTING:
            raise too_deep(above + token.start[0])
    return comments


def _flat(tree: ast.Module) -> tuple[ast.AST, ...]:
    """Every node, level by level.

    Raises:
        ProgramError: there are too many levels.
    """
    found: list[ast.AST] = [tree]
    level: list[ast.AST] = [*tree.body]
    depth = 0
    while level:
        if depth > TREE_DEPTH:
            raise too_deep(next((n.lineno for n in level if hasattr(n, "lineno")), 1))
        found += level
        level = [child for node in level for child in children(node)]
        depth += 1
    return tuple(found)


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
