"""The engine's shell: a private socket in front of one step thread.

One thread runs asyncio and speaks to clients; one owns the engine and computes. Work crosses over
in a queue, answers come back through the loop. The process ends some time after its last client,
or drains on SIGTERM. It knows connections and frames; what a request means is
`edvac.engine.engine`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import queue
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from edvac.core.errors import ConfigError, EdvacError, ProcessorError
from edvac.engine.cores import Cores
from edvac.engine.engine import Engine
from edvac.engine.prompt import tokenize
from edvac.engine.protocol import (
    VERSION,
    AdapterHeld,
    Cancel,
    Failed,
    Forget,
    FrameError,
    FromEngine,
    Generate,
    Hello,
    Hint,
    LoadAdapter,
    Progress,
    Ready,
    Shutdown,
    Stats,
    ToEngine,
    Tokenize,
    UnloadAdapter,
    decode_to_engine,
    encode,
    failure,
    frame_length,
)

_log = logging.getLogger("edvac.engine")
_MAX_UNSENT: Final = 64 << 20  # a client that does not read is dropped, not waited for
_PAUSE: Final = 0.02  # seconds between two looks at work that waits for others
_MAX_CLIENTS: Final = 256
_LAST_WORDS: Final = 10.0  # seconds for which a failed load waits for a client to be told
_TELLING: Final = 0.2  # seconds that the telling may take
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")

Work = Callable[[Engine], list[FromEngine]]
Builder = Callable[[Callable[[int, int], None]], tuple[Engine, Ready]]


@contextlib.contextmanager
def private_socket(path: Path) -> Iterator[socket.socket]:
    """A listening 0600 socket that only this process serves; the lock dies with it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    info = path.parent.stat()
    if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(
            "engine_directory_open",
            f"the directory {path.parent} is not private",
            "Other users could reach the engine's socket.",
            "Make it yours alone: chmod 700.",
        )
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ProcessorError(
            "engine_already_serving", f"another engine serves {path} already"
        ) from error
    served = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            served.bind(str(path))
        finally:
            os.umask(before)
        served.listen(64)
        yield served
    finally:
        served.close()
        path.unlink(missing_ok=True)
        os.close(lock)


@dataclass(slots=True)
class _Client:
    number: int
    writer: asyncio.StreamWriter
    greeted: bool = False
    requests: set[str] = field(default_factory=set)


class Server:
    """Serves one engine until nobody wants it any more."""

    def __init__(self, build: Builder, idle_seconds: float, cores: Cores | None = None) -> None:
        self._build, self._idle_seconds, self._cores = build, idle_seconds, cores
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._clients: dict[int, _Client] = {}
        self._ready: Ready | None = None
        self._cutting = ThreadPoolExecutor(1, thread_name_prefix="tokens")
        self._failed: Failed | None = None
        self._count = 0
        self._draining = False
        self._idle_timer: asyncio.TimerHandle | None = None
        self.exit_code = 0

    async def run(self, served: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(name, self._drain)
        listener = await asyncio.start_unix_server(self._serve, sock=served)
        thread = threading.Thread(target=self._compute, name="step", daemon=True)
        thread.start()
        self._arm_idle()
        try:
            await self._over.wait()
        finally:
            listener.close()
            for client in list(self._clients.values()):
                client.writer.close()
            self._work.put(None)
            self._cutting.shutdown(wait=False, cancel_futures=True)
            await asyncio.to_thread(thread.join, 30.0)

    # --- the step thread -------------------------------------------------------------------

    def _compute(self) -> None:
        """Whatever ends this thread ends the process: nobody is to wait for steps that never
        come."""
        told = False
        try:
            told = self._steps()
        finally:
            if not told:  # a fault of a kind that nobody thought of; its traceback is in the log
                self._loop.call_soon_threadsafe(self._broken, "the step thread has ended")

    def _steps(self) -> bool:
        """Build the engine, then alternate between taking orders and computing steps; true once
        the loop has been told how that ended."""
        try:
            engine, ready = self._build(
                lambda done, total: self._post([Progress(None, "load", done, total)])
            )
        except EdvacError as error:
            self._loop.call_soon_threadsafe(self._load_failed, error)
            return True
        # A collection would look at all that torch brings: a tenth of a second without a token.
        gc.freeze()
        self._loop.call_soon_threadsafe(self._loaded, ready)
        while self._orders(engine):
            if self._cores is not None and self._cores.adapt():
                engine.use_threads(self._cores.threads)
            try:
                self._post(engine.step())
            except (EdvacError, RuntimeError, ValueError, MemoryError) as error:
                # A broken step leaves KV memory in doubt: say so and end; clients may retry.
                _log.exception("a step failed")
                self._loop.call_soon_threadsafe(self._broken, str(error))
                return True
            if self._drained(engine):
                break
        engine.leave()
        self._loop.call_soon_threadsafe(self._over.set)
        return True

    def _orders(self, engine: Engine) -> bool:
        """Carry out what clients asked for; waits while there is nothing to compute."""
        while True:
            try:
                pause = _PAUSE if engine.busy else None
                work = self._work.get(block=engine.paused or not engine.busy, timeout=pause)
            except queue.Empty:
                return True
            if work is None:
                return False
            self._post(work(engine))
            if self._drained(engine):
                self._loop.call_soon_threadsafe(self._over.set)

    def _drained(self, engine: Engine) -> bool:
        """Is everything done that was asked for before the end? Some of it may still be queued."""
        return self._draining and not engine.busy and self._work.empty()

    def _post(self, messages: list[FromEngine]) -> None:
        if messages:
            self._loop.call_soon_threadsafe(self._deliver, messages)

    # --- the loop's thread -----------------------------------------------------------------

    def _loaded(self, ready: Ready) -> None:
        self._ready = ready
        for client in self._clients.values():
            if client.greeted:
                self._send(client, ready)
        if self._draining:
            self._over.set()

    def _load_failed(self, error: EdvacError) -> None:
        _log.error("loading failed: %s", error)
        self._failed = failure(None, error)
        self.exit_code = error.exit_code
        greeted = [client for client in self._clients.values() if client.greeted]
        for client in greeted:
            self._send(client, self._failed)
        self._loop.call_later(_TELLING if greeted else _LAST_WORDS, self._over.set)

    def _broken(self, why: str) -> None:
        self.exit_code = 1
        error = ProcessorError("engine_died", "the engine failed and is ending", why[:2000])
        for client in list(self._clients.values()):
            self._send(client, failure(None, error))
        self._loop.call_later(_TELLING, self._over.set)

    def _deliver(self, messages: list[FromEngine]) -> None:
        for message in messages:
            identity = getattr(message, "id", None)
            if identity is None:
                for client in list(self._clients.values()):
                    if client.greeted:
                        self._send(client, message)
                continue
            number, _, own = identity.partition(":")
            client_found = self._clients.get(int(number))
            if client_found is None:
                continue
            if not isinstance(message, Progress) and message.__class__.__name__ != "Text":
                client_found.requests.discard(own)
            self._send(client_found, msgspec.structs.replace(message, id=own))

    def _send(self, client: _Client, message: FromEngine) -> None:
        if client.writer.is_closing():
            return
        client.writer.write(encode(message))
        if client.writer.transport.get_write_buffer_size() > _MAX_UNSENT:
            _log.warning("client %d does not read; dropped", client.number)
            client.writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= _MAX_CLIENTS or self._draining:
            writer.close()
            return
        self._count += 1
        client = _Client(self._count, writer)
        self._clients[client.number] = client
        self._disarm_idle()
        try:
            while True:
                length = frame_length(await reader.readexactly(4))
                self._handle(client, decode_to_engine(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is gone, which is how every conversation ends
        except FrameError as error:
            refused = ConfigError(
                "protocol_error", "the engine got a malformed message", str(error)
            )
            self._send(client, failure(None, refused))
        finally:
            self._gone(client)

    def _handle(self, client: _Client, message: ToEngine) -> None:
        if isinstance(message, Hello):
            self._greet(client, message)
        elif not client.greeted:
            raise FrameError("the first message must be Hello")
        elif isinstance(message, Generate):
            self._generate(client, message)
        elif isinstance(message, Tokenize):
            inner = msgspec.structs.replace(message, id=f"{client.number}:{message.id}")
            self._work.put(lambda engine: self._tokenize(engine, inner))
        elif isinstance(message, LoadAdapter | UnloadAdapter):
            self._adapter(client, message)
        elif isinstance(message, Cancel):
            name = f"{client.number}:{message.id}"
            self._work.put(lambda engine: engine.cancel(name))
        elif isinstance(message, Stats):
            self._work.put(lambda engine: self._stats(engine, client))
        elif isinstance(message, Shutdown):
            self._end(client, message)
        elif isinstance(message, Forget):
            self._work.put(lambda engine: engine.forget())
        else:
            assert isinstance(message, Hint)
            self._work.put(lambda engine: engine.hint(message))

    def _greet(self, client: _Client, message: Hello) -> None:
        if message.version != VERSION:
            raise FrameError(f"version {message.version} is spoken there and {VERSION} here")
        client.greeted = True
        first = self._failed or self._ready
        if first is not None:
            self._send(client, first)
        if self._failed is not None:
            self._loop.call_later(_TELLING, self._over.set)

    def _generate(self, client: _Client, message: Generate) -> None:
        own = message.id
        if self._draining:
            ending = ProcessorError("engine_ending", "the engine is ending", "", "Try again.")
            self._send(client, failure(own, ending))
            return
        if own in client.requests:
            raise FrameError(f"the request {own!r} is running already")
        client.requests.add(own)
        inner = msgspec.structs.replace(message, id=f"{client.number}:{own}")

        def start(engine: Engine) -> list[FromEngine]:
            try:
                engine.submit(inner)
            except EdvacError as error:
                return [failure(inner.id, error)]
            return []

        self._work.put(start)

    def _end(self, client: _Client, message: Shutdown) -> None:
        if message.alone and len(self._clients) > 1:
            shared = ProcessorError("engine_shared", "others use this engine, so it stays")
            self._send(client, failure(None, shared))
            client.writer.close()
        else:
            self._drain()

    def _tokenize(self, engine: Engine, message: Tokenize) -> list[FromEngine]:
        """In a thread of its own: a long text must not stop the steps of others."""

        def cut() -> None:
            try:
                self._post([tokenize(engine.codec, message)])
            except EdvacError as error:
                self._post([failure(message.id, error)])

        self._cutting.submit(cut)
        return []

    def _adapter(self, client: _Client, message: LoadAdapter | UnloadAdapter) -> None:
        identity = f"{client.number}:{message.id}"

        def carry_out(engine: Engine) -> list[FromEngine]:
            try:
                if isinstance(message, UnloadAdapter):
                    engine.adapters.unload(message.name, client.number)
                    return [AdapterHeld(id=identity, name=message.name)]
                loaded = engine.adapters.load(message.name, Path(message.path), client.number)
            except EdvacError as error:
                return [failure(identity, error)]
            return [AdapterHeld(id=identity, name=message.name, sha256=loaded.digest)]

        self._work.put(carry_out)

    def _leave(self, engine: Engine, client: _Client) -> list[FromEngine]:
        engine.adapters.leave(client.number)
        return []

    def _stats(self, engine: Engine, client: _Client) -> list[FromEngine]:
        reply = engine.stats(resident_bytes())
        self._loop.call_soon_threadsafe(self._send, client, reply)
        return []

    def _gone(self, client: _Client) -> None:
        del self._clients[client.number]
        client.writer.close()
        for own in client.requests:
            name = f"{client.number}:{own}"
            self._work.put(lambda engine, name=name: engine.cancel(name))  # type: ignore[misc]
        self._work.put(lambda engine: self._leave(engine, client))
        if not self._clients:
            self._arm_idle()

    def _drain(self) -> None:
        """Finish what runs, take nothing new."""
        if self._draining:
            return
        self._draining = True
        if self._ready is None:
            self._over.set()
        self._work.put(lambda engine: [])  # wakes a step thread that waits for orders

    def _arm_idle(self) -> None:
        self._disarm_idle()
        self._idle_timer = self._loop.call_later(self._idle_seconds, self._drain)

    def _disarm_idle(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None


def resident_bytes() -> int:
    """Memory that this process holds now."""
    try:
        fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) * _PAGE
