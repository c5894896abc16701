"""A sample: the first elements of every outermost loop, then the rest of the same run."""

from __future__ import annotations

from typing import Any

import pytest
from machine_kit import Bench

from edvac.machine.machine import Terminal

TEXT = """
notes = []
for p in files.list("inbox/*"):
    note = llm.write("Shorten", files.read(p))
    for part in [1, 2]:
        files.write(f"out/{path.stem(p)}-{part}.md", note)
    notes.append(note)
ends = [llm.write("Say the end", files.read(p)) for p in files.list("inbox/*")]
files.write("all.md", "".join(notes + ends))
intro = llm.write("Say hello")
files.write("intro.md", intro)
"""
FIRST = {"out/0-1.md", "out/0-2.md", "intro.md"}


def test_a_sample_waits_and_resume_does_the_rest(bench: Bench) -> None:
    report = bench.run(TEXT, Terminal(sample=1))
    assert report.state == "waiting"
    assert set(bench.files(report.run)) == FIRST
    before = bench.executed.copy()
    assert bench.resume(report.run).state == "done"
    assert set(bench.executed.values()) == {1}, "what the sample did is not done again"
    assert before < bench.executed
    whole = bench.run(TEXT)
    assert bench.files(report.run) == bench.files(whole.run)


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_person_looks_and_the_same_run_goes_on(bench: Bench, goes_on: bool) -> None:
    seen: list[Any] = []

    async def looks() -> bool:
        seen.append(bench.executed.copy())
        return goes_on

    report = bench.run(TEXT, Terminal(sample=2, looks=looks))
    assert report.state == ("done" if goes_on else "waiting")
    (then,) = seen
    assert {f"note[{n}]" for n in (0, 1)} <= set(then) and "note[2]" not in then
    assert (set(bench.executed) > set(then)) is goes_on
    assert set(bench.executed.values()) == {1}


def test_a_sample_as_large_as_the_whole_asks_nobody(bench: Bench) -> None:
    async def looks() -> bool:
        raise AssertionError("nothing is left to go on with")

    assert bench.run(TEXT, Terminal(sample=3, looks=looks)).state == "done"


def test_nothing_leaves_the_machine_beyond_the_sample(bench: Bench) -> None:
    text = "for n in range(3):\n    mail.send(f'hello {n}')\n"
    report = bench.run(text, Terminal(sample=1))
    assert (report.state, bench.post.sent) == ("waiting", ["hello 0"])
    assert bench.resume(report.run).state == "done"
    assert bench.post.sent == ["hello 0", "hello 1", "hello 2"]
