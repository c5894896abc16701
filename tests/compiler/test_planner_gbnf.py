"""The planner's grammar in llama.cpp's notation: nothing that Lark allows is lost on the way."""

from __future__ import annotations

import functools
import json
import re

import llguidance
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance.gbnf_to_lark import gbnf_to_lark
from test_examples import EXAMPLES, grammar_for, statements

from edvac.compiler.examples import Example
from edvac.core.errors import InternalError
from edvac.device import CATALOGUE
from edvac.processor.gbnf import from_lark
from edvac.program import verify_prefix

BYTES = llguidance.LLTokenizer("byte")


@functools.cache
def compiled(gbnf: str) -> str:
    """By another reader of the notation than the one it is written for."""
    return str(llguidance.LLMatcher.grammar_from_lark(gbnf_to_lark(gbnf)))


@functools.cache
def written_with(records: tuple[str, ...]) -> str:
    return from_lark(grammar_for(list(records)))


def accepts(gbnf: str, text: str) -> bool:
    grammar = compiled(gbnf)
    matcher = llguidance.LLMatcher(BYTES, grammar)
    tokens = BYTES.tokenize_str(text)
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and not matcher.is_error())


@EXAMPLES
def test_an_example_can_be_written_under_it(example: Example) -> None:
    written = ""
    for piece in statements(example.program):
        scope = verify_prefix(written, CATALOGUE)
        assert accepts(written_with(tuple(scope.records)), piece), piece
        written += piece


@pytest.mark.parametrize(
    "wrong",
    ["import csv\n", 'x = files.open("a")\n', 'print("done")\n', "x = (\n", "class a:\n"],
)
def test_what_it_refuses(wrong: str) -> None:
    assert not accepts(from_lark(grammar_for(["Invoice"])), wrong)


REGEXES = (
    r"[a-z]{2,3}",
    r"a|bc",
    r"(a|b)*c",
    r"x?y+",
    r"[^a\n]",
    r"-?[0-9]{1,9}(\.[0-9]{1,4})?",
    r"\d\w",
    r"\"[a\\]\"",
    r"a.c",
)


@given(st.sampled_from(REGEXES), st.text(alphabet='abcxy01.-"\\\n', max_size=6))
def test_a_regular_expression_means_the_same(pattern: str, text: str) -> None:
    gbnf = from_lark(f"start: WORD\nWORD: /{pattern}/\n")
    grammar = llguidance.LLMatcher.grammar_from_lark(gbnf_to_lark(gbnf))
    matcher = llguidance.LLMatcher(BYTES, grammar)
    tokens = BYTES.tokenize_str(text)
    whole = matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
    assert whole is (re.fullmatch(pattern, text) is not None)


@given(st.text(alphabet='ab"\\\n\t', max_size=6))
def test_a_text_means_itself(text: str) -> None:
    assert accepts(from_lark(f"start: {json.dumps('x' + text)}\n"), "x" + text)


@pytest.mark.parametrize("line", ["start = a", "start: %json {}", "start: /(?=a)b/", "start: <x>"])
def test_what_it_does_not_know_is_refused(line: str) -> None:
    with pytest.raises(InternalError) as refused:
        from_lark(line + "\n")
    assert refused.value.code == "grammar_untranslated"
