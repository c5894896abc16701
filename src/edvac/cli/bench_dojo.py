"""`bench agentdojo`: the guard on the tasks and attacks of AgentDojo."""

from __future__ import annotations

from pathlib import Path

import click

from edvac.cli import ui
from edvac.cli.bench_kit import JSON, OUTPUT, bench, publish

SUITES = ("banking", "slack", "travel", "workspace")  # as in bench.dojo_suite


@bench.command("agentdojo")
@click.option(
    "--agentdojo",
    "python",
    metavar="PYTHON",
    help="Interpreter of an environment that has agentdojo 0.1.35.",
)
@click.option("--suite", "names", type=click.Choice(SUITES), multiple=True, help="Only these.")
@click.option("--quick", is_flag=True, help="Four tasks of the suite banking, with all attacks.")
@OUTPUT
@JSON
def bench_agentdojo(
    python: str | None, names: tuple[str, ...], quick: bool, output: Path | None, as_json: bool
) -> None:
    """Attack programs made from AgentDojo's ground truths, with models that do what attackers say.

    No model is needed: the worst that a model can do is scripted. Four arms play all 949 pairs of a
    user's task and an attack: undefended, a model that obeys, one that answers choices as the
    attacker likes, one that puts his value into every field. About half an hour.
    """
    from edvac.bench import dojo, report
    from edvac.bench.dojo_suite import Bridge, missing

    if not python:
        raise missing("It is no dependency of edvac.")
    given = [*(f"--suite {name}" for name in names), *(["--quick"] if quick else [])]
    document = report.start("agentdojo", " ".join(["edvac bench agentdojo", *given]))
    bridge = Bridge.of(python)
    chosen = names or (("banking",) if quick else SUITES)
    try:
        dojo.measure(document, bridge, ui.err, names=chosen, quick=quick)
    finally:
        bridge.close()
    publish(document, output, as_json=as_json)
