"""`bench`: measure edvac beside its peers."""

from __future__ import annotations

from pathlib import Path

import click

from edvac.cli import ui
from edvac.core.errors import UsageError

PEERS = (
    "Python of an environment that holds the peers (xllamacpp, langgraph, "
    "langgraph-checkpoint-sqlite, dbos)."
)


@click.group()
def bench() -> None:
    """Measure edvac beside its peers, in one run, as ratios."""


@bench.command("run")
@click.option("--quick", is_flag=True, help="Under a minute: only the control overhead.")
@click.option("--peers", metavar="PYTHON", help=PEERS)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1, 20))
@click.option("--output", default="docs/benchmarks", show_default=True, help="Where to write.")
@click.option("--json", "as_json", is_flag=True, help="The document on stdout.")
def bench_run(quick: bool, peers: str | None, repeats: int, output: str, as_json: bool) -> None:
    """The main job and the control overhead."""
    from edvac.bench import control, main_job, report

    command = f"edvac bench run{' --quick' if quick else ''} --repeats {repeats}"
    document = report.start("run", f"{command} --peers PYTHON" if peers else command)
    if peers is None:
        document.notes.append("No peers were measured: none were given with --peers.")
    control.measure(document, peers, steps=200 if quick else 1000, repeats=repeats)
    if not quick:
        program = Path("examples/inbox.edv")
        if not program.exists():
            raise UsageError("bench_place", "run this from the project's directory", "", "")
        main_job.measure(document, program, Path("examples/inbox"), peers, repeats)
    if as_json:
        ui.out_json(document.as_dict())
    else:
        for line in report.table(document):
            ui.out(line)
    if not quick:
        for path in report.write(document, Path(output)):
            ui.err(f"wrote {path}")
