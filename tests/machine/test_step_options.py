"""What a program says of a step beside its operands, the name under which a service knows it, and
how its effect is taken back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import Body, Handler, running
from machine_kit import Bench, Post

from edvac.control.step import Limits
from edvac.core.errors import ProgramError, TransientError, UsageError
from edvac.core.label import PROGRAM, Label
from edvac.core.schema import STR
from edvac.core.signature import Effect, Param, Signature
from edvac.core.value import Failed, Scalar
from edvac.device import CATALOGUE, Call, Reply
from edvac.machine import Job, Machine, machine
from edvac.machine.machine import Terminal
from edvac.processor.openai import OpenAIProcessor
from edvac.processor.scripted import ScriptedProcessor
from edvac.program import check, parse


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts take no time."""
    monkeypatch.setattr(machine, "Limits", lambda **given: Limits(**given, backoff_s=0.0))


# -- how often, and how long


@pytest.mark.parametrize(
    ("words", "attempts"), [("", 5), (", retries=0", 1), (", retries=2", 3), (", retries=n", 2)]
)
def test_a_step_is_tried_as_often_as_it_says(bench: Bench, words: str, attempts: int) -> None:
    tried: list[str] = []

    async def fail(call: Call) -> None:
        tried.append(call.address)
        raise TransientError("busy", "it is busy")

    bench.post = Post(fail)
    report = bench.run(f"n = param(1)\nx = mail.wait('x'{words})\n")
    assert report.state == "partial" and len(tried) == attempts
    with bench.open() as opened:
        outcome = next(e for e in opened.history(report.run).entries if e.kind == "outcome")
    assert outcome.body["attempts"] == attempts
    assert outcome.body.get("retries") == (str(attempts - 1) if words else None)


def test_a_step_may_take_as_long_as_it_says(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from edvac.program import options

    monkeypatch.setattr(options, "LEAST_S", 0.01)

    async def hang(call: Call) -> None:
        assert call.timeout_s == 0.02
        await asyncio.Event().wait()

    bench.post = Post(hang)
    report = bench.run("x = mail.wait('x', timeout=0.02)\n")
    (failed,) = report.failures
    assert failed.failure is not None and failed.failure.code == "step_timeout"
    with bench.open() as opened:
        outcome = next(e for e in opened.history(report.run).entries if e.kind == "outcome")
    assert outcome.body["limit_s"] == 0.02


def test_options_are_no_part_of_what_a_step_gives(bench: Bench) -> None:
    """Another number runs nothing again."""
    bench.run("x = llm.write('x', 1)\nfiles.write('a', x)\n")
    report = bench.run("x = llm.write('x', 1, retries=1, timeout='5min')\nfiles.write('a', x)\n")
    assert report.counts["reused"] == 1


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("x = llm.write('a', retries=21)", "no number from 0 to 20"),
        ("x = llm.write('a', retries=-1)", "neither a literal nor a parameter"),
        ("x = llm.write('a', retries=True)", "no number"),
        ("x = llm.write('a', retries='3')", "no number"),
        ("x = llm.write('a', timeout='8d')", "no time from 1 s to 7 d"),
        ("x = llm.write('a', timeout=0)", "no time from 1 s"),
        ("x = llm.write('a', timeout='soon')", "no time from 1 s"),
        ("y = 3\nx = llm.write('a', retries=y)", "neither a literal nor a parameter"),
        ("x = human.ask('q', timeout='3d')", "it waits, with within="),
        ("x = human.ask('q', within='0s')", "no time from 1 s"),
        ("x = files.read('a', within='2h')", "waits for nobody"),
        ("wait.days(1, retries=1)", "has no retries="),
        ("x = files.read('a', undo='files.read')", "no effect outside the run"),
        ("x = files.read('a', retrys=3)", "no operand retrys"),
    ],
)
def test_options_of_no_sense_are_refused(line: str, what: str) -> None:
    with pytest.raises(ProgramError, match=what):
        parse(f"{line}\n", CATALOGUE)
    assert [one.severity for one in check(f"{line}\n", CATALOGUE)] == ["error"]


def test_a_parameter_that_is_set_to_nonsense_fails_the_step(bench: Bench) -> None:
    text = "n = param(1)\nx = attempt(llm.write('a', retries=n), 'none')\nfiles.write('a', x)\n"
    report = bench.run(text, settings={"n": "99"})
    assert bench.files(report.run) == {"a": "none"} and bench.asked == []
    with bench.open() as opened:
        outcome = next(e for e in opened.history(report.run).entries if e.kind == "outcome")
    assert isinstance(outcome.value, Failed) and outcome.value.code == "option_misfit"


# -- names that yield


def test_the_new_names_are_free_where_a_program_calls_none_of_them() -> None:
    parse("for event in files.list('x/*'):\n    signal = event.upper()\n    wait = 3\n", CATALOGUE)
    for text in ("event = 1\nevent.set('a', 1)\n", "signal = signal.wait('a', str)\n"):
        with pytest.raises(ProgramError, match="is a device"):
            parse(text, CATALOGUE)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("x = signal.wait('no name', str)", "is no name of"),
        ("x = signal.wait('go')", "needs T"),
        ("event.set('', 1)", "is no name of"),
        ("wait.until('tomorrow')", "is no date"),
        ("wait.days(4000)", "is not between 0 and 3,650"),
        ("wait.days('3')", "is a float"),
    ],
)
def test_waits_of_no_sense_are_refused(line: str, what: str) -> None:
    with pytest.raises(ProgramError, match=what):
        parse(f"{line}\n", CATALOGUE)


# -- the name of a request


def test_a_device_is_given_one_name_for_all_attempts_and_resumes(bench: Bench) -> None:
    keys: dict[str, list[str]] = defaultdict(list)

    async def busy(call: Call) -> None:
        keys[call.address].append(call.key)
        if len(keys[call.address]) < 3:
            raise TransientError("busy", "the service is busy")

    bench.post = Post(busy)
    text = "a = mail.wait('x')\nb = mail.wait('x')\n"
    first, second = bench.run(text), bench.run(text)
    assert first.state == second.state == "done"
    assert len(keys["a"]) == 4 and set(map(len, map(set, keys.values()))) == {2}
    assert len({*keys["a"], *keys["b"]}) == 4, "of two steps of two runs"


def test_a_key_stays_when_a_process_dies_in_between(bench: Bench) -> None:
    keys: list[str] = []
    drivers: list[Any] = []

    async def dies(call: Call) -> None:
        keys.append(call.key)
        if len(keys) == 1:
            drivers[0].stop("interrupted")
            await asyncio.Event().wait()

    bench.post = Post(dies)
    report = bench.run("x = mail.wait('x')\n", Terminal(on_driver=drivers.append))
    assert bench.resume(report.run).state == "done"
    assert len(keys) == 2 and keys[0] == keys[1] != ""


def test_an_endpoint_is_told_which_requests_are_one(tmp_path: Path) -> None:
    seen: dict[str, list[str]] = defaultdict(list)

    def limited(handler: Handler, body: Body) -> None:
        content = body["messages"][-1]["content"]
        said = seen[content.split("\n")[0]]
        said.append(handler.headers.get("idempotency-key", ""))
        if len(said) < 2:
            handler.send(429, {"error": "slow down"}, retry_after="0")
        else:
            handler.answer(body, "fine")

    async def go(url: str) -> str:
        processor = OpenAIProcessor(url, "m", records=None)
        try:
            with Machine(tmp_path, processor) as opened:
                text = "a = llm.write('One')\nb = llm.write('Two')\n"
                return (await opened.run(Job(text, seed=1))).state
        finally:
            await processor.close()

    from fake_endpoint import Fake

    with running(Fake(reply=limited)) as fake:
        assert asyncio.run(go(fake.url)) == "done"
    assert [len(said) for said in seen.values()] == [2, 2]
    assert [len(set(said)) for said in seen.values()] == [1, 1]
    names = {said[0] for said in seen.values()}
    assert len(names) == 2 and all(name.startswith("edvac-") for name in names)


def test_what_is_asked_anew_has_another_name(tmp_path: Path) -> None:
    """A repair is another request: with the same name a service might repeat the bad answer."""
    names: list[str] = []

    def script(request: Any) -> str:
        names.append(request.key)
        return "no JSON" if len(names) == 1 else '{"word": "w"}'

    text = "class W:\n    word: str\n\nx = llm.extract('a', W)\n"
    with Machine(tmp_path, ScriptedProcessor(script)) as opened:
        assert asyncio.run(opened.run(Job(text, seed=1))).state == "done"
    assert len(names) == len(set(names)) == 2


# -- taking effects back


class Customers:
    """A service that names what is added to it."""

    version = "1"
    signatures = (
        Signature("crm.add", (Param("name", STR),), STR, Effect.EXTERNAL, ""),
        Signature(
            "crm.remove", (Param("result", STR), Param("name", STR)), STR, Effect.EXTERNAL, ""
        ),
        Signature("crm.rename", (Param("to", STR),), STR, Effect.EXTERNAL, ""),
    )

    def __init__(self) -> None:
        self.log: list[str] = []
        self.there: dict[str, str] = {}
        self.refuses: set[str] = set()
        self.label = PROGRAM

    async def call(self, call: Call) -> Reply:
        name = call.text("name")
        if f"{call.signature.function} {name}" in self.refuses:
            raise UsageError("refused", f"{name} is refused")
        self.log.append(f"{call.signature.function} {name}")
        if call.signature.op == "crm.add":
            self.there[f"id-{name}"] = name
            return Reply(Scalar(f"id-{name}", self.label))
        assert self.there.pop(call.text("result")) == name
        return Reply(Scalar("removed", PROGRAM))

    async def read_version(self, call: Call) -> str | None:
        return None


class Undoing:
    def __init__(self, work: Path) -> None:
        self.work = work
        self.crm = Customers()

    def open(self) -> Machine:
        return Machine(self.work, ScriptedProcessor(lambda _: "x"), devices={"crm": self.crm})

    def run(self, text: str) -> str:
        with self.open() as opened:
            return asyncio.run(opened.run(Job(text, seed=1))).run

    def undo(self, run: str, terminal: Terminal | None = None) -> Any:
        with self.open() as opened:
            return asyncio.run(opened.undo_effects(run, terminal))


@pytest.fixture
def undoing(tmp_path: Path) -> Undoing:
    return Undoing(tmp_path)


ADDS = (
    'xs = [crm.add(n, undo="crm.remove") for n in ["a", "b"]]\n'
    'x = attempt(crm.add("bad", undo="crm.remove"), "")\ny = crm.add("kept")\n'
    'z = crm.add("c", undo="crm.remove")\n'
)


def test_finished_effects_are_taken_back_the_latest_first(undoing: Undoing) -> None:
    undoing.crm.refuses = {"add bad"}
    run = undoing.run(ADDS)
    undoing.crm.log.clear()
    report = undoing.undo(run)
    assert report.state == "done" and report.run == f"{run}.undo"
    assert undoing.crm.log == ["remove c", "remove b", "remove a"]
    assert list(undoing.crm.there.values()) == ["kept"]


def test_each_is_taken_back_once_and_the_run_goes_on_no_more(undoing: Undoing) -> None:
    run = undoing.run(ADDS + 's = signal.wait("never", str)\n')
    undoing.crm.refuses = {"remove b"}
    undoing.crm.log.clear()
    assert undoing.undo(run).state == "partial"
    undoing.crm.refuses.clear()
    assert undoing.undo(run).state == "done"
    taken = ["remove c", "remove bad", "remove b", "remove a"]
    assert undoing.crm.log == [taken[0], *sorted(taken[1:], key=taken.index)]
    with pytest.raises(UsageError) as done:
        undoing.undo(run)
    assert done.value.code == "nothing_to_resume"
    with undoing.open() as opened:
        assert opened.find(run).state == "cancelled"
        with pytest.raises(UsageError) as refused:
            asyncio.run(opened.resume(run))
    assert refused.value.code == "effects_undone"


def test_taking_back_is_asked_about_as_other_effects_are(undoing: Undoing) -> None:
    """Where the service's word goes into it, which the guard does not trust."""
    undoing.crm.label = Label.of(["service:crm"])
    run = undoing.run('x = crm.add("a", undo="crm.remove")\n')
    report = undoing.undo(run)
    assert report.state == "waiting" and report.counts["questions"] == 1

    async def yes(_: Any) -> bool:
        return True

    assert undoing.undo(run, Terminal(answer=yes)).state == "done"
    assert undoing.crm.log == ["add a", "remove a"]


def test_what_cannot_be_undone_is_said(undoing: Undoing) -> None:
    run = undoing.run('x = crm.add("a")\n')
    with pytest.raises(UsageError) as refused:
        undoing.undo(run)
    assert refused.value.code == "nothing_to_undo"
    with undoing.open() as opened:
        assert opened.find(run).state == "done"


@pytest.mark.parametrize(
    ("undo", "what"),
    [("'crm.gone'", "names no step"), ("'crm.rename'", "needs to"), ("'files.read'", "names no")],
)
def test_a_step_that_cannot_undo_is_refused(undoing: Undoing, undo: str, what: str) -> None:
    with undoing.open() as opened, pytest.raises(ProgramError, match=what):
        parse(f"x = crm.add('a', undo={undo})\n", opened.catalogue)
