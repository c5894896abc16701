"""The processor hears what a run does between its calls, and whether somebody waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from machine_kit import Bench

from edvac.machine.machine import Terminal
from edvac.processor.scripted import ScriptedProcessor
from edvac.sandbox import bubblewrap

TEXT = """
a = mail.wait("one")
b = llm.write("Say it", a)
files.write("out", b)
"""


def test_tools_are_told_of_and_files_are_not(bench: Bench) -> None:
    with bench.open() as machine:
        processor: Any = machine.processor
        report = asyncio.run(machine.run(bench.job(TEXT)))
    assert report.state == "done"
    assert processor.told == [
        (report.run, "tool_started", "mail.wait"),
        (report.run, "tool_ended", "mail.wait"),
    ]


def test_a_tool_that_fails_has_ended(bench: Bench) -> None:
    async def fail(_: Any) -> None:
        raise OSError("no")

    bench.post.act = fail
    with bench.open() as machine, pytest.raises(OSError, match="no"):
        processor: Any = machine.processor
        asyncio.run(machine.run(bench.job(TEXT)))
    assert [doing for _, doing, _ in processor.told][-1] == "tool_ended"


@pytest.mark.sandbox
def test_a_command_is_told_by_its_name_alone(bench: Bench) -> None:
    if not bubblewrap.probe().available:
        pytest.skip("needs bubblewrap and user namespaces")
    with bench.open() as machine:
        processor: Any = machine.processor
        asyncio.run(machine.run(bench.job('shell.run("ls secret || true")\n')))
    assert {tool for _, _, tool in processor.told} == {"shell.run:ls"}


async def _somebody(*_: Any) -> Any:
    raise AssertionError("nothing is asked")


@pytest.mark.parametrize("attended", [True, False])
def test_a_run_that_nobody_waits_for_is_offline(bench: Bench, attended: bool) -> None:
    seen: list[tuple[str, bool]] = []

    def answer(request: Any) -> str:
        seen.append((request.cls, request.goes_on))
        return "said"

    terminal = Terminal(ask=_somebody) if attended else Terminal()
    with bench.open() as machine:
        machine.processor = ScriptedProcessor(answer)
        asyncio.run(machine.run(bench.job(TEXT), terminal))
    assert seen == [("online" if attended else "offline", False)]
