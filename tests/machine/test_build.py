"""`build`: many files by one model, each in a context of its own, checked, mended, side by side."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edvac.core.errors import OperandError
from edvac.machine import Job, Machine, Report
from edvac.machine.budget import Budget
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor

pytestmark = pytest.mark.sandbox

PROGRAM = """\
sees = [View("shop/store.py", "Store.add"), View("shop/price.py", "")]
parts = [
    FilePart("shop/store.py", "part store", []),
    FilePart("shop/price.py", "part price", []),
    FilePart("shop/app.py", "part app", sees),
]
made = build("A shop.", parts, tests=["tests/test_shop.py"], repairs=2)
files.write("made.csv", csv.dump(made))
"""
STORE = """\
class Store:
    def add(self, n):
        self.n = n

    def other(self):
        pass
"""
PRICE = "def price(n):\n    return n * 2\n"
APP = (
    "from shop.price import price\nfrom shop.store import Store\n\n\n"
    "def total(n):\n    store = Store()\n    store.add(price(n))\n    return store.n\n"
)
TEST = "from shop.app import total\n\n\ndef test_total():\n    assert total(2) == 4\n"
RIGHT = {"store": STORE, "price": PRICE, "app": APP}


class Author:
    """A model that answers with these texts, one after the other; the last one again and again."""

    def __init__(self, **texts: list[str] | Callable[[str], str]) -> None:
        self._texts = {name: [text] for name, text in RIGHT.items()} | texts
        self.asked: list[str] = []
        self.choice = "shop/app.py"
        self.under_way = self.most = 0

    def __call__(self, request: Request) -> str:
        text = request.messages[-1].text
        self.asked.append(text)
        if text.startswith("Tests fail"):
            return json.dumps({"answer": self.choice})
        texts = self._texts[re.findall(r"part (\w+)", text)[0]]
        if callable(texts):
            return texts(text)
        return f"```python\n{texts.pop(0) if len(texts) > 1 else texts[0]}```"


def run(place: Path, author: Author, program: str = PROGRAM, **more: object) -> tuple[Report, dict]:
    tests = place / "tests"
    tests.mkdir(parents=True, exist_ok=True)
    (tests / "test_shop.py").write_text(TEST)
    with Machine(place, ScriptedProcessor(author, delay_s=0.01)) as machine:
        job = Job(program, roots={"tests": tests}, **more)  # type: ignore[arg-type]
        report = asyncio.run(machine.run(job))
        files = machine.ledger.call_now(
            lambda s: {
                f.path: s.read_file(report.run, f.path).decode() for f in s.list_files(report.run)
            }
        )
    return report, files


def table(files: dict[str, str]) -> dict[str, tuple[bool, int, bool]]:
    """Of each part: is it right, how often was it written, was anything shortened?"""
    rows = csv.DictReader(io.StringIO(files["made.csv"]))
    return {r["path"]: (r["ok"] == "True", int(r["tries"]), r["shortened"] == "True") for r in rows}


def test_right_at_once(tmp_path: Path) -> None:
    author = Author()
    report, files = run(tmp_path, author)
    assert report.state == "done"
    assert files["shop/app.py"] == APP and table(files)["tests"] == (True, 0, False)
    assert len(author.asked) == 3
    seen = author.asked[-1]
    assert "def add(self, n)" in seen and "def other" not in seen, "only the view that it declares"
    assert "return n * 2" in seen


def test_what_fails_its_check_is_mended_with_what_was_wrong(tmp_path: Path) -> None:
    author = Author(store=["class Store\n", "class Store:\n    x = y\n", STORE])
    _, files = run(tmp_path, author)
    assert table(files)["shop/store.py"] == (True, 3, False) and files["shop/store.py"] == STORE
    first, second = (text for text in author.asked if "Earlier versions" in text)
    assert "shop/store.py:1" in first and "undefined name 'y'" in second
    assert second.count("shop/store.py:1") == 1, "what was wrong before is told as well"
    assert "def add(self, n)" in author.asked[-1], "who reads the file sees what it became"


def test_repairs_are_bounded_and_the_rest_goes_on(tmp_path: Path) -> None:
    report, files = run(tmp_path, Author(price=["def price(n):\n    return m\n"]))
    made = table(files)
    assert made["shop/price.py"] == (False, 3, False) and made["tests"] == (False, 2, False)
    assert made["shop/store.py"] == (True, 1, False) and report.state == "done"


def test_a_part_that_is_a_test_is_run_with_what_it_reads(tmp_path: Path) -> None:
    checks = "from shop.price import price\n\n\ndef test_price():\n    assert price(2) == {}\n"
    parts = (
        'parts = [FilePart("shop/price.py", "part price", []),'
        ' FilePart("shop/test_price.py", "part checks", [View("shop/price.py", "")])]\n'
        'made = build("A shop.", parts)\nfiles.write("made.csv", csv.dump(made))\n'
    )
    author = Author(checks=[checks.format(5), checks.format(4)])
    _, files = run(tmp_path, author, parts)
    assert table(files)["shop/test_price.py"] == (True, 2, False)


def test_tests_that_fail_change_the_file_that_the_model_names(tmp_path: Path) -> None:
    author = Author(price=["def price(n):\n    return n\n", PRICE])
    author.choice = "shop/price.py"
    _, files = run(tmp_path, author)
    assert table(files)["tests"] == (True, 1, False) and files["shop/price.py"] == PRICE
    mended = author.asked[-1]
    assert "With its earlier version tests fail" in mended and "assert 2 == 4" in mended


def test_acceptance_tests_cannot_be_written(tmp_path: Path) -> None:
    part = '    FilePart("tests/test_shop.py", "part app", []),\n]'
    report, _ = run(tmp_path, Author(), PROGRAM.replace("]\nmade", f"{part}\nmade", 1))
    assert report.state == "partial"
    assert "test_changed" in {step.failure.code for step in report.failures if step.failure}


def test_what_does_not_fit_is_seen_in_outline_and_the_result_says_so(tmp_path: Path) -> None:
    def crowded(text: str) -> str:
        if "return n * 2" in text:
            raise OperandError("operand_too_large", "it does not fit")
        return APP

    author = Author(app=crowded)
    _, files = run(tmp_path, author)
    assert table(files)["shop/app.py"] == (True, 1, True)
    assert "def price(n)" in author.asked[-1] and "def add(self, n)" in author.asked[-1]


def test_parts_that_do_not_read_each_other_are_written_side_by_side(tmp_path: Path) -> None:
    """Though each may still be mended, and mending writes: what it may write is known."""
    order: list[str] = []

    class Watched(ScriptedProcessor):
        async def complete(self, request: Request, on_text: object = None):  # type: ignore[override]
            name = re.findall(r"part (\w+)", request.messages[-1].text)[0]
            order.append(f"+{name}")
            found = await super().complete(request)
            order.append(f"-{name}")
            return found

    with Machine(tmp_path, Watched(Author(), delay_s=0.2)) as machine:
        program = PROGRAM.replace(', tests=["tests/test_shop.py"]', "")
        more = '    FilePart("shop/tax.py", "part price", []),\n]\nmade'
        asyncio.run(machine.run(Job(program.replace("]\nmade", more, 1))))
    assert order[:2] == ["+store", "-store"], "until a model has answered, one is asked"
    assert order[2:4] == ["+price", "+price"] and order[-2:] == ["+app", "-app"]


def test_only_what_depends_on_a_change_is_written_again(tmp_path: Path) -> None:
    run(tmp_path, Author())
    author = Author(price=["def price(n):\n    return n + 2\n"])
    _, files = run(tmp_path, author, PROGRAM.replace("part price", "part price, cheaper"))
    assert [re.findall(r"part (\w+)", text)[0] for text in author.asked] == ["price", "app"]
    assert table(files)["tests"][0]


def test_a_program_carries_what_it_uses_of_the_library(tmp_path: Path) -> None:
    report, _ = run(tmp_path, Author())
    with Machine(tmp_path, ScriptedProcessor(str)) as machine:
        text = machine.history(report.run).program
    assert text.startswith(PROGRAM) and "def build_part(" in text


def test_a_budget_that_ends_in_the_middle_of_a_part_holds_it_back(tmp_path: Path) -> None:
    """It fails nothing: with more to spend the part goes on, and comes out the same."""
    wrong = ["class Store\n", "class Store:\n    x = y\n", STORE]
    _, wanted = run(tmp_path / "whole", Author(store=list(wrong)))
    place = tmp_path / "cut"
    author = Author(store=list(wrong))
    first, _ = run(place, author, budget=Budget(tokens=400))
    assert first.spent and not first.failures and 0 < len(author.asked) < 5
    with Machine(place, ScriptedProcessor(author)) as machine:
        last = asyncio.run(machine.resume(first.run, budget=Budget(tokens=10**6)))
        files = machine.ledger.call_now(
            lambda s: {
                f.path: s.read_file(last.run, f.path).decode() for f in s.list_files(last.run)
            }
        )
    assert last.state == "done" and files == wanted


def test_files_that_need_each_other_are_read_in_the_order_of_the_program(tmp_path: Path) -> None:
    """There is no deadlock: who reads before anybody has written says what is missing."""
    parts = (
        'sees = [View("shop/price.py", "")]\n'
        'parts = [FilePart("shop/store.py", "part store", sees),'
        ' FilePart("shop/price.py", "part price", [View("shop/store.py", "")])]\n'
        'made = build("A shop.", parts)\n'
    )
    report, files = run(tmp_path, Author(), parts)
    assert report.state == "partial" and "shop/store.py" not in files
    assert {s.failure.code for s in report.failures if s.failure} == {"path_not_granted"}


def test_a_run_keeps_the_program_that_it_was_begun_with(tmp_path: Path) -> None:
    """Edited while it runs, the file is another program: for the next run."""
    source = tmp_path / "p.edv"
    source.write_text(PROGRAM)

    def edits(text: str) -> str:
        source.write_text("edited = 1\n")
        return STORE

    report, files = run(tmp_path, Author(store=edits), source.read_text())
    assert report.state == "done" and table(files)["tests"][0]
    with Machine(tmp_path, ScriptedProcessor(str)) as machine:
        assert machine.history(report.run).program.startswith(PROGRAM)
