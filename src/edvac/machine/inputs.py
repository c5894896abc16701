"""Input roots: which directories a run may read, derived from the program or given by the user."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edvac.core.errors import ConfigError
from edvac.core.signature import WILD


def given_roots(directories: Iterable[Path]) -> dict[str, Path]:
    """Each directory under its own name: ``--input examples/inbox`` is ``inbox/`` to a program.

    Raises:
        ConfigError: two directories of one name, or not a directory.
    """
    roots: dict[str, Path] = {}
    for directory in directories:
        name = directory.resolve().name
        if not directory.is_dir():
            raise ConfigError(
                "input_root_missing", f"{str(directory)!r} is not a directory", "", "See --input."
            )
        if name in roots and roots[name].resolve() != directory.resolve():
            raise ConfigError(
                "input_root_twice",
                f"two input directories are called {name!r}",
                "A program could not tell them apart.",
                "Rename one, or run it on their parent.",
            )
        roots[name] = directory
    return roots


def derived_roots(patterns: Iterable[str], here: Path) -> dict[str, Path]:
    """The directories that a program's own patterns name, below the current one.

    A pattern whose beginning is not known before the run grants nothing.
    """
    roots: dict[str, Path] = {}
    for pattern in patterns:
        head, _, rest = pattern.partition("/")
        if pattern == WILD or (any(mark in head for mark in "*?[") and rest):
            continue
        if not rest:
            roots[""] = here
        elif (here / head).is_dir():
            roots[head] = here / head
    return roots
