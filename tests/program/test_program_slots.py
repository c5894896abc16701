"""A slot names a step whatever else the program does and however its inputs are ordered."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_kit import run

from edvac.program import StepCall
from edvac.program.data import python

LOOP = """
paths = files.list("in/*")
notes = [llm.write("sum up", doc.text(p)) for p in paths]
for n in notes:
    files.write("out.txt", llm.write("again", n))
def look(p):
    a = doc.text(p)
    return llm.write("look", a)
looks = {p: look(p) for p in paths if p != "skip"}
pairs = [llm.write("pair", p, n) for p, n in zip(paths, notes)]
"""


def steps(text: str, paths: list[str], seed: int | None = 0) -> list[StepCall]:
    """The steps of a run over these paths."""

    def answer(call: StepCall, args: dict[str, Any]) -> Any:
        return paths if call.op == "files.list" else f"{call.op}({list(args.values())})"

    return run(text, answer, seed=seed)[1].calls


def slots(text: str, paths: list[str], seed: int | None = 0) -> dict[str, str]:
    """Each slot with what it stands for: the operation and its operands."""
    return {
        call.slot: f"{call.op} {[python(one) for one in call.args.values()]}"
        for call in steps(text, paths, seed)
    }


@given(st.lists(st.sampled_from("abcdef"), max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_permuting_elements_keeps_slots(paths: list[str], chance: random.Random) -> None:
    mixed = list(paths)
    chance.shuffle(mixed)
    assert slots(LOOP, paths) == slots(LOOP, mixed)


@given(st.lists(st.sampled_from("abcdef"), max_size=5), st.sampled_from("abcxyz"), st.data())
@settings(max_examples=60, deadline=None)
def test_inserting_an_element_keeps_the_others(
    paths: list[str], new: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(paths)))
    before, after = slots(LOOP, paths), slots(LOOP, [*paths[:at], new, *paths[at:]])
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace(
            'paths = files.list("in/*")', '# why\npaths = files.list("in/*")'
        ),
        lambda text: text.replace('"sum up", doc.text(p)', '"sum up",   doc.text( p )  # c\n'),
        lambda text: "x = 1 + 1\n" + text,
        lambda text: text + "y = len(notes)\n",
        lambda text: text + 'z = llm.write("new line", "x")\n',
        lambda text: text.replace('p != "skip"', "p != 'skip'"),
    ],
)
def test_layout_and_other_lines_do_not_matter(edit: Any) -> None:
    paths = ["a", "b", "a"]
    assert slots(LOOP, paths).items() <= slots(edit(LOOP), paths).items()


def test_editing_a_line_changes_its_own_steps() -> None:
    kept = slots(LOOP.replace("sum up", "sum"), ["a", "b"])
    gone = {call.line for call in steps(LOOP, ["a", "b"]) if call.slot not in kept}
    # The loops over `notes` and over pairs with them run over other elements then, so they change.
    assert gone == {3, 5, 10}


def test_equal_elements_are_told_apart_by_ordinal() -> None:
    assert len(slots(LOOP, ["a", "a", "a"])) == 1 + 3 * 7


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_slots_do_not_depend_on_timing(seed: int | None) -> None:
    assert slots(LOOP, ["b", "a", "a"], seed) == slots(LOOP, ["b", "a", "a"], 0)


def test_a_pending_element_is_known_by_its_step() -> None:
    reached: list[str] = []

    def answer(call: StepCall, args: dict[str, Any]) -> Any:
        reached.append(call.address)
        return ["a", "b"] if call.op == "files.list" else "t"

    text = 'a = llm.write("x")\nfor n in [a, llm.write("y")]:\n    z = llm.write("z", "c")\n'
    evaluator, host = run(text, answer)
    assert evaluator.finished and host.opened == 0, "the loop unfolds before its elements are known"
    assert [call.address for call in host.calls] == ["a", "n.llm.write", "z[0]", "z[1]"]
