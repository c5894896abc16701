"""What a run does where its surroundings misbehave: a typed error, or a wait that says for what."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machine_kit import Bench, Post

from edvac.core.label import PROGRAM
from edvac.core.schema import STR, ListOf
from edvac.core.signature import Effect, Param, Signature
from edvac.core.value import lift
from edvac.device import Call, Reply
from edvac.machine import Machine
from edvac.processor.scripted import ScriptedProcessor


class Liar:
    """A device that does not return what its signature says."""

    version = "1"
    signatures = (
        Signature("lie.names", (Param("n", STR),), ListOf(STR), Effect.READ, ""),
        Signature("lie.send", (Param("n", STR),), STR, Effect.EXTERNAL, ""),
    )

    def __init__(self, value: Any) -> None:
        self.value = value

    async def call(self, call: Call) -> Reply:
        return Reply(lift(self.value, PROGRAM))

    async def read_version(self, call: Call) -> str | None:
        return None


MISFITS = [3, None, [1, 2], ["a", None], {"a": "b"}]


@pytest.mark.parametrize(
    ("function", "value"), [("names", "a"), *((f, v) for f in ("names", "send") for v in MISFITS)]
)
def test_a_result_of_another_type_fails_the_step(bench: Bench, function: str, value: Any) -> None:
    with Machine(
        bench.work, ScriptedProcessor(lambda _: "x"), devices={"lie": Liar(value)}
    ) as machine:
        program = f'found = lie.{function}("x")\nfiles.write("out.txt", f"{{found}}")\n'
        report = asyncio.run(machine.run(bench.job(program)))
    assert report.state == "partial"
    assert report.failures[0].failure.code == "result_misfit"
    assert bench.files(report.run) == {}


def test_a_cycle_through_files_goes_in_the_order_of_its_lines(bench: Bench) -> None:
    program = """\
a = files.read("inbox/0.txt")
files.write("inbox/0.txt", "second " + a)
b = files.read("inbox/0.txt")
files.write("b.txt", b)
files.write("inbox/0.txt", "third " + files.read("b.txt"))
files.write("end.txt", files.read("inbox/0.txt"))
"""
    report = bench.run(program)
    assert report.state == "done"
    assert bench.files(report.run)["end.txt"] == "third second word=ann\n"
    again = bench.run(program)
    assert bench.files(again.run) == bench.files(report.run), "its own output is not its input"


def test_a_worker_that_never_returns_ends_with_its_time(bench: Bench, tmp_path: Path) -> None:
    """The time limit of `llm.do`, an hour, made short; what hangs is a turn of its model."""

    class Hanging(ScriptedProcessor):
        async def complete(self, request: Any, on_text: Any = None) -> Any:
            if "calls" in str(request.schema):
                await asyncio.Event().wait()
            return await super().complete(request, on_text)

    program = (
        'x = llm.do("find it", ["files.read"], 0, str)\nfiles.write("o.txt", attempt(x, "-"))\n'
    )
    with Machine(bench.work, Hanging(lambda _: "x")) as machine:
        signatures = machine.catalogue.signatures
        for op in ("llm.do", "llm.turn"):
            if op in signatures:
                signatures[op] = replace(signatures[op], timeout_s=0.2)
        report = asyncio.run(machine.run(bench.job(program)))
    assert report.state == "done"
    assert bench.files(report.run) == {"o.txt": "-"}


def test_a_device_that_never_returns_ends_with_its_time(tmp_path: Path) -> None:
    async def hang(_: Call) -> None:
        await asyncio.Event().wait()

    bench = Bench(tmp_path, Post(hang, timeout_s=0.1))
    bench.file("inbox/0.txt", "x")
    report = bench.run('mail.wait("x")\n')
    assert [step.failure.code for step in report.failures] == ["step_timeout"]
