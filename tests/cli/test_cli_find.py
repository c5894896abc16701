"""`edvac find`, as typed."""

from __future__ import annotations

import pytest
from cli_kit import Bench


@pytest.fixture
def done(edvac: Bench) -> Bench:
    assert edvac("run", "p.edv", "--yes", "--output", "result").code == 0
    return edvac


def test_it_names_run_and_step(done: Bench) -> None:
    run = done("ps", "--json").document["runs"][0]["id"]
    said = done("find", "llm.WRITE")
    assert said.code == 0 and run in said.out and "(program)" in said.out
    found = done("find", "inbox/", "--json").document
    assert {one["run"] for one in found["found"]} == {run} and found["more"] is False
    assert any(one["step"] for one in found["found"])
    few = done("find", "inbox/", "-n", "1", "--json").document
    assert len(few["found"]) == 1 and few["more"] is True


def test_nowhere_is_status_one_and_nothing_is_refused(done: Bench) -> None:
    assert done("find", "never said").code == 1
    assert done("find", "never said", "--json").document == {"found": [], "more": False}
    refused = done("find", "  ")
    assert refused.code == 2 and "find_nothing" in refused.err
