"""What users of durable-execution systems expect of one, where no other test shows it.

The rows are those of docs/explanation/durable-semantics.md.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from machine_kit import Bench, Post

from edvac.control.step import Limits
from edvac.core import event
from edvac.core.errors import DeviceError, TransientError
from edvac.device import Call
from edvac.machine import machine
from edvac.machine.machine import Terminal
from edvac.store import Store


def stopping(after: int) -> Terminal:
    """A terminal that stops the run after some finished steps."""
    drivers: list[Any] = []
    left = [after]

    def emit(happened: event.Event) -> None:
        if isinstance(happened, event.StepFinished):
            left[0] -= 1
            if left[0] == 0:
                drivers[0].stop("interrupted")

    return Terminal(emit, on_driver=drivers.append)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts take no time."""
    monkeypatch.setattr(machine, "Limits", lambda **given: Limits(**given, backoff_s=0.0))


@pytest.mark.usefixtures("impatient")
def test_a_device_knows_a_step_again_by_its_slot(bench: Bench) -> None:
    """Over attempts, and over a run that was interrupted: the key for a service that takes one."""
    slots: dict[str, list[str]] = defaultdict(list)

    async def busy(call: Call) -> None:
        slots[call.address].append(call.slot)
        if len(slots[call.address]) < 3:
            raise TransientError("busy", "the service is busy")

    bench.post = Post(busy)
    text = "a = mail.wait('x')\nb = mail.wait('x')\nc = llm.write('c', a, b)\n"
    report = bench.run(text, stopping(1))
    assert report.state == "interrupted"
    assert bench.resume(report.run).state == "done"
    assert {address: len(set(found)) for address, found in slots.items()} == {"a": 1, "b": 1}
    assert len(slots["a"]) >= 3 and slots["a"][0] != slots["b"][0]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("error", "attempts"), [(TransientError, 5), (DeviceError, 1)])
def test_only_what_may_pass_is_tried_again_and_not_for_ever(
    bench: Bench, error: type[Exception], attempts: int
) -> None:
    tried: list[str] = []

    async def fail(call: Call) -> None:
        tried.append(call.address)
        raise error("no", "it does not work")

    bench.post = Post(fail)
    report = bench.run("x = mail.wait('x')\nfiles.write('a', 'b')\n")
    assert report.state == "partial" and len(tried) == attempts
    assert bench.files(report.run) == {"a": "b"}


def test_a_run_keeps_its_program_whatever_becomes_of_the_file(bench: Bench) -> None:
    file = bench.work / "job.edv"
    file.write_text("a = llm.write('a', 1)\nb = llm.write('b', a)\nfiles.write('old', b)\n")
    report = bench.run(file.read_text(), stopping(1), name=str(file))
    assert report.state == "interrupted"
    file.write_text("files.write('new', 'n')\n")
    assert bench.resume(report.run).state == "done"
    assert set(bench.files(report.run)) == {"old"}


def test_a_step_that_took_too_long_is_not_begun_again_by_a_resume(bench: Bench) -> None:
    """That it took too long is recorded, and replayed like a result."""
    began: list[str] = []

    async def hang(call: Call) -> None:
        began.append(call.address)
        await asyncio.Event().wait()

    bench.post = Post(hang, timeout_s=0.01)
    text = (
        "x = attempt(mail.wait('x'), 'none')\na = llm.write('a', x)\nb = llm.write('b', a)\n"
        "files.write('a', x)\n"
    )
    report = bench.run(text, stopping(1))
    assert report.state == "interrupted" and began == ["x"]
    assert bench.resume(report.run).state == "done"
    assert began == ["x"] and bench.files(report.run) == {"a": "none"}


def test_each_device_has_a_queue_of_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    most: dict[str, int] = defaultdict(int)
    now: dict[str, int] = defaultdict(int)

    async def count(call: Call) -> None:
        now["mail"] += 1
        most["mail"] = max(most["mail"], now["mail"])
        await asyncio.sleep(0.005)
        now["mail"] -= 1

    def limited(**given: Any) -> Limits:
        given["at_once"] = {**given["at_once"], "mail": 3}
        return Limits(**given)

    monkeypatch.setattr(machine, "Limits", limited)
    bench.post = Post(count)
    text = "xs = [mail.wait(f'{n}') for n in range(20)]\nys = [llm.write('y', n) for n in [1, 2]]\n"
    report = bench.run(text)
    assert report.state == "done" and most["mail"] == 3 and len(bench.post.sent) == 20


def test_nothing_before_a_question_runs_again_when_it_is_answered(bench: Bench) -> None:
    text = (
        "a = llm.write('a', 1)\nx = human.ask('Which?', ['red', 'blue'])\n"
        "files.write('out', f'{a} {x}')\n"
    )
    report = bench.run(text)
    assert report.state == "waiting" and bench.executed["a"] == 1
    with bench.open() as machine:
        entries = machine.history(report.run).entries
        slot = next(e.slot for e in entries if e.kind == "intent")
        machine.answer(report.run, slot, "blue")
    assert bench.resume(report.run).state == "done"
    assert bench.executed["a"] == 1 and bench.files(report.run)["out"].endswith(" blue")


def test_a_large_value_costs_the_journal_a_name(bench: Bench) -> None:
    """No limit on a value: it lies in a blob, and the journal does not grow with it."""
    bench.file("inbox/large.txt", "x" * 3_000_000)
    report = bench.run("t = files.read('inbox/large.txt')\nfiles.write('out', t)\n")
    assert report.state == "done"
    with Store(bench.work) as store:
        records = list(store.records(report.run))
        assert sum(len(record.payload) for record in records) < 100_000
        assert len(store.read_file(report.run, "out")) == 3_000_000


def test_the_page_names_tests_that_exist() -> None:
    """Each test that the page names is there, so that a row cannot outlive what shows it."""
    root = Path(__file__).parents[2]
    page = (root / "docs/explanation/durable-semantics.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    there = {
        name
        for path in (root / "tests").rglob("test_*.py")
        for name in [*re.findall(r"def (test_\w+)", path.read_text("utf-8")), path.stem]
    }
    assert len(named) > 20 and named <= there, sorted(named - there)
