"""`check`, `fmt`, `stubs`: working on programs."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from edvac.cli import ui
from edvac.core.errors import EXIT_USAGE, ProgramError, UsageError

_STATEMENTS = (ast.Assign, ast.AugAssign, ast.For, ast.While, ast.If, ast.FunctionDef)
_NAMES = r"[A-Za-z_]\w*(?:[ \t]*,[ \t]*\w+)*"
# A line of a program that does not parse: NAME = ..., device.operation(..., for NAME in ...:
_LIKE_CODE = re.compile(
    rf"""^[ \t]*(?:
        {_NAMES} [ \t]* [-+*/|]?=(?!=)
        | [A-Za-z_]\w*\.\w+\(
        | (?: for[ \t]+{_NAMES}[ \t]+in\b | (?:if|elif|else|while|def)\b ) .* :[ \t]*(?:\#.*)?$
    )""",
    re.MULTILINE | re.VERBOSE,
)


@dataclass(slots=True)
class Source:
    """Where the program comes from."""

    task: str
    text: str | None
    path: Path | None = None


def read_source(task: str) -> Source:
    """A task in words, a program file, or either from standard input."""
    if task == "-":
        text = _stdin()
        if is_program(text):
            return Source("", text)
        task = text.strip()
    elif task.endswith(".edv"):
        path = Path(task)
        try:
            return Source("", path.read_text(encoding="utf-8"), path)
        except (OSError, UnicodeDecodeError) as problem:
            raise UsageError(
                "program_unreadable",
                f"the program {task!r} cannot be read",
                "It is not UTF-8 text."
                if isinstance(problem, ValueError)
                else f"{problem.strerror}.",
                "Name a program file, or say the task in words.",
            ) from problem
    if not task.strip():
        raise UsageError(
            "task_empty",
            "no task is given",
            "",
            "Say what is to be done, such as edvac run 'Total the invoices in inbox/', or name a "
            "program (.edv).",
        )
    return Source(task, None)


def is_program(text: str) -> bool:
    """Is this meant as a program, though it may be wrong? Words may be Python by chance, so that
    parsing alone says nothing: something has to be given a name, called or repeated."""
    from edvac.program.source import read_source as read_program

    try:
        tree = read_program(text).tree
    except ProgramError:
        return _LIKE_CODE.search(text) is not None
    return any(
        isinstance(node, _STATEMENTS)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
        for node in ast.walk(tree)
    )


def _stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as problem:
        raise UsageError(
            "program_unreadable", "standard input is not UTF-8 text", str(problem), "Convert it."
        ) from problem


PROGRAM = click.argument("program", type=click.Path(allow_dash=True))


def _text(program: str) -> str:
    if program == "-":
        return _stdin()
    source = read_source(program)
    if source.text is None:
        raise UsageError(
            "not_a_program", f"{program!r} is not a program file", "", "Its name ends with .edv."
        )
    return source.text


@click.command()
@PROGRAM
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def check(program: str, as_json: bool) -> int:
    """Check PROGRAM (- reads stdin) without running it: errors, warnings, what it would touch, and
    who could influence each effect."""
    from edvac.cli.plan import describe_effects, describe_touches, effects
    from edvac.guard.load import NAME, load
    from edvac.program import check as check_text
    from edvac.program import parse

    text = _text(program)
    found = check_text(text, ui.catalogue())
    bad = [one for one in found if one.severity == "error"]
    parsed = None if bad else parse(text, ui.catalogue())
    influenced = (
        [] if parsed is None else effects(parsed, load(ui.workspace() / NAME, ui.catalogue()))
    )
    if as_json:
        document = {"legal": not bad, "diagnostics": [asdict(one) for one in found]}
        if parsed is not None:
            touched, steps = parsed.touches, parsed.outline().steps
            document |= {"reads": touched.reads, "writes": touched.writes, "steps": steps}
            document["effects"] = influenced
        ui.out_json(document)
        return EXIT_USAGE if bad else 0
    for one in found:
        ui.out(f"{program}:{one.line}:{one.column}: {one.severity}: {one.what} [{one.code}]")
        if one.fix:
            ui.out(f"    {one.fix}")
    if parsed is not None:
        for line in [*describe_touches(parsed, {}), *describe_effects(influenced)]:
            ui.out(line)
    warnings = len(found) - len(bad)
    ui.out(f"{ui.counted(len(bad), 'error')}, {ui.counted(warnings, 'warning')}")
    return EXIT_USAGE if bad else 0


@click.command()
@PROGRAM
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit 1 if it would.")
def fmt(program: str, only_check: bool) -> int:
    """Format PROGRAM in place; - reads stdin and writes stdout."""
    from edvac.program import format_program

    text = _text(program)
    made = format_program(text)
    if program == "-":
        click.echo(made, nl=False)
    elif made != text and not only_check:
        _replace(Path(program), made)
        ui.out(f"formatted {program}")
    return 1 if only_check and made != text else 0


def _replace(path: Path, text: str) -> None:
    """Atomically, with the file's own mode."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.chmod(path.stat().st_mode)
        new.replace(path)
    except OSError as problem:
        raise UsageError(
            "program_unwritable",
            f"the program {str(path)!r} cannot be written",
            f"{problem.strerror or problem}.",
            "Give - to read it from standard input and write it to standard output.",
        ) from problem


@click.command()
def stubs() -> None:
    """Print type stubs (.pyi) of devices and library, for an editor."""
    from edvac.program import stubs as make

    click.echo(make(ui.catalogue()), nl=False)
