"""The jobs on small inputs, with right answers: all holds, and what is spoiled is noticed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from edvac.bench.jobs import Work, play, works
from edvac.device.content import Content
from edvac.device.parser import Parsed, Parsers

JOBS = works(Path(__file__).parents[2] / "examples" / "jobs")
SPOILED = [
    pytest.param(job, old, new, id=f"{job.name}-{at}", marks=pytest.mark.xdist_group(job.name))
    for job in JOBS
    for at, (old, new) in enumerate(job.module.SPOILED)
]
READ: dict[tuple[str, str], Parsed] = {}


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's documents are the same for each spoiled program; they are read for the first one."""
    ask = Parsers.ask

    async def asked(
        self: Parsers, request: dict[str, Any], content: Content, *, stretch: bool = False
    ) -> Parsed:
        key = (json.dumps(request, sort_keys=True), content.fingerprint())
        if key not in READ:
            READ[key] = await ask(self, request, content, stretch=stretch)
        return READ[key]

    monkeypatch.setattr(Parsers, "ask", asked)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_with_right_answers_every_check_holds_and_every_field_is_right(job: Work) -> None:
    played = asyncio.run(play(job, "small"))
    assert not played.problems
    assert not played.wrong
    assert played.right and played.checks


@pytest.mark.usefixtures("read_once")
@pytest.mark.parametrize(("job", "old", "new"), SPOILED)
def test_a_spoiled_program_is_noticed(job: Work, old: str, new: str) -> None:
    assert old in job.program
    spoiled = job.program.replace(old, new)
    played = asyncio.run(play(job, "small", program=spoiled, stop=True))
    assert played.problems or played.wrong
