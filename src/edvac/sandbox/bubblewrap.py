"""Commands inside bubblewrap: how the namespaces are laid out, and how a call is run and ended."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from edvac.core.errors import SandboxError

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/localtime")


@dataclass(frozen=True, slots=True)
class Isolation:
    """Can this machine isolate a process, and if not, why and what helps."""

    available: bool
    why: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """A host path as it appears inside."""

    host: Path
    inside: str
    write: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """One call.

    Attributes:
        argv: command, looked up inside.
        grants: mounts in this order, so that a later one may lie inside an earlier one.
        memory_mb, cpu_s, files_mb, processes: hard limits of the process tree's members.
        output_mb: of stdout and of stderr; more ends the call.
    """

    argv: tuple[str, ...]
    grants: tuple[Grant, ...] = ()
    cwd: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    timeout_s: float = 60.0
    memory_mb: int = 2048
    cpu_s: int = 600
    files_mb: int = 1024
    processes: int = 256
    output_mb: int = 16


@dataclass(frozen=True, slots=True)
class Completed:
    status: int
    stdout: bytes
    stderr: bytes


@functools.cache
def probe() -> Isolation:
    """Try the isolation once, for real."""
    program = shutil.which("bwrap")
    if program is None:
        return Isolation(False, "bubblewrap (bwrap) is not installed.", "Install it: bubblewrap.")
    command = command_line(Spec(("true",)))
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return Isolation(False, f"bubblewrap could not be run: {problem}", "See `edvac doctor`.")
    if done.returncode != 0:
        why = done.stderr.decode(errors="replace").strip()[:300]
        return Isolation(
            False,
            f"bubblewrap was refused by this system: {why}",
            "Allow unprivileged user namespaces, or run outside a restricted container.",
        )
    return Isolation(True)


def require() -> None:
    """Raise unless processes can be isolated here."""
    isolation = probe()
    if not isolation.available:
        raise SandboxError(
            "no_isolation",
            "this call needs a sandbox and there is none",
            isolation.why,
            isolation.fix,
        )


def command_line(spec: Spec) -> list[str]:
    """The full command: bubblewrap, limits, then the call itself."""
    made = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    made += ["--clearenv", "--hostname", "edvac"]
    for path in (*_SYSTEM, *_ETC):
        if Path(path).is_symlink():
            made += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).exists():
            made += ["--ro-bind", path, path]
    made += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", "/work"]  # noqa: S108
    for grant in spec.grants:
        made += ["--bind" if grant.write else "--ro-bind", str(grant.host), grant.inside]
    made += ["--chdir", spec.cwd]
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108
    for name, text in (env | spec.env).items():
        made += ["--setenv", name, text]
    megabyte = 1024 * 1024
    limits = ["prlimit", f"--as={spec.memory_mb * megabyte}", f"--cpu={spec.cpu_s}"]
    limits += [f"--fsize={spec.files_mb * megabyte}", "--nofile=256", "--core=0"]
    limits += [f"--nproc={spec.processes}", "--"]
    return [*made, "--", *limits, *spec.argv]


async def run(spec: Spec) -> Completed:
    """Run to the end, or to its time or output limit.

    Raises:
        SandboxError: no isolation here, time over, or too much output.
    """
    require()
    process = await asyncio.create_subprocess_exec(
        *command_line(spec),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(spec.timeout_s):
            return await _communicate(process, spec)
    except TimeoutError:
        raise SandboxError(
            "sandbox_timeout",
            f"{spec.argv[0]} did not end within {spec.timeout_s:g} s",
            "",
            "Give it less to do, or raise its time limit.",
        ) from None
    finally:
        await _end(process)


async def _communicate(process: asyncio.subprocess.Process, spec: Spec) -> Completed:
    assert process.stdin and process.stdout and process.stderr
    limit = spec.output_mb * 1024 * 1024
    stdout, stderr, _ = await asyncio.gather(
        _read(process.stdout, limit), _read(process.stderr, limit), _feed(process.stdin, spec.stdin)
    )
    return Completed(await process.wait(), stdout, stderr)


async def _feed(pipe: asyncio.StreamWriter, data: bytes) -> None:
    try:
        pipe.write(data)
        await pipe.drain()
        pipe.close()
    except (BrokenPipeError, ConnectionResetError):
        return  # the command did not read its input: its affair


async def _read(pipe: asyncio.StreamReader, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await pipe.read(65_536):
        size += len(part)
        if size > limit:
            raise SandboxError(
                "sandbox_output",
                f"the command wrote more than {limit // (1024 * 1024)} MiB of output",
                "",
                "Write to a declared file instead.",
            )
        parts.append(part)
    return b"".join(parts)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left; with its first process the whole pid namespace goes."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        await process.wait()
