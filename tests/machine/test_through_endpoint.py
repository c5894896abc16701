"""Runs whose model is behind an endpoint: what is recorded, what is not, and what is reused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import Body, Fake, Handler, ollama, running

from edvac.cli.main import main
from edvac.core.value import Failed, plain
from edvac.machine import Job, Machine, Report
from edvac.machine.budget import Budget
from edvac.machine.entry import Entry
from edvac.machine.history import read_history
from edvac.machine.machine import Terminal
from edvac.machine.processors import choose_roles
from edvac.machine.settings import Settings
from edvac.processor import Message, Request, Segment
from edvac.processor.openai import OpenAIProcessor
from edvac.store import Store

KEY = "sk-canary-9f8e7d6c5b4a"
TEXT = """
class Item:
    word: str

note = llm.write("Say it", "first")
item = llm.extract("second", Item)
files.write("a.txt", note + item.word)
"""


def answer(body: Body) -> str:
    if "second" in body["messages"][-1]["content"]:
        return 'Sure:\n```json\n{"word": "w"}\n```'
    return "```text\nsaid\n```"


class Rig:
    def __init__(self, work: Path) -> None:
        self.work = work
        self.events: list[Any] = []

    def run(self, fake: Fake, model: str = "llama3.2", **more: Any) -> Report:
        async def go() -> Report:
            processor = OpenAIProcessor(
                fake.url, model, key_env="TEST_KEY", records=self.work / "cache"
            )
            try:
                with Machine(self.work, processor) as machine:
                    terminal = Terminal(self.events.append)
                    return await machine.run(Job(TEXT, seed=1, **more), terminal)
            finally:
                await processor.close()

        return asyncio.run(go())

    def entries(self, run: str) -> dict[str, Entry]:
        async def go() -> dict[str, Entry]:
            processor = OpenAIProcessor("http://127.0.0.1:9/v1", "m")
            with Machine(self.work, processor) as machine:
                found = machine.history(run).entries
            await processor.close()
            return {entry.address: entry for entry in found if entry.kind == "outcome"}

        return asyncio.run(go())


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setenv("TEST_KEY", KEY)
    return Rig(tmp_path)


def thoughtful(handler: Handler, body: Body) -> None:
    handler.answer(body, answer(body), reasoning_content="let me see")


def test_thinking_and_fences_are_in_the_record_and_not_in_the_value(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(ollama(reply=thoughtful)) as fake:
        report = rig.run(fake)
    assert report.state == "done"
    found = rig.entries(report.run)
    assert plain(found["note"].value) == "said"
    assert plain(found["item"].value) == {"word": "w"}
    assert (
        found["note"].body["model"]
        == f"127.0.0.1:{fake.port}/llama3.2@" + (found["note"].body["model"].rpartition("@")[2])
    )
    monkeypatch.chdir(rig.work)
    with pytest.raises(SystemExit):
        main(["show", report.run, "item", "--prompt"])
    shown = capsys.readouterr().out
    assert "let me see" in shown and '```json\n{"word": "w"}\n```' in shown


def test_a_model_that_only_thinks_has_not_answered(rig: Rig) -> None:
    def thinks(handler: Handler, body: Body) -> None:
        handler.answer(body, "<think>what shall I say")

    with running(ollama(reply=thinks)) as fake:
        report = rig.run(fake)
    failed = rig.entries(report.run)["note"]
    assert isinstance(failed.value, Failed) and failed.value.code == "answer_only_thoughts"
    assert "what shall I say" in failed.body["answer"]


def test_the_key_is_nowhere(rig: Rig) -> None:
    """Not in the store, its logs, the cache, the events or the errors."""

    def repeats(handler: Handler, body: Body) -> None:
        if "second" in body["messages"][-1]["content"]:
            handler.send(400, {"error": f"bad request with key {KEY}"})
        else:
            handler.answer(body, answer(body))

    with running(ollama(reply=repeats)) as fake:
        report = rig.run(fake)
        assert fake.keys and set(fake.keys) == {f"Bearer {KEY}"}
    assert report.state == "partial"
    stored = [path for path in rig.work.rglob("*") if path.is_file()]
    assert len(stored) >= 2
    for path in stored:
        assert KEY.encode() not in path.read_bytes(), path
    assert KEY not in repr(rig.events) and KEY not in repr(report)
    assert "(key)" in repr(rig.entries(report.run)["item"].body), "it would have been there"


def test_the_key_of_the_variable_goes_to_one_host_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with running(Fake()) as first, running(Fake()) as second:
        settings = Settings(
            plan_model=f"{first.url}#a",
            model=f"{first.url}#b",
            escalate_model=f"{second.url}#c",
            key_env="TEST_KEY",
        )
        made = choose_roles(settings)
        assert made.escalate is not None

        async def ask() -> None:
            request = Request("r", "s", (Message("user", (Segment("x"),)),))
            for processor in (made.plan, made.work, made.escalate):
                assert processor is not None
                await processor.complete(request)
            await made.close()

        asyncio.run(ask())
    assert set(first.keys) == {f"Bearer {KEY}"}
    assert set(second.keys) == {""}


def test_reuse_does_not_survive_a_change_of_weights(rig: Rig) -> None:
    fake = ollama(reply=lambda handler, body: handler.answer(body, answer(body)))
    with running(fake):
        assert rig.run(fake).counts["reused"] == 0
        assert rig.run(fake).counts["reused"] == 2
        fake.pages["/api/tags"]["models"][0]["digest"] = "another"
        assert rig.run(fake).counts["reused"] == 0
        assert rig.run(fake).counts["reused"] == 2


def test_reuse_does_not_mix_with_what_another_model_answered(rig: Rig) -> None:
    """The endpoint answers as another model in the middle of the run."""
    fake = Fake(answers_as="good")

    def changes(handler: Handler, body: Body) -> None:
        fake.answers_as = "good" if "first" in json.dumps(body) else "cheap"
        handler.answer(body, answer(body))

    fake.reply = changes
    with running(fake):
        report = rig.run(fake, "m")
        found = rig.entries(report.run)
        assert found["note"].body["model"] != found["item"].body["model"]
        again = rig.run(fake, "m")
    assert again.counts["reused"] == 1, "only what the expected model made"


def test_a_rate_limit_delays_and_loses_nothing(rig: Rig) -> None:
    refused: list[str] = []

    def limited(handler: Handler, body: Body) -> None:
        content = body["messages"][-1]["content"]
        if content not in refused:
            refused.append(content)
            handler.send(429, {"error": "slow down"}, retry_after="1")
        else:
            handler.answer(body, answer(body))

    with running(ollama(reply=limited)) as fake:
        report = rig.run(fake)
    assert report.state == "done"
    waits = [e.wait_s for e in rig.events if type(e).__name__ == "StepRetried"]
    assert waits and min(waits) >= 1.0


CAREFUL = """
words = []
for name in ["one", "two", "poison", "three"]:
    words.append(attempt(llm.write("Say " + name), ""))
files.write("a.txt", ",".join(words))
"""


def careful(rig: Rig, url: str, run: str = "") -> Report:
    async def go() -> Report:
        processor = OpenAIProcessor(url, "llama3.2", records=rig.work / "cache")
        terminal = Terminal(rig.events.append)
        try:
            with Machine(rig.work, processor) as machine:
                if run:
                    return await machine.resume(run, terminal)
                return await machine.run(Job(CAREFUL, seed=1), terminal)
        finally:
            await processor.close()

    return asyncio.run(go())


def written(rig: Rig, run: str) -> str:
    with Store(rig.work) as store:
        return store.read_file(run, "a.txt").decode()


@pytest.mark.usefixtures("hasty")
def test_an_endpoint_that_is_down_is_no_bad_document(rig: Rig) -> None:
    report = careful(rig, "http://127.0.0.1:9/v1")
    assert report.state == "waiting" and report.away and report.away.code == "endpoint_away"
    assert report.counts["failed"] == report.counts["handled"] == 0
    with running(ollama(say=lambda body: "w")) as fake:
        again = careful(rig, fake.url, report.run)
    assert again.state == "done" and written(rig, report.run) == "w,w,w,w"


def test_a_request_that_alone_is_refused_is_a_bad_document(rig: Rig) -> None:
    def squeamish(handler: Handler, body: Body) -> None:
        if "poison" in body["messages"][-1]["content"]:
            handler.send(400, {"error": "I will not read that"})
        else:
            handler.answer(body, "w")

    with running(ollama(reply=squeamish)) as fake:
        report = careful(rig, fake.url)
    assert report.state == "done" and report.counts["handled"] == 1
    assert written(rig, report.run) == "w,w,,w"


def test_an_endpoint_that_goes_away_in_the_middle_is_waited_for(rig: Rig) -> None:
    """A key that is refused for a while, which no attempt of a step would wait for."""
    answered: list[str] = []
    refused: list[str] = []

    def restarted(handler: Handler, body: Body) -> None:
        if answered and len(refused) < 6:
            refused.append("")
            handler.send(401, {"error": "who are you?"})
        else:
            answered.append(body["messages"][-1]["content"])
            handler.answer(body, "w")

    with running(ollama(reply=restarted)) as fake:
        report = careful(rig, fake.url)
    assert report.state == "done" and report.counts["failed"] == 0
    assert written(rig, report.run) == "w,w,w,w" and len(refused) == 6


def contacted(rig: Rig, run: str) -> list[str]:
    with Store(rig.work) as store:
        return read_history(store, run, lazy=True).contacted


def test_a_run_ends_with_what_was_really_connected_to(rig: Rig) -> None:
    with running(ollama(say=answer)) as fake:
        first = rig.run(fake)
        origin = fake.url.removesuffix("/v1")
        assert contacted(rig, first.run) == [origin]
        assert rig.events[-1].endpoints == [origin]


def test_an_endpoint_that_was_away_was_not_contacted(rig: Rig, tmp_path: Path) -> None:
    async def go() -> Report:
        processor = OpenAIProcessor("http://127.0.0.1:9/v1", "m", records=tmp_path / "cache")
        with Machine(rig.work, processor) as machine:
            job = Job('files.write("a.txt", "no model is needed")\n')
            report = await machine.run(job, Terminal(rig.events.append))
        await processor.close()
        return report

    report = asyncio.run(go())
    assert report.state == "done"
    assert contacted(rig, report.run) == [], "it is configured, and was not there"


def test_what_an_earlier_drive_contacted_is_not_forgotten(rig: Rig) -> None:
    def processors(fake: Fake) -> OpenAIProcessor:
        return OpenAIProcessor(fake.url, "llama3.2", records=rig.work / "cache")

    async def go(fake: Fake, run: str = "") -> Report:
        processor = processors(fake)
        try:
            with Machine(rig.work, processor) as machine:
                if run:
                    return await machine.resume(run, budget=Budget(tokens=10**6))
                return await machine.run(Job(TEXT, seed=1, budget=Budget(tokens=1)))
        finally:
            await processor.close()

    with running(ollama(say=answer)) as one, running(ollama(say=answer)) as other:
        report = asyncio.run(go(one))
        assert report.state == "waiting"
        assert contacted(rig, report.run) == [one.url.removesuffix("/v1")]
        assert asyncio.run(go(other, report.run)).state == "done"
        both = [fake.url.removesuffix("/v1") for fake in (one, other)]
        assert contacted(rig, report.run) == both
