"""LangGraph's own test suite for checkpointers, unmodified, against edvac's."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

conformance = pytest.importorskip(
    "langgraph.checkpoint.conformance", reason="needs langgraph-checkpoint-conformance"
)

# How many tests the suite has for each: fewer would mean that some were left out.
TESTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from edvac.apps.langgraph import EdvacSaver

    root = tmp_path_factory.mktemp("conformance")
    numbers = itertools.count()

    def workspace() -> Path:
        made = Path(root / str(next(numbers)))
        made.mkdir()
        return made

    @conformance.checkpointer_test(name="EdvacSaver")  # type: ignore[untyped-decorator]
    async def fresh() -> AsyncIterator[Any]:
        async with EdvacSaver(workspace()) as saver:
            yield saver

    return asyncio.run(conformance.validate(fresh))


@pytest.mark.parametrize("capability", TESTS)
def test_the_suite_passes(report: Any, capability: str) -> None:
    found = report.results[capability]
    assert found.detected, f"{capability} was not seen"
    assert not found.failures
    assert (found.tests_passed, found.tests_failed) == (TESTS[capability], 0)


def test_nothing_of_the_suite_was_left_out(report: Any) -> None:
    assert set(report.results) == set(TESTS)
    assert report.passed_all_base() and report.passed_all()
