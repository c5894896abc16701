"""Talks to an engine process, and starts one where none is serving.

Pure asyncio, no torch: cheap to import. A request ends with its answer or with one typed error,
also when the engine dies in the middle. It knows frames and processes; chat templates and schemas
are the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from edvac.core.errors import EdvacError, ProcessorError
from edvac.engine.protocol import (
    VERSION,
    AdapterHeld,
    Cancel,
    Done,
    Failed,
    FrameError,
    FromEngine,
    Generate,
    Hello,
    Hint,
    LoadAdapter,
    Progress,
    Ready,
    Segment,
    Setting,
    Shutdown,
    Stats,
    StatsReply,
    Text,
    ToEngine,
    Token,
    Tokenize,
    Tokens,
    UnloadAdapter,
    decode_from_engine,
    encode,
    frame_length,
    raised,
)

OnProgress = Callable[[Progress], None]
OnText = Callable[[str, int], None]  # text, and how many tokens it took
OnTokens = Callable[[list[Token]], None]

_POLL: Final = 0.05
_ENDING: Final = 20.0  # seconds for which an engine that was told to end is waited for
_FAILING: Final = 5.0  # and one that could not load its model
_LOG_TAIL: Final = 2000
_MAX_SOCKET_PATH: Final = 100  # the kernel's limit is 107 bytes


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which engine is wanted. Equal specs reach the same process.

    Args:
        model: the weight file.
        setting: ``fast``, or ``reference`` for float32 and reproducible text.
        threads, context, kv_mb: 0 leaves the choice to the engine.
        kv_type: how keys and values are stored: ``f16``, ``int8``, ``k8v4`` or ``int4``.
        kv_disk_type: how they lie on disk: the ``same``, ``int8`` or ``int4``.
        idle_seconds: how long it stays after its last client.
        runtime: directory of sockets and logs (mode 0700); by default the user's runtime directory.
        cache: directory of repacked weights; by default the user's cache directory.
    """

    model: Path
    setting: Setting = "fast"
    threads: int = 0
    context: int = 0
    kv_mb: int = 0
    kv_type: str = "f16"
    kv_disk_type: str = "same"
    idle_seconds: float = 600.0
    start_seconds: float = 600.0
    runtime: Path | None = None
    cache: Path | None = None
    extra: tuple[str, ...] = ()

    def socket(self) -> Path:
        parts = (self.model.resolve(), self.setting, self.threads, self.context, self.kv_mb)
        key = "\0".join(map(str, (*parts, self.kv_type, self.kv_disk_type, *self.extra)))
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        return (self.runtime or default_runtime()) / f"{name}.sock"

    def command(self) -> list[str]:
        # -P: the working directory holds the user's files and must not be able to supply modules.
        return [
            *(sys.executable, "-P", "-m", "edvac.engine"),
            *("--model", str(self.model.resolve())),
            *("--socket", str(self.socket())),
            *("--cache", str(self.cache or default_cache())),
            *("--setting", self.setting),
            *("--threads", str(self.threads)),
            *("--context", str(self.context)),
            *("--kv-mb", str(self.kv_mb)),
            *("--kv-type", self.kv_type),
            *("--kv-disk-type", self.kv_disk_type),
            *("--idle-seconds", str(self.idle_seconds)),
            *self.extra,
        ]


def default_runtime() -> Path:
    """A private directory with a short name; sockets' paths may not be long."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and len(base) < _MAX_SOCKET_PATH - 40:
        return Path(base) / "edvac"
    return Path(tempfile.gettempdir()) / f"edvac-{os.getuid()}"


def default_cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("edvac")) / "engine"


async def connect_or_start(spec: EngineSpec, on_progress: OnProgress | None = None) -> EngineClient:
    """A client of the engine that `spec` describes, which is started if it is not running."""
    async with asyncio.timeout(spec.start_seconds) as limit:
        try:
            while True:
                streams, process = await _reach(spec)
                client = EngineClient(*streams, log=log_path(spec))
                try:
                    await client.greet(on_progress)
                except _EndingError:
                    await client.close()  # caught the old process on its way out
                    await asyncio.sleep(_POLL)
                    continue
                except EdvacError as error:
                    if error.code != "protocol_error":  # it could not load, and ends
                        with contextlib.suppress(TimeoutError):  # so that the next try is a new one
                            async with asyncio.timeout(_FAILING):
                                await _until_ended(spec.socket(), process)
                    raise
                if process is not None:
                    client.adopt(process)
                return client
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ProcessorError(
                "engine_slow",
                "the engine did not become ready",
                f"{spec.start_seconds:.0f} seconds passed. {log_tail(log_path(spec))}",
                "Choose a smaller model, or allow more time.",
            ) from error


def log_path(spec: EngineSpec) -> Path:
    return spec.socket().with_suffix(".log")


def log_tail(path: Path) -> str:
    """The last lines the engine wrote."""
    try:
        data = path.read_bytes()[-_LOG_TAIL:]
    except OSError:
        return ""
    text = data.decode("utf-8", "replace").strip()
    return f"The engine's log ends with:\n{text}" if text else ""


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _connect(path: Path) -> Streams | None:
    try:
        return await asyncio.open_unix_connection(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return None


async def _reach(spec: EngineSpec) -> tuple[Streams, _Process | None]:
    path = spec.socket()
    found = await _connect(path)
    if found is not None:
        return found, None
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with _start_lock(path):
        found = await _connect(path)
        if found is not None:
            return found, None
        process = _Process(spec)
        while True:
            found = await _connect(path)
            if found is not None:
                return found, process
            code = process.poll()
            if code is not None:
                raise _died("The engine could not start.", log_path(spec), code)
            await asyncio.sleep(_POLL)


@contextlib.asynccontextmanager
async def _start_lock(path: Path) -> AsyncIterator[None]:
    """Only one client at a time starts a process for one socket."""
    handle = os.open(f"{path}.start", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_POLL)
        yield
    finally:
        os.close(handle)


def _is_served(path: Path) -> bool:
    """Does a process hold the lock of this socket? It is let go of when the process ends."""
    try:
        handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


class _Process:
    """The engine process we started. Unlike a `Popen`, it may outlive us without a warning."""

    def __init__(self, spec: EngineSpec) -> None:
        command = spec.command()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self._code: int | None = None
        self._pid = os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log_path(spec)), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,  # the terminal's Ctrl-C is the client's business
        )

    def poll(self) -> int | None:
        """The exit code, or None while it runs; collects the process once it has ended."""
        if self._code is None:
            try:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:  # somebody else collected it
                return self._code
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code


async def _until_ended(path: Path, process: _Process | None, pid: int = 0) -> None:
    """Wait until the engine of a socket has ended and its memory is free.

    Args:
        process: it, where we started it.
        pid: its number, where it is known.
    """
    if process is not None:
        while process.poll() is None:  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(_POLL)
        return
    async with _start_lock(path):  # so that no engine is started that finds the lock taken
        while _is_served(path) or (pid and _has_memory(pid)):  # noqa: ASYNC110
            await asyncio.sleep(_POLL)


def _has_memory(pid: int) -> bool:
    """Does a process hold memory? One that has ended and was not collected does not."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) > 0
    except (OSError, IndexError):
        return False


def _died(what: str, log: Path, code: int | None = None) -> ProcessorError:
    cause = "" if code is None else f"Its process ended with code {code}. "
    return ProcessorError(
        "engine_died", what, f"{cause}{log_tail(log)}".strip(), "Try again; a new one will start."
    )


class _EndingError(Exception):
    """The process closed the connection before it said anything."""


@dataclass(slots=True)
class _Pending:
    answer: asyncio.Future[Done]
    on_text: OnText | None
    on_progress: OnProgress | None
    on_tokens: OnTokens | None


@dataclass(slots=True)
class EngineClient:
    """One connection. Any number of requests may be in flight on it."""

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    log: Path
    _ready: Ready | None = None
    _pending: dict[str, _Pending] = field(default_factory=dict)
    _stats: list[asyncio.Future[StatsReply]] = field(default_factory=list)
    _cut: dict[str, asyncio.Future[Tokens]] = field(default_factory=dict)
    _orders: dict[str, asyncio.Future[AdapterHeld]] = field(default_factory=dict)
    _ordered: int = 0
    _task: asyncio.Task[None] | None = None
    _gone: EdvacError | None = None
    _process: _Process | None = None

    @property
    def ready(self) -> Ready:
        assert self._ready is not None, "connect_or_start waits for Ready"
        return self._ready

    @property
    def gone(self) -> bool:
        """Has the connection ended?"""
        return self._gone is not None

    def adopt(self, process: _Process) -> None:
        """Remember the process we started, so that its end is collected and its code known."""
        self._process = process

    async def greet(self, on_progress: OnProgress | None = None) -> None:
        """Say hello and wait until the model is loaded."""
        try:
            self._writer.write(encode(Hello(VERSION)))
            silent = True
            while self._ready is None:
                try:
                    message = await self._read()
                except (asyncio.IncompleteReadError, ConnectionError) as error:
                    if silent:
                        raise _EndingError from error
                    raise _died("The engine died while loading.", self.log) from error
                silent = False
                if isinstance(message, Failed):
                    raise raised(message)
                if isinstance(message, Progress) and on_progress is not None:
                    on_progress(message)
                if isinstance(message, Ready):
                    self._ready = message
        except BaseException:
            self._writer.close()
            raise
        self._task = asyncio.create_task(self._listen())

    async def generate(
        self,
        request: Generate,
        on_text: OnText | None = None,
        on_progress: OnProgress | None = None,
        on_tokens: OnTokens | None = None,
    ) -> Done:
        """The finished answer. Cancelling the task cancels the request in the engine.

        `on_tokens` is called before `on_text`, where the request asks for a report.
        """
        if self._gone is not None:
            raise self._gone
        if request.id in self._pending:
            raise ValueError(f"the request {request.id!r} is running already")
        wants = (on_text, on_progress, on_tokens)
        if any(one is not None for one in wants) and not request.stream:
            request = msgspec.structs.replace(request, stream=True)
        answer: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        pending = _Pending(answer, on_text, on_progress, on_tokens)
        self._pending[request.id] = pending
        try:
            await self._send(request)
            return await pending.answer
        except asyncio.CancelledError:
            self._writer.write(encode(Cancel(request.id)))
            raise
        finally:
            self._pending.pop(request.id, None)

    async def load_adapter(self, name: str, path: Path) -> str:
        """Have a LoRA adapter read, so that requests may name it; the SHA-256 of its content.

        It is held until this client unloads it or leaves.

        Raises:
            ModelFileError: it is damaged, or belongs to another model.
            ConfigError: another adapter has this name.
        """
        held = await self._order(LoadAdapter(id=self._order_id(), name=name, path=str(path)))
        return held.sha256

    async def unload_adapter(self, name: str) -> None:
        """Let go of an adapter; requests that run with it go on.

        Raises:
            ConfigError: this client does not hold it.
        """
        await self._order(UnloadAdapter(id=self._order_id(), name=name))

    def _order_id(self) -> str:
        self._ordered += 1
        return f"\0{self._ordered}"  # no request is called so

    async def _order(self, message: LoadAdapter | UnloadAdapter) -> AdapterHeld:
        if self._gone is not None:
            raise self._gone
        self._orders[message.id] = asyncio.get_running_loop().create_future()
        try:
            await self._send(message)
            return await self._orders[message.id]
        finally:
            del self._orders[message.id]

    def hint(self, hint: Hint) -> None:
        """Say what a program does; nothing comes of it where the engine is gone."""
        if self._gone is None and not self._writer.is_closing():
            self._writer.write(encode(hint))

    async def stats(self) -> StatsReply:
        if self._gone is not None:
            raise self._gone
        waiter: asyncio.Future[StatsReply] = asyncio.get_running_loop().create_future()
        self._stats.append(waiter)
        await self._send(Stats())
        return await waiter

    async def tokenize(self, name: str, segments: list[Segment], *, bos: bool) -> Tokens:
        """The tokens of a prompt; `name` is this call's alone.

        Raises:
            ConfigError: there is no such token.
        """
        if self._gone is not None:
            raise self._gone
        found: asyncio.Future[Tokens] = asyncio.get_running_loop().create_future()
        self._cut[name] = found
        try:
            await self._send(Tokenize(id=name, segments=segments, bos=bos))
            return await found
        finally:
            del self._cut[name]

    async def shutdown(self) -> None:
        """Ask the engine to end when nothing is running."""
        await self._send(Shutdown())

    async def release(self) -> None:
        """Leave, and have the engine end where nobody else uses it.

        Returns when its memory is free, or it stays for others; or it takes too long to end.
        """
        if self._gone is None and self._task is not None:
            with contextlib.suppress(EdvacError, TimeoutError):
                async with asyncio.timeout(_ENDING):
                    await self._send(Shutdown(alone=True))
                    await asyncio.shield(self._task)  # the engine ends the connection
                    if not self._is_shared():
                        path = self.log.with_suffix(".sock")
                        await _until_ended(path, self._process, self.ready.pid)
        await self.close()

    def _is_shared(self) -> bool:
        return self._gone is not None and self._gone.code == "engine_shared"

    async def close(self) -> None:
        """Leave; the engine cancels what this client still had running."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        if self._process is not None:
            self._process.poll()

    async def __aenter__(self) -> EngineClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, message: ToEngine) -> None:
        try:
            self._writer.write(encode(message))
            await self._writer.drain()
        except ConnectionError as error:
            raise self._gone or _died("The engine is gone.", self.log) from error

    async def _read(self) -> FromEngine:
        length = frame_length(await self._reader.readexactly(4))
        return decode_from_engine(await self._reader.readexactly(length))

    async def _listen(self) -> None:
        error: EdvacError
        try:
            while True:
                message = await self._read()
                if isinstance(message, Failed) and message.id is None:
                    error = raised(message)
                    break
                self._dispatch(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            code = self._process.poll() if self._process is not None else None
            error = _died("The engine died.", self.log, code)
        except FrameError as broken:
            error = ProcessorError("engine_garbled", "the engine sent nonsense", str(broken))
        self._gone = error
        self._writer.close()
        answers = [pending.answer for pending in self._pending.values()]
        waiting: list[asyncio.Future[Any]] = [*answers, *self._cut.values(), *self._stats]
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(error)
        for order in self._orders.values():
            if not order.done():
                order.set_exception(error)

    def _dispatch(self, message: FromEngine) -> None:
        if isinstance(message, StatsReply):
            if self._stats:
                waiter = self._stats.pop(0)
                if not waiter.done():
                    waiter.set_result(message)
            return
        identity = getattr(message, "id", None) or ""
        cut = self._cut.get(identity)
        if cut is not None and not cut.done():
            if isinstance(message, Tokens):
                cut.set_result(message)
            elif isinstance(message, Failed):
                cut.set_exception(raised(message))
        order = self._orders.get(identity)
        if order is not None:
            if isinstance(message, AdapterHeld) and not order.done():
                order.set_result(message)
            elif isinstance(message, Failed) and not order.done():
                order.set_exception(raised(message))
            return
        pending = self._pending.get(identity)
        if pending is None:
            return
        if isinstance(message, Text):
            if pending.on_tokens is not None and message.chosen:
                pending.on_tokens(message.chosen)
            if pending.on_text is not None:
                pending.on_text(message.text, message.tokens)
        elif isinstance(message, Progress) and pending.on_progress is not None:
            pending.on_progress(message)
        elif isinstance(message, Done) and not pending.answer.done():
            pending.answer.set_result(message)
        elif isinstance(message, Failed) and not pending.answer.done():
            pending.answer.set_exception(raised(message))
