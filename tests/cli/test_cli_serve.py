"""`serve` as a process: where it listens, whom it answers, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cli_kit import Bench
from test_cli_terminal import CHILD

KEY = "a-key-of-some-length"


@contextmanager
def serving(edvac: Bench, *args: str) -> Iterator[tuple[dict[str, Any], Any]]:
    with subprocess.Popen(
        [sys.executable, CHILD, "0", "serve", "--port", "0", "--json", *args],
        cwd=edvac.root,
        env=os.environ | {"MY_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = []
            while not lines or lines[-1] != "}\n":
                lines.append(process.stdout.readline())
                assert lines[-1], process.stderr and process.stderr.read()
            yield json.loads("".join(lines)), process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def ask(url: str, key: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


def test_a_model_is_served_with_a_random_key_until_ctrl_c(edvac: Bench) -> None:
    with serving(edvac, "--model", "m") as (said, process):
        assert said["url"].startswith("http://127.0.0.1:") and len(said["key"]) > 20
        assert ask(f"{said['url']}/models", said["key"])["data"][0]["id"] == "m"
        messages = [{"role": "user", "content": "hi"}]
        answer = ask(
            f"{said['url']}/chat/completions", said["key"], {"model": "m", "messages": messages}
        )
        assert answer["choices"][0]["message"]["content"] == "hello"
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"{said['url']}/models", "another")
        assert refused.value.code == 401
        refused.value.close()
    assert process.returncode in (0, 130)


def test_a_key_of_ones_own(edvac: Bench) -> None:
    with serving(edvac, "--model", "m", "--key-env", "MY_KEY") as (said, _):
        assert said["key"] == KEY and ask(f"{said['url']}/models", KEY)["data"]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--host", "0.0.0.0", "--no-key"], "serve_open"),
        (["--key-env", "NOT_SET"], "serve_key"),
        (["--model", "http://127.0.0.1:1/v1#m"], "serve_endpoint"),
        (["--host", "203.0.113.7"], "address_unusable"),
    ],
)
def test_what_cannot_be_served_is_said(edvac: Bench, args: list[str], code: str) -> None:
    said = edvac("serve", *args)
    assert said.code == 2 and f"[{code}]" in said.err
