"""Whole programs on a page: their order, and who may decide about an act."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "device"))

from browser_kit import StillPage
from machine_kit import Bench

from edvac.device.browser.origins import Grants, origin_of
from edvac.machine import Machine, Report
from edvac.machine import sites as machine_sites
from edvac.machine.machine import Terminal
from edvac.processor.scripted import ScriptedProcessor

SHOP = "https://shop.example/"
OPEN = f'browser.open("{SHOP}")\n'
HERE = frozenset({origin_of(SHOP)})
HTML = "<title>Shop</title><p>Stock: 3<input title=Name><button id=buy>Buy</button>"


class Rig:
    def __init__(self, bench: Bench, patch: pytest.MonkeyPatch) -> None:
        self.bench = bench
        self.page = StillPage({SHOP: HTML})
        patch.setattr(machine_sites, "maker", lambda _: self._make)

    async def _make(self, allowed: frozenset[str]) -> StillPage:
        return self.page

    def run(self, program: str, grants: Grants | None = None) -> Report:
        processor = ScriptedProcessor(lambda _: "x")
        with Machine(self.bench.work, processor, sites=grants) as machine:
            return asyncio.run(machine.run(self.bench.job(program), Terminal()))


@pytest.fixture
def rig(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(bench, monkeypatch)


def codes(report: Report) -> list[str]:
    return [step.failure.code for step in report.failures if step.failure]


def test_calls_on_the_page_are_done_as_written(rig: Rig) -> None:
    text = OPEN + "".join(
        f'browser.fill("textbox", "Name", "{n}")\nx{n} = browser.elements("textbox")\n'
        for n in range(5)
    )
    text += "files.write('a.txt', ','.join([x[0].value for x in [x0, x1, x2, x3, x4]]))\n"
    report = rig.run(text)
    assert report.state == "done"
    assert rig.bench.files(report.run) == {"a.txt": "0,1,2,3,4"}
    assert rig.page.closed
    with Machine(rig.bench.work, ScriptedProcessor(lambda _: "x")) as machine:
        assert machine.history(report.run).contacted == ["https://shop.example"]


@pytest.mark.parametrize(
    ("text", "grants", "state"),
    [  # a page's text decides, or an answer that two views agree on
        ('browser.click("button", "Buy")\n', Grants(), "done"),
        ('if "Stock" in browser.text():\n    browser.click("button", "Buy")\n',
         Grants(), "waiting"),
        ('if browser.sees("Stock"):\n    browser.click("button", "Buy")\n', Grants(), "waiting"),
        ('if browser.sees("Stock"):\n    browser.click("button", "Buy")\n',
         Grants(steering=True), "done"),
        ('if "Stock" in browser.text():\n    browser.click("button", "Buy")\n',
         Grants(steering=True), "waiting"),
        ('if browser.sees("Stock"):\n    if "3" in browser.text():\n'
         '        browser.click("button", "Buy")\n', Grants(steering=True), "waiting"),
        ('n = browser.elements("button")[0].name\nbrowser.click("button", n)\n',
         Grants(steering=True), "waiting"),
        ('if browser.sees("Stock"):\n    browser.fill("textbox", "Name", browser.text())\n',
         Grants(steering=True), "waiting"),
        ('if "Stock" in browser.text():\n    browser.click("button", "Buy")\n',
         Grants(sandbox=HERE), "done"),
        ('t = files.read("inbox/0.txt")\nbrowser.fill("textbox", "Name", t)\n', Grants(),
         "waiting"),
        ('t = files.read("inbox/0.txt")\nbrowser.fill("textbox", "Name", t)\n',
         Grants(sandbox=frozenset({"https://other.example:443"})), "waiting"),
        ('if "Stock" in browser.text():\n    browser.click("button", "Buy")\n',
         Grants(sandbox=HERE, further=frozenset({"https://other.example:443"})), "waiting"),
    ],
)  # fmt: skip
def test_who_may_decide_about_an_act(rig: Rig, text: str, grants: Grants, state: str) -> None:
    report = rig.run(OPEN + text, grants)
    assert report.state == state, report
    assert bool(rig.page.acts) == (state == "done")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('t = files.read("inbox/0.txt")\nbrowser.open(f"https://shop.example/{t}")\n',
         "untrusted_contact"),
        (OPEN + f'browser.open("{SHOP}" + browser.text())\n', "untrusted_contact"),
        (OPEN + f'u = "{SHOP}a" if "3" in browser.text() else "{SHOP}b"\nbrowser.open(u)\n', ""),
    ],
)  # fmt: skip
def test_data_chooses_among_addresses_and_makes_none(rig: Rig, text: str, code: str) -> None:
    assert codes(rig.run(text)) == ([code] if code else [])


def test_a_run_that_was_cut_has_no_page_any_more(rig: Rig) -> None:
    text = OPEN + 'if browser.sees("Stock"):\n    browser.click("button", "Buy")\n'
    report = rig.run(text)
    assert report.state == "waiting"

    async def yes(*_: object) -> bool:
        return True

    with Machine(rig.bench.work, ScriptedProcessor(lambda _: "x")) as machine:
        again = asyncio.run(machine.resume(report.run, Terminal(answer=yes)))
    assert codes(again) == ["page_none"]
    assert rig.page.acts == []


def test_a_rule_of_the_workspace_goes_before_what_the_settings_grant(rig: Rig) -> None:
    act = OPEN + 'if browser.sees("Stock: 3"):\n    browser.click("button", "Buy")\n'
    granted = Grants(steering=True)
    assert rig.run(act, granted).state == "done"
    rule = '[rule.acts]\ncalls = ["browser.click"]\nbranch = ["trusted"]\notherwise = "deny"\n'
    (rig.bench.work / "policy.toml").write_text(rule)
    assert codes(rig.run(act, granted)) == ["policy_denied"]
