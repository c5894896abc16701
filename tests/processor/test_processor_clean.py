"""Thinking and fences come off a value, and nothing else does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvac.processor.clean import fenced_json, unfenced, without_thinking

THINKING = {
    "<think>hm\nhm</think>\n\nThe answer": "The answer",
    "  <think></think>The answer": "The answer",
    "hm, hm</think>\nThe answer": "The answer",  # opened by the template
    "<thinking>a</thinking><think>b</think>The answer": "The answer",
    "[THINK]hm[/THINK]The answer": "The answer",
    "<seed:think>hm</seed:think>The answer": "The answer",
    "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>The answer"
    "<|return|>": "The answer",
    "<|channel|>final<|message|>The answer": "The answer",
    "<think>never closed": "",
    '<think>hm</think>{"a": "</think>"}': '{"a": "</think>"}',
    '{"a": "x</think>y"}': '{"a": "x</think>y"}',
    "The answer": "The answer",
    "  The answer\n": "  The answer\n",
    "I say <think>this</think> inside": "I say <think>this</think> inside",
    "": "",
}


@pytest.mark.parametrize("text", THINKING)
def test_thinking_comes_off(text: str) -> None:
    assert without_thinking(text) == THINKING[text]


FENCES = {
    "```\nbody\n```": "body\n",
    "```markdown\n# A\n\nb\n```": "# A\n\nb\n",
    "~~~\nbody\n~~~": "body\n",
    "````\n```\nin\n```\n````": "```\nin\n```\n",
    "Here:\n```\nbody\n```": "Here:\n```\nbody\n```",
    "```\na\n```\ntext\n```\nb\n```": "```\na\n```\ntext\n```\nb\n```",
    "```\nnever closed": "```\nnever closed",
    "no fence": "no fence",
    "": "",
}


@pytest.mark.parametrize("text", FENCES)
def test_a_fence_around_everything_comes_off(text: str) -> None:
    assert unfenced(text) == FENCES[text]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('Here it is:\n```json\n{"a": 1}\n```\nBye.', '{"a": 1}'),
        (' {"a": "```\\nx\\n```"} ', '{"a": "```\\nx\\n```"}'),
        ("```\n1\n```\n```\n2\n```", "```\n1\n```\n```\n2\n```"),
        ("[1]", "[1]"),
    ],
)
def test_json_in_an_answer_that_talks(text: str, found: str) -> None:
    assert fenced_json(text) == found


texts = st.text(alphabet=st.sampled_from(list('ab`~<>/{}"\n think[]|')), max_size=80)


@given(texts)
def test_any_text_is_kept_but_for_what_surrounds_it(text: str) -> None:
    for clean in (without_thinking, unfenced, fenced_json):
        assert clean(text) in text or clean(text).strip() in text


@given(st.recursive(texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)))
def test_json_keeps_every_text_in_it(data: object) -> None:
    text = json.dumps({"answer": data})
    for given_as in (text, f"```json\n{text}\n```", f"<think>so</think>{text}"):
        assert json.loads(fenced_json(without_thinking(given_as))) == {"answer": data}


def test_hostile_texts_take_no_time() -> None:
    for text in ("```\n" * 200_000, "~~~\n```\n" * 100_000, "<think>" * 100_000, "`" * 10**6):
        for clean in (without_thinking, unfenced, fenced_json):
            clean(text)
