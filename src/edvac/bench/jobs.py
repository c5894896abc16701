"""The jobs that set the bar: programs by hand, on inputs that are made, with checks on what comes
out.

A job is a directory under `examples/jobs` with `program.edv` and `job.py`. The latter makes the
inputs, says what is true of them and plays the job as a user would: run, look, apply, undo, run
again. Its checks hold whichever model works; how well the model read is counted apart, in fields.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeAlias

from edvac.bench.report import Document, Figure
from edvac.core.errors import UsageError
from edvac.machine import Job, Machine, delivery
from edvac.machine.machine import Terminal
from edvac.machine.questions import Question, post_answers, questions
from edvac.machine.report import Report
from edvac.processor import Answer, OnText, Processor, Request
from edvac.processor.scripted import Script, ScriptedProcessor

PROGRAM = "program.edv"
Size: TypeAlias = Literal["small", "full"]


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of the inputs.

    Attributes:
        oracle: answers the model steps rightly.
        facts: whatever the job's checks compare with.
    """

    oracle: Script
    facts: Any


@dataclass(slots=True)
class Turn:
    """One run, or one stretch of it until it ended or waits.

    Attributes:
        files: text or bytes of every file of the run, by path, as `apply` would write it.
        calls: of the model, in this stretch.
    """

    report: Report
    files: dict[str, bytes]
    calls: int
    seconds: float

    def text(self, path: str) -> str:
        """A file of the run; empty where there is none, which a check then sees."""
        return self.files.get(path, b"").decode()


class Counted:
    """A processor that counts its calls and tokens."""

    def __init__(self, inner: Processor) -> None:
        self._inner = inner
        self.calls = 0
        self.tokens = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        self.calls += 1
        answer = await self._inner.complete(request, on_text)
        self.tokens += answer.prompt_tokens + answer.completion_tokens
        return answer


class _Noticed(Exception):
    """Something does not hold, which was all that was to be known."""


@dataclass(slots=True)
class Scene:
    """A job under way.

    Attributes:
        place: the user's directory: `job.make` has put the inputs there, and results go there.
        size: "small" takes seconds and is run by the tests, "full" is what the job promises.
        right, wrong: fields that the model got right or not, see `score`.
        stop: at the first check that does not hold, or the first wrong field.
    """

    place: Path
    program: str
    size: Size
    processor: Counted
    checks: list[tuple[str, bool]] = field(default_factory=list)
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    stop: bool = False
    _machine: Machine | None = None

    def check(self, what: str, holds: object) -> None:
        """Something that has to hold whichever model works."""
        self.checks.append((what, bool(holds)))
        if self.stop and not holds:
            raise _Noticed

    def score(self, what: str, found: object, true: object) -> None:
        """A field that the model may get wrong."""
        if found == true:
            self.right += 1
        else:
            self.wrong.append(f"{what}: {found!r} should be {true!r}")
            if self.stop:
                raise _Noticed

    @property
    def machine(self) -> Machine:
        """A workspace beside the user's directory, opened when it is first needed."""
        if self._machine is None:
            work = self.place.parent / "workspace"
            work.mkdir(exist_ok=True)
            self._machine = Machine(work, self.processor)
        return self._machine

    async def run(self, *, program: str = "", **settings: str) -> Turn:
        """Run the program (or another text) on the user's directory."""
        job = Job(
            program or self.program,
            roots={"": self.place},
            settings=settings,
            seed=1,
            name=PROGRAM,
        )
        return await self._turn(lambda: self.machine.run(job, Terminal()))

    async def resume(self, run: str, *, retry: bool = False) -> Turn:
        return await self._turn(lambda: self.machine.resume(run, Terminal(), retry=retry))

    async def _turn(self, drive: Callable[[], Awaitable[Report]]) -> Turn:
        before, start = self.processor.calls, time.perf_counter()
        report = await drive()
        seconds = time.perf_counter() - start
        files = await self.machine.ledger.call(
            lambda store: {
                one.path: store.read_file(report.run, one.path)
                for one in store.list_files(report.run)
            }
        )
        return Turn(report, files, self.processor.calls - before, seconds)

    async def questions(self, run: str) -> list[Question]:
        """What a person is asked, as `edvac answer` shows it."""
        return await self.machine.ledger.call(lambda store: questions(store, run))

    async def answer(self, run: str, given: Mapping[int, str]) -> int:
        return await self.machine.ledger.call(lambda store: post_answers(store, run, given))

    async def changes(self, run: str) -> list[delivery.Change]:
        """What `edvac diff` shows."""
        return await self.machine.ledger.call(
            lambda store: delivery.changes(store, run, self.place)
        )

    async def apply(self, run: str) -> list[str]:
        return await self.machine.ledger.call(lambda store: delivery.apply(store, run, self.place))

    async def undo(self, run: str) -> list[str]:
        return await self.machine.ledger.call(lambda store: delivery.undo(store, run))

    def close(self) -> None:
        if self._machine is not None:
            self._machine.close()


@dataclass(frozen=True, slots=True)
class Work:
    """A job as it lies on disk."""

    name: str
    folder: Path
    module: ModuleType

    @property
    def title(self) -> str:
        return str(self.module.TITLE)

    @property
    def program(self) -> str:
        return (self.folder / PROGRAM).read_text(encoding="utf-8")


def works(folder: Path) -> list[Work]:
    """Every job of a directory, by name.

    Raises:
        UsageError: there is none.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # for `import kit`, what several jobs share
    found = [_work(one.parent) for one in sorted(folder.glob("*/job.py"))]
    if not found:
        raise UsageError(
            "bench_place", f"there are no jobs in {folder}", "", "Run this in the project's folder."
        )
    return found


def _work(folder: Path) -> Work:
    name = f"edvac_job_{folder.name.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, folder / "job.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return Work(folder.name, folder, module)


@dataclass(frozen=True, slots=True)
class Played:
    """How a job went."""

    work: Work
    seconds: float
    calls: int
    tokens: int
    checks: tuple[tuple[str, bool], ...]
    right: int
    wrong: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        return [what for what, holds in self.checks if not holds]


async def play(
    work: Work,
    size: Size,
    processor: Processor | None = None,
    *,
    program: str = "",
    stop: bool = False,
) -> Played:
    """Make the inputs in a fresh directory and play the job on them.

    Args:
        processor: answers the model steps; the job's own oracle where it is None.
        program: is run in place of the job's own: a spoiled one, to see that the checks notice.
        stop: as soon as one has.
    """
    root = Path(tempfile.mkdtemp(prefix=f"edvac-{work.name}-"))
    place = root / "home"
    place.mkdir()
    try:
        truth: Truth = work.module.make(place, size)
        counted = Counted(processor or ScriptedProcessor(truth.oracle))
        scene = Scene(place, program or work.program, size, counted, stop=stop)
        start = time.perf_counter()
        try:
            await work.module.play(scene, truth)
        except _Noticed:
            pass
        finally:
            scene.close()
        seconds = time.perf_counter() - start
        checks, wrong = tuple(scene.checks), tuple(scene.wrong)
        return Played(work, seconds, counted.calls, counted.tokens, checks, scene.right, wrong)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def add_figures(document: Document, played: Iterable[Played]) -> None:
    for one in played:
        name = one.work.name
        held = sum(holds for _, holds in one.checks)
        whole = f"{held} of {len(one.checks)}"
        share = 100 * held / max(1, len(one.checks))
        document.figures += [
            Figure(f"{name}: checks", share, "% held", "higher", 100.0, note=whole),
            Figure(f"{name}: time", one.seconds, "s", "lower"),
            Figure(f"{name}: calls of the model", one.calls, "calls", "lower"),
        ]
        fields = one.right + len(one.wrong)
        if fields:
            rate, note = 100 * one.right / fields, f"{one.right} of {fields}"
            document.figures.append(Figure(f"{name}: fields", rate, "% right", "higher", note=note))
        document.notes += [f"{name}: does not hold: {what}" for what in one.problems]
        document.notes += [f"{name}: {what}" for what in one.wrong[:20]]
