"""The grammar offers the paths that a task names, and no others."""

from __future__ import annotations

import llguidance
import pytest

from edvac.compiler.brief import read_brief
from edvac.compiler.examples import kinds_of_work
from edvac.compiler.grammar import Places, statement_grammar
from edvac.device import CATALOGUE

BYTES = llguidance.LLTokenizer("byte")
BILLS = "Read the bills in post/ and write the totals per vendor to sums.csv"
MAILS = "Answer the mails in post/*.eml, see rates.csv (place, rate), in answers/NAME.md"


def takes(task: str, statement: str) -> bool:
    places = Places.of(read_brief(task), kinds_of_work(task))
    lark = statement_grammar(CATALOGUE, ("csv.dump",), (), {"files", "doc", "llm"}, places=places)
    matcher = llguidance.LLMatcher(BYTES, llguidance.LLMatcher.grammar_from_lark(lark))
    tokens = BYTES.tokenize_str(statement + "\n")
    return matcher.try_consume_tokens(tokens) == len(tokens)


@pytest.mark.parametrize(
    ("task", "right", "wrong"),
    [
        (BILLS, 'files.list("post/*")', 'files.list("mails/*")'),
        (BILLS, 'files.list("post/*")', 'files.list("post/*.txt")'),
        (MAILS, 'files.list("post/*.eml")', 'files.list("answers/*.eml")'),
        (MAILS, 'files.read("rates.csv")', 'files.read("prices.csv")'),
    ],
)
def test_only_what_a_task_names_can_be_spelt(task: str, right: str, wrong: str) -> None:
    assert takes(task, f"x = {right}")
    assert not takes(task, f"x = {wrong}")


def test_a_result_is_written_where_the_task_says() -> None:
    assert takes(BILLS, 'files.write("sums.csv", csv.dump(rows))')
    assert not takes(BILLS, 'files.write("totals.csv", csv.dump(rows))')
    assert takes(MAILS, 'files.write(f"answers/{name}.md", answer)')
