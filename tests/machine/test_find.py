"""Finding a text in runs: what people could read of them, and nothing twice."""

from __future__ import annotations

import pytest
from machine_kit import Bench

from edvac.machine.find import Found, find

PROGRAM = """\
kept = [attempt(llm.write("Shorten", files.read(p)), "none") for p in files.list("inbox/*")]
files.write("out.txt", kept[0])
"""


@pytest.fixture
def looked(bench: Bench) -> Bench:
    bench.file("inbox/0.txt", "The Straße was CLOSED " + "x" * 200)
    bench.file("inbox/1.txt", "a broken one")
    bench.broken = {"broken"}
    bench.run(PROGRAM, task="Shorten the reports")
    bench.run(PROGRAM.replace("Shorten", "Summarise"), task="Another job")
    return bench


def look(bench: Bench, text: str, **more: object) -> list[Found]:
    with bench.open() as machine:
        return machine.ledger.call_now(lambda store: list(find(store, text, **more)))  # type: ignore[arg-type]


def test_results_are_found_in_every_run_the_latest_first(looked: Bench) -> None:
    found = look(looked, "closed")
    with looked.open() as machine:
        newest = machine.find(None).id
    assert [one.where for one in found] == ["result"] * len(found)
    assert found[0].run == newest and len({one.run for one in found}) == 2
    assert "CLOSED" in found[0].excerpt and len(found[0].excerpt) < 120


def test_reasons_tasks_and_programs_are_found(looked: Bench) -> None:
    assert {one.where for one in look(looked, "cannot be read")} == {"reason"}
    [task] = look(looked, "the reports")
    assert (task.where, task.step) == ("task", "")
    assert {one.where for one in look(looked, 'llm.write("Summ')} == {"program"}


def test_capitals_do_not_count_even_where_they_change_length(looked: Bench) -> None:
    assert look(looked, "STRASSE")


def test_prompts_only_where_asked_for(looked: Bench) -> None:
    said = "You are one step of a program"
    assert not look(looked, said)
    assert {one.where for one in look(looked, said, prompts=True)} == {"prompt"}


def test_one_run_alone(looked: Bench) -> None:
    run = look(looked, "closed")[-1].run
    assert {one.run for one in look(looked, "closed", run=run)} == {run}


def test_nothing_is_nothing(looked: Bench) -> None:
    assert look(looked, "never said") == []
