"""What the verifier cannot see: does a legal program do what the task names?

Structural checks on text alone, each with a complaint that can be shown to the model.
"""

from __future__ import annotations

import ast
from collections import Counter

from edvac.compiler.brief import read_brief
from edvac.core.errors import ProgramError
from edvac.core.signature import Effect, overlap
from edvac.program import Program


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
    """Files and folders that the task names and the program neither reads nor writes."""
    brief, touched = read_brief(task), program.touches
    known = touched.reads + touched.writes
    files = [name for name in brief.files if not any(overlap(name, path) for path in known)]
    return files + [
        f"{name}/"
        for name in brief.folders
        if not any(overlap(f"{name}/**", path) for path in known)
    ]


def refuse_strangers(program: Program, task: str) -> None:
    """Refuse to read what the task does not speak of: a name that a model made up, or took from an
    example. Only where the task names some file or folder.

    Raises:
        ProgramError: `plan_astray`.
    """
    brief, touched = read_brief(task), program.touches
    if not (brief.files or brief.folders):
        return
    for path in touched.reads:
        head = path.partition("/")[0]
        own = any(overlap(path, written) for written in touched.writes)
        if not own and not set(head) & set("*?[") and head.casefold() not in task.casefold():
            raise ProgramError(
                "plan_astray",
                f"the program reads {path}, which the task does not name",
                "",
                f"Read {', '.join(brief.folders + brief.files)}.",
            )


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
