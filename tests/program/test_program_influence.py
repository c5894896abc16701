"""What a check says could influence a call is no less than what influences it in any run."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from program_kit import CATALOGUE, NaiveHost, run
from test_program_order import legal, world

from edvac.core.label import PUBLIC, UNBOUNDED, Label
from edvac.core.value import completed, first_failure, total_label
from edvac.guard import Ask, decide, foreseen
from edvac.guard.load import shipped
from edvac.program import Program, StepCall, parse
from edvac.program.influence import Influence, influences

SEEDS = int(os.environ.get("EDVAC_SEEDS", "200"))
OWN = frozenset({"program", "user"})


def check(text: str) -> dict[str, Influence]:
    """By the operation and its line."""
    found = influences(parse(text, CATALOGUE))
    return {f"{one.op}@{one.line}": one for one in found}


def call_label(call: StepCall) -> Label:
    """Of a result: the call itself, what it was given, and what decided on it."""
    label = Label.of([f"{call.op}@{call.line}"], bits=UNBOUNDED)
    for operand in call.args.values():
        label = label.join(total_label(completed(operand)))
    return label.steer(call.branch)


@pytest.mark.parametrize("part", range(4))
def test_nothing_influences_a_call_that_the_check_does_not_name(part: int) -> None:
    for seed in range(part, SEEDS, 4):
        program = legal(random.Random(seed))
        if program is not None:
            assert_named(program, seed)


def assert_named(program: Program, seed: int) -> None:
    found: dict[tuple[str, int], Influence] = {}
    for one in influences(program, lambda node, own: [f"{own.op}@{node.lineno}"]):
        known = found.setdefault((one.op, one.line), one)  # a line may hold several
        known.branch = known.branch.join(one.branch)
        for name, label in one.params.items():
            known.params[name] = known.params.get(name, PUBLIC).join(label)
    _, host = run(program, world, seed=seed, host=NaiveHost(world, label=call_label))
    for call in host.calls:
        said = found[call.op, call.line]
        assert said.effect is call.signature.effect
        beyond = call.branch.integrity - said.branch.integrity - OWN
        assert not beyond, f"{call.address} is decided by {beyond}\n{program.text}"
        for name, operand in call.args.items():
            label = total_label(completed(operand))
            static = said.params.get(name, PUBLIC).join(said.branch)
            beyond = label.integrity - static.integrity - OWN
            assert not beyond, f"{call.address}: {name} has {beyond}\n{program.text}"
            if first_failure(completed(operand)) is not None:
                continue  # why something failed says also what decided it
            data = label.sources - said.params.get(name, PUBLIC).sources - OWN
            assert not data, f"{call.address}: {name} reveals {data}\n{program.text}"
        values = {name: completed(operand) for name, operand in call.args.items()}
        failed = any(first_failure(value) is not None for value in values.values())
        if not failed and isinstance(decide(call, values), Ask):
            answer = foreseen(shipped(), call.signature, said.params, said.branch)
            assert answer == "ask", f"{call.address} is asked about\n{program.text}"


def test_both_arms_count_also_the_one_not_taken() -> None:
    """C2: that a name was *not* bound anew tells what decided it."""
    found = check(
        """flag = llm.choose("Is it urgent?", ["yes", "no"], files.read("in/a.txt"))
note = "nothing"
if flag == "yes":
    note = "urgent"
mail.send("me", note)
"""
    )
    sent = found["mail.send@5"]
    assert "file:in/a.txt" in sent.params["text"].steered
    assert "file:in/a.txt" not in sent.params["text"].sources
    assert not sent.params["to"].integrity - OWN and not sent.branch.integrity


def test_a_call_in_a_branch_names_who_decides_it() -> None:
    """C1: nothing untrusted is in the mail, but whether it is sent is up to a stranger."""
    found = check(
        """if "pay" in files.read("in/a.txt"):
    mail.send("bank", "pay")
"""
    )
    assert "file:in/a.txt" in found["mail.send@2"].branch.integrity
    assert not found["mail.send@2"].params["text"].integrity - OWN


def test_what_went_through_a_file_of_the_run_is_followed() -> None:
    found = check(
        """secret = files.read("in/secret.txt")
files.write("out/copy.txt", secret)
mail.send("me", files.read("out/copy.txt"))
mail.send("me", files.read("in/other.txt"))
"""
    )
    assert "file:in/secret.txt" in found["mail.send@3"].reveals
    assert "file:in/secret.txt" not in found["mail.send@4"].reveals


@pytest.mark.parametrize(
    ("written", "read", "follows"),
    [
        ("out/a.txt", "out/a.txt", True),
        ("out/a.txt", "out/b.txt", False),
        ("out/a.txt", "out", True),
        ("out", "out/a.txt", True),
        ("out/a.txt", "out/*.txt", True),
        ("out/a.txt", "out/*.md", False),
    ],
)
def test_what_is_written_is_read_where_the_paths_may_be_one(
    written: str, read: str, follows: bool
) -> None:
    found = check(
        f'''files.write("{written}", files.read("secret.txt"))
mail.send("me", f"{{files.list('{read}')}}")
'''
    )
    assert ("file:secret.txt" in found["mail.send@2"].reveals) is follows


def test_a_later_line_reaches_an_earlier_one_through_a_loop() -> None:
    found = check(
        """last = "start"
for p in files.list("in/*"):
    mail.send("me", last)
    last = files.read(p)
"""
    )
    assert "file:in/*" in found["mail.send@3"].reveals
    assert "name:in/*" in found["mail.send@3"].branch.integrity


def test_a_function_is_entered_with_what_it_is_given() -> None:
    found = check(
        """def tell(to, what):
    mail.send(to, what)
    return what

tell("me", "hello")
tell("you", files.read("in/a.txt"))
"""
    )
    sent = found["mail.send@2"]
    assert "file:in/a.txt" in sent.reveals and not sent.params["to"].integrity - OWN


def test_a_changed_container_keeps_what_was_put_in() -> None:
    found = check(
        """rows = ["a"]
rows.append(files.read("in/a.txt"))
table = {}
table["k"] = files.read("in/b.txt")
mail.send("me", f"{rows} {table}")
"""
    )
    assert {"file:in/a.txt", "file:in/b.txt"} <= found["mail.send@5"].reveals


def test_calls_come_in_the_order_of_the_text() -> None:
    found: Any = check('mail.send("a", llm.write("x"))\nmail.send("b", "y")\n')
    assert list(found) == ["mail.send@1", "llm.write@1", "mail.send@2"]
