"""Drafts change how many steps an answer takes and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvac.engine.engine import Engine
from edvac.engine.protocol import Done, FromEngine, Generate, Segment, Text
from edvac.engine.speculation import KERNELS, TENSORS, Costs, Experience, Memory, worthwhile

from .test_engine import LIMITS, PROMPTS, SCHEMA_TEXT, Make, ask, drain, make

__all__ = ["make"]  # the fixture

LARK = 'start: "the " (WORD " "){2,9} "end"\nWORD: "hello" | "hell" | "the"'
LOOP = 'start: ("the " WORD " "){30,40}\nWORD: "hello" | "hell" | "he"'
REPEATED = "the hello the hello the hell the hello the hello the hell the hello the "


def requests(**more: object) -> list[Generate]:
    """Long and short, free and bound, repetitive and not."""
    found = [ask(f"free{n}", text, max_tokens=40) for n, text in enumerate(PROMPTS)]
    found += [ask("schema", PROMPTS[1], schema=SCHEMA_TEXT, max_tokens=60)]
    found += [ask("lark", REPEATED, lark=LARK, max_tokens=60)]
    found += [ask("loop", REPEATED * 2, max_tokens=80)]
    return [msgspec.structs.replace(one, **more) for one in found]


def texts(engine: Engine, asked: list[Generate]) -> dict[str, tuple[str, int]]:
    return {
        name: (done.text, done.completion_tokens) for name, done in drain(engine, *asked).items()
    }


@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 0.9, "seed": 3}, {"temperature": 0.7, "top_k": 20, "top_p": 0.9}],
    ids=["greedy", "sampled", "narrowed"],
)
def test_drafts_do_not_change_reference_text(make: Make, sampling: dict[str, object]) -> None:
    asked = requests(**sampling)
    wanted = texts(make(speculate=False), asked)
    for limits in (LIMITS, replace(LIMITS, slots=1), replace(LIMITS, slots=8, step_tokens=9)):
        for jump_ahead in (True, False):
            engine = make(limits=limits, jump_ahead=jump_ahead)
            assert texts(engine, asked) == wanted
            assert texts(engine, asked) == wanted  # with every prompt cached
            assert engine.counters.drafted_tokens > 0


def test_drafts_of_repetitive_text_are_accepted(make: Make) -> None:
    request = ask("a", REPEATED * 2, lark=LOOP, max_tokens=150)
    plain, engine = make(speculate=False), make()
    assert drain(plain, request)["a"].text == drain(engine, request)["a"].text
    assert 0 < engine.counters.accepted_tokens <= engine.counters.drafted_tokens
    assert engine.counters.steps < plain.counters.steps
    assert plain.counters.drafted_tokens == 0
    done = drain(engine, request)["a"]
    assert 0 < done.accepted_tokens <= done.drafted_tokens


def test_drafts_keep_stops_limits_and_streams(make: Make) -> None:
    base = ask("a", REPEATED * 2, lark=LOOP, max_tokens=120)
    long = drain(make(speculate=False), base)["a"].text
    assert len(long) > 60, long
    for request in (
        msgspec.structs.replace(base, stop=[long[50:53]], stream=True),
        *(msgspec.structs.replace(base, max_tokens=n, stream=True) for n in (1, 2, 57)),
    ):
        wanted = drain(make(speculate=False), request)["a"]
        engine = make()
        engine.submit(request)
        messages: list[FromEngine] = []
        while engine.busy:
            messages += engine.step()
        shown = [message for message in messages if isinstance(message, Text)]
        done = next(message for message in messages if isinstance(message, Done))
        assert "".join(one.text for one in shown) == done.text == wanted.text
        assert done.finish_reason == wanted.finish_reason
        assert done.completion_tokens == wanted.completion_tokens


def test_a_cancelled_answer_leaves_only_accepted_tokens(make: Make) -> None:
    request = ask("a", REPEATED * 2, lark=LOOP, max_tokens=90)
    wanted = drain(make(speculate=False), request)["a"].text
    for steps in range(3, 20, 4):
        engine = make()
        engine.submit(request)
        for _ in range(steps):
            engine.step()
        (done,) = engine.cancel("a")
        assert isinstance(done, Done)
        assert wanted.startswith(done.text)
        more = Segment(done.text)
        follow = ask("b", segments=[*request.segments, more], max_tokens=20)
        again = drain(engine, follow)["b"]
        assert again.text == drain(make(speculate=False), follow)["b"].text
        assert again.cached_tokens >= done.prompt_tokens


def test_json_stays_json(make: Make) -> None:
    asked = [
        ask(str(n), PROMPTS[0] * 2, schema=SCHEMA_TEXT, max_tokens=90, temperature=1.0, seed=n)
        for n in range(4)
    ]
    for done in drain(make(False), *asked).values():
        assert done.finish_reason == "stop"
        assert json.loads(done.text)["currency"] in ("EUR", "USD")


@given(st.lists(st.integers(0, 3), min_size=3, max_size=60), st.integers(1, 15))
def test_guesses_continue_a_run_that_was_seen(tokens: list[int], most: int) -> None:
    memory = Memory(Experience())
    for size in range(2, len(tokens) + 1):
        part = tokens[:size]
        guess = memory.guess(part, most, None)
        seen = any(part[at : at + 2] == part[-2:] for at in range(size - 2))
        assert (guess is not None) == seen
        if guess is not None:
            run = part[-2:] + guess.tokens
            assert any(part[at : at + len(run)] == run for at in range(size - 2))
            assert 1 <= len(guess.tokens) <= most


class Never:
    def legal(self, tokens: list[int]) -> int:
        return 0


def test_a_grammar_cuts_guesses() -> None:
    memory = Memory(Experience())
    tokens = [1, 2, 3, 4, 1, 2, 3]
    assert memory.guess(tokens, 9, Never()) is None
    guess = memory.guess(tokens, 9, None)
    assert guess is not None
    assert guess.tokens == [4, 1, 2, 3]
    assert guess.agreed == 3


@pytest.mark.parametrize("costs", [TENSORS, KERNELS], ids=["tensors", "kernels"])
def test_rows_are_spent_where_they_pay(costs: Costs) -> None:
    assert all(costs.of(rows) <= costs.of(rows + 1) for rows in range(1, 64))
    assert costs.of(16) < 16 * costs.of(1), "rows of one step share the weights that it reads"
    assert worthwhile(15, 0.95, 1, 1.0, costs) > worthwhile(15, 0.7, 1, 1.0, costs) > 0
    assert worthwhile(15, 0.1, 1, 1.0, costs) == 0
    assert worthwhile(15, 0.5, 16, 16.0, costs) == 0


def test_experience_follows_what_happened() -> None:
    shared = Experience()
    own = shared.child()
    for _ in range(30):
        own.learn(3, 0, True)
    assert own.chance(3) < shared.chance(3) < Experience().chance(3)
    for _ in range(30):
        own.learn(3, 5, False)
    assert own.chance(3) > 0.9
    assert own.chance(9) == Experience().chance(9)
