"""Shared bits of the terminal: consoles, errors, escaping, JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edvac.core.errors import EdvacError, UsageError

if TYPE_CHECKING:
    from edvac.core.signature import Catalogue
    from edvac.machine.storage import Storage
    from edvac.store import Store

# Control characters, and what turns, hides or fakes text: directions, zero widths, line separators,
# byte order marks, tags, halves of surrogate pairs.
_HIDDEN = (
    "\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f"
)
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f{_HIDDEN}]")
_LINE = re.compile(f"[\x00-\x1f{_HIDDEN}]")
_IN_JSON = re.compile(f"[{_HIDDEN}]")


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def safe(text: str) -> str:
    """Text with control and direction characters made visible: it may come from a document."""
    return _CONTROL.sub(_escaped, text)


def safe_line(text: str) -> str:
    """The same on one line: a line break in a name must not look like a message of edvac's."""
    return _LINE.sub(_escaped, text)


def no_formula(text: str) -> str:
    """Text for a cell of a table: a spreadsheet takes some beginnings for a formula to run."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def json_text(document: Any, indent: int | None = None) -> str:
    """JSON that neither a terminal nor an encoding stumbles over."""
    text = json.dumps(document, ensure_ascii=False, indent=indent, default=str)
    return safe_json(text)


def safe_json(text: str) -> str:
    """The same document with every hidden character as an escape; they occur only inside texts."""
    return _IN_JSON.sub(lambda found: json.dumps(found.group())[1:-1], text)


def out(text: str = "") -> None:
    click.echo(safe(text))


def err(text: str = "") -> None:
    click.echo(safe(text), err=True)


def removed(runs: list[str], days: int) -> list[str]:
    """A line that says which runs were too old to be kept; none where there are none."""
    old = f"older than {counted(days, 'day')} (keep_days)"
    return [f"removed {counted(len(runs), 'run')} {old}: {', '.join(runs)}"] if runs else []


def out_json(document: Any) -> None:
    """One document on stdout."""
    click.echo(json_text(document, indent=2))


def report_error(error: EdvacError, *, as_json: bool = False) -> int:
    """Show an error: what, why, what to do; returns the exit code."""
    if as_json:
        click.echo(json_text({"error": error.as_dict()}))
    place = f"line {error.line}: " if error.line is not None else ""
    err(f"error: {place}{error.what} [{error.code}]")
    for part in (error.why, error.fix):
        if part:
            err(f"  {part}")
    return error.exit_code


def workspace() -> Path:
    """The workspace in force: the nearest directory upwards in which edvac has worked, else here.

    Raises:
        UsageError: the current directory is gone.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError as problem:
        raise UsageError(
            "no_directory", "the current directory no longer exists", "", "Change to another one."
        ) from problem
    from edvac.machine.storage import is_workspace

    return next((one for one in (here, *here.parents) if is_workspace(one)), here)


def catalogue() -> Catalogue:
    """What programs may call in the workspace in force: edvac's own devices and approved apps."""
    from edvac.machine import apps

    return apps.catalogue(apps.approved(workspace()))


def storage() -> Storage:
    """Where the workspace in force keeps its store."""
    from edvac.machine.settings import store_url
    from edvac.machine.storage import Storage

    here = workspace()
    return Storage(here, store_url(here))


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 step, 2 steps."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def because(what: str, why: str, where: str = "") -> str:
    """What failed and why, as one line without a full stop; `where` stands before it already."""
    what = what.removeprefix(f"{where}: ")
    return f"{what}: {why[0].lower()}{why[1:].rstrip('.')}" if why else what


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"


def seconds(found: float) -> str:
    """A duration as people say it."""
    if found < 59.5:
        return f"{found:.1f} s" if found < 10 else f"{found:.0f} s"
    minutes, rest = divmod(round(found), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def moment(wall: float) -> str:
    """A point in time by this machine's clock."""
    import datetime as dt

    return dt.datetime.fromtimestamp(wall).strftime("%Y-%m-%d %H:%M:%S").removesuffix(":00")


def open_store() -> Store:
    """The workspace's store, for commands that need no model."""
    place = storage()
    if not place.made:
        raise UsageError(
            "no_workspace", "nothing has been run here yet", "", "Start with `edvac run`."
        )
    return place.open()


def used(counts: Mapping[str, int]) -> list[str]:
    """Computed tokens and money, as far as there were any."""
    tokens = counts.get("prompt", 0) - counts.get("cached", 0) + counts.get("completion", 0)
    parts = [counted(tokens, "token")] if tokens else []
    nano = counts.get("nano", 0)
    return [*parts, f"{Decimal(nano) / 10**9:.4f} {currency()}"] if nano else parts


def currency() -> str:
    """Of the workspace's prices."""
    from edvac.machine import settings

    return settings.load(workspace(), {})[0].currency
