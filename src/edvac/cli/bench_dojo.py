"""`bench agentdojo`: the guard on the tasks and attacks of AgentDojo."""

from __future__ import annotations

from pathlib import Path

import click

from edvac.cli import ui
from edvac.cli.bench_kit import JSON, OUTPUT, bench, publish
from edvac.core.errors import UsageError

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
    from edvac.bench.dojo_suite import Bridge

    if not python:
        raise UsageError(
            "agentdojo_missing",
            "AgentDojo is not there, and this benchmark is its tasks",
            "It is no dependency of edvac.",
            "Install agentdojo==0.1.35 into an environment of its own and name its interpreter: "
            "--agentdojo PYTHON.",
        )
    named = " ".join(f"--suite {name}" for name in names) + (" --quick" if quick else "")
    document = report.start("agentdojo", f"edvac bench agentdojo {named}".strip())
    bridge = Bridge.of(python)
    chosen = names or (("banking",) if quick else SUITES)
    try:
        dojo.measure(document, bridge, ui.err, names=chosen, quick=quick)
    finally:
        bridge.close()
    publish(document, output, as_json=as_json)
