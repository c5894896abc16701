"""The set of planning tasks: every task can be done, and its checks tell when it was not."""

from __future__ import annotations

import ast
import asyncio
import functools
import re
from collections import Counter
from pathlib import Path

import pytest

from edvac.bench.planning import execute
from edvac.bench.planset import Task, tasks
from edvac.compiler.examples import library
from edvac.processor.scripted import ScriptedProcessor

pytestmark = pytest.mark.xdist_group("planset")  # what one test has solved others look at
TUNING = tasks("tuning")
DOCUMENTED = tasks("documented")
NAMED = {task.id: task for task in (*tasks(), *TUNING, *DOCUMENTED)}
ROOT = Path(__file__).parents[2]


def outcome(task: Task, program: str) -> tuple[str, dict[str, str]]:
    return asyncio.run(execute(program, task, ScriptedProcessor(task.world.oracle)))


@functools.cache
def solved(name: str) -> tuple[str, dict[str, str]]:
    return outcome(NAMED[name], NAMED[name].solution)


def test_the_set_is_as_large_as_it_says() -> None:
    assert len(tasks()) == 60
    assert len(NAMED) == 60 + len(TUNING) + len(DOCUMENTED)
    split = Counter((task.world.held_out, task.level) for task in tasks())
    assert split == {
        (False, "easy"): 20,
        (False, "hard"): 20,
        (True, "easy"): 10,
        (True, "hard"): 10,
    }


def test_the_tuning_set_holds_as_many_easy_tasks_as_hard_ones() -> None:
    assert Counter(task.level for task in TUNING) == {"easy": 24, "hard": 24}
    assert not any(task.world.held_out for task in TUNING)


@pytest.mark.parametrize("name", NAMED)
def test_a_program_can_do_it_and_its_checks_see_what_is_missing(name: str) -> None:
    task = NAMED[name]
    state, files = solved(name)
    assert (state, task.problems(files)) == ("done", [])
    for path in set(files) - set(task.world.documents):
        others = {other: text for other, text in files.items() if other != path}
        assert task.problems(others), f"nobody misses {path}"
    assert task.problems(dict(task.world.documents)), "doing nothing would pass"


def test_what_does_one_task_does_no_other() -> None:
    measured = [task for task in NAMED.values() if task not in DOCUMENTED]
    for task in measured:
        near = [other for other in measured if other.world is task.world and other is not task]
        for other in near:
            _, files = solved(other.id)
            assert task.problems(files), f"{other.id} passes for {task.id}"


def test_the_tuning_set_carries_no_task_of_the_evaluation() -> None:
    for one in TUNING:
        for task in tasks():
            shared = content(one.text) & content(task.text)
            united = content(one.text) | content(task.text)
            assert len(shared) / len(united) < 0.5, f"{one.id} is {task.id}"
            same = set(one.world.documents) & set(task.world.documents)
            assert not same, f"{one.id} reads what {task.id} reads"


def test_the_documented_tasks_are_those_that_the_documentation_shows() -> None:
    places = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.py")]
    shown = {
        task
        for place in places
        for task in re.findall(r'edvac run "([A-Z][^"]+)"', place.read_text(encoding="utf-8"))
    }
    story = (ROOT / "docs" / "story" / "story.txt").read_text(encoding="utf-8")
    shown |= set(re.findall(r'^\$ edvac run --plain --plan-only "([^"]+)"', story, re.MULTILINE))
    assert shown == {task.text for task in DOCUMENTED}
    inbox = ROOT / "src" / "edvac" / "apps" / "demo"
    for path, text in DOCUMENTED[0].world.documents.items():
        assert text.strip() == (inbox / path).read_text(encoding="utf-8").strip()


@functools.cache
def content(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]{4,}", text.casefold()))


@functools.cache
def shape(program: str) -> str:
    """A program without its names and texts."""
    tree = ast.parse(program)
    for node in ast.walk(tree):
        for field in ("id", "attr", "name", "arg"):
            if isinstance(getattr(node, field, None), str):
                setattr(node, field, "x")
        if isinstance(node, ast.Constant):
            node.value = 0
    return ast.dump(tree)


def test_no_example_carries_a_task() -> None:
    for example in library():
        for task in tasks():
            shared = content(example.task) & content(task.text)
            united = content(example.task) | content(task.text)
            assert len(shared) / len(united) < 0.5, f"{example.name} is {task.id}"
            if len(task.solution.splitlines()) > 6:
                same = shape(example.program) == shape(task.solution)
                assert not same, f"{example.name} does {task.id}"
            documents = " ".join(task.world.documents)
            folders = set(re.findall(r"([a-z]+)/", example.program)) & set(
                re.findall(r"([a-z]+)/", documents)
            )
            assert not folders, f"{example.name} reads what {task.id} reads"
