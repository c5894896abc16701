"""``edvac serve`` as a process: its engine killed, itself stopped, its keys and names."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from edvac.serve.run import listen

from .conftest import Running, start
from .engines import engines_at, write_models

pytestmark = pytest.mark.xdist_group("service")
PIECE = itemgetter("piece")
LONG: Any = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "tell me"}],
    "temperature": 0,
    "ignore_eos": True,
}


def client(running: Running, **more: Any) -> httpx2.Client:
    head = {"Authorization": f"Bearer {running.key}"}
    return httpx2.Client(base_url=running.url, headers=head | more, timeout=60, trust_env=False)


def lines_of(reply: httpx2.Response) -> Iterator[str]:
    return (line for line in reply.iter_lines() if line)


def engine_of(running: Running) -> int:
    """The process of the engine: a child of the service's."""
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    (found,) = children.read_text().split()
    return int(found)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_killed_engine_is_told_and_replaced(tiny: Path, tmp_path: Path) -> None:
    running = start(tiny, tmp_path)
    with client(running) as http:
        with http.stream("POST", "/chat/completions", json=LONG | {"stream": True}) as reply:
            lines = lines_of(reply)
            for _ in range(5):
                next(lines)
            os.kill(engine_of(running), signal.SIGKILL)
            rest = list(lines)
        assert json.loads(rest[-2][6:])["error"]["code"] == "engine_died"
        assert rest[-1] == "data: [DONE]"
        after = http.post("/chat/completions", json=LONG | {"max_tokens": 5})
        assert after.status_code == 200 and after.json()["usage"]["completion_tokens"] == 5
    assert running.stop() == 0


def test_a_stream_is_ended_properly_when_the_service_is_stopped(tiny: Path, tmp_path: Path) -> None:
    running = start(tiny, tmp_path)
    with (
        client(running) as http,
        http.stream("POST", "/chat/completions", json=LONG | {"stream": True, "n": 16}) as reply,
    ):
        lines = lines_of(reply)
        next(lines)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)  # two signals that wait together are one
        running.process.send_signal(signal.SIGTERM)  # who says it twice does not want to wait
        rest = list(lines)
        assert json.loads(rest[-2][6:])["error"]["code"] == "service_stopping"
        assert rest[-1] == "data: [DONE]"
    assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(running.url.split(":")[2][:-3])), 1)


def test_a_random_key_ctrl_c_and_a_key_of_ones_own(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "a-key-of-some-length")
    for flags in ((), ("--key-env", "MY_KEY")):
        running = start(tiny, tmp_path, *flags)
        assert running.url.startswith("http://127.0.0.1:") and running.model == "tiny"
        if flags:
            assert running.key == "", "a key that was given is not shown"
            running.key = "a-key-of-some-length"
        assert len(running.key) >= 20
        with client(running) as http:
            assert http.get("/models").status_code == 200
        assert running.stop(signal.SIGINT) == 0


def test_keys_from_a_file_and_names_that_are_allowed(tiny: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("laptop:first-key-1\n\nsecond-key-2\n")
    keys.chmod(0o600)
    running = start(tiny, tmp_path, "--key-file", str(keys), "--allow-host", "box.example")
    assert running.key == "", "a key that was given is not shown"
    try:
        for key, host, status in (
            ("first-key-1", None, 200),
            ("second-key-2", "box.example", 200),
            ("laptop:first-key-1", None, 401),
            ("first-key-1", "evil.example", 403),
        ):
            head = {"Authorization": f"Bearer {key}"} | ({"Host": host} if host else {})
            with client(running, **head) as http:
                assert http.get("/models").status_code == status
    finally:
        assert running.stop() == 0
    log = running.log.read_text()
    assert "first-key-1" not in log and "second-key-2" not in log


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--no-key", "--host", "0.0.0.0"), "serve_open"),
        (("--host", "0.0.0.0"), "serve_nameless"),
        (("--key-file", "open"), "serve_key_open"),
        (("--key-file", "short"), "serve_key"),
        (("--key-file", "absent"), "serve_key"),
        (("--key-file", "short", "--no-key"), "serve_keys"),
        (("--key-env", "NOT_THERE"), "serve_key"),
        (("--host", "192.0.2.1"), "address_unusable"),
        (("--model", "tiny.gguf"), "serve_names"),
        (("--model", "http://127.0.0.1:1/v1#m"), "serve_endpoint"),
        (("--model", "absent.gguf"), "model_missing"),
        (("--alias", "tiny"), "serve_names"),
        (("--alias", "other=absent"), "serve_unknown"),
        (("--alias", "=tiny"), "serve_name"),
        (("--adapter", "x=absent.gguf"), "serve_adapter"),
        (("--adapter", "x"), "serve_adapter"),
        (("--adapter", "tiny=short"), "serve_names"),
        (("--adapter", "x@absent=short"), "serve_unknown"),
    ],
)
def test_what_would_leave_it_open_is_refused(
    tiny: Path, tmp_path: Path, flags: tuple[str, ...], code: str
) -> None:
    for name, text, mode in (("open", "long-enough-key", 0o644), ("short", "short", 0o600)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    command = [sys.executable, "-m", "edvac", "serve", "--model", str(tiny), "--port", "0"]
    found = subprocess.run(
        [*command, "--json", *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert found.returncode == 2 and code in found.stdout + found.stderr


def test_two_models_and_an_adapter_of_the_second(tiny: Path, tmp_path: Path) -> None:
    from engine.lora import matrices, write_gguf

    _, second = write_models(tmp_path, 2)
    write_gguf(tmp_path / "x.gguf", matrices(1), "qwen2")
    flags = ("--model", str(second), "--adapter", "x@m1=x.gguf", "--alias", "gpt=m1")
    running = start(tiny, tmp_path, *flags, "--idle-unload", "1")
    with client(running) as http:
        listed = http.get("/models").json()["data"]
        assert [(one["id"], one["status"]["value"]) for one in listed] == [
            ("tiny", "loaded"), ("m1", "unloaded"), ("x", "unloaded"),
        ]  # fmt: skip
        texts = {}
        for model in ("tiny", "m1", "gpt", "x"):
            asked = LONG | {"model": model, "max_tokens": 12}
            found = http.post("/chat/completions", json=asked).json()
            texts[model] = found["choices"][0]["message"]["content"]
            assert found["model"] == ("m1" if model == "gpt" else model)
        assert texts["m1"] == texts["gpt"] and len(set(texts.values())) == 3
        for _ in range(200):
            if not engines_at(tmp_path / "run" / "edvac"):
                break
            time.sleep(0.05)
        assert not engines_at(tmp_path / "run" / "edvac"), "none was used for a second"
        assert http.post("/chat/completions", json=LONG | {"max_tokens": 2}).status_code == 200
    assert running.stop() == 0


def test_tokens_templates_and_counters_of_a_real_engine(service: Running) -> None:
    root = service.url.removesuffix("/v1")
    head = {"Authorization": f"Bearer {service.key}"}
    with httpx2.Client(base_url=root, headers=head, timeout=60, trust_env=False) as http:
        text = "the hell <|user|> 媽"
        asked = {"content": text, "with_pieces": True}
        pieces = http.post("/tokenize", json=asked).json()["tokens"]
        told = [bytes(p) if isinstance(p, list) else p.encode() for p in map(PIECE, pieces)]
        assert b"".join(told).decode() == text
        assert {"id": 262, "piece": "<|user|>"} in pieces
        assert pieces[-1]["piece"] == [0xBD], "a part of a character is told in bytes"
        tokens = http.post("/tokenize", json={"content": text}).json()["tokens"]
        assert tokens == [one["id"] for one in pieces]
        plain = http.post("/tokenize", json={"content": text, "parse_special": False}).json()
        assert 262 not in plain["tokens"]
        for found in (tokens, plain["tokens"]):
            assert http.post("/detokenize", json={"tokens": found}).json() == {"content": text}
        wrong = http.post("/detokenize", json={"tokens": [5_000]})
        assert wrong.status_code == 400 and wrong.json()["error"]["code"] == "token_unknown"
        talk = {"messages": [{"role": "user", "content": "hi"}]}
        prompt = http.post("/apply-template", json=talk).json()["prompt"]
        assert prompt == "<|user|>user\nhi<|end|><|assistant|>"
        count = http.post("/v1/chat/completions/input_tokens", json=talk).json()["input_tokens"]
        assert count == len(http.post("/tokenize", json={"content": prompt}).json()["tokens"])
        native = http.post("/completion", json={"prompt": prompt, "n_predict": 7}).json()
        assert native["tokens_evaluated"] == count and native["tokens_predicted"] == 7
        assert native["stop_type"] == "limit" and native["timings"]["predicted_n"] == 7
        props = http.get("/props").json()
        assert props["total_slots"] == len(http.get("/slots").json()) == 32
        assert "m.content" in props["chat_template"]
        before = counters(http)
        http.post("/completion", json={"prompt": prompt, "n_predict": 4})
        after = counters(http)
    name = "llamacpp:tokens_predicted_total"
    assert after[name] == before[name] + 4
    assert after["llamacpp:n_decode_total"] > before["llamacpp:n_decode_total"]


def test_sampling_reaches_the_engine(service: Running) -> None:
    root = service.url.removesuffix("/v1")
    head = {"Authorization": f"Bearer {service.key}"}
    with httpx2.Client(base_url=root, headers=head, timeout=60, trust_env=False) as http:

        def text(**more: Any) -> str:
            asked = {"prompt": "tell me", "n_predict": 20, "top_k": 0, "top_p": 1, "min_p": 0}
            return str(http.post("/completion", json=asked | more).json()["content"])

        greedy = text(temperature=0)
        assert text(temperature=5, seed=1) != text(temperature=5, seed=2) != greedy
        assert text(temperature=5, seed=1) == text(temperature=5, seed=1)
        # Each of these leaves the likeliest token alone.
        for one in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1}):
            assert text(temperature=5, seed=1, **one) == greedy, one
        assert text(temperature=0, repeat_penalty=10) != greedy
        assert text(temperature=0, cache_prompt=False) == greedy


def counters(http: httpx2.Client) -> dict[str, float]:
    lines = http.get("/metrics").text.splitlines()
    rows = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in rows}


def test_connections_do_not_wait_for_acknowledgements() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
