"""Going on without a terminal: a run in a session of its own, and the hand-shake with its starter.

The starter waits until the run has begun; what went wrong before that is told to it over a pipe, as
the error it would have been in front of it. Knows nothing of what is run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edvac.core.errors import EdvacError, TransientError
from edvac.store.store import DIRECTORY

# -P: the directory that it runs in holds the user's files and must not supply modules.
COMMAND = (sys.executable, "-P", "-m", "edvac")
PIPE = "EDVAC_HANDSHAKE"  # number of the descriptor that the starter listens at
LOGS = "logs"
_LONGEST = 65_536  # bytes of a report
_TAIL = 600


class _Report(msgspec.Struct):
    """What the run says once: that it has begun, or why it has not."""

    code: str = ""
    what: str = ""
    why: str = ""
    fix: str = ""
    exit: int = 0


class StartError(EdvacError):
    """The error that a detached run ended with before it began; keeps its exit code."""

    def __init__(self, report: _Report) -> None:
        super().__init__(report.code, report.what, report.why, report.fix)
        self.exit_code = report.exit  # type: ignore[misc]


def log_path(workspace: Path, run: str) -> Path:
    """Where a detached run writes what a terminal would show."""
    return workspace / DIRECTORY / LOGS / f"{run}.log"


def start(arguments: Sequence[str], log: Path) -> None:
    """Start ``edvac ARGUMENTS`` in a session of its own and wait until its run has begun.

    Raises:
        StartError: it ended before that, with this error.
        TransientError: it ended without saying why.
    """
    log.parent.mkdir(mode=0o700, exist_ok=True)
    theirs = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    listen, speak = os.pipe()
    try:
        os.set_inheritable(speak, True)
        pid = os.posix_spawn(
            COMMAND[0],
            [*COMMAND, *arguments],
            os.environ | {PIPE: str(speak)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, theirs, 1),
                (os.POSIX_SPAWN_DUP2, theirs, 2),
            ],
            setsid=True,
        )
        os.close(speak)
        speak = -1
        said = _read(listen)
    finally:
        for descriptor in (listen, speak, theirs):
            if descriptor >= 0:
                os.close(descriptor)
    if not said:
        _collect(pid)
        raise _silent(log)
    report = msgspec.json.decode(said, type=_Report)
    if report.code:
        _collect(pid)
        raise StartError(report)


def _read(descriptor: int) -> bytes:
    said = b""
    while b"\n" not in said and len(said) < _LONGEST:
        more = os.read(descriptor, 4096)
        if not more:
            break
        said += more
    return said if b"\n" in said else b""


def _collect(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _silent(log: Path) -> TransientError:
    tail = log.read_bytes()[-_TAIL:].decode(errors="replace").strip()
    return TransientError(
        "detach_failed",
        "the detached run ended before it began",
        f"Its log ends: {tail}" if tail else "It said nothing.",
        f"What is stored is kept. See {log}, and `edvac resume` without --detach.",
    )


class Handshake:
    """The detached side. Where nobody listens, both calls do nothing."""

    def __init__(self) -> None:
        number = os.environ.pop(PIPE, "")  # nothing that this process starts may hold it open
        self._pipe = int(number) if number.isdecimal() else -1
        if self._pipe >= 0:
            os.set_inheritable(self._pipe, False)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def ready(self) -> None:
        """The run has begun: whoever started it may go."""
        self._say(_Report())

    def failed(self, error: EdvacError) -> None:
        """It ended before it began."""
        self._say(_Report(error.code, error.what, error.why, error.fix, error.exit_code))

    def _say(self, report: _Report) -> None:
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            with contextlib.suppress(BrokenPipeError):  # the starter is gone already
                os.write(pipe, msgspec.json.encode(report) + b"\n")
            os.close(pipe)


HANDSHAKE = Handshake()
