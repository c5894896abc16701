"""The roles plan, work and escalate: from the file and the command line to who is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli_kit import Bench

from edvac.cli.plan import describe_plan
from edvac.machine import processors
from edvac.machine.settings import Settings

CHOOSE = 'files.write("a.txt", llm.choose("Which?", ["x", "y"]))\n'


def yes(request: Any) -> str:
    return json.dumps({"answer": "y"}) if request.schema else "hello"


def asked(edvac: Bench) -> dict[str, int]:
    """Calls of each model in the last command."""
    return {made.identity: made.calls for made in edvac.processors}


@pytest.fixture
def roles(edvac: Bench) -> Bench:
    edvac.answers = {"weak": lambda _: "no JSON", "strong": yes}
    edvac.write("q.edv", CHOOSE)
    return edvac


def test_the_escalate_role_from_the_file(roles: Bench) -> None:
    roles.write("edvac.toml", 'model = "weak"\nescalate_model = "strong"\n')
    done = roles("run", "q.edv", "--yes")
    assert done.code == 0
    assert asked(roles) == {"weak": 2, "strong": 1}
    assert "now the escalate model" in done.err
    assert "1 value made by the escalate model strong: llm.choose@1" in done.err
    assert "(by strong)" in roles("show").out
    shown = roles("show", "--json").document["steps"]
    assert [s["model"] for s in shown if s["op"] == "llm.choose"] == ["strong"]


def test_the_escalate_role_from_the_command_line_stays_with_the_run(roles: Bench) -> None:
    roles.answers["strong"] = lambda _: "no JSON either"
    flags = ("--model", "weak", "--escalate-model", "strong")
    assert roles("run", "q.edv", "--yes", *flags).code == 1
    roles.answers["strong"] = yes
    roles.processors.clear()
    assert roles("resume", "--retry").code == 0
    assert asked(roles) == {"weak": 2, "strong": 1}


def test_a_resumed_run_does_not_take_the_escalate_model_of_today(roles: Bench) -> None:
    assert roles("run", "q.edv", "--yes", "--model", "weak").code == 1
    roles.write("edvac.toml", 'escalate_model = "strong"\n')
    assert roles("resume", "--retry").code == 1
    assert roles("resume", "--retry", "--escalate-model", "strong").code == 0


def test_one_model_in_two_roles_is_one_processor(roles: Bench) -> None:
    made = processors.choose_roles(Settings(model="a", plan_model="b", escalate_model="b"))
    assert len(roles.processors) == 2
    assert made.plan is made.escalate is not made.work
    made = processors.choose_roles(Settings(model="a", escalate_model="a"))
    assert made.plan is made.work and made.escalate is None, "the same model again is of no use"


def test_the_plan_role_writes_and_the_work_role_executes(roles: Bench) -> None:
    def planner(request: Any) -> str:
        return 'files.write("plan.txt", llm.write("Say hello"))\n' if turn(request) else "```"

    def turn(request: Any) -> bool:
        return "plan.txt" not in request.prefill

    roles.answers |= {"big": planner, "small": yes}
    done = roles("run", "Write plan.txt", "--yes", "--model", "small", "--plan-model", "big")
    assert done.code == 0, done.err
    found = asked(roles)
    assert found["small"] == 1 and found["big"] >= 1
    roles.processors.clear()
    done = roles("run", "Write plan.txt", "--yes", "--model", "small", "--plan-model", "big")
    assert "the plan of an earlier run is used" in done.err and asked(roles)["big"] == 0
    done = roles("run", "Write plan.txt", "--yes", "--model", "small", "--plan-model", "strong")
    assert "the plan of an earlier run is used" not in done.err, "another planner"


def test_every_endpoint_that_may_be_contacted_is_shown() -> None:
    settings = Settings(model="m", plan_model="http://a/v1#x", escalate_model="https://b/v1#y")
    shown = describe_plan("a = 1\n", {}, settings, with_text=False)[-1]
    assert "http://a/v1#x" in shown and "https://b/v1#y" in shown
    assert "nothing outside" in describe_plan("a = 1\n", {}, Settings(), with_text=False)[-1]
