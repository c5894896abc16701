"""What it costs that each app has a process of its own: the same tools beside it, in edvac's own.

A mix of queries as IsolateGPT's evaluation has them (one app, several, a chain, apps that ask each
other) is run with both; a model step takes a fixed time. That work's own figures, over an assistant
whose apps share everything, are the targets: under 1.30 for three quarters of its queries, 1.24 and
1.80 at the 90th and 95th percentile. A process begins with the first call of a run and ends with
it, so that each query pays for it, as a single question would.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edvac.bench.report import Document, Figure
from edvac.core.seams import SystemClock
from edvac.device import Tools
from edvac.device.app.device import offered_by
from edvac.device.app.hub import Pair
from edvac.device.app.manifest import App, approve
from edvac.machine import Job, Machine
from edvac.machine.apps import installed, permit
from edvac.processor.scripted import ScriptedProcessor

NAMES: Final = ("rides", "hotels", "notes")
MODULE: Final = """\
def find(place: str) -> str:
    return "found " + place
def through(place: str) -> str:
    from edvac_app import ask
    return ask("hotels.find", place=place)
"""
# Each with as many model steps as such a query has at least: one to say the answer.
MIX: Final = {
    "one app": 'a = rides.find("Rome")\nb = llm.write("Say it", "so")\n',
    "one app, three calls": 'a = [rides.find(p) for p in ["Rome", "Bath", "Ulm"]]\n'
    'b = llm.write("Say it", "so")\n',
    "two apps": 'a = rides.find("Rome")\nb = hotels.find("Rome")\nc = llm.write("Say it", "so")\n',
    "three apps": 'a = rides.find("Rome")\nb = hotels.find("Rome")\nc = notes.find("Rome")\n'
    'd = llm.write("Say it", "so")\n',
    "an answer, then an app": 'a = llm.write("Think", "so")\nb = rides.find("Rome")\n'
    'c = llm.write("Say it", "so")\n',
    "an app that asks another": 'a = rides.through("Rome")\nb = llm.write("Say it", "so")\n',
}
SHARED: Final = 'hotels.find("Rome")'  # what stands for an app that asks, where there is no hub


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Args:
        repeats: of each query, with both.
        delay_s: of a model step.
        calls: of one app, one after the other, by which a single call is timed.
    """

    repeats: int = 20
    delay_s: float = 0.5
    calls: int = 200


def measure(document: Document, wanted: Wanted) -> None:
    """Add the figures."""
    ratios: list[float] = []
    with _workspace(wanted.delay_s) as (apart, together):
        for name, program in MIX.items():
            shared = program.replace('rides.through("Rome")', SHARED)
            pairs = [(apart(program), together(shared)) for _ in range(wanted.repeats)]
            found = sorted(one.seconds / other.seconds for one, other in pairs)
            ratios += found
            cpu = sum(one.cpu_s - other.cpu_s for one, other in pairs) / wanted.repeats
            middle = _at(found, 0.5)
            note = f"edvac itself computes for {cpu * 1000:.1f} ms more"
            document.figures.append(Figure(f"{name}: time", middle, "×", "lower", note=note))
        each = f"x = [rides.find(p) for p in {[str(n) for n in range(wanted.calls)]}]\n"
        one, other = apart(each), together(each)
    took = (one.seconds - other.seconds) / wanted.calls * 1000
    document.figures.append(Figure("a further call", took, "ms", "lower"))
    ratios.sort()
    for share, target in ((0.5, None), (0.75, 1.30), (0.9, 1.24), (0.95, 1.80)):
        name = f"all queries, {share:.0%} are below"
        document.figures.append(Figure(name, _at(ratios, share), "×", "lower", target))
    document.notes.append(
        f"{len(ratios)} pairs of runs; × is the time beside that of the same tools in edvac's own "
        f"process; a model step takes {wanted.delay_s:g} s"
    )


def _at(found: list[float], share: float) -> float:
    return found[min(len(found) - 1, int(share * len(found)))]


@dataclass(frozen=True, slots=True)
class Took:
    seconds: float
    cpu_s: float  # of edvac's own process


@contextmanager
def _workspace(delay_s: float) -> Iterator[tuple[Callable[[str], Took], Callable[[str], Took]]]:
    """Two ways of running a program: with apps apart, and together."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        asyncio.run(_install(Path(first)))
        processor = ScriptedProcessor(lambda _: "so", delay_s=delay_s, concurrency=8)
        with (
            Machine(Path(first), processor) as apart,
            Machine(Path(second), processor, devices={n: _tools(n) for n in NAMES}) as together,
        ):
            _permit(apart)
            yield (lambda text: _run(apart, text)), (lambda text: _run(together, text))


def _run(machine: Machine, program: str) -> Took:
    before, start = _cpu(), time.perf_counter()
    report = asyncio.run(machine.run(Job(program, fresh=True)))
    took = Took(time.perf_counter() - start, _cpu() - before)
    assert report.state == "done", [step.failure for step in report.failures]
    return took


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _install(workspace: Path) -> None:
    place = installed(workspace)
    for name in NAMES:
        path = workspace / f"{name}_app.py"
        path.write_text(MODULE, encoding="utf-8")
        app = App(name=name, module=path.stem, code=(str(path),))
        offered = await offered_by(app, place.folder(name))
        place.keep(approve(app, offered, reads=list(offered.tools)))


def _permit(machine: Machine) -> None:
    apps = {app.name: app for app in machine.apps}
    given = permit(Pair("rides", "hotels", "find"), apps, SystemClock().wall())
    machine.ledger.call_now(lambda store: store.grant(given))


def _tools(name: str) -> Tools:
    made = Tools(name)

    @made.tool(effect="read", origin=f"app:{name}")
    def find(place: str) -> str:
        return f"found {place}"

    del find
    return made


__all__ = ["MIX", "Wanted", "measure"]
