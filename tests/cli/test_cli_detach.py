"""`--detach`: the run outlives its terminal, and what keeps it from beginning is still told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli_kit import Bench
from forked import CHILD, done
from test_cli_terminal import SLOW, Terminal


def child(edvac: Bench, *args: str, delay: float = 0.0) -> subprocess.CompletedProcess[str]:
    return done(edvac.root, *args, delay=delay)


def newest(edvac: Bench) -> dict[str, Any]:
    found: dict[str, Any] = edvac("ps", "--json").document["runs"][0]
    return found


def until(edvac: Bench, fits: Callable[[dict[str, Any]], bool], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not (runs := edvac("ps", "--json").document.get("runs")) or not fits(runs[0]):
        assert time.monotonic() < end, runs
        time.sleep(0.05)


def test_a_run_goes_on_after_its_starter_and_says_where_its_log_is(edvac: Bench) -> None:
    edvac.write("slow.edv", SLOW)
    said = child(edvac, "run", "slow.edv", "--yes", "--detach", "--json", delay=60.0)
    assert said.returncode == 0
    run = newest(edvac)
    assert json.loads(said.stdout) == {
        "run": run["id"],
        "log": str(edvac.root / ".edvac" / "logs" / f"{run['id']}.log"),
    }
    assert run["standing"] == "running"
    log = Path(json.loads(said.stdout)["log"])
    assert log.stat().st_mode & 0o777 == 0o600
    edvac.write("go", "")
    until(edvac, lambda _: "is done" in log.read_text())
    followed = edvac("log", "-f")
    assert followed.code == 0 and "closed" in followed.out
    assert edvac("show").out.rstrip().endswith(f"log: {log}")
    edvac("rm", run["id"])
    assert not log.exists()


def test_json_of_what_goes_on_by_itself_is_one_document(edvac: Bench) -> None:
    edvac.write("q.edv", 'a = human.ask("Which?")\nb = human.ask("Who?", [], a)\n')
    said = child(edvac, "run", "q.edv", "--yes", "--detach", "--json")
    assert set(json.loads(said.stdout)) == {"run", "log"}
    assert "loading the model" in said.stderr, "how far it has come is told beside it"
    until(edvac, lambda run: run["standing"] == "waiting")
    edvac("answer", "--all", "x")
    said = child(edvac, "resume", "--detach", "--json")
    assert set(json.loads(said.stdout)) == {"run", "log"}
    until(edvac, lambda run: run["standing"] == "waiting")
    said = child(edvac, "answer", "--all", "y", "--detach", "--json")
    assert set(json.loads(said.stdout)) == {"run", "log"} and '"answered": 1' in said.stderr
    until(edvac, lambda run: run["state"] == "done")


def test_a_terminal_that_goes_away_takes_no_detached_run_with_it(edvac: Bench) -> None:
    edvac.write("slow.edv", SLOW)
    terminal = Terminal(edvac.root, "run", "slow.edv", "--yes", "--detach", delay=60.0)
    terminal.until("goes on by itself")
    assert terminal.ended() == 0, "closing the terminal hangs up whoever is left on it"
    assert newest(edvac)["standing"] == "running"
    edvac.write("go", "")
    until(edvac, lambda run: run["state"] == "done")


def test_hanging_up_stops_a_run_that_has_a_terminal_cleanly(edvac: Bench) -> None:
    edvac.write("slow.edv", SLOW)
    terminal = Terminal(edvac.root, "run", "slow.edv", "--yes", delay=30.0)
    terminal.until("a.txt")
    terminal.send(signal.SIGHUP)
    assert terminal.ended() == 130
    assert newest(edvac)["standing"] == "interrupted"
    assert edvac("resume").code == 0


def test_how_far_a_run_has_come_is_known_soon_and_after_a_kill(edvac: Bench) -> None:
    edvac.write("slow.edv", SLOW)
    order = [sys.executable, CHILD, "60", "run", "slow.edv", "--yes"]
    with subprocess.Popen(order, cwd=edvac.root, stdin=subprocess.DEVNULL) as working:
        until(edvac, lambda run: run["counts"].get("finished", 0) > 0, limit_s=8.0)
        working.kill()
    assert newest(edvac)["standing"] == "interrupted"
    assert newest(edvac)["counts"]["finished"] > 0


def test_kill_reaches_a_detached_run(edvac: Bench) -> None:
    edvac.write("slow.edv", SLOW)
    child(edvac, "run", "slow.edv", "--yes", "--detach", delay=60.0)
    assert "was asked to stop" in edvac("kill").out
    until(edvac, lambda run: run["state"] == "cancelled")


def test_a_detached_run_waits_and_goes_on_after_an_answer(edvac: Bench) -> None:
    edvac.write("q.edv", 'a = human.ask("Which?")\nfiles.write("a.txt", a)\n')
    assert child(edvac, "run", "q.edv", "--yes", "--detach").returncode == 0
    until(edvac, lambda run: run["standing"] == "waiting")
    assert edvac("log", "-f").code == 0, "it ends, since nobody works on it"
    said = child(edvac, "answer", "1=this", "--detach")
    assert said.returncode == 0, said.stderr
    until(edvac, lambda run: run["state"] == "done")


def test_answers_reach_a_run_that_is_going_on(edvac: Bench) -> None:
    edvac.write("q.edv", 'a = human.ask("Which?")\nn = llm.write("x")\nfiles.write("a.txt", a)\n')
    assert child(edvac, "run", "q.edv", "--yes", "--detach", delay=60.0).returncode == 0
    until(edvac, lambda run: run["counts"].get("questions", 0) == 1)
    assert "waiting for you: 1 question" in edvac("ps").out
    said = edvac("answer", "1=this")
    assert "takes the answers up by itself" in said.out
    until(edvac, lambda run: not run["counts"].get("questions", 0))
    edvac.write("go", "")
    until(edvac, lambda run: run["state"] == "done")


def test_what_keeps_it_from_beginning_is_told(edvac: Bench) -> None:
    edvac.write("bad.edv", "x = \n")
    assert child(edvac, "run", "bad.edv", "--yes", "--detach").returncode == 2
    edvac.write("q.edv", 'a = human.ask("Which?")\nx = files.read("inbox/a.txt")\n')
    assert edvac("run", "q.edv", "--yes").code == 4
    (edvac.root / "inbox").rename(edvac.root / "away")
    said = child(edvac, "resume", "--detach")
    assert said.returncode == 2 and "[input_root_" in said.stderr, said.stderr
    done = child(edvac, "resume", "nothing", "--detach")
    assert done.returncode == 2 and "[run_unknown]" in done.stderr


def test_an_end_without_a_word_is_told_too(edvac: Bench, monkeypatch: Any) -> None:
    from edvac.machine import detach

    edvac.write("q.edv", 'a = human.ask("Which?")\nb = human.ask("Who?", [], a)\n')
    assert edvac("run", "q.edv", "--yes").code == 4
    monkeypatch.setattr(detach, "COMMAND", ("/bin/sh", "-c", "echo oh no; exit 1", "x"))
    said = edvac("resume", "--detach")
    assert said.code == 3 and "[detach_failed]" in said.err and "oh no" in said.err


def test_a_second_owner_is_refused_by_name(edvac: Bench) -> None:
    edvac.write("slow.edv", SLOW)
    child(edvac, "run", "slow.edv", "--yes", "--detach", delay=60.0)
    again = child(edvac, "resume", "--detach")
    assert again.returncode == 3 and "[run_owned]" in again.stderr
    edvac("kill")
    until(edvac, lambda run: run["state"] == "cancelled")
    assert os.environ.get("EDVAC_HANDSHAKE") is None
