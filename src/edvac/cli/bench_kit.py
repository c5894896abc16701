"""What the commands of `bench` share: the group, options, how a document comes out."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from edvac.cli import ui
from edvac.core.errors import UsageError

if TYPE_CHECKING:
    from edvac.bench.report import Document
    from edvac.processor import Processor

T = TypeVar("T")
PEERS = (
    "Python of an environment that holds the peers (xllamacpp, langgraph, "
    "langgraph-checkpoint-sqlite, dbos)."
)

OUTPUT = click.option(
    "--output", type=click.Path(path_type=Path), help="Where to write the document."
)
JSON = click.option("--json", "as_json", is_flag=True, help="The document on stdout.")
THREADS = click.option(
    "--threads",
    default=0,
    show_default=True,
    help="0 takes all cores.",
    callback=lambda _ctx, _param, count: count or len(os.sched_getaffinity(0)),
)


def publish(
    document: Document,
    output: Path | None,
    *,
    as_json: bool,
    lines: Callable[[Document], list[str]] | None = None,
) -> None:
    """On stdout, and as files where a directory is given."""
    from edvac.bench import report

    lines = lines or report.table
    if as_json:
        ui.out_json(document.as_dict())
    else:
        for line in lines(document):
            ui.out(line)
    if output is not None:
        for path in report.write(document, output, lines):
            ui.err(f"wrote {path}")


@click.group()
def bench() -> None:
    """Measure edvac beside its peers, in one run, as ratios."""


def examples() -> Path:
    """The directory of the sample job.

    Raises:
        UsageError: this is not the project's directory.
    """
    if not Path("examples/inbox.edv").exists():
        raise UsageError("bench_place", "run this from the project's directory", "", "")
    return Path("examples")


async def closing(work: Awaitable[T], processor: Processor) -> T:
    """Do the work, and let go of the processor."""
    try:
        return await work
    finally:
        await processor.close()
