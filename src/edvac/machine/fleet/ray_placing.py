"""Ray as the one who places workers: so many actors on its cluster, each of which keeps one `edvac
worker` process alive.

Ray holds nothing of a run. What it starts takes its steps from the store like any other worker, and
what it loses comes back by the leases of the queue. Ray is an extra, imported only here.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edvac.core.errors import TransientError, UsageError
from edvac.machine.detach import COMMAND
from edvac.store.address import parse

NAMESPACE = "edvac"
RESTART_S = 2.0  # after a worker's process has ended, doubled up to the next
LONGEST_S = 60.0
REACHED_S = 10.0  # in which a cluster's address answers
STARTED_S = 60.0  # in which an actor says that it is there
STOPPED_S = 40.0  # that a worker gets to finish what it does


@dataclass(frozen=True, slots=True)
class Placing:
    """What is placed: a worker of this store with these arguments, begun in this directory."""

    url: str = field(repr=False)
    arguments: tuple[str, ...]
    directory: str
    address: str = "auto"

    @property
    def prefix(self) -> str:
        """Of the names of its actors: those of one store are counted together."""
        digest = hashlib.blake2b(parse(self.url).shown.encode(), digest_size=4).hexdigest()
        return f"edvac-worker-{digest}-"


class Keeper:
    """Runs in an actor, and again when Ray starts that anew: starts the worker's process whenever
    there is none. The process ends when its standard input does, and so with the actor."""

    def __init__(self, name: str, url: str, arguments: tuple[str, ...], directory: str) -> None:
        self._command = [*COMMAND, "worker", "--tied", f"--name={name}", *arguments]
        self._environment = {**os.environ, "EDVAC_STORE": url}
        self._directory = Path(directory) if Path(directory).is_dir() else None
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._over = threading.Event()
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        wait_s = RESTART_S
        while not self._over.is_set():
            begun = time.monotonic()
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, env=self._environment, stdin=subprocess.PIPE
            )
            self._starts += 1
            self._process.wait()
            lived = time.monotonic() - begun
            wait_s = RESTART_S if lived > LONGEST_S else min(2 * wait_s, LONGEST_S)
            self._over.wait(wait_s)

    def process(self) -> tuple[int, int]:
        """Number of the process that runs now, 0 for none, and how many were started."""
        running = self._process is not None and self._process.poll() is None
        return (self._process.pid if self._process and running else 0), self._starts

    def stop(self) -> bool:
        """Let the process finish what it does, for a while; is it over?"""
        self._over.set()
        if self._process is None or self._process.poll() is not None:
            return True
        self._process.terminate()
        try:
            self._process.wait(STOPPED_S)
        except subprocess.TimeoutExpired:
            return False
        return True


def place(placing: Placing, count: int) -> list[str]:
    """Have so many workers, no more and no fewer; the names of those there are then.

    Raises:
        UsageError: Ray is not installed, or the URL holds a password.
        TransientError: there is no cluster at the address, or its actors do not start.
    """
    ray = _ray()
    if "password" in parse(placing.url).parameters:
        raise UsageError(
            "ray_password",
            "a store's URL with a password in it is not given to Ray",
            "It keeps what it is given where everybody on its cluster can read it.",
            "Put the password into ~/.pgpass on each machine, and leave it out of the URL.",
        )
    _connect(ray, placing.address)
    try:
        return _brought_to(ray, placing, count)
    except ray.exceptions.RayError as problem:
        raise TransientError(
            "ray_failed",
            "the workers were not placed by Ray",
            str(problem).strip().split("\n")[-1][:300],
            "See that edvac is installed on every machine of the cluster, and `ray status`.",
        ) from problem
    finally:
        ray.shutdown()


def _brought_to(ray: Any, placing: Placing, count: int) -> list[str]:
    prefix = placing.prefix
    wanted = [f"{prefix}{number}" for number in range(count)]
    there = {
        one["name"]
        for one in ray.util.list_named_actors(all_namespaces=True)
        if one["namespace"] == NAMESPACE and one["name"].startswith(prefix)
    }
    for name in sorted(there - set(wanted)):
        actor = ray.get_actor(name, namespace=NAMESPACE)
        ray.get(actor.stop.remote(), timeout=2 * STOPPED_S)
        ray.kill(actor)
    begun = []
    for name in wanted:
        if name not in there:
            options = {
                "name": name,
                "namespace": NAMESPACE,
                "lifetime": "detached",
                "max_restarts": -1,
                "max_concurrency": 2,
                "num_cpus": 1,
                "scheduling_strategy": "SPREAD",
            }
            made = ray.remote(Keeper).options(**options)
            actor = made.remote(name, placing.url, placing.arguments, placing.directory)
            begun.append(actor)
    for actor in begun:
        ray.get(actor.process.remote(), timeout=STARTED_S)
    return wanted


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as problem:
        raise UsageError(
            "ray_missing",
            "placing workers needs Ray, which is not installed",
            str(problem),
            "pip install 'edvac[ray]', or start `edvac worker` on each machine by other means.",
        ) from problem


def _connect(ray: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal() and "/" not in host:  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), REACHED_S).close()
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError, OverflowError) as problem:
        raise TransientError(
            "ray_away",
            f"there is no Ray cluster at {address!r}",
            str(problem).strip().split("\n")[0][:300],
            "Start it with `ray start --head`, or name it with --ray-address.",
        ) from problem
