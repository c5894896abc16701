"""`bench`: the engine beside other engines."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edvac.cli import ui
from edvac.cli.bench_kit import JSON, OUTPUT, PEERS, THREADS, bench, publish

if TYPE_CHECKING:
    pass


@bench.command("engine")
@click.option("--peers", metavar="PYTHON", help=PEERS)
@click.option("--model", "models", multiple=True, help="A model's name or .gguf file.")
@THREADS
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1, 20))
@click.option(
    "--beside",
    multiple=True,
    help="xllamacpp (as if none is named), openvino, transformers, or a llama-server's path.",
)
@click.option("--documents", default=200, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--quick", is_flag=True, help="About a minute: small questions, without peers.")
@OUTPUT
@JSON
def bench_engine(**flags: Any) -> None:
    """The engine beside llama.cpp's server: reading, writing, many at once, taking turns."""
    from edvac.bench import engine, report, roof
    from edvac.machine import Settings
    from edvac.machine.processors import model_path

    quick, models = flags["quick"], flags["models"] or (Settings().model,)
    peers = None if quick else flags["peers"]
    threads = flags["threads"]
    said = "".join(f" --model {name}" for name in flags["models"]) + f" --threads {threads}"
    said += f" --repeats {flags['repeats']} --documents {flags['documents']}" * (not quick)
    said += " --peers PYTHON" * bool(peers) + " --quick" * quick
    said += "".join(f" --beside {Path(one).name}" for one in flags["beside"])
    document = report.start("engine", f"edvac bench engine{said}")
    wanted_sizes = engine.Sizes(repeats=flags["repeats"], documents=flags["documents"])
    sizes = engine.QUICK if quick else wanted_sizes
    for name in models:
        wanted = engine.Wanted(model_path(name), peers, threads, sizes, flags["beside"])
        work = asyncio.run(engine.measure(document, wanted, ui.err))
        roof.add(document, work, wanted.model, wanted.label, threads)
    publish(document, flags["output"], as_json=flags["as_json"])


@bench.command("grouping")
@OUTPUT
@JSON
def bench_grouping(output: Path | None, *, as_json: bool) -> None:
    """Prompts that begin alike, with little memory: how much is computed twice? No model runs."""
    from edvac.bench import report, virtual

    document = report.start("grouping", "edvac bench grouping")
    virtual.measure_grouping(document)
    publish(document, output, as_json=as_json)


@bench.command("mixed")
@click.option("--model", "models", multiple=True, help="A model's name or .gguf file.")
@THREADS
@click.option("--quick", is_flag=True, help="Under a minute: short scenes.")
@OUTPUT
@JSON
def bench_mixed(**flags: Any) -> None:
    """Answers beside work that nobody waits for, and beside long prompts: one engine or two."""
    from edvac.bench import mixed, report
    from edvac.machine import Settings
    from edvac.machine.processors import model_path

    models, quick = flags["models"] or (Settings().model,), flags["quick"]
    threads = flags["threads"]
    said = "".join(f" --model {name}" for name in flags["models"]) + f" --threads {threads}"
    document = report.start("mixed", f"edvac bench mixed{said}{' --quick' * quick}")
    sizes = mixed.QUICK if quick else mixed.Sizes()
    for name in models:
        asyncio.run(mixed.measure(document, model_path(name), threads, sizes, ui.err))
    publish(document, flags["output"], as_json=flags["as_json"])


@bench.command("replay")
@click.option("--peers", metavar="PYTHON", required=True, help=f"{PEERS} With bfcl-eval.")
@click.option("--model", help="A model's name or .gguf file.")
@THREADS
@click.option("--talks", default=16, show_default=True, type=click.IntRange(1, 200))
@click.option("--at-once", default=8, show_default=True, type=click.IntRange(2, 32))
@click.option("--arm", "arms", multiple=True, help="One way of keeping contexts; all by default.")
@click.option("--alone", is_flag=True, help="Without llama.cpp's server.")
@click.option("--server", metavar="PATH", help="A llama-server to take, not the package's.")
@click.option("--virtual", default=0, metavar="DRAWS", help="On a virtual clock, without a model.")
@OUTPUT
@JSON
def bench_replay(**flags: Any) -> None:
    """Agents' tasks replayed, with room for half of their contexts: whose are kept how long?"""
    from edvac.bench import external, replay, report
    from edvac.machine import Settings
    from edvac.machine.processors import model_path

    threads = flags["threads"]
    said = f" --model {flags['model']}" * bool(flags["model"]) + f" --threads {threads}"
    said += f" --talks {flags['talks']} --at-once {flags['at_once']} --peers PYTHON"
    said += " --server LLAMA_SERVER" * bool(flags["server"]) + " --alone" * flags["alone"]
    said += "".join(f" --arm {name}" for name in flags["arms"])
    document = report.start("replay", f"edvac bench replay{said}")
    wanted = replay.Wanted(
        model_path(flags["model"] or Settings().model),
        replay.bfcl_data(flags["peers"]),
        external.data("agentcgroup"),
        None if flags["alone"] else flags["server"] or flags["peers"],
        threads,
        flags["talks"],
        flags["at_once"],
        arms=flags["arms"] or replay.SPARE,
    )
    if flags["virtual"]:
        document = report.start(
            "replay-virtual", f"{document.command} --virtual {flags['virtual']}"
        )
        replay.measure_virtual(document, wanted, flags["virtual"], ui.err)
    else:
        asyncio.run(replay.measure(document, wanted, ui.err))
    publish(document, flags["output"], as_json=flags["as_json"])


@bench.command("kv")
@click.option("--peers", metavar="PYTHON", help=PEERS)
@click.option("--model", "models", multiple=True, help="A model's name or .gguf file.")
@THREADS
@click.option("--window", default=512, show_default=True, type=click.IntRange(64, 8192))
@click.option(
    "--windows",
    default=2,
    show_default=True,
    type=click.IntRange(0, 100),
    help="How many of each text are read; 0 leaves quality out.",
)
@click.option("--timing", is_flag=True, help="Time too, at 1k, 4k and 16k tokens of context.")
@click.option("--quick", is_flag=True, help="Under a minute: one small window, without peers.")
@OUTPUT
@JSON
def bench_kv(**flags: Any) -> None:
    """What storing keys and values in fewer bits costs in answers, and saves in memory.

    Read is wikitext-2, if EDVAC_DATA names a directory that holds it, and edvac's own source.
    """
    from edvac.bench import external, kv_report, kv_speed, report
    from edvac.engine.client import default_cache
    from edvac.machine import Settings
    from edvac.machine.processors import model_path

    quick, models = flags["quick"], flags["models"] or (Settings().model,)
    threads = flags["threads"]
    window, windows = (64, 1) if quick else (flags["window"], flags["windows"])
    peers = None if quick else flags["peers"]
    said = "".join(f" --model {name}" for name in flags["models"]) + f" --threads {threads}"
    said += f" --window {window} --windows {windows}" + " --timing" * flags["timing"]
    said += " --peers PYTHON" * bool(peers)
    document = report.start("kv", f"edvac bench kv{said}{' --quick' * quick}")
    lengths = kv_speed.LENGTHS if flags["timing"] else ()
    cache, data = default_cache(), external.root()
    for name in models:
        wanted = kv_report.Wanted(
            model_path(name), cache, data, threads, window, windows, peers, lengths
        )
        kv_report.measure(document, wanted, ui.err)
    publish(document, flags["output"], as_json=flags["as_json"], lines=kv_report.lines)
