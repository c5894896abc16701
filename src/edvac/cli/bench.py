"""`bench`: measure edvac beside its peers; here the main job and the control unit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edvac.cli import bench_dojo, bench_engine, bench_programs, ui  # noqa: F401 (their commands)
from edvac.cli.bench_kit import JSON, OUTPUT, PEERS, bench, examples, publish
from edvac.cli.run import RUN_COLLECTS

if TYPE_CHECKING:
    pass


@bench.command("run")
@click.option("--quick", is_flag=True, help="Under a minute: only the control overhead.")
@click.option("--peers", metavar="PYTHON", help=PEERS)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1, 20))
@click.option("--output", default="docs/benchmarks", show_default=True, help="Where to write.")
@JSON
def bench_run(quick: bool, peers: str | None, repeats: int, output: str, as_json: bool) -> None:
    """The main job and the control overhead."""
    from edvac.bench import control, main_job, report

    command = f"edvac bench run{' --quick' if quick else ''} --repeats {repeats}"
    document = report.start("run", f"{command} --peers PYTHON" if peers else command)
    if peers is None:
        document.notes.append("No peers were measured: none were given with --peers.")
    control.measure(document, peers, steps=200 if quick else 1000, repeats=repeats)
    if not quick:
        place = examples()
        main_job.measure(document, place / "inbox.edv", place / "inbox", peers, repeats)
    publish(document, None if quick else Path(output), as_json=as_json)


@bench.command("control")
@click.option("--quick", is_flag=True, help="Under a minute: a smaller program, without peers.")
@click.option("--peers", metavar="PYTHON", help=PEERS)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1, 20))
@OUTPUT
@JSON
def bench_control(
    quick: bool, peers: str | None, repeats: int, output: Path | None, as_json: bool
) -> None:
    """What a durable step costs, and a program of ten thousand instructions."""
    from edvac.bench import control, large, report

    words = " --quick" if quick else f" --repeats {repeats}"
    document = report.start(
        "control", f"edvac bench control{words}{' --peers PYTHON' if peers else ''}"
    )
    instructions, repeats = (2000, 1) if quick else (10_000, repeats)
    control.measure(
        document, None if quick else peers, steps=200 if quick else 1000, repeats=repeats
    )
    large.measure(document, instructions, repeats)
    publish(document, output, as_json=as_json)


@bench.command("scale")
@click.option("--quick", is_flag=True, help="Under a minute: 4,000 steps.")
@click.option("--steps", default=20_000, show_default=True, type=click.IntRange(1000, 1_000_000))
@OUTPUT
@JSON
def bench_scale(quick: bool, steps: int, output: Path | None, as_json: bool) -> None:
    """Very many items in one run: memory, resuming, and looking at it."""
    import gc

    from edvac.bench import report, scale

    count = 4000 if quick else steps
    document = report.start("scale", f"edvac bench scale --steps {count}")
    gc.set_threshold(*RUN_COLLECTS)
    scale.measure(document, count)
    publish(document, output, as_json=as_json)


@bench.command("beside")
@click.option("--peers", metavar="PYTHON", required=True, help=PEERS)
@OUTPUT
@JSON
def bench_beside(peers: str, output: Path | None, as_json: bool) -> None:
    """The sample job beside a script and LangGraph, each killed half way and begun again."""
    from edvac.bench import beside, report

    document = report.start("beside", "edvac bench beside --peers PYTHON")
    beside.measure(document, peers, examples())
    publish(document, output, as_json=as_json)


@bench.command("checkpoints")
@click.option("--peers", metavar="PYTHON", help=PEERS)
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1, 20))
@click.option("--quick", is_flag=True, help="Under a minute: few steps, once, without peers.")
@OUTPUT
@JSON
def bench_checkpoints(
    peers: str | None, repeats: int, quick: bool, output: Path | None, as_json: bool
) -> None:
    """A LangGraph program on edvac's checkpointer, beside its own: time and bytes of a step."""
    from edvac.bench import checkpoints, report

    words = " --quick" if quick else f" --repeats {repeats}" + " --peers PYTHON" * bool(peers)
    document = report.start("checkpoints", f"edvac bench checkpoints{words}")
    shapes = checkpoints.QUICK if quick else checkpoints.SHAPES
    checkpoints.measure(document, None if quick else peers, shapes, 1 if quick else repeats, ui.err)
    publish(document, output, as_json=as_json)
