"""`bench`: measure edvac beside its peers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edvac.cli import ui
from edvac.cli.run import RUN_COLLECTS
from edvac.core.errors import UsageError

if TYPE_CHECKING:
    from edvac.bench.jobs import Played, Work
    from edvac.bench.planning import Result
    from edvac.bench.report import Document
    from edvac.processor import Processor

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


def _publish(
    document: Document,
    output: Path | None,
    *,
    as_json: bool,
    lines: Callable[[Document], list[str]] | None = None,
) -> None:
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
        program = Path("examples/inbox.edv")
        if not program.exists():
            raise UsageError("bench_place", "run this from the project's directory", "", "")
        main_job.measure(document, program, Path("examples/inbox"), peers, repeats)
    _publish(document, None if quick else Path(output), as_json=as_json)


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
    _publish(document, output, as_json=as_json)


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
    _publish(document, output, as_json=as_json)


@bench.command("beside")
@click.option("--peers", metavar="PYTHON", required=True, help=PEERS)
@OUTPUT
@JSON
def bench_beside(peers: str, output: Path | None, as_json: bool) -> None:
    """The sample job beside a script and LangGraph, each killed half way and begun again."""
    from edvac.bench import beside, report

    document = report.start("beside", "edvac bench beside --peers PYTHON")
    beside.measure(document, peers, Path("examples"))
    _publish(document, output, as_json=as_json)


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
    _publish(document, output, as_json=as_json)


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
    _publish(document, flags["output"], as_json=flags["as_json"])


@bench.command("grouping")
@OUTPUT
@JSON
def bench_grouping(output: Path | None, *, as_json: bool) -> None:
    """Prompts that begin alike, with little memory: how much is computed twice? No model runs."""
    from edvac.bench import report, virtual

    document = report.start("grouping", "edvac bench grouping")
    virtual.measure_grouping(document)
    _publish(document, output, as_json=as_json)


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
    _publish(document, flags["output"], as_json=flags["as_json"])


@bench.command("ahead")
@click.option("--rounds", default=60, show_default=True, type=click.IntRange(10, 10_000))
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1, 20))
@click.option("--quick", is_flag=True, help="Under a minute: 20 rounds, once.")
@OUTPUT
@JSON
def bench_ahead(rounds: int, repeats: int, quick: bool, output: Path | None, as_json: bool) -> None:
    """Conditions that can be foretold more or less: what running ahead of them saves and wastes."""
    from edvac.bench import ahead, report

    rounds, repeats = (20, 1) if quick else (rounds, repeats)
    words = " --quick" if quick else f" --rounds {rounds} --repeats {repeats}"
    document = report.start("ahead", f"edvac bench ahead{words}")
    ahead.measure(document, ahead.Wanted(rounds, repeats=repeats))
    _publish(document, output, as_json=as_json)


@bench.command("branches")
@OUTPUT
@JSON
def bench_branches(output: Path | None, as_json: bool) -> None:
    """Sparse models of 2 KB beside a TAGE predictor, on traces of processors (CBP-2025).

    The traces are read from EDVAC_DATA/cbp2025.
    """
    from edvac.bench import branches, report

    document = report.start("branches", "edvac bench branches")
    branches.measure(document, ui.err)
    _publish(document, output, as_json=as_json)


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
    _publish(document, flags["output"], as_json=flags["as_json"])


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
    _publish(document, flags["output"], as_json=flags["as_json"], lines=kv_report.lines)


@bench.command("jobs")
@click.option("--quick", is_flag=True, help="Under a minute: small inputs.")
@click.option("--only", multiple=True, metavar="NAME", help="One job (its name begins so).")
@click.option("--model", help="Answers the steps: a model's name, .gguf file, or URL#MODEL.")
@click.option("--jobs", default="examples/jobs", show_default=True, help="Where the jobs lie.")
@OUTPUT
@JSON
def bench_jobs(**flags: Any) -> None:
    """The jobs that set the bar, each with its checks; without --model, right answers are given."""
    from edvac.bench import jobs, report

    names = flags["only"] or ("",)
    chosen = [one for one in jobs.works(Path(flags["jobs"])) if one.name.startswith(names)]
    if not chosen:
        raise UsageError("bench_empty", "no job has such a name", "", f"See {flags['jobs']}.")
    said = "".join(f" --only {name}" for name in flags["only"])
    said += f" --model {flags['model']}" if flags["model"] else ""
    document = report.start("jobs", f"edvac bench jobs{' --quick' * flags['quick']}{said}")
    jobs.add_figures(document, asyncio.run(_play(chosen, flags["model"], quick=flags["quick"])))
    _publish(document, flags["output"], as_json=flags["as_json"])


async def _play(chosen: list[Work], model: str | None, *, quick: bool) -> list[Played]:
    from edvac.bench import jobs
    from edvac.machine import Settings
    from edvac.machine.processors import choose_processor

    processor = choose_processor(Settings(model=model)) if model else None
    ended = []
    try:
        for work in chosen:
            ended.append(await jobs.play(work, "small" if quick else "full", processor))
            mark = "✓" if not ended[-1].problems else f"✗ {'; '.join(ended[-1].problems)[:200]}"
            ui.err(f"[{len(ended)}/{len(chosen)}] {work.title}: {mark}")
    finally:
        if processor is not None:
            await processor.close()
    return ended


@bench.command("plan")
@click.option("--plans", type=click.IntRange(1, 9), help="Programs to choose from, for each task.")
@click.option(
    "--way",
    default="free",
    show_default=True,
    type=click.Choice(["free", "whole", "outline", "both"]),
    help="Write statements freely; a whole program without a grammar, repaired where it is refused"
    "; fill an outline; or that and, where it gives nothing, freely.",
)
@click.option("--examples", type=click.IntRange(0, 9), help="How many are shown in each prompt.")
@click.option("--no-rules", is_flag=True, help="Examples alone in the prompt, without rules.")
@click.option("--model", help="What plans: a model's name, .gguf file, or URL#MODEL.")
@click.option("--held-out", is_flag=True, help="The 20 tasks that nothing was tuned on.")
@click.option("--tuning", is_flag=True, help="The tasks that the planner is tuned on.")
@click.option("--documented", is_flag=True, help="The tasks that the documentation shows.")
@click.option("--only", multiple=True, metavar="ID", help="One task (its name begins so).")
@click.option("--quick", is_flag=True, help="Every fifth task.")
@click.option("--end-to-end", is_flag=True, help="Ten tasks, with the model in the steps too.")
@click.option("--at-once", default=4, show_default=True, type=click.IntRange(1, 64))
@click.option("--programs", type=click.Path(path_type=Path), help="Where to put the programs.")
@OUTPUT
@JSON
def bench_plan(**flags: Any) -> None:
    """Plan the tasks of the evaluation set and run the programs on their documents."""
    from edvac.bench import planning, planset, report
    from edvac.compiler.planner import PLANS
    from edvac.machine import Settings
    from edvac.machine.processors import choose_processor

    folder: planset.Folder = "tuning" if flags["tuning"] else "tasks"
    if flags["documented"]:
        folder = "documented"
    known = planset.tasks(folder)
    chosen = [task for task in known if task.world.held_out == flags["held_out"]]
    if flags["only"]:
        chosen = [task for task in known if task.id.startswith(flags["only"])]
    if flags["quick"]:
        chosen = chosen[::5]
    if flags["end_to_end"]:
        chosen = chosen[::3][:10]  # of both levels: a world has two tasks of each
    if not chosen:
        raise UsageError("bench_empty", "no task has such a name", "", f"See bench/{folder}.")
    model = flags["model"] or Settings().model
    words = "".join(f" --{name.replace('_', '-')}" for name in _SWITCHES if flags[name])
    plans = flags["plans"] or PLANS
    words += f" --examples {flags['examples']}" if flags["examples"] is not None else ""
    command = f"edvac bench plan --model {model} --way {flags['way']} --plans {plans}{words}"
    document = report.start("plan", command)
    processor = choose_processor(Settings(model=model))
    work = planning.evaluate(
        chosen,
        processor,
        worker=processor if flags["end_to_end"] else None,
        at_once=flags["at_once"],
        plans=plans,
        way=flags["way"],
        shown=flags["examples"],
        rules=not flags["no_rules"],
        on_result=_Told(flags["programs"], len(chosen)),
    )
    planning.add_figures(document, asyncio.run(_and_close(work, processor)))
    _publish(document, flags["output"], as_json=flags["as_json"])


_SWITCHES = ("held_out", "tuning", "documented", "quick", "end_to_end", "no_rules")


async def _and_close(work: Awaitable[list[Result]], processor: Processor) -> list[Result]:
    try:
        return await work
    finally:
        await processor.close()


class _Told:
    """Says how each task ended, and keeps its program."""

    def __init__(self, folder: Path | None, total: int) -> None:
        self._folder = folder
        self._total = total
        self._ended = 0

    def __call__(self, result: Result) -> None:
        self._ended += 1
        why = "; ".join(result.problems).replace("\n", " ")
        mark = "✓" if result.passed else f"✗ {result.kind}:"
        ui.err(f"[{self._ended}/{self._total}] {result.task.id} {mark} {why[:200]}")
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            task = " ".join(result.task.text.split())
            text = f"# task: {task}\n# {result.kind or 'passed'} {why}\n{result.program}"
            (self._folder / f"{result.task.id}.edv").write_text(text, encoding="utf-8")
