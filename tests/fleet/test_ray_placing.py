"""Ray places and restarts workers. Needs Ray, which the environment of the other tests has not:
`make ray` runs this in one that has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from postgresql_server import Cluster

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")

PORT = 6399  # outside of the range that Ray takes for its workers


@pytest.fixture
def address() -> Iterator[str]:
    """A cluster of one machine."""
    tool = str(Path(sys.executable).parent / "ray")
    begin = [tool, "start", "--head", f"--port={PORT}", "--num-cpus=2"]
    begin += ["--include-dashboard=false", "--disable-usage-stats"]
    begin += ["--object-store-memory=100000000"]
    subprocess.run(begin, check=True, capture_output=True, timeout=100)
    yield f"127.0.0.1:{PORT}"
    subprocess.run([tool, "stop", "--force"], check=False, capture_output=True, timeout=60)


def until(true: Callable[[], Any], limit_s: float = 40.0) -> Any:
    end = time.monotonic() + limit_s
    while not (found := true()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.2)
    return found


@pytest.mark.timeout(300)
def test_ray_keeps_so_many_workers(server: Cluster, tmp_path: Path, address: str) -> None:
    environment = {**os.environ, "EDVAC_STORE": server.url("placed"), "EDVAC_MODEL": "none"}

    def edvac(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "edvac", *arguments]
        return subprocess.run(
            command,
            check=False,
            cwd=tmp_path,
            env={**environment, **more},
            text=True,
            capture_output=True,
            timeout=120,
        )

    def place(count: int, **more: str) -> subprocess.CompletedProcess[str]:
        flags = [f"--ray={count}", f"--ray-address={address}", "--capabilities=shell", "--lease=3"]
        return edvac("worker", *flags, "--slots=1", "--json", **more)

    def living() -> list[int]:
        told = edvac("worker", "--list", "--json").stdout
        return [one["id"] for one in json.loads(told)["workers"]]

    def processes() -> dict[int, int]:
        """The workers' processes, each with its actor's."""
        command = ["ps", "-eo", "pid,ppid,args"]
        listed = subprocess.run(command, check=True, text=True, capture_output=True)
        lines = [line.split() for line in listed.stdout.splitlines() if "worker --tied" in line]
        return {int(line[0]): int(line[1]) for line in lines}

    secret = server.url("placed").replace("edvac@/", "edvac:pw@/")
    assert "[ray_password]" in place(1, EDVAC_STORE=secret).stderr
    assert "[ray_away]" in edvac("worker", "--ray=1", "--ray-address=127.0.0.1:9").stderr
    done = place(2)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["workers"]) == 2
    until(lambda: len(living()) == 2)
    first, second = processes()
    os.kill(first, signal.SIGKILL)  # a worker
    os.kill(processes()[second], signal.SIGKILL)  # the actor of the other, which goes with it
    until(lambda: len(processes()) == 2 and not {first, second} & processes().keys())
    assert place(2).returncode == 0 and len(processes()) == 2, "no more than were asked for"
    assert place(1).returncode == 0
    until(lambda: len(processes()) == 1)
    assert place(0).returncode == 0
    until(lambda: not processes())
