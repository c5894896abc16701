"""Who owns a run, and whether that process is still alive.

A process is named so that a later one with the same number is not taken for it: machine, boot,
pid namespace, pid and start time. Where the answer cannot be known (another machine, another
container), it is None, and only the lease's end frees the run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec


@dataclass(frozen=True, slots=True)
class Process:
    machine: str
    boot: str
    space: str
    pid: int
    start: str

    def stored(self) -> str:
        return msgspec.json.encode(
            [self.machine, self.boot, self.space, self.pid, self.start]
        ).decode()

    @staticmethod
    def restore(form: str) -> Process:
        machine, boot, space, pid, start = msgspec.json.decode(
            form, type=tuple[str, str, str, int, str]
        )
        return Process(machine, boot, space, pid, start)


class Owners(Protocol):
    """The seam to the process table."""

    def me(self) -> Process: ...
    def alive(self, process: Process) -> bool | None: ...


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _start(pid: int) -> str:
    # Field 22 of the stat line, counted after the command, which may hold spaces and brackets.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def _space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


class SystemOwners:
    """The real process table, read through /proc."""

    def __init__(self) -> None:
        self._me: Process | None = None

    def me(self) -> Process:
        pid = os.getpid()
        if self._me is None or self._me.pid != pid:
            machine = _read("/etc/machine-id") or os.uname().nodename
            boot = _read("/proc/sys/kernel/random/boot_id")
            self._me = Process(machine, boot, _space(), pid, _start(pid))
        return self._me

    def alive(self, process: Process) -> bool | None:
        """True, False, or None where it cannot be known from here."""
        me = self.me()
        if process.machine != me.machine:
            return None
        if process.boot != me.boot:
            return False  # this machine was started again since
        if process.space != me.space:
            return None
        if not me.start:  # no /proc: the number alone has to do
            try:
                os.kill(process.pid, 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                pass
            return True
        return _start(process.pid) == process.start
