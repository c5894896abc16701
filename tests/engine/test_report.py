"""What an answer's tokens were and how likely; prompts of token ids, biases, and answers cut to the
room that there is."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from edvac.core.errors import ConfigError, OperandError
from edvac.engine.engine import Engine
from edvac.engine.prompt import tokenize
from edvac.engine.protocol import Done, FromEngine, Generate, Segment, Text, Token, Tokenize
from edvac.engine.weights import open_weights

from .test_engine import LIMITS, SCHEMA_TEXT, Make, ask, drain, make
from .tiny import SPECIALS

__all__ = ["make"]  # a fixture


def run(engine: Engine, request: Generate) -> tuple[list[Text], Done]:
    engine.submit(request)
    messages: list[FromEngine] = []
    while engine.busy:
        messages += engine.step()
    (done,) = [one for one in messages if isinstance(one, Done)]
    return [one for one in messages if isinstance(one, Text)], done


def spelled(tokens: list[Token]) -> str:
    return b"".join(one.piece for one in tokens).decode("utf-8", "replace")


def test_tokens_are_told_with_the_likeliest(make: Make) -> None:
    plain = drain(make(), ask("a", max_tokens=20))["a"]
    assert plain.chosen == []
    _, done = run(make(), ask("a", max_tokens=20, report=True, logprobs=3))
    assert done.text == plain.text and spelled(done.chosen) == plain.text
    assert len(done.chosen) == done.completion_tokens == 20
    for one in done.chosen:
        assert len(one.top) == 3 and one.logprob <= 0
        # Greedy: the token is the likeliest, and the others follow in order.
        assert one.top[0] == (one.id, one.piece, one.logprob)
        chances = [chance for _, _, chance in one.top]
        assert chances == sorted(chances, reverse=True)
        assert sum(map(math.exp, chances)) <= 1.000001


def test_all_chances_of_a_token_sum_to_one(make: Make) -> None:
    engine = make()
    size = engine.codec.size
    tops = min(100, size)
    _, done = run(engine, ask("a", max_tokens=4, report=True, logprobs=tops))
    # The vocabulary of this model is larger; what is missing is small but not nothing.
    assert all(0.5 < sum(math.exp(c) for _, _, c in one.top) < 1 for one in done.chosen)


def test_what_is_told_does_not_depend_on_drafts(make: Make) -> None:
    text = "again and again and again and again and again and"
    request = ask("a", text, max_tokens=40, report=True, logprobs=2)
    with_drafts = run(make(), request)[1]
    without = run(make(speculate=False), request)[1]
    assert [one.id for one in with_drafts.chosen] == [one.id for one in without.chosen]
    for one, other in zip(with_drafts.chosen, without.chosen, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_streamed_tokens_come_with_the_text_that_they_begin(make: Make) -> None:
    stop = drain(make(), ask("a", max_tokens=30))["a"].text[12:14]
    request = ask("a", max_tokens=30, report=True, logprobs=0, stop=[stop], stream=True)
    pieces, done = run(make(), request)
    assert done.finish_reason == "stop" and done.stop == stop and done.chosen == []
    tokens = [one for piece in pieces for one in piece.chosen]
    text = "".join(piece.text for piece in pieces)
    assert text == done.text
    # The last token may go on into what the stop string cut off; none begins behind it.
    assert spelled(tokens).startswith(text)
    assert len(spelled(tokens[:-1])) < len(text)


def test_under_a_grammar_no_token_is_told_that_was_not_chosen(make: Make) -> None:
    _, done = run(make(), ask("a", schema=SCHEMA_TEXT, max_tokens=90, report=True, logprobs=1))
    assert done.forced_tokens == 0 and spelled(done.chosen) == done.text
    assert all(one.logprob < 0 for one in done.chosen)
    _, forced = run(make(), ask("a", schema=SCHEMA_TEXT, max_tokens=90, report=True))
    assert forced.forced_tokens > 5 and spelled(forced.chosen) == forced.text
    assert all(one.logprob == 0 and not one.top for one in forced.chosen)


def test_a_bias_forbids_and_prefers(make: Make) -> None:
    engine = make()
    _, done = run(engine, ask("a", max_tokens=20, report=True))
    banned = {one.id: -math.inf for one in done.chosen}
    _, other = run(make(), ask("a", max_tokens=20, bias=banned, report=True))
    assert not banned.keys() & {one.id for one in other.chosen}
    _, same = run(make(), ask("a", max_tokens=5, bias={65: 1e6}, report=True))
    assert {one.id for one in same.chosen} == {65}


def test_a_prompt_of_token_ids_is_the_text_it_was_cut_from(make: Make) -> None:
    engine = make()
    request = ask("a", max_tokens=10)
    tokens: list[int] = []
    for segment in request.segments:
        tokens += engine.codec.encode(segment.text, segment.control)
    wanted = drain(make(), request)["a"]
    given = msgspec.structs.replace(request, segments=[Segment(tokens=tokens)])
    found = drain(make(), given)["a"]
    assert (found.text, found.prompt_tokens) == (wanted.text, wanted.prompt_tokens)


def test_an_answer_is_cut_to_the_room_that_its_prompt_leaves(make: Make) -> None:
    request = ask("a", "x" * 300, max_tokens=4000)
    with pytest.raises(OperandError):
        make().submit(request)
    done = drain(make(), msgspec.structs.replace(request, fit=True))["a"]
    assert done.prompt_tokens + done.completion_tokens == LIMITS.context
    assert done.finish_reason == "length"
    full = ask("a", "x" * 500, max_tokens=10, fit=True)
    with pytest.raises(OperandError, match="do not fit"):
        make().submit(full)


def test_what_cannot_be_meant_is_refused(make: Make) -> None:
    engine = make()
    for request in (
        ask("a", segments=[Segment(tokens=[engine.codec.size])]),
        ask("a", segments=[Segment(tokens=[-1])]),
        ask("a", logprobs=101),
        ask("a", bias={65: math.nan}),
        ask("a", bias={65: math.inf}),
        ask("a", bias={engine.codec.size: 1.0}),
    ):
        with pytest.raises(ConfigError):
            engine.submit(request)
    # A text that cannot fit is refused before it is cut into tokens.
    with pytest.raises(OperandError, match="characters"):
        engine.submit(ask("a", "x" * 4_000_000))
    assert not engine.busy


def test_texts_are_cut_into_tokens_and_put_together_again(tiny: Path) -> None:
    codec = open_weights(tiny).codec
    said = f"hell {SPECIALS[1]} 媽"
    data = tokenize(codec, Tokenize(id="t", segments=[Segment(said)]))
    template = tokenize(codec, Tokenize(id="t", segments=[Segment(said, control=True)]))
    assert b"".join(data.pieces).decode() == b"".join(template.pieces).decode() == said
    special = codec.control[SPECIALS[1]]
    assert special in template.tokens and special not in data.tokens
    again = tokenize(codec, Tokenize(id="t", segments=[Segment(tokens=template.tokens)]))
    assert again.pieces == template.pieces
    with pytest.raises(ConfigError):
        tokenize(codec, Tokenize(id="t", segments=[Segment(tokens=[codec.size])]))
