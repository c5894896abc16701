"""What the verifier cannot see: does a legal program do what the task names?

Structural checks on text alone, each with a complaint that can be shown to the model.
"""

from __future__ import annotations

import ast
import re
from collections import Counter

from edvac.core.errors import ProgramError
from edvac.core.signature import Effect, overlap
from edvac.program import Program

_FILE = re.compile(r"(?<![\w/.])[\w-]+(?:/[\w-]+)*\.(?:csv|tsv|md|txt|json|html|xml|log)\b")


def review(program: Program, task: str) -> None:
    """Refuse a program that leaves out a file the task names, or computes what nobody uses.

    Raises:
        ProgramError: `plan_incomplete`.
    """
    missing = unwritten(program, task)
    if missing:
        raise _incomplete(f"the task names {', '.join(missing)}, which is never written")
    unused = unused_names(program.text)
    if unused:
        raise _incomplete(f"{', '.join(unused)} is computed and never used")
    if not any(use.effect in (Effect.WRITE, Effect.EXTERNAL) for use in program.access):
        raise _incomplete("the program writes no result")


def unwritten(program: Program, task: str) -> list[str]:
    """Files that the task names and the program neither reads nor writes."""
    touched = program.touches
    known = touched.reads + touched.writes
    named = dict.fromkeys(_FILE.findall(task))
    return [name for name in named if not any(overlap(name, path) for path in known)]


def unused_names(text: str) -> list[str]:
    """Variables and records that nothing reads, in the order of the text."""
    tree = ast.parse(text)
    bound: list[str] = []
    read: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                read[node.id] += 1
            else:
                bound.append(node.id)
        elif isinstance(node, ast.ClassDef):
            bound.append(node.name)
    fields = {
        id(part.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for part in node.body
        if isinstance(part, ast.AnnAssign)
    }
    inside = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) in fields
    }
    appended = _only_appended(tree)
    return [
        name
        for name in dict.fromkeys(bound)
        if name not in inside and (not read[name] or read[name] == appended[name])
    ]


def _only_appended(tree: ast.AST) -> Counter[str]:
    """How often a name is read only to put something into it."""
    found: Counter[str] = Counter()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(ast.Call(ast.Attribute(ast.Name(name), "append" | "extend"))):
                found[name] += 1
            case ast.Assign([ast.Subscript(ast.Name(name))]):
                found[name] += 1
    return found


def _incomplete(why: str) -> ProgramError:
    return ProgramError("plan_incomplete", why, "", "Finish the program.")
