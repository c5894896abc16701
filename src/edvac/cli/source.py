"""`check`, `fmt`, `stubs`: working on programs."""

from __future__ import annotations

from pathlib import Path

import click

from edvac.cli import ui
from edvac.cli.run import read_source
from edvac.core.errors import EXIT_USAGE, UsageError

PROGRAM = click.argument("program", type=click.Path(allow_dash=True))


def _text(program: str) -> str:
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
    """Check PROGRAM without running it: errors, warnings, and what it would touch."""
    from edvac.device import CATALOGUE
    from edvac.program import check as check_text

    found = check_text(_text(program), CATALOGUE)
    bad = [one for one in found if one.severity == "error"]
    if as_json:
        ui.out_json({"legal": not bad, "diagnostics": [one.as_dict() for one in found]})
    else:
        for one in found:
            ui.out(f"{program}:{one.line}:{one.column}: {one.severity}: {one.what} [{one.code}]")
            if one.fix:
                ui.out(f"    {one.fix}")
        ui.out(f"{len(bad)} errors, {len(found) - len(bad)} warnings")
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
        temporary = Path(f"{program}.new")
        temporary.write_text(made, encoding="utf-8")
        temporary.replace(program)
        ui.out(f"formatted {program}")
    return 1 if only_check and made != text else 0


@click.command()
def stubs() -> None:
    """Print type stubs (.pyi) of devices and library, for an editor."""
    from edvac.device import CATALOGUE
    from edvac.program import stubs as make

    click.echo(make(CATALOGUE), nl=False)
