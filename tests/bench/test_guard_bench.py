"""The benchmark of the guard: both arms do the same work, and only one of them is guarded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edvac.bench import guard
from edvac.bench.report import start
from edvac.core.label import PROGRAM, PUBLIC
from edvac.guard import policy
from edvac.machine import Job, Machine
from edvac.processor.scripted import ScriptedProcessor


def test_every_program_has_its_figures() -> None:
    document = start("guard", "")
    guard.measure(document, guard.Wanted(12, 1))
    ids = [figure.id for figure in document.figures]
    assert ids == [f"{kind}, {name}" for name in guard.PROGRAMS for kind in ("wall time", "CPU")]
    assert {figure.unit.split()[0] for figure in document.figures} == {"%", "µs"}


@pytest.mark.parametrize("guarded", [True, False])
def test_only_one_arm_is_guarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    decided: list[str] = []
    looks = policy.decide
    monkeypatch.setattr(
        "edvac.machine.guarding.decide",
        lambda call, *rest: decided.append(call.op) or looks(call, *rest),
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.txt").write_text("hello")
    with Machine(tmp_path, ScriptedProcessor(lambda _: "done")) as machine:
        if not guarded:
            machine.guard, machine.executes = guard.Open, guard.nobodys
        text = "t = files.read('in/0.txt')\nfiles.write('a.txt', llm.write('go on', t))\n"
        job = Job(text, roots={"in": tmp_path / "in"})
        report = asyncio.run(machine.run(job))
        entries = machine.history(report.run).entries
    assert report.state == "done"
    assert len(set(decided)) == (3 if guarded else 0)
    read = next(one.value for one in entries if one.body.get("op") == "files.read")
    assert read is not None
    own = PUBLIC.join(PROGRAM).integrity
    assert (read.label.integrity <= own) is not guarded
