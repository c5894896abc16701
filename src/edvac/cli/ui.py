"""Shared bits of the terminal: consoles, errors, escaping, JSON."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click

from edvac.core.errors import EdvacError

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


def safe(text: str) -> str:
    """Text with control and direction characters made visible: it may come from a document."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


def out(text: str = "") -> None:
    click.echo(safe(text))


def err(text: str = "") -> None:
    click.echo(safe(text), err=True)


def out_json(document: Any) -> None:
    """One document on stdout."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def report_error(error: EdvacError, *, as_json: bool = False) -> int:
    """Show an error: what, why, what to do; returns the exit code."""
    if as_json:
        click.echo(json.dumps({"error": error.as_dict()}, ensure_ascii=False))
    place = f"line {error.line}: " if error.line is not None else ""
    err(f"error: {place}{error.what} [{error.code}]")
    for part in (error.why, error.fix):
        if part:
            err(f"  {part}")
    return error.exit_code


def workspace() -> Path:
    """The workspace in force: the nearest directory upwards that holds ``.edvac``, else here."""
    here = Path.cwd()
    for directory in (here, *here.parents):
        if (directory / ".edvac" / "store.db").is_file():
            return directory
    return here


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"


def seconds(found: float) -> str:
    """A duration as people say it."""
    if found < 60:
        return f"{found:.1f} s"
    minutes, rest = divmod(round(found), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
