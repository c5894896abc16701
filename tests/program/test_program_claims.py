"""Undecided pieces claim what they may touch as closely as the values around them allow."""

from __future__ import annotations

import pytest
from program_kit import CATALOGUE, TODAY, NaiveHost

from edvac.program import Evaluator, Fuel, parse

HEAD = """\
class Job:
    source: str
    target: str

def carry(job: Job, extra: list[str]) -> str:
    held = files.read(job.source)
    for one in extra:
        files.read(one)
    return files.write(job.target, held)

jobs = [Job("in/a", "out/a"), Job("in/b", "out/b")]
kind = llm.choose("Is it?", ["yes", "no"])
"""


def claims(body: str) -> tuple[set[str], set[str]]:
    """What the first region of a program claims to read and to write."""
    host = NaiveHost(lambda call, operands: "")
    program = parse(HEAD + body, CATALOGUE)
    Evaluator(program, host, {}, TODAY, Fuel()).start()
    _, access = min(host.regions.values())
    return set(access.reads), set(access.writes)


@pytest.mark.parametrize(
    ("body", "reads", "writes"),
    [
        # values that are there
        ('if kind == "yes":\n    carry(jobs[0], [])', {"**"}, {"**"}),  # an index is not followed
        (
            'one = jobs[1]\nif kind == "yes":\n    carry(one, ["x"])',
            {"in/b", "x"},
            {"out/b"},
        ),
        (
            'for job in jobs:\n    if kind == "yes":\n        carry(job, [job.target])',
            {"in/a", "out/a"},
            {"out/a"},
        ),
        # loops inside of it
        (
            'if kind == "yes":\n    for job in jobs:\n        carry(job, [])',
            {"in/a", "in/b"},
            {"out/a", "out/b"},
        ),
        (
            'if kind == "yes":\n    made = [files.read(job.source) for job in jobs]',
            {"in/a", "in/b"},
            set(),
        ),
        # what it binds itself is not what was bound before
        (
            'p = "out/x"\nif kind == "yes":\n    p = kind\n    files.write(p, "")',
            set(),
            {"**"},
        ),
        (
            'one = jobs[0]\nif kind == "yes":\n    for one in [Job(kind, kind)]:\n'
            "        carry(one, [])",
            {"**"},
            {"**"},
        ),
        # what is not known yet
        ('if kind == "yes":\n    carry(Job("in/a", kind), [])', {"in/a"}, {"**"}),
        ('if kind == "yes":\n    files.write(kind, "")', set(), {"**"}),
        # a name of the function hides one of the program
        (
            'one = "p"\ndef put(one: str) -> str:\n    return files.write(one, "")\n'
            'if kind == "yes":\n    put("q")',
            set(),
            {"q"},
        ),
    ],
)
def test_claims(body: str, reads: set[str], writes: set[str]) -> None:
    assert claims(body) == (reads, writes)


def test_a_step_past_the_piece_does_not_wait_where_they_cannot_meet() -> None:
    """The claim is what the control unit goes by; see `tests/machine/test_build.py`."""
    reads, writes = claims('one = jobs[0]\nif kind == "yes":\n    carry(one, [])\n')
    assert "out/b" not in writes and "**" not in reads | writes


def test_what_a_program_may_touch_follows_its_own_data_into_functions() -> None:
    program = parse(HEAD + "for job in jobs:\n    carry(job, [])\n", CATALOGUE)
    touched = {use.op: use.access for use in program.access if use.op != "llm.choose"}
    assert set(touched["files.write"].writes) == {"out/a", "out/b"}
    unknown = parse(HEAD + "carry(Job(kind, kind), [])\n", CATALOGUE)
    [write] = [use.access for use in unknown.access if use.op == "files.write"]
    assert write.writes == ("**",)
    uncalled = parse(HEAD, CATALOGUE)
    assert [use.access.writes for use in uncalled.access if use.op == "files.write"] == [("**",)]
