"""Processes that run `edvac`, forked by the server of cli_child.py: as real ones, for less."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

CHILD = str(Path(__file__).with_name("cli_child.py"))


@functools.cache
def _server() -> subprocess.Popen[str]:
    """One for all tests; it ends when its input does."""
    return subprocess.Popen(
        [sys.executable, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _ask(what: object) -> int:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(what) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


class Forked:
    """One process with the files of its three streams, in a session of its own."""

    def __init__(
        self,
        cwd: Path,
        streams: tuple[str, str, str],
        args: tuple[str, ...],
        delay: float,
        **env: str,
    ) -> None:
        order = {"cwd": str(cwd), "streams": streams, "args": args, "delay": delay}
        self.pid = _ask(order | {"env": {**os.environ, **env}})

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """How it ended; minus the signal that ended it."""
        return _ask(self.pid)


def done(cwd: Path, *args: str, delay: float = 0.0) -> subprocess.CompletedProcess[str]:
    """One that is waited for."""
    notes = cwd.parent / "said"
    notes.mkdir(exist_ok=True)
    out, err = notes / "out", notes / "err"
    for one in (out, err):
        one.write_text("")
    code = Forked(cwd, (os.devnull, str(out), str(err)), args, delay).wait()
    return subprocess.CompletedProcess(args, code, out.read_text(), err.read_text())
