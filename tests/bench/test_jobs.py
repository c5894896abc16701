"""The jobs on small inputs, with right answers: all holds, and what is spoiled is noticed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edvac.bench.jobs import Work, play, works

JOBS = works(Path(__file__).parents[2] / "examples" / "jobs")
SPOILED = [(job, old, new) for job in JOBS for old, new in job.module.SPOILED]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_with_right_answers_every_check_holds_and_every_field_is_right(job: Work) -> None:
    played = asyncio.run(play(job, "small"))
    assert not played.problems
    assert not played.wrong
    assert played.right and played.checks


@pytest.mark.parametrize(("job", "old", "new"), SPOILED)
def test_a_spoiled_program_is_noticed(job: Work, old: str, new: str) -> None:
    assert old in job.program
    played = asyncio.run(play(job, "small", program=job.program.replace(old, new)))
    assert played.problems or played.wrong
