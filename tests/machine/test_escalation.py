"""A value that does not fit its type twice goes once to the escalate model, and says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edvac.core.errors import ProcessorError
from edvac.core.value import Failed, plain, total_label
from edvac.machine import Job, Machine, Report
from edvac.machine.entry import Entry
from edvac.machine.machine import Terminal
from edvac.processor.scripted import ScriptedProcessor

TEXT = """
class Item:
    word: str

a = llm.extract("first", Item)
b = llm.extract("second", Item)
c = llm.choose("Which?", ["x", "y"], "third")
d = llm.write("Say it", "fourth")
"""
Script = Callable[[Any], str]


def good(request: Any) -> str:
    if request.schema is None:
        return "said"
    return json.dumps({"answer": "y"} if "third" in request.messages[-1].text else {"word": "w"})


def weak(request: Any) -> str:
    """Does not manage the second and the third."""
    text = request.messages[-1].text
    return "no JSON" if "second" in text or "third" in text else good(request)


class Rig:
    def __init__(self, work: Path) -> None:
        self.work = work
        self.weak = ScriptedProcessor(weak, name="weak")
        self.strong: ScriptedProcessor | None = ScriptedProcessor(good, name="strong")
        self.events: list[Any] = []

    def machine(self) -> Machine:
        return Machine(self.work, self.weak, escalate=self.strong)

    def run(self, text: str = TEXT) -> Report:
        with self.machine() as machine:
            job = Job(text, seed=1)
            return asyncio.run(machine.run(job, Terminal(self.events.append)))

    def resume(self, run: str, **more: Any) -> Report:
        with self.machine() as machine:
            return asyncio.run(machine.resume(run, Terminal(self.events.append), **more))

    def entries(self, run: str) -> dict[str, Entry]:
        with self.machine() as machine:
            found = machine.history(run).entries
        return {entry.address: entry for entry in found if entry.kind == "outcome"}

    @property
    def calls(self) -> tuple[int, int]:
        assert self.strong is not None
        return self.weak.calls, self.strong.calls


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_only_what_failed_twice_is_escalated_and_the_record_names_the_model(rig: Rig) -> None:
    report = rig.run()
    assert report.state == "done"
    assert rig.calls == (6, 2)
    found = rig.entries(report.run)
    made = {at: (e.body["model"], e.body.get("escalated", False)) for at, e in found.items()}
    assert made == {
        "a": ("weak", False),
        "b": ("strong", True),
        "c": ("strong", True),
        "d": ("weak", False),
    }
    assert plain(found["b"].value) == {"word": "w"}
    value = found["b"].value
    assert value is not None and "model:strong" in total_label(value).sources
    assert "escalate model strong" in found["b"].body["notes"][0]
    assert [e.slot for e in rig.events if getattr(e, "escalated", False)]
    assert [e for e in rig.events if "escalate model strong" in getattr(e, "text", "")]


def test_without_an_escalate_model_it_fails_as_before(rig: Rig) -> None:
    rig.strong = None
    report = rig.run()
    assert (report.state, rig.weak.calls) == ("partial", 6)
    assert isinstance(rig.entries(report.run)["b"].value, Failed)
    rig.strong = ScriptedProcessor(good, name="strong")
    assert rig.resume(report.run, retry=True).state == "done"
    assert rig.calls == (10, 2)


def test_the_escalate_model_is_asked_once(rig: Rig) -> None:
    rig.strong = ScriptedProcessor(lambda _: "no JSON either", name="strong")
    report = rig.run()
    assert (report.state, rig.calls) == ("partial", (6, 2))
    failed = rig.entries(report.run)["b"]
    assert failed.body["model"] == "strong"
    assert rig.resume(report.run, retry=True).state == "partial"
    assert rig.calls == (10, 4), "a retry begins anew"


def test_reuse_says_whose_value_it_is_and_asks_nobody(rig: Rig) -> None:
    rig.run()
    report = rig.run()
    assert (report.counts["reused"], rig.calls) == (4, (6, 2))
    again = rig.entries(report.run)["b"].body
    assert (again["model"], again["escalated"], again["reused"]) == ("strong", True, True)


def test_reuse_does_not_mix_models(rig: Rig) -> None:
    rig.run()
    rig.strong = ScriptedProcessor(good, name="other")
    report = rig.run()
    assert report.counts["reused"] == 2, "what the work model made stays"
    assert rig.strong.calls == 2
    assert rig.entries(report.run)["b"].body["model"] == "other"
    rig.strong = None
    report = rig.run()
    assert report.state == "partial", "without it nothing of it is taken"
    rig.weak = ScriptedProcessor(good, name="better")
    report = rig.run()
    assert (report.state, report.counts["reused"]) == ("done", 0)


@pytest.mark.usefixtures("hasty")
def test_an_escalate_model_that_is_away_is_tried_again(rig: Rig) -> None:
    said: list[str] = []

    def sometimes(request: Any) -> str:
        said.append(request.messages[-1].text)
        if len(said) == 1:
            raise ProcessorError("endpoint_away", "it is away")
        return good(request)

    rig.strong = ScriptedProcessor(sometimes, name="strong")
    report = rig.run()
    assert report.state == "done"
    assert rig.calls == (6, 3)
    assert "refused" not in said[0], "it is asked as if for the first time"


def test_a_run_killed_after_the_turn_was_journalled_goes_on_there(rig: Rig) -> None:
    """The process dies while the escalate model answers: the work model is not asked again."""

    class Killed(BaseException):
        pass

    def dies(request: Any) -> str:
        raise Killed

    rig.strong = ScriptedProcessor(dies, name="strong")
    with pytest.raises(Killed):
        rig.run('c = llm.choose("Which?", ["x", "y"], "third")\n')
    with rig.machine() as machine:
        run = machine.find(None).id
        kinds = [e.kind for e in machine.history(run).entries if e.body.get("escalated")]
    assert kinds == ["intent"] and rig.weak.calls == 2
    rig.strong = ScriptedProcessor(good, name="strong")
    report = rig.resume(run)
    assert report.state == "done"
    assert rig.entries(run)["c"].body["model"] == "strong"
    assert rig.weak.calls == 2, "the work model is not asked again"
