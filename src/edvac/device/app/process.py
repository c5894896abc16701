"""The process of an app: in a sandbox, with its own folder and nothing else to write to.

It sees the system's programs, edvac's interpreter, the code that a person named when it was added,
and its own folder, which is kept between runs. It has no file of the workspace and no other app's
folder. It has no network; where a person approved hosts, a proxy outside connects to these alone.
Knows nothing of the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from edvac.core.errors import DeviceError, SandboxError
from edvac.device.app.manifest import App
from edvac.device.browser.origins import Grants, shown
from edvac.device.browser.proxy import Proxy
from edvac.sandbox import Grant, Spec, end, interpreter, kill, start
from edvac.sandbox.watch import watch

OWN, CODE, HOST = "/app", "/.edvac/code", "/.edvac/host.py"
RELAY, WAY_OUT = "/.edvac/relay.py", "/.edvac/proxy"
PROCESSES, FILE_MB, FOLDER_MB, CPU_S = 64, 64, 256, 3600
REFUSALS = 20  # that are told of one call
TAIL = 2_000  # bytes of standard error that are kept, for people


def spec_of(app: App, own: Path, way_out: Path | None = None) -> Spec:
    """The sandbox of an app, whose own folder is `own`.

    Args:
        way_out: socket of the proxy that it connects by; None for an app without hosts.
    """
    grants = [*interpreter()]
    if app.module:
        (code,) = map(Path, app.code)
        grants += [Grant(Path(__file__).with_name("host.py"), HOST)]
        grants += [Grant(code, f"{CODE}/{code.name}")]
        argv: tuple[str, ...] = (sys.executable, "-I", "-B", HOST, app.module, CODE)
    else:
        grants += [Grant(Path(path), path) for path in app.code]
        argv = app.command
    if way_out is not None:
        grants += [Grant(Path(__file__).with_name("relay.py"), RELAY), Grant(way_out, WAY_OUT)]
        argv = (sys.executable, "-I", "-B", RELAY, WAY_OUT, *argv)
    grants.append(Grant(own, OWN, write=True))
    return Spec(
        argv,
        tuple(grants),
        cwd=OWN,
        env={"HOME": OWN},
        memory_mb=app.memory_mb,
        cpu_s=CPU_S,
        files_mb=FILE_MB,
        processes=PROCESSES,
        scratch_mb=64,
    )


class WayOut:
    """A proxy for one app, at a socket in a directory of its own."""

    def __init__(self, app: App) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="edvac-app-"))
        self.path = self._place / "proxy"
        grants = Grants(private=frozenset(app.private))
        self._hosts = app.hosts
        self._proxy = Proxy(frozenset(app.hosts), grants)

    async def open(self) -> None:
        await self._proxy.start_at(str(self.path))

    @property
    def met(self) -> list[str]:
        """Origins that were connected to."""
        return sorted(map(shown, self._proxy.met))

    def refused(self) -> list[str]:
        """Origins that were refused since the last call, and why."""
        found = self._proxy.take_refused()
        named = [(shown(one) if one else "what is no origin", one, why) for one, why in found]
        return [
            f"{name}: {why}" if one in self._hosts else f"{name}: it was not approved"
            for name, one, why in named[:REFUSALS]
        ]

    async def close(self) -> None:
        await self._proxy.close()
        shutil.rmtree(self._place, ignore_errors=True)


class Process:
    """One running app. Use `Process.begin`, then its pipes, then `close`."""

    def __init__(
        self, app: App, running: asyncio.subprocess.Process, way_out: WayOut | None
    ) -> None:
        assert running.stdin and running.stdout and running.stderr
        self.stdin, self.stdout = running.stdin, running.stdout
        self._app = app
        self._running = running
        self.way_out = way_out
        self._said = bytearray()
        self._stderr = asyncio.ensure_future(self._listen(running.stderr))
        self._watcher = asyncio.ensure_future(watch(running.pid, PROCESSES, app.memory_mb))
        self._watcher.add_done_callback(self._stop)

    @staticmethod
    async def begin(app: App, own: Path) -> Process:
        """
        Raises:
            SandboxError: there is no isolation here.
            DeviceError: it cannot be started, or its folder has grown too large.
        """
        size = await asyncio.to_thread(_size, own)
        if size > FOLDER_MB * 1024 * 1024:
            raise DeviceError(
                "app_folder_full",
                f"the app {app.name} has filled its folder",
                f"It may keep {FOLDER_MB} MiB there.",
                f"Empty it with `edvac app forget {app.name}`.",
            )
        gone = await asyncio.to_thread(_first_missing, app.code)
        if gone:
            raise cannot_start(app, f"{gone} is gone")
        way_out = WayOut(app) if app.hosts else None
        try:
            if way_out is not None:
                await way_out.open()
            spec = spec_of(app, own, way_out.path if way_out is not None else None)
            return Process(app, await start(spec), way_out)
        except BaseException as problem:
            if way_out is not None:
                await way_out.close()
            if isinstance(problem, OSError):
                raise cannot_start(app, problem.strerror or str(problem)) from problem
            raise

    @property
    def over(self) -> bool:
        return self._running.returncode is not None

    @property
    def stopped_by(self) -> SandboxError | None:
        """The limit that it went beyond, if it did."""
        if self._watcher.done() and not self._watcher.cancelled():
            found = self._watcher.exception()
            return found if isinstance(found, SandboxError) else None
        return None

    @property
    def said(self) -> str:
        """The end of what it wrote to standard error: a stranger's words, on one line."""
        return ascii(bytes(self._said[-TAIL:]).decode(errors="replace").strip()[-300:])[1:-1]

    async def close(self) -> None:
        """End it, with all that it has started."""
        for task in (self._watcher, self._stderr):
            task.cancel()
        await asyncio.gather(self._watcher, self._stderr, return_exceptions=True)
        await end(self._running)
        if self.way_out is not None:
            await self.way_out.close()

    def _stop(self, watcher: asyncio.Future[None]) -> None:
        if not watcher.cancelled() and watcher.exception() is not None:
            kill(self._running.pid)

    async def _listen(self, pipe: asyncio.StreamReader) -> None:
        while part := await pipe.read(65_536):
            self._said = (self._said + part)[-TAIL:]


def _first_missing(paths: tuple[str, ...]) -> str:
    return next((path for path in paths if not Path(path).exists()), "")


def _size(folder: Path) -> int:
    """Bytes below a folder, each file counted as a block at least; links are not followed, and what
    cannot be looked at is not counted."""
    total, todo = 0, [str(folder)]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as found:
            for one in found:
                total += max(one.stat(follow_symlinks=False).st_size, 4096)
                if one.is_dir(follow_symlinks=False):
                    todo.append(one.path)
        if total > FOLDER_MB * 1024 * 1024:
            break
    return total


def cannot_start(app: App, why: str) -> DeviceError:
    return DeviceError(
        "app_start",
        f"the app {app.name} cannot be started",
        f"{why[0].upper()}{why[1:]}." if why else "It ended at once.",
        f"See `edvac app show {app.name}` for how it is started and what it may see.",
    )
