"""The proxy that counts answers: each is counted once, a killed client's too, repeats are seen."""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

from fake_endpoint import Fake, running

from edvac.bench.proxy import Meter, metered
from edvac.processor.abilities import PROBE


def ask(url: str, text: str, *, stream: bool = False) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
    head, data = {"content-type": "application/json"}, json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", data, head)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def test_answers_pass_through_and_repeats_are_counted() -> None:
    fake = Fake(say=lambda body: f"to {body['messages'][-1]['content']}")
    with running(fake), metered(f"http://127.0.0.1:{fake.port}") as meter:
        assert json.loads(ask(meter.url, "a"))["choices"][0]["message"]["content"] == "to a"
        assert "to b" in ask(meter.url, "b", stream=True)
        ask(meter.url, PROBE)
        meter.wait(2, timeout_s=5)
        assert (meter.answered.total(), meter.repeated) == (2, 0)
        ask(meter.url, "a")
        meter.wait(3, timeout_s=5)
        assert (meter.answered.total(), meter.repeated) == (3, 1)


def test_who_waits_for_answers_is_woken_by_them() -> None:
    with running(Fake()) as fake, metered(f"http://127.0.0.1:{fake.port}") as meter:
        later = threading.Timer(0.2, ask, (meter.url, "a"))
        later.start()
        meter.wait(1, timeout_s=10)
        assert meter.answered.total() == 1
        later.join()
        meter.wait(2, timeout_s=0.05)  # nobody asks any more: it gives up
        assert meter.answered.total() == 1


def test_the_timings_of_the_server_are_summed_up() -> None:
    meter = Meter("http://127.0.0.1:9")
    tail = b'"timings":{"prompt_n":12,"prompt_ms":30.6,"predicted_n": 3,"predicted_ms":9.2}}'
    meter.timed(tail)
    meter.timed(tail)
    meter.timed(b"no timings")
    assert meter.spent == {"prompt_n": 24, "prompt_ms": 62, "predicted_n": 6, "predicted_ms": 18}
