"""Errors of a program's text, at the place of a node.

Knows nothing of what may be wrong.
"""

from __future__ import annotations

import ast
from typing import NoReturn

from edvac.core.errors import ProgramError


def refusal(node: ast.AST, code: str, what: str, why: str = "", fix: str = "") -> ProgramError:
    """The error of `code` at the line and column where a node begins."""
    line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
    return ProgramError(code, what, why, fix, line=line, column=column)


def fail(node: ast.AST, code: str, what: str, why: str = "", fix: str = "") -> NoReturn:
    """Raise that error."""
    raise refusal(node, code, what, why, fix)
