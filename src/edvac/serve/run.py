"""Opens models and serves them until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from edvac.core.errors import ConfigError, UsageError
from edvac.serve.app import Service
from edvac.serve.offer import Offer, models_of

GRACE_S = 5.0  # seconds that calls have to end in when the service is stopped
LAST_S = 2  # and then to tell their clients that they were ended
MOST_CONNECTIONS = 1024
LONGEST_HEAD = 32 << 10  # bytes of a request before its body
HEAD_S = 30.0  # for which they may take to come


def listen(host: str, port: int) -> socket.socket:
    """
    Raises:
        ConfigError: the address is taken or none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as problem:
        raise ConfigError(
            "address_unusable",
            f"{host}:{port} cannot be listened at",
            str(problem),
            "Choose another --port; 0 takes a free one.",
        ) from problem
    # Connections inherit it. asyncio sets it only where a socket names its protocol, and without it
    # the second half of every answer waits 40 ms for the first to be acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def hosts_of(listener: socket.socket, names: tuple[str, ...]) -> frozenset[str]:
    """Values of the header ``Host`` that are answered, in lower case.

    Raises:
        UsageError: it is listened at all addresses, and no name is said.
    """
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified and not names:
        raise UsageError(
            "serve_nameless",
            "the service does not know what it is called",
            f"{host} stands for every address of this machine.",
            "Say each name or address that clients use with --allow-host.",
        )
    found = set() if address.is_unspecified else {_shown(host, port)}
    if address.is_loopback:
        found.add(f"localhost:{port}")
    for name in names:
        # Behind a proxy the name comes as it is written there, mostly without a port.
        found |= {name.lower(), f"{name.lower()}:{port}"}
    return frozenset(found)


def url_of(listener: socket.socket) -> str:
    return f"http://{_shown(*listener.getsockname()[:2])}/v1"


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(offer: Offer, listener: socket.socket, on_open: Callable[[], None]) -> None:
    """Serve models at the listener's address.

    Args:
        on_open: called when the first model is there and calls are taken.

    Raises:
        ConfigError, ModelFileError: the first model cannot be opened.
        UsageError: see `hosts_of` and `models_of`.
    """
    hosts = hosts_of(listener, offer.hosts)
    models = models_of(offer)
    try:
        await models.load(models.places[0])
        service = Service(models, hosts, offer.keys)
        on_open()
        await run(service, listener)
    finally:
        await models.close()


async def run(service: Service, listener: socket.socket) -> None:
    """Answer until a signal asks to stop: calls that run have some seconds to end, and are told."""
    server = _Server(config_of(service.application()))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        service.stop()
        loop.call_later(0.0 if server.should_exit else GRACE_S, service.end)
        server.should_exit = True

    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop)
    try:
        await server.serve(sockets=[listener])
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(name)


def config_of(application: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=_Protocol,
        ws="none",
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        timeout_graceful_shutdown=int(GRACE_S) + LAST_S,
    )


class _Protocol(H11Protocol):
    """Closes connections whose clients take too long to say what they want; uvicorn would not."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self.transport.close)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to `run`: uvicorn would raise them again and so end the process before the
        engine is told."""
        yield
