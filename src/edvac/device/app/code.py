"""What an app is started with, and the code that it has to read for that: found when it is added.

Nothing is imported or run. Knows nothing of sandboxes.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from edvac.core.errors import UsageError

PYTHONS = ("python", "python3")  # edvac's own interpreter, which every app may read
SYSTEM = ("/usr", "/bin", "/lib", "/lib64")  # as well


def resolved(
    command: tuple[str, ...], code: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A command as it is started, wherever that is, and the files and directories that it needs:
    those that `code` names, each argument that is a file, and the program itself, with all of the
    virtual environment that it belongs to.

    Raises:
        UsageError: there is no such program or path.
    """
    head, *rest = command
    found = sys.executable if head in PYTHONS else shutil.which(head)
    if found is None:
        raise UsageError("app_command", f"there is no program {head!r}", "", "Give its whole path.")
    program = Path(found).absolute()
    paths = [Path(one).resolve() for one in code]
    for path in paths:
        if not path.exists():
            raise UsageError("app_command", f"there is no file or directory {str(path)!r}")
    argv = [str(program)]
    for word in rest:
        if not word.startswith("-") and Path(word).is_file():
            word = str(Path(word).resolve())
            paths.append(Path(word))
        argv.append(word)
    if head not in PYTHONS:
        paths += [*_environment(program), program]
    return tuple(argv), tuple(map(str, _outermost(paths)))


def _environment(program: Path) -> Iterator[Path]:
    """The virtual environment of a program, and the Python that it was made of."""
    settings = program.parent.parent / "pyvenv.cfg"
    if settings.is_file():
        yield settings.parent
        for line in settings.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, text = line.partition("=")
            if key.strip() == "home" and text.strip():
                yield Path(text.strip()).parent


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Without those that lie in others or in the system's own."""
    found: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(above) for above in (*map(Path, SYSTEM), *found)):
            found.append(path)
    return found


def module_at(module: str) -> tuple[str, tuple[str, ...]]:
    """The name of a Python module and where it lies: a file, one beside here, or an installed one.
    It is not imported.

    Raises:
        UsageError: there is none.
    """
    path = Path(module)
    if path.suffix == ".py" and path.is_file():
        return path.stem, (str(path.resolve()),)
    here = [path for path in (Path(f"{module}.py"), Path(module)) if path.exists()]
    if module.isidentifier():
        spec = importlib.util.find_spec(module) if not here else None
        if spec is not None and spec.origin not in (None, "built-in", "frozen"):
            origin = Path(str(spec.origin))
            here = [origin.parent if origin.name == "__init__.py" else origin]
        if here:
            return module, (str(here[0].resolve()),)
    raise UsageError(
        "app_module",
        f"there is no Python module {module!r}",
        "It is a file, a module in this directory, or an installed one.",
        "Name it as in --python fares or --python ./fares.py.",
    )
