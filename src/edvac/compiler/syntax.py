"""What several checks look for in the syntax tree of a program."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def assigned(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names and the values that they are given."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name(name)], value):
                yield name, value


def fields_of_records(tree: ast.AST) -> set[int]:
    """The identities of the names that are fields of records, and no variables."""
    return {
        id(part.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for part in node.body
        if isinstance(part, ast.AnnAssign)
    }
