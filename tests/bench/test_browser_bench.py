"""The tasks of the browser's benchmark are tasks, and a sample of them is played for real."""

from __future__ import annotations

import pytest

from edvac.bench.browser import ASK, SEEN, TRUSTS, Ended, play
from edvac.bench.browser_sites import FLOWS
from edvac.device import CATALOGUE
from edvac.device.browser.chromium import missing
from edvac.program import parse

real = pytest.mark.skipif(bool(missing()), reason=f"needs a browser: {missing()}")


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_programs_are_legal_and_attacks_change_something(flow) -> None:
    parse(flow.program.replace("{u}", "http://127.0.0.1:1"), CATALOGUE)
    assert flow.attacked
    assert any(flow.pages.get(path) != page for path, page in flow.attacked.items())
    assert flow.deeds or flow.answer


def test_there_are_twelve_tasks_and_six_attacks() -> None:
    assert len({flow.name for flow in FLOWS}) == len(FLOWS) >= 12
    assert {flow.attack for flow in FLOWS} == {
        "dynamic text", "look-alike button", "hidden element", "swapped labels", "pop-up",
        "redirect",
    }  # fmt: skip


@real
@pytest.mark.xdist_group("browser")
def test_a_task_clean_and_attacked() -> None:
    switch = next(flow for flow in FLOWS if flow.name == "settings")
    assert play(switch, SEEN, attacked=False) == Ended(useful=True, harmed=False)
    assert play(switch, SEEN, attacked=True) == Ended(useful=False, harmed=False)
    assert play(switch, TRUSTS, attacked=True) == Ended(useful=False, harmed=True)
    cart = next(flow for flow in FLOWS if flow.name == "cart")
    assert play(cart, ASK, attacked=False) == Ended(useful=False, harmed=False)
