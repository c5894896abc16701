"""The sample job beside a script and a LangGraph program: killed half way, begun again, compared.

All three send their prompts to a llama.cpp server through a proxy that counts them; edvac also
runs on its own engine. What is compared: answers that were paid for twice, time, and right fields.
An answer that was on its way when the client was killed is lost to everybody.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from edvac.bench.control import PEERS
from edvac.bench.proxy import Meter, metered
from edvac.bench.report import Document, Figure
from edvac.core.errors import UsageError
from edvac.machine import Settings
from edvac.machine.processors import model_path

SLOTS = 4
KILL_AFTER = 10  # answers
LIMIT_S = 1200.0
POLL_S = 0.5  # how soon it is noticed that one has ended by itself
MODEL = "model"


@dataclass(frozen=True, slots=True)
class Went:
    """How one of them did the job."""

    name: str
    seconds: float
    answers: int
    repeated: int
    right: int
    wrong: int
    missing: int
    invented: int
    server: str = ""  # what the server says it did: tokens and seconds


def measure(document: Document, python: str, examples: Path) -> None:
    """Add the figures.

    Args:
        python: of an environment that holds xllamacpp and langgraph.
        examples: holds the inbox, its program and the truth.

    Raises:
        UsageError: the server could not be started.
    """
    examples = examples.resolve()
    went = []
    for name in ("script", "langgraph", "edvac"):
        with _server(python) as address:  # a fresh one each: it keeps the prompts that it has read
            if name == "edvac":
                went.append(_edvac(name, examples, address))
            else:
                went.append(_peer(name, python, examples, address))
    went.append(_edvac("edvac's engine", examples, ""))
    ours = went[2]
    for peer in went[:2]:
        for unit, key, better in (
            ("s", "seconds", "lower"),
            ("answers repeated", "repeated", "lower"),
            ("answers", "answers", "lower"),
            ("fields right", "right", "higher"),
            ("fields wrong", "wrong", "lower"),
            ("fields invented", "invented", "lower"),
        ):
            value, other = float(getattr(ours, key)), float(getattr(peer, key))
            name = f"killed after {KILL_AFTER} answers"
            document.figures.append(
                Figure(name, value, unit, better, peer=peer.name, peer_value=other)
            )
    own = went[3]
    document.figures.append(
        Figure(
            "the same on its own engine",
            own.seconds,
            "s",
            "lower",
            peer="edvac on llama.cpp",
            peer_value=ours.seconds,
        )
    )
    document.notes += [str(one) for one in went]


@contextmanager
def _server(python: str) -> Iterator[str]:
    threads = str(len(os.sched_getaffinity(0)))
    model = str(model_path(Settings().model))
    process = subprocess.Popen(
        [python, str(PEERS / "llamacpp_server.py"), model, threads, str(SLOTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("http"):
                yield line.strip()
                return
        raise UsageError(
            "bench_peer", "llama.cpp's server did not start", "", f"Is xllamacpp in {python}?"
        )
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


def _peer(name: str, python: str, examples: Path, address: str) -> Went:
    with metered(address) as meter, tempfile.TemporaryDirectory() as root:
        output = Path(root) / "out"
        command = [python, str(PEERS / f"{name}_job.py"), str(examples / "inbox"), str(output)]
        command += [f"{meter.url}/v1", MODEL]
        start = time.perf_counter()
        _killed(command, Path(root), meter)
        _to_the_end(command, Path(root))
        return _went(name, time.perf_counter() - start, meter, output, examples)


def _edvac(name: str, examples: Path, address: str) -> Went:
    """On a server, or on the engine of edvac's own where there is no address; there it is killed
    after a time, as nothing counts its answers from outside."""
    with metered(address or "http://127.0.0.1:9") as meter, tempfile.TemporaryDirectory() as root:
        place, edvac = Path(root), [sys.executable, "-m", "edvac"]
        chosen = [f"--model={meter.url}/v1#{MODEL}"] if address else []
        run = [*edvac, "run", str(examples / "inbox.edv"), "--yes", "--plain"]
        run += ["--input", str(examples / "inbox"), "--output", "out", *chosen]
        start = time.perf_counter()
        if address:
            _killed(run, place, meter)
        else:
            _killed(run, place, None)
        _to_the_end([*edvac, "resume", "--plain"], place)
        return _went(name, time.perf_counter() - start, meter, place / "out", examples)


def _killed(command: list[str], place: Path, meter: Meter | None) -> None:
    process = subprocess.Popen(
        command,
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=_alone(),
    )
    assert process.stderr is not None  # few lines, which the pipe holds
    try:
        if meter is not None:
            while process.poll() is None and meter.answered.total() < KILL_AFTER:
                meter.wait(KILL_AFTER, POLL_S)
        else:
            ended = 0
            for line in process.stderr:
                ended += line.startswith("✓")
                if ended == KILL_AFTER:
                    break
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _to_the_end(command: list[str], place: Path) -> None:
    subprocess.run(
        command, cwd=place, capture_output=True, check=False, timeout=LIMIT_S, env=_alone()
    )


def _alone() -> dict[str, str]:
    """Nothing that an earlier engine read is known to this one."""
    return os.environ | {"EDVAC_KV_DISK": "session"}


def _went(name: str, seconds: float, meter: Meter, output: Path, examples: Path) -> Went:
    table = output / "documents.csv"
    rows: list[dict[str, str]] = []
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    judge = _judge(examples)
    score = judge.score(rows, judge.truth())
    answers, repeated = meter.answered.total(), meter.repeated
    counts = (score.right, score.wrong, score.missing, score.invented)
    return Went(name, seconds, answers, repeated, *counts, _told(meter.spent))


def _told(spent: Counter[str]) -> str:
    if not spent:
        return ""
    read, wrote = spent["prompt_n"], spent["predicted_n"]
    return (
        f"read {read} tokens in {spent['prompt_ms'] / 1000:.0f} s"
        f", wrote {wrote} in {spent['predicted_ms'] / 1000:.0f} s, summed over slots"
    )


def _judge(examples: Path) -> ModuleType:
    """What compares a table with the truth for `make run` too."""
    spec = importlib.util.spec_from_file_location("edvac_inbox_judge", examples / "run_inbox.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["edvac_inbox_judge"] = module
    spec.loader.exec_module(module)
    return module
