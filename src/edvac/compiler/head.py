"""The first statements of a program, where the task leaves no choice: tables are loaded under their
names, as a person would begin, and with numbers as numbers, which a small model takes for granted.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection
from pathlib import PurePosixPath

from edvac.compiler.brief import Brief

_LOADS = {
    ".csv": 'csv.table(files.read("{path}"))',
    ".tsv": 'csv.table(files.read("{path}"), "\\t")',
    ".json": 'json.load(files.read("{path}"))',
    ".jsonl": '[json.loads(line) for line in text.lines(files.read("{path}"))]',
    ".log": 'text.lines(files.read("{path}"))',
}


def headed(program: str, brief: Brief, taken: Collection[str]) -> str:
    """A whole program, begun in the same way: what it loads within other statements is loaded
    before them, unless the name for it has another meaning there."""
    for line in reversed(head(brief, taken)):
        name, _, load = line.rstrip("\n").partition(" = ")
        load = load.replace("csv.table(", "csv.load(")  # which people write
        if load in program and re.search(rf"\b{name}\b(?!\.)", program) is None:
            program = line + program.replace(load, name)
    return program


def head(brief: Brief, taken: Collection[str]) -> list[str]:
    """A statement for each table, or file of lines, that the task starts from.

    Args:
        taken: names that mean something else.
    """
    made: dict[str, str] = {}
    for path in brief.inputs:
        load = _LOADS.get(PurePosixPath(path).suffix)
        if load is None:
            continue
        name = re.sub(r"\W", "_", PurePosixPath(path).stem).lower()
        if not name[0].isalpha() or name in taken or name in made or keyword.iskeyword(name):
            name = f"rows_{len(made) + 1}"
        made[name] = f"{name} = {load.format(path=path)}\n"
    return [*made.values()]
