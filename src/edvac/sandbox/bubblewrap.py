"""Commands inside bubblewrap: how the namespaces are laid out, and how a call is run and ended."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edvac.core.errors import SandboxError
from edvac.sandbox.watch import descendants, watch

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_HOST_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}  # bubblewrap's own: process 1 shows it
_INSIDE_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
}
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
        env: what the command sees, beside a few constants.
        memory_mb: of each process; `run` sees to it that all together hold no more.
        cpu_s, files_mb: of each process, and of each file.
        processes: all together, where the kernel counts them, with threads; `run` counts them
            in any case.
        scratch_mb: of ``/tmp`` and of ``/dev/shm``, which live in memory.
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
    scratch_mb: int = 256
    output_mb: int = 16


@dataclass(frozen=True, slots=True)
class Completed:
    status: int
    stdout: bytes
    stderr: bytes


def probe() -> Isolation:
    """Try the isolation for real; what came of it is remembered."""
    try:
        return _probed()
    except (OSError, subprocess.TimeoutExpired) as problem:
        return Isolation(False, f"bubblewrap could not be run: {problem}", "See `edvac doctor`.")


@functools.cache
def _probed() -> Isolation:
    if shutil.which("bwrap") is None:
        return Isolation(False, "bubblewrap (bwrap) is not installed.", "Install it: bubblewrap.")
    with _command(Spec(("true",))) as (command, descriptor):
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=10,
            check=False,
            env=_HOST_ENV,
            pass_fds=(descriptor,),
        )
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


@functools.cache
def _knows(option: str) -> bool:
    """Does the installed bubblewrap have this option? Releases of some distributions are old."""
    try:
        done = subprocess.run(
            [_program(), "--help"], capture_output=True, timeout=10, check=False, env=_HOST_ENV
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return option.encode() in done.stdout + done.stderr


def _program() -> str:
    return shutil.which("bwrap") or "bwrap"


def _mounts(spec: Spec) -> list[str]:
    made = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    made += ["--clearenv", "--hostname", "edvac"]
    if _knows("--disable-userns"):
        made += ["--unshare-user", "--disable-userns"]
    for path in (*_SYSTEM, *_ETC):
        if Path(path).is_symlink():
            made += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).exists():
            made += ["--ro-bind", path, path]
    size = ["--size", str(spec.scratch_mb * 1024 * 1024)] if _knows("--size") else []
    made += ["--proc", "/proc", "--dev", "/dev"]
    made += [*size, "--tmpfs", "/dev/shm", *size, "--tmpfs", "/tmp"]  # noqa: S108
    for grant in spec.grants:
        made += ["--bind" if grant.write else "--ro-bind", str(grant.host), grant.inside]
    made += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", spec.cwd]
    for name, text in (_INSIDE_ENV | spec.env).items():
        made += ["--setenv", name, text]
    return made


@contextlib.contextmanager
def _command(spec: Spec) -> Iterator[tuple[list[str], int]]:
    """The command, and the descriptor that it reads its options from: what they hold (data by name,
    paths of the host) must not show in the list of processes."""
    descriptor = os.memfd_create("edvac-sandbox", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, b"".join(part.encode() + b"\0" for part in _mounts(spec)))
        os.lseek(descriptor, 0, os.SEEK_SET)
        megabyte = 1024 * 1024
        limits = ["prlimit", f"--as={spec.memory_mb * megabyte}", f"--cpu={spec.cpu_s}"]
        limits += [f"--fsize={spec.files_mb * megabyte}", "--nofile=256", "--core=0"]
        limits += [f"--nproc={spec.processes}", "--"]
        yield [_program(), "--args", str(descriptor), "--", *limits, *spec.argv], descriptor
    finally:
        os.close(descriptor)


async def start(spec: Spec) -> asyncio.subprocess.Process:
    """Start the command; whoever does ends it with `end`. What all its processes hold together is
    not watched, as it is in `run`.

    Raises:
        SandboxError: no isolation here.
    """
    require()
    started = asyncio.ensure_future(_spawn(spec))
    try:
        return await asyncio.shield(started)
    except asyncio.CancelledError:
        await asyncio.wait([started])
        if not started.cancelled() and started.exception() is None:
            await end(started.result())
        raise


async def _spawn(spec: Spec) -> asyncio.subprocess.Process:
    """To the end, once begun: asyncio, when cancelled, would kill bwrap and not what is below."""
    with _command(spec) as (command, descriptor):
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=_HOST_ENV,
            pass_fds=(descriptor,),
        )


async def run(spec: Spec) -> Completed:
    """Run to the end, or to its time, memory, process or output limit.

    Raises:
        SandboxError: no isolation here, or a limit was reached.
    """
    process = await start(spec)
    work = asyncio.ensure_future(_communicate(process, spec))
    watcher = asyncio.ensure_future(watch(process.pid, spec.processes, spec.memory_mb))
    try:
        async with asyncio.timeout(spec.timeout_s):
            await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            watcher.result()
            raise AssertionError("the watcher ends only by an error")
    except TimeoutError:
        raise SandboxError(
            "sandbox_timeout",
            f"the call did not end within {spec.timeout_s:g} s",
            "",
            "Give it less to do, or raise its time limit.",
        ) from None
    finally:
        for task in (work, watcher):
            task.cancel()
        await asyncio.gather(work, watcher, return_exceptions=True)
        await end(process)


async def _communicate(process: asyncio.subprocess.Process, spec: Spec) -> Completed:
    assert process.stdin and process.stdout and process.stderr
    limit = spec.output_mb * 1024 * 1024
    feeder = asyncio.ensure_future(_feed(process.stdin, spec.stdin))
    readers = [
        asyncio.ensure_future(_read(pipe, limit)) for pipe in (process.stdout, process.stderr)
    ]
    try:
        stdout, stderr = await asyncio.gather(*readers)
        return Completed(await process.wait(), stdout, stderr)
    finally:
        for task in (feeder, *readers):
            task.cancel()
        await asyncio.gather(feeder, *readers, return_exceptions=True)


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


def kill(pid: int) -> None:
    """Kill bwrap and all below it. Its first child dies with it only once it has said so: killed
    while it begins, bwrap alone would leave a process behind that holds the pipes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGSTOP)  # so that it starts nothing more while it is looked at
    for below in descendants(pid)[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(below, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left; with its first process the whole pid namespace goes. Waits until nobody
    holds its pipes any more."""
    assert process.stdin and process.stdout and process.stderr
    if process.returncode is None:
        kill(process.pid)
    if process.stdin.transport.get_write_buffer_size():
        process.stdin.transport.abort()  # nobody reads it, and to flush it could outlive the loop
    process.stdin.close()
    for pipe in (process.stdout, process.stderr):
        while await pipe.read(1 << 20):
            pass
    await process.wait()  # only now: it waits for the pipes too, and a full one is not read
