"""Commands and workers on a store of PostgreSQL, by setting; the server away for a while and for
ever."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Bench
from fleet_kit import MODEL, answer
from postgresql_server import Cluster

from edvac.core.errors import LeaseError
from edvac.machine import Job, Machine
from edvac.machine.fleet.postgresql import fleet
from edvac.machine.storage import Storage
from edvac.processor.scripted import ScriptedProcessor
from edvac.store import open_store

CHILD = Path(__file__).parents[1] / "cli" / "cli_child.py"
SECRET = "s3cret-Pw"
STEPS = 'notes = [llm.write("Say", f"{n}") for n in range(8)]\nfiles.write("n", ",".join(notes))\n'


@pytest.fixture
def url(server: Cluster, edvac: Bench) -> str:
    """Of a store whose server asks for no password, with one in it."""
    found = server.url().replace("edvac@/", f"edvac:{SECRET}@/")
    edvac.write("edvac.toml", f'store = "{found}"\nstore_wait_s = 20\n')
    return found


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    made: list[subprocess.Popen[str]] = []
    yield made
    for process in made:
        process.kill()
        process.communicate()


def begin(
    children: list[subprocess.Popen[str]], delay: float, *arguments: str, **given: str
) -> subprocess.Popen[str]:
    made = subprocess.Popen(
        [sys.executable, str(CHILD), str(delay), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **given},
    )
    children.append(made)
    return made


def lines_until(process: subprocess.Popen[str], wanted: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if wanted in line:
            return said
    raise AssertionError(f"{wanted!r} was never said: {said}")


def test_every_command_takes_the_store_of_the_setting(edvac: Bench, url: str) -> None:
    ran = edvac("run", "p.edv", "--yes", "--plain")
    assert ran.code == 0, ran.err
    assert not (edvac.root / ".edvac" / "store.db").exists()
    below = edvac.root / "inbox"
    edvac.monkeypatch.chdir(below)
    (found,) = edvac("ps", "--json").document["runs"]
    assert found["state"] == "done", "also from a directory below"
    edvac.monkeypatch.chdir(edvac.root)
    for command in (["show"], ["log"], ["diff"], ["grants", "ls"], ["trace", "out/notes.md"]):
        assert edvac(*command).code == 0, command
    assert edvac("apply").code == 0 and (edvac.root / "limit.txt").exists()
    assert edvac("undo").code == 0 and not (edvac.root / "limit.txt").exists()
    assert edvac("queue", "put", "nightly", "p.edv", "--yes").code == 0
    assert edvac("every", "07:00", "p.edv", "--yes").code == 0
    assert "nightly" in edvac("queue").out and "p.edv" in edvac("every").out
    assert edvac("gc").code == 0 and edvac("rm", found["id"]).code == 0
    assert "no runs" in edvac("ps").out
    assert not (edvac.root / ".edvac" / "store.db").exists()


def test_the_password_is_shown_nowhere(edvac: Bench, url: str, server: Cluster) -> None:
    edvac("run", "p.edv", "--yes", "--plain")
    shown = [edvac("config"), edvac("config", "--json"), edvac("worker", "--list", "--json")]
    edvac.write("edvac.toml", f'store = ["{url}"]\n')
    shown.append(edvac("ps"))
    assert "[setting_type]" in shown[-1].err
    edvac.write("edvac.toml", f'store = "{url}&nonsense=1"\n')
    shown += [edvac("ps", "--json"), edvac("config"), edvac("worker")]
    assert "[store_url_malformed]" in shown[-1].err and "***" in shown[-2].out
    edvac.write("edvac.toml", f'store = "{re.sub("host=[^&]*", "host=/nowhere", url)}"\n')
    edvac.monkeypatch.setattr("edvac.store.database_postgresql.PATIENCE_S", 0.0)
    edvac.monkeypatch.setattr("edvac.cli.ui.storage", quick(edvac))
    shown += [edvac("ps"), edvac("log", "--json")]
    assert shown[-1].code == 3 and "[store_unreachable]" in shown[-1].err
    for done in shown:
        assert SECRET not in done.out + done.err
    for path in (edvac.root / ".edvac").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


def quick(edvac: Bench) -> Any:
    """A storage that waits for nothing."""
    from edvac.machine.settings import store_url

    return lambda: Storage(edvac.root, store_url(edvac.root), 0.0)


def test_workers_by_the_command_line(
    edvac: Bench, url: str, children: list[subprocess.Popen[str]]
) -> None:
    edvac.write("s.edv", STEPS)
    first = begin(children, 0.05, "worker", "--name", "first", "--slots", "2", "--capabilities=llm")
    second = begin(children, 0.05, "worker", "--json", "--capabilities", "llm", "--name=second")
    owner = begin(children, 0.05, "run", "s.edv", "--yes", "--workers", "--detach", "--plain")
    lines_until(first, "is ready for 2 steps")
    ready = json.loads(lines_until(second, "worker_state").strip().split("\n")[-1])
    assert (ready["name"], ready["state"]) == ("second", "ready")
    until = time.monotonic() + 30
    while not (runs := edvac("ps", "--json").document["runs"]) or runs[0]["state"] != "done":
        assert time.monotonic() < until
        time.sleep(0.1)
    assert owner.wait() == 0
    found = edvac("worker", "--list", "--json").document["workers"]
    assert [one["name"] for one in found] == ["first", "second"]
    assert "first" in edvac("worker", "--list").out
    first.send_signal(signal.SIGTERM)
    second.send_signal(signal.SIGINT)
    told = [process.communicate(timeout=20)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert told[0].count("finished in") + told[1].count('"how":"finished"') == 8, told
    assert "no worker lives" in edvac("worker", "--list").out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["worker", "--capabilities", "llm,dancing"], "capability_unknown"),
        (["worker", "--capabilities", ","], "capability_unknown"),
        (["worker", "--ray", "2"], "ray_"),
    ],
)
def test_what_a_worker_cannot_be_is_said(
    edvac: Bench, url: str, arguments: list[str], code: str
) -> None:
    done = edvac(*arguments)
    assert done.code == 2 and f"[{code}" in done.err
    assert done.err.count("\n  ") >= 1


def test_workers_without_a_server_are_refused(edvac: Bench) -> None:
    for command in (["worker"], ["worker", "--list"], ["run", "p.edv", "--yes", "--workers"]):
        done = edvac(*command)
        assert (done.code, "[workers_need_server]" in done.err) == (2, True)
    assert not edvac.stored


def machine(url: str, work: Path, wait_s: float = 30.0, **more: Any) -> Machine:
    notes = more.pop("notes", [])
    store = Storage(work, url, wait_s, notes.append)
    model = ScriptedProcessor(answer, name=MODEL, delay_s=0.05, concurrency=2)
    return Machine(work, model, store=store, **more)


def test_a_server_that_is_away_for_a_while_costs_nothing(
    server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edvac.store.database_postgresql.TOLD_AFTER_S", 0.5)
    notes: list[float] = []
    with machine(server.url(), tmp_path, notes=notes) as made:
        away = threading.Thread(target=lambda: (server.stop("immediate"), time.sleep(2)))

        async def work() -> Any:
            task = asyncio.create_task(made.run(Job(STEPS, seed=1)))
            await asyncio.sleep(0.15)
            away.start()
            await asyncio.to_thread(away.join)
            await asyncio.to_thread(server.start)
            return await task

        report = asyncio.run(work())
        assert report.state == "done" and notes
        (text,) = [made.ledger.call_now(lambda s: s.read_file(report.run, "n").decode())]
        assert text == ",".join(f"<{n}>" for n in range(8))


def test_a_server_that_stays_away_ends_the_run_which_goes_on_later(
    edvac: Bench, url: str, server: Cluster, children: list[subprocess.Popen[str]]
) -> None:
    edvac.write("edvac.toml", f'store = "{url}"\nstore_wait_s = 1\nat_once = 1\n')
    edvac.write("s.edv", STEPS)
    run = begin(children, 0.3, "run", "s.edv", "--yes", "--plain")
    lines_until(run, "notes[0]")
    server.stop()
    try:
        said, _ = run.communicate(timeout=30)
    finally:
        server.start()
    assert run.returncode == 3 and "[store_unreachable]" in said and "`edvac resume`" in said
    assert SECRET not in said
    again = begin(children, 0.0, "resume", "--plain")
    said, _ = again.communicate(timeout=30)
    assert again.returncode == 0 and "notes[0]" not in said, said
    with open_store(url, edvac.root) as store:
        assert store.verify() == []


def test_a_run_has_one_owner_wherever_the_other_is(server: Cluster, tmp_path: Path) -> None:
    url = server.url()
    other = tmp_path / "other"
    other.mkdir()
    with machine(url, tmp_path, workers=fleet()) as first, machine(url, other) as second:

        async def work() -> None:
            run = await first.create(Job(STEPS, seed=1))
            task = asyncio.create_task(first.resume(run))
            await asyncio.sleep(0.3)
            with pytest.raises(LeaseError) as error:
                await second.resume(run)
            assert error.value.code == "run_owned"
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(work())


def test_an_occurrence_has_one_run_whoever_begins_it(server: Cluster, tmp_path: Path) -> None:
    url = server.url()
    with machine(url, tmp_path) as first, machine(url, tmp_path) as second:
        job = Job(STEPS, occurrence="s1 2026-11-29")

        async def work() -> list[Any]:
            both = [one.create(job) for one in (first, second)]
            return await asyncio.gather(*both, return_exceptions=True)

        found = asyncio.run(work())
        runs = {one for one in found if isinstance(one, str)}
        assert len(runs) == 1 and runs != {""}
        assert all(isinstance(one, str | LeaseError) for one in found), found
        again = asyncio.run(second.create(job))
        assert {again} == runs
        other = asyncio.run(second.create(Job(STEPS, occurrence="s1 2026-11-30")))
        assert other != again
        assert len(first.ledger.call_now(lambda store: store.runs())) == 2


@pytest.mark.parametrize("what", ["every", "queue"])
def test_who_starts_runs_by_himself_waits_for_the_server(edvac: Bench, url: str, what: str) -> None:
    from edvac.core.errors import UnreachableError
    from edvac.machine import every, queues

    looks: list[str] = []

    def look(self: Any) -> float:
        looks.append("")
        if len(looks) == 1:
            raise UnreachableError("store_unreachable", "the database is away")
        signal.raise_signal(signal.SIGTERM)
        return 0.01

    edvac.monkeypatch.setattr(every.Scheduler, "look", look)
    edvac.monkeypatch.setattr(queues.Server, "look", look)
    edvac.monkeypatch.setattr(f"edvac.cli.{what}.AWAY_S", 0.01)
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        done = edvac("every", "--run") if what == "every" else edvac("queue", "run")
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert done.code == 0 and "waiting for the store: the database is away" in done.err
    assert len(looks) == 2


def test_a_store_from_before_workers_gets_their_table(server: Cluster, tmp_path: Path) -> None:
    url = server.url("before")
    open_store(url, tmp_path).close()
    server.sql("DROP TABLE worker; UPDATE store SET tables = 1", "before")
    with open_store(url, tmp_path) as store:
        from edvac.machine.fleet.postgresql import queue_of

        assert queue_of(store).workers() == []
        assert store.verify() == []
    assert server.sql("SELECT tables FROM store", "before") == [(2,)]
