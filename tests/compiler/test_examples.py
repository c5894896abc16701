"""The library of example programs: legal, complete, within the grammar, none of them the demo."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from pathlib import Path

import llguidance
import pytest

from edvac.compiler.examples import Example, library, similar
from edvac.compiler.grammar import statement_grammar
from edvac.compiler.rehearsal import rehearse
from edvac.compiler.review import review
from edvac.compiler.statements import statements
from edvac.device import CATALOGUE
from edvac.program import library as functions
from edvac.program import parse, verify_prefix

ROOT = Path(__file__).parents[2]
BYTES = llguidance.LLTokenizer("byte")
EXAMPLES = pytest.mark.parametrize("example", library(), ids=lambda example: example.name)


def demo_task() -> str:
    spec = importlib.util.spec_from_file_location("run_inbox", ROOT / "examples" / "run_inbox.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_inbox"] = module
    spec.loader.exec_module(module)
    return str(module.TASK)


def grammar_for(records: list[str]) -> str:
    names = [doc.name for doc in functions() if "self" not in doc.signature]
    reserved = {name.partition(".")[0] for name in names} | set(CATALOGUE.devices)
    return statement_grammar(CATALOGUE, names, records, reserved)


@functools.cache
def compiled(records: tuple[str, ...]) -> str:
    return str(llguidance.LLMatcher.grammar_from_lark(grammar_for(list(records))))


@EXAMPLES
def test_an_example_is_legal_and_does_what_its_task_names(example: Example) -> None:
    program = parse(example.program, CATALOGUE)
    rehearse(program)
    review(program, example.task)


@EXAMPLES
def test_an_example_can_be_written_under_the_grammar(example: Example) -> None:
    written = ""
    for piece in statements(example.program):
        scope = verify_prefix(written, CATALOGUE)
        matcher = llguidance.LLMatcher(BYTES, compiled(tuple(scope.records)))
        tokens = BYTES.tokenize_str(piece)
        taken = matcher.try_consume_tokens(tokens)
        assert taken == len(tokens), f"stopped before {piece[taken : taken + 40]!r}"
        written += piece


def test_the_grammar_refuses_the_faults_that_small_models_make() -> None:
    text = llguidance.LLMatcher.grammar_from_lark(grammar_for(["Invoice"]))
    for wrong in (
        'files = files.list("inbox/*")\n',
        "import csv\n",
        'x = files.open("a")\n',
        'x = llm.extract(doc.text("a"), str)\n',
        'print("done")\n',
        "class Letter:\n    file_name: str\n",
        "class Letter:\n    sender: str\n    path: str\n",
    ):
        matcher = llguidance.LLMatcher(BYTES, text)
        tokens = BYTES.tokenize_str(wrong)
        assert matcher.try_consume_tokens(tokens) < len(tokens), wrong


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def test_no_example_and_no_prompt_carries_the_demo() -> None:
    task = demo_task()
    unusual = {"inbox", "invoice", "invoices", "currency", "documents", "sender", "premium"}
    assert unusual <= words(task)
    for path in (ROOT / "src" / "edvac" / "compiler").rglob("*"):
        if not path.is_file() or path.suffix not in (".py", ".edv"):
            continue
        text = path.read_text(encoding="utf-8")
        assert "inbox" not in words(text), path
        assert len(unusual & words(text)) <= 2, path
    for example in library():
        shared = words(example.task) & words(task)
        assert len(shared) / len(words(task)) < 0.6, example.name


def test_the_nearest_example_comes_last_and_always_the_same() -> None:
    task = "Read the letters and collect name, company and phone number into a table"
    assert similar(task)[-1].name == "contacts"
    assert similar(task) == similar(task)
    assert similar("Translate the files into German")[-1].name == "translate"


def test_a_further_attempt_shows_other_examples() -> None:
    task = "Read the letters and collect name, company and phone number into a table"
    shown = [{one.name for one in similar(task, attempt=number)} for number in range(3)]
    assert all(shown) and not shown[0] & shown[1] and not (shown[0] | shown[1]) & shown[2]


def test_several_results_need_more_examples() -> None:
    one = "Count the rows of in.csv (name, town) per town in towns.csv (town, n)."
    assert len(similar(f"{one} Names of Rome go to rome.txt.")) == len(similar(one)) + 1


def test_examples_show_what_near_ones_do() -> None:
    """Two tables are joined, though the words for it are others than in any example."""
    task = (
        "prices.csv (fruit, price), orders.csv (who, fruit, kilos). What does each of them owe?"
        " owe.csv (who, amount)."
    )
    programs = " ".join(example.program for example in similar(task))
    assert "group(" in programs and "Decimal(" in programs
