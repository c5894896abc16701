"""Steps run while the program is being written; a draft taken back starts over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from edvac.compiler import Planner
from edvac.core import event
from edvac.core.errors import ProgramError, UsageError
from edvac.machine import Job, Machine
from edvac.machine.driver import Driver
from edvac.machine.machine import Terminal
from edvac.processor import Answer, OnText, Request
from edvac.processor.scripted import ScriptedProcessor

FIRST = 'a = llm.write("first")\n'
WRITE = 'files.write("a.txt", a)\n'
LAST = 'files.write("b.txt", llm.write("second", a))\n'


def machine(workspace: Path, asked: list[str] | None = None) -> Machine:
    def script(request: object) -> str:
        if asked is not None:
            asked.append(str(request))
        return "text"

    return Machine(workspace, ScriptedProcessor(script))


class Listener:
    """Events of a run, and a way to wait for one of them."""

    def __init__(self) -> None:
        self.seen: list[event.Event] = []
        self._news = asyncio.Event()
        self.driver: Driver | None = None

    def terminal(self) -> Terminal:
        return Terminal(emit=self._take, on_driver=self._drive)

    def _take(self, happened: event.Event) -> None:
        self.seen.append(happened)
        self._news.set()

    def _drive(self, driver: Driver) -> None:
        self.driver = driver

    def ops(self) -> list[str]:
        return [one.op for one in self.seen if isinstance(one, event.StepFinished)]

    async def finished(self, op: str) -> None:
        while op not in self.ops():
            self._news.clear()
            await self._news.wait()


Write = Callable[[Callable[[str], None]], Awaitable[str]]


def run(workspace: Path, write: Callable[[Listener], Write]) -> tuple[Listener, object, Machine]:
    listener = Listener()
    with machine(workspace) as made:
        job = Job("", task="a task")
        report = asyncio.run(made.run_as_written(job, write(listener), listener.terminal()))
        texts = {
            one.path: made.ledger.call_now(lambda s, p=one.path: s.read_file(report.run, p))
            for one in made.ledger.call_now(lambda s: s.list_files(report.run))
        }
    return listener, (report, texts), made


def test_a_step_ends_before_the_program_does_and_its_write_waits(tmp_path: Path) -> None:
    def write(listener: Listener) -> Write:
        async def go(draft: Callable[[str], None]) -> str:
            draft(FIRST)
            await listener.finished("llm.write")
            draft(FIRST + WRITE)
            await asyncio.sleep(0)
            assert "files.write" not in listener.ops()
            return FIRST + WRITE + LAST

        return go

    listener, (report, texts), _ = run(tmp_path, write)
    assert report.state == "done"
    assert texts == {"a.txt": b"text", "b.txt": b"text"}
    assert sorted(listener.ops()) == ["files.write", "files.write", "llm.write", "llm.write"]


def test_a_draft_taken_back_starts_over_and_reuses(tmp_path: Path) -> None:
    def write(listener: Listener) -> Write:
        async def go(draft: Callable[[str], None]) -> str:
            draft(FIRST + WRITE)
            await listener.finished("llm.write")
            draft(FIRST)
            return FIRST + LAST

        return go

    _, (report, texts), _ = run(tmp_path, write)
    assert report.state == "done"
    assert texts == {"b.txt": b"text"}, "the write that was taken back never happened"
    assert report.counts["reused"] == 1


def test_no_legal_program_cancels_the_run(tmp_path: Path) -> None:
    def write(listener: Listener) -> Write:
        async def go(draft: Callable[[str], None]) -> str:
            draft(FIRST)
            raise ProgramError("plan_failed", "no program came out")

        return go

    with pytest.raises(ProgramError, match="no program"):
        run(tmp_path, write)
    with machine(tmp_path) as made:
        assert made.find(None).state == "cancelled"


def test_a_run_cut_off_while_its_program_was_written_says_so(tmp_path: Path) -> None:
    def write(listener: Listener) -> Write:
        async def go(draft: Callable[[str], None]) -> str:
            draft(FIRST)
            await listener.finished("llm.write")
            assert listener.driver is not None
            listener.driver.stop("interrupted")
            await asyncio.Event().wait()
            raise AssertionError

        return go

    _, (report, _), _ = run(tmp_path, write)
    assert report.state == "interrupted"
    with machine(tmp_path) as made, pytest.raises(UsageError) as caught:
        asyncio.run(made.resume(report.run))
    assert caught.value.code == "plan_cut_off"


class Planning(ScriptedProcessor):
    """Writes a plan one statement a request, and the middle of the second waits for something."""

    def __init__(self, statements: list[str], wait: Callable[[], Awaitable[None]]) -> None:
        super().__init__(lambda _: "text")
        self._left = list(statements)
        self._wait = wait

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        if request.run != "plan":
            return await super().complete(request, on_text)
        text = self._left.pop(0)
        assert on_text is not None
        on_text(text[:5], 1)
        if len(self._left) == 1:
            await self._wait()
        on_text(text[5:], 1)
        return Answer(text, "stop", 1, 0, 2, ())


def test_a_step_ends_while_the_planner_is_in_the_middle_of_the_next_line(tmp_path: Path) -> None:
    """Through the planner itself: grammar, acceptance and all."""
    listener = Listener()
    statements = [FIRST, WRITE, "```"]
    processor = Planning(statements, lambda: asyncio.wait_for(listener.finished("llm.write"), 30))
    with Machine(tmp_path, processor) as made:
        planner = Planner(processor, made.catalogue, lambda _: None)
        task = "Write a text to a.txt"
        job = Job("", task=task)
        report = asyncio.run(
            made.run_as_written(job, lambda draft: planner.plan(task, draft), listener.terminal())
        )
        assert report.state == "done"
        assert made.history(report.run).program == FIRST + WRITE


def in_two_drafts(listener: Listener) -> Write:
    async def go(draft: Callable[[str], None]) -> str:
        draft(FIRST)
        return FIRST + WRITE

    return go


def test_what_is_added_is_journalled_once(tmp_path: Path) -> None:
    """The last draft is the program: that it is whole takes no further one."""

    _, (report, _), _ = run(tmp_path, in_two_drafts)
    with machine(tmp_path) as made:
        records = made.ledger.call_now(lambda store: list(store.records(report.run)))
        added = [msgspec.msgpack.decode(one.payload) for one in records if one.kind == "extended"]
    assert [(one["text"], one["whole"]) for one in added] == [(FIRST, False), (WRITE, True)]


def test_a_grown_run_is_stored_whole_and_its_plan_is_known(tmp_path: Path) -> None:
    _, (report, _), _ = run(tmp_path, in_two_drafts)
    with machine(tmp_path) as made:
        assert made.history(report.run).program == FIRST + WRITE
        assert made.known_program("a task") == FIRST + WRITE
        assert made.known_program("another task") is None
