"""The benchmark of checkpointers: what it measures, and what it says where it cannot."""

from __future__ import annotations

import sys

import pytest

from edvac.bench import checkpoints
from edvac.bench.report import start
from edvac.core.errors import UsageError

SHAPES = (
    checkpoints.Shape("noise", "few", 5, checkpoints.ADDED),
    checkpoints.Shape("fan", "wide", 5),
)


@pytest.mark.slow
def test_each_shape_has_time_and_bytes() -> None:
    pytest.importorskip("langgraph.graph", reason="needs the package langgraph")
    document, said = start("checkpoints", "test"), list[str]()
    checkpoints.measure(document, None, SHAPES, 1, said.append)
    found = {(one.id, one.unit, one.peer): one for one in document.figures}
    grown = found["few: a step", "bytes", "what was added"]
    assert grown.peer_value == checkpoints.ADDED < grown.value and grown.target == 2 * 1024
    assert found["few: a step", "ms", "two bare syncs"].value > 0
    assert len(said) == 2 and "edvac ran with langgraph" in document.notes[0]


@pytest.mark.slow
def test_a_peer_that_does_not_run_is_an_error_that_says_why() -> None:
    pytest.importorskip("langgraph.graph", reason="needs the package langgraph")
    with pytest.raises(UsageError) as error:
        checkpoints._run(sys.executable, "nobody", checkpoints.Shape("none", "", -1))
    assert error.value.code == "bench_peer" and error.value.why


def test_without_langgraph_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError) as error:
        checkpoints.measure(start("checkpoints", "test"), None, SHAPES, 1, print)
    assert error.value.code == "bench_peer"
