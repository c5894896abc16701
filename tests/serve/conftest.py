"""Services with a real engine, each a process as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tiny model of the engine's tests

CONTEXT = 1024  # tokens, of which a letter is one
TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass
class Running:
    """A service that was started; `url` ends with ``/v1``."""

    process: subprocess.Popen[str]
    url: str
    key: str
    model: str
    log: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; the code that it ends with."""
        assert self.process.stdout is not None
        self.process.send_signal(number)
        with self.process.stdout:
            return self.process.wait(20)


def start(model: Path, home: Path, *flags: str) -> Running:
    """Start ``edvac serve``; its engine ends two seconds after it."""
    runtime = home / "run"
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    more = {
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "EDVAC_THREADS": "1",
        "EDVAC_KV_MB": "64",
        "EDVAC_IDLE_S": "2",
        "EDVAC_PRECISION": "reference",
    }
    command = [sys.executable, "-m", "edvac", "serve", "--model", str(model), "--port", "0"]
    log = home / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, "--json", *flags],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=home,
            env=os.environ | more,
        )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("}"):
            break
    assert said, log.read_text()
    found = json.loads(said)
    return Running(process, found["url"], found["key"], found["model"], log)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from engine.tiny import write_tiny

    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    return write_tiny(path, template=TEMPLATE, context=CONTEXT)


@pytest.fixture(scope="session")
def service(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start(tiny, tmp_path_factory.mktemp("service"), "--alias", "other")
    yield running
    assert running.stop() == 0, running.log.read_text()
    assert running.key not in running.log.read_text()
