"""The crash program with its model behind an endpoint that fails now and then: however often it is
killed, it ends as with a scripted model and nobody killing it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import crash_child
import pytest
import uvicorn
from crash_kit import Ended, Server, differences, live, random_kills, workspace
from fake_endpoint import Body, Fake, Handler, llamacpp, running

from edvac.core.errors import EdvacError
from edvac.machine.history import read_history
from edvac.processor import Answer, OnText, Request
from edvac.processor.scripted import ScriptedProcessor
from edvac.serve.app import Service
from edvac.serve.models import Models
from edvac.serve.offered import Offered
from edvac.serve.run import listen
from edvac.store import Store

KILLS = max(5, int(os.environ.get("EDVAC_KILLS", "25")) // 5)
Undisturbed = tuple[Ended, float, Path]


@dataclass
class Model:
    """The scripted model's answers over HTTP, with faults; each prompt meets at most one."""

    met: set[str] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)

    def reply(self, handler: Handler, body: Body) -> None:
        said = repr((body["messages"], body["seed"], body["model"]))
        chance = int.from_bytes(hashlib.blake2b(said.encode(), digest_size=2).digest(), "big") % 100
        fault = next((name for name, below in FAULTS if chance < below), "")
        if fault and said not in self.met:
            self.met.add(said)
            self.faults[fault] += 1
            getattr(self, fault)(handler, body)
            return
        try:
            handler.answer(body, _answer(body))
        except EdvacError as error:
            handler.send(400, {"error": {"message": error.what}})

    def busy(self, handler: Handler, body: Body) -> None:
        handler.send(429, {"error": "too many requests"}, retry_after="0")

    def broken(self, handler: Handler, body: Body) -> None:
        handler.send(500, {"error": "out of memory"})

    def cut(self, handler: Handler, body: Body) -> None:
        handler.begin()
        handler.text("{")
        handler.cut()

    def doubled(self, handler: Handler, body: Body) -> None:
        handler.begin()
        for _ in range(4):
            handler.text("{")
        handler.text("", "stop")
        handler.event({"choices": [], "usage": {"prompt_tokens": 99, "completion_tokens": 2}})


FAULTS = (("busy", 5), ("broken", 8), ("cut", 13), ("doubled", 18))


def _answer(body: Body) -> str:
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    text = body["messages"][-1]["content"]
    if body["model"] == "weak" and "wobbly" in text and schema is not None:
        return "not JSON"
    request: Any = SimpleNamespace(
        messages=[SimpleNamespace(text=text)],
        schema=schema,
        temperature=1.0 if body["model"] == "strong" else body["temperature"],
    )
    return crash_child.answer(request)


@pytest.fixture
def endpoint() -> Iterator[tuple[Fake, Model]]:
    model = Model()
    with running(llamacpp(reply=model.reply)) as fake:
        yield fake, model


@pytest.mark.parametrize("escalate", [False, True])
def test_a_run_through_an_endpoint_ends_as_if_undisturbed(
    escalate: bool,
    server: Server,
    undisturbed: Undisturbed,
    endpoint: tuple[Fake, Model],
    tmp_path: Path,
) -> None:
    wanted, length, _ = undisturbed
    fake, model = endpoint
    order: dict[str, Any] = {"endpoint": fake.url, "escalate": escalate}
    kills, number = 0, 0
    while kills < KILLS:
        chance = random.Random(5000 + number)
        work = workspace(tmp_path / f"life{number}")
        model.met.clear()
        plan = random_kills(chance, 4 * length, chance.randint(1, 5))
        ended = live(server, work, plan, **order)
        assert not differences(ended, wanted, mails=True), (number, plan, ended.faults)
        kills += ended.kills
        number += 1
        assert number < 20 * KILLS, "the kills miss the run"
        assert _escalated(work) == (1 if escalate else 0)
    print(f"{kills} kills in {number} lives; faults: {dict(model.faults)}")
    assert sum(model.faults.values()) >= number, "the endpoint was not flaky enough"


def test_a_run_through_a_server_of_our_own_ends_as_if_undisturbed(
    server: Server, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    wanted, length, _ = undisturbed
    kills, number = 0, 0
    with serving(Served(_under_its_schema)) as url:
        while kills < KILLS:
            chance = random.Random(7000 + number)
            plan = random_kills(chance, 4 * length, chance.randint(1, 5))
            ended = live(server, workspace(tmp_path / f"life{number}"), plan, endpoint=url)
            assert not differences(ended, wanted, mails=True), (number, plan, ended.faults)
            kills += ended.kills
            number += 1
            assert number < 20 * KILLS, "the kills miss the run"


def _under_its_schema(request: Request) -> str:
    """The scripted model keeps to a schema, which whoever asks finds out first."""
    options = (request.schema or {}).get("properties", {}).get("answer", {}).get("enum", [])
    return json.dumps({"answer": options[0]}) if options else crash_child.answer(request)


class Served(ScriptedProcessor):
    """With what a service wants beside answers."""

    card = SimpleNamespace(special_tokens={})

    async def complete(
        self, request: Request, on_text: OnText | None = None, on_tokens: Any = None
    ) -> Answer:
        return await super().complete(request, on_text)


@contextmanager
def serving(processor: Served) -> Iterator[str]:
    """`edvac serve` with this processor, in a thread."""
    listener = listen("127.0.0.1", 0)
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    models = Models(((Offered(processor), ("model",)),))
    application = Service(models, frozenset({host}), {}).application()
    service = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="off"))
    thread = threading.Thread(target=service.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://{host}/v1"
    finally:
        service.should_exit = True
        thread.join()


def _escalated(work: Path) -> int:
    """Outcomes that another model made, each of which must say so; intents may be several only
    where a kill came between."""
    with Store(work) as store:
        (run,) = [info for info in store.runs() if info.last_seq]
        entries = read_history(store, run.id).entries
    made = [entry for entry in entries if entry.kind == "outcome" and entry.body.get("escalated")]
    turns = [entry for entry in entries if entry.kind == "intent" and entry.body.get("escalated")]
    assert all("/strong@" in entry.body["model"] for entry in made)
    assert len(turns) == len(made)
    return len(made)
