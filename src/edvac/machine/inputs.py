"""Input roots: which directories a run may read, derived from the program or given by the user."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from edvac.core.errors import ConfigError
from edvac.core.signature import WILD, Access


def given_roots(directories: Iterable[str]) -> dict[str, Path]:
    """Each directory under its own name, or under the one given: ``--input examples/inbox`` and
    ``--input inbox=mail/2026`` are both ``inbox/`` to a program. The current directory is what a
    program's paths begin in.

    Raises:
        ConfigError: two directories of one name, or not a directory.
    """
    roots: dict[str, Path] = {}
    here = Path.cwd()
    for text in directories:
        name, directory = _named(text)
        found = directory.resolve()
        if not name:
            name = "" if found == here else found.name
        if not directory.is_dir():
            kind = "is a file" if directory.exists() else "does not exist"
            raise ConfigError(
                "input_root_missing",
                f"the input {str(directory)!r} is not a directory",
                f"It {kind}.",
                "Name a directory with --input; a program reads the files in it.",
            )
        if name in roots and roots[name].resolve() != found:
            raise ConfigError(
                "input_root_twice",
                f"two input directories are called {name!r}",
                "A program could not tell them apart.",
                "Give one of them another name: --input NAME=DIRECTORY.",
            )
        roots[name] = directory
    return roots


def _named(text: str) -> tuple[str, Path]:
    """Name and directory of ``NAME=DIRECTORY``; no name where none is given."""
    name, mark, rest = text.partition("=")
    if mark and rest and re.fullmatch(r"\w[\w.-]*", name) and not Path(text).is_dir():
        return name, Path(rest)
    return "", Path(text)


def derived_roots(patterns: Iterable[str], here: Path) -> dict[str, Path]:
    """The directories that a program's own patterns name, below the current one.

    A pattern whose beginning is not known before the run grants nothing.
    """
    roots: dict[str, Path] = {}
    for head, rest in map(_split, patterns):
        if not head:
            continue
        if not rest:
            roots[""] = here
        elif (here / head).is_dir():
            roots[head] = here / head
    return roots


def missing_directories(touches: Access, here: Path) -> list[str]:
    """Directories that a program reads, that are not there, and that it does not write itself."""
    made = {_split(pattern)[0] for pattern in touches.writes}
    wanted = {head for head, rest in map(_split, touches.reads) if rest} - {""} - made
    # Brackets may be a class of characters: then there need be no directory of that name.
    return sorted(name for name in wanted if "[" not in name and not (here / name).is_dir())


def _split(pattern: str) -> tuple[str, str]:
    """The first directory of a pattern and the rest; nothing where it is not known or leads out.
    Brackets are taken for a part of its name."""
    head, _, rest = posixpath.normpath(pattern).partition("/")
    if pattern == WILD or head in ("", ".", "..") or (rest and any(mark in head for mark in "*?")):
        return "", ""
    return head, rest
