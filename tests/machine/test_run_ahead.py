"""Running ahead of conditions in a whole machine: results, journal, history of runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edvac.machine import Job, Machine, Report
from edvac.machine.budget import Budget
from edvac.machine.conditions import past_of
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor

PROGRAM = """\
last = "x"
for number in range(10):
    kind = llm.choose(f"round {number}", ["yes", "no"], last)
    if kind == "yes":
        last = llm.write(f"first {number}", number)
    else:
        last = llm.write(f"second {number}", number)
files.write("out.txt", last)
"""


def script(yes: set[int]):
    def answer(request: Request) -> str:
        head, number, *_ = request.messages[-1].text.split()
        if head == "round":
            return '{"answer": "%s"}' % ("yes" if int(number) in yes else "no")
        return f"{head} {number}"

    return answer


def go(place: Path, yes: set[int], *, local: bool = True, **options: object) -> tuple[Report, list]:
    processor = ScriptedProcessor(script(yes), delay_s=0.002, local=local)
    asked: list[Request] = []
    answer = processor._script
    processor._script = lambda request: asked.append(request) or answer(request)
    ahead = bool(options.pop("ahead", True))
    with Machine(place, processor, ahead=ahead) as machine:
        job = Job(PROGRAM, name="rounds", fresh=True, **options)  # type: ignore[arg-type]
        report = asyncio.run(machine.run(job))
        text = machine.ledger.call_now(lambda store: store.read_file(report.run, "out.txt"))
        assert text.decode() == ("first 9" if 9 in yes else "second 9")
    return report, asked


def test_results_are_the_same_and_guesses_get_better(tmp_path: Path) -> None:
    """The condition is false three times out of four; the second run knows that."""
    yes = {0, 4, 8}
    first, _ = go(tmp_path, yes)
    second, asked = go(tmp_path, yes)
    for report in (first, second):
        assert report.state == "done" and report.counts["finished"] == 21
    assert second.counts["wasted"] <= 3 < 6 <= second.counts["ahead"]
    assert {request.cls for request in asked} == {"speculative", "offline"}


def test_nothing_that_was_thrown_away_is_in_the_journal(tmp_path: Path) -> None:
    report, _ = go(tmp_path, set(range(0, 10, 2)))
    assert report.counts["wasted"] > 0
    with Machine(tmp_path, ScriptedProcessor(str)) as machine:
        history = machine.history(report.run)
    done = [entry for entry in history.entries if entry.kind == "outcome"]
    assert len(done) == 21
    texts = {entry.body.get("answer", "") for entry in done}
    assert "second 0" not in texts and "first 1" not in texts


def test_how_conditions_went_is_kept_with_the_last_run(tmp_path: Path) -> None:
    go(tmp_path, {0, 1})
    go(tmp_path, {2})
    with Machine(tmp_path, ScriptedProcessor(str)) as machine:
        past = machine.ledger.call_now(lambda store: past_of(store, "rounds"))
        other = machine.ledger.call_now(lambda store: past_of(store, "another"))
    assert [taken for _, taken in past] == [at in {0, 1} for at in range(10)] + [
        at == 2 for at in range(10)
    ]
    assert other == []


@pytest.mark.parametrize("why", ["remote", "budget", "off"])
def test_where_it_may_not_nothing_runs_ahead(tmp_path: Path, why: str) -> None:
    options: dict[str, object] = {"budget": Budget(tokens=100_000)} if why == "budget" else {}
    report, asked = go(tmp_path, {1}, local=why != "remote", ahead=why != "off", **options)
    assert report.counts["ahead"] == report.counts["wasted"] == 0
    assert len(asked) == 20 and {request.cls for request in asked} == {"offline"}


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    calls = iter(range(100))

    def dying(request: Request) -> str:
        if next(calls) == 9:
            raise Killed
        return script({0, 3})(request)

    with Machine(tmp_path, ScriptedProcessor(dying, delay_s=0.002, local=True)) as machine:
        with pytest.raises(Killed):
            asyncio.run(machine.run(Job(PROGRAM, name="rounds", fresh=True)))
        run = machine.find(None).id
    processor = ScriptedProcessor(script({0, 3}), delay_s=0.002, local=True)
    with Machine(tmp_path, processor) as machine:
        report = asyncio.run(machine.resume(run))
        assert report.state == "done" and report.counts["finished"] == 21
