"""Why steps ran; what two runs have apart; a run begun from a step of another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edvac.core.errors import UsageError
from edvac.device import CATALOGUE
from edvac.machine import Job, Machine, Report
from edvac.machine.explain import apart, explain
from edvac.machine.fork import fork
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor

PROGRAM = """\
word = param("first")
texts = [files.read(p) for p in files.list("in/*")]
notes = [llm.write("note", part) for part in texts]
whole = llm.write("all", notes, word)
files.write("notes.txt", "\\n".join(notes))
files.write("all.txt", whole)
"""


class Place:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "in").mkdir()
        (root / "ws").mkdir()
        self.write("a.txt", "apple")
        self.write("b.txt", "beech")
        self.calls = 0
        self.model = "one"

    def write(self, name: str, text: str) -> None:
        (self.root / "in" / name).write_text(text)

    def machine(self) -> Machine:
        def script(request: Request) -> str:
            self.calls += 1
            text = "".join(part.text for part in request.messages[-1].segments)
            return f"{text.split()[0]}:{len(text)}:{sum(map(ord, text)) % 997}"

        return Machine(self.root / "ws", ScriptedProcessor(script, name=self.model))

    def run(self, program: str = PROGRAM, **options: object) -> Report:
        job = Job(program, roots={"in": self.root / "in"}, name="p", **options)  # type: ignore[arg-type]
        with self.machine() as machine:
            return asyncio.run(machine.run(job))

    def why(self, run: str) -> dict[str, str]:
        with self.machine() as machine:
            _, reasons = machine.ledger.call_now(lambda store: explain(store, run))
        return {r.address: ("ran: " if r.ran else "not: ") + r.why for r in reasons}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_first_run_has_nothing_to_be_compared_with(place: Place) -> None:
    why = place.why(place.run().run)
    assert set(why.values()) == {"ran: there is no earlier run of this program"}
    assert len(why) == 8


def test_a_file_that_was_added_and_what_follows_from_it(place: Place) -> None:
    place.run()
    place.write("c.txt", "cedar")
    why = place.why(place.run().run)
    assert why["notes[0]"].startswith("not: an earlier result was taken")
    assert why["notes[2]"] == "ran: its line, or what it is done for, is new"
    assert why["whole"] == "ran: its operands differ: notes came out differently"


def test_a_file_that_was_changed(place: Place) -> None:
    place.run()
    place.write("b.txt", "birch")
    why = place.why(place.run().run)
    assert "texts" in why["notes[1]"] and why["notes[0]"].startswith("not")


def test_a_parameter_another_model_and_fresh(place: Place) -> None:
    place.run()
    why = place.why(place.run(settings={"word": "second"}).run)
    assert why["whole"].startswith("ran: its operands differ: the line, a parameter")
    assert place.why(place.run(fresh=True).run)["whole"] == "ran: --fresh was given"
    place.model = "two"
    assert place.why(place.run().run)["notes[0]"].startswith("ran: another model: two")


def test_two_runs_apart(place: Place) -> None:
    old = place.run().run
    place.write("b.txt", "birch")
    new = place.run(PROGRAM.replace('"all", notes', '"every", notes')).run
    with place.machine() as machine:
        found = machine.ledger.call_now(lambda store: apart(store, old, new))
        same = machine.ledger.call_now(lambda store: apart(store, old, old))
    assert same.empty and not found.empty
    changes = {step.address: step.change for step in found.steps}
    assert changes["texts[1].files.read" if "texts[1].files.read" in changes else "texts[1]"]
    assert changes["notes[1]"] == "added" or changes["notes[1]"] == "changed"
    assert set(found.files) == {"notes.txt", "all.txt"}
    assert found.files["all.txt"][0].startswith("all:")
    assert found.files["all.txt"][1].startswith("every:")


def forked(place: Place, run: str, step: str, **options: object) -> tuple[str, int]:
    with place.machine() as machine:
        return machine.ledger.call_now(
            lambda store: fork(
                store,
                run,
                step,
                CATALOGUE,
                clock=machine.clock,
                entropy=machine.entropy,
                **options,  # type: ignore[arg-type]
            )
        )


def resumed(place: Place, run: str) -> Report:
    with place.machine() as machine:
        return asyncio.run(machine.resume(run))


def test_a_fork_executes_only_what_depends_on_the_step(place: Place) -> None:
    old = place.run(fresh=True).run
    place.calls = 0
    new, kept = forked(place, old, "notes[1]")
    report = resumed(place, new)
    assert report.state == "done" and place.calls == 1  # it came out the same: nothing more
    why = place.why(new)
    assert why.pop("notes[1]").startswith("ran: ")
    assert set(why.values()) == {f"not: the run was begun from {old}, which had done it"}
    assert 0 < report.counts["completion"] < 10, "what the old run used is counted there"
    assert kept == 7
    with place.machine() as machine:
        assert machine.ledger.call_now(lambda store: apart(store, old, new)).empty


def test_a_fork_with_another_program(place: Place) -> None:
    old = place.run(fresh=True).run
    place.calls = 0
    text = PROGRAM.replace('llm.write("note", part)', 'llm.write("remark", part)')
    new, _ = forked(place, old, "notes", program=text)
    assert resumed(place, new).state == "done"
    assert place.calls == 3  # two remarks, and what is made of them
    with place.machine() as machine:
        files = machine.ledger.call_now(
            lambda store: [store.read_file(run, "notes.txt") for run in (old, new)]
        )
    assert files[0].startswith(b"note:") and files[1].startswith(b"remark:")


def test_a_fork_with_another_setting(place: Place) -> None:
    old = place.run(fresh=True).run
    place.calls = 0
    new, _ = forked(place, old, "whole", settings={"word": "other"})
    assert resumed(place, new).state == "done" and place.calls == 1


def test_a_step_that_is_not_there(place: Place) -> None:
    old = place.run().run
    with pytest.raises(UsageError) as caught:
        forked(place, old, "note[1]")
    assert caught.value.code == "step_unknown" and "notes[1]" in str(caught.value.fix)


def test_an_illegal_program_forks_nothing(place: Place) -> None:
    old = place.run().run
    with pytest.raises(UsageError):
        forked(place, old, "whole", program="x = nothing()\n")
    with place.machine() as machine:
        assert len(machine.ledger.call_now(lambda store: store.runs())) == 1


def test_a_device_is_no_name_that_came_out_differently(place: Place) -> None:
    text = PROGRAM + 'files.write("more.txt", llm.write("more", notes))\n'
    place.run(text)
    place.write("c.txt", "cedar")
    why = place.why(place.run(text).run)
    [said] = [reason for address, reason in why.items() if address.startswith("llm.write@")]
    assert said == "ran: its operands differ: notes came out differently"
