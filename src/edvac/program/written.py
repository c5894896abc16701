"""The part of the library that is written in the language itself.

A program that calls such a function carries its text from then on, below its own: what runs is in
the journal, can be read, and does not change when edvac does. Knows nothing of what the text says.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence
from pathlib import Path

WRITTEN = {"build": "build.edv"}
_HEADING = "# -- from edvac's library: "


def with_written(text: str, nodes: Sequence[ast.AST]) -> str:
    """The text, and below it the functions that it calls and does not define."""
    if not any(name in text for name in WRITTEN):
        return text
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    called = {
        node.func.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    missing = [name for name in WRITTEN if name in called - defined]
    return text + "".join(f"\n\n{_HEADING}{name}\n{written(name)}" for name in missing)


def definitions_first(text: str, tree: ast.Module) -> ast.Module:
    """The tree with what the library defined above all else, as if it had been written there."""
    lines = text.splitlines()
    below = next((at for at, line in enumerate(lines, 1) if line.startswith(_HEADING)), None)
    if below is None:
        return tree

    def own(node: ast.stmt) -> bool:
        is_definition = isinstance(node, ast.ClassDef | ast.FunctionDef)
        return node.lineno < below or not is_definition

    return ast.Module(sorted(tree.body, key=own), tree.type_ignores)


@functools.cache
def written(name: str) -> str:
    """The text of one function, with the records and functions that belong to it."""
    return Path(__file__).with_name(WRITTEN[name]).read_text(encoding="utf-8")
