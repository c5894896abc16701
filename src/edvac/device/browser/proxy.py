"""The only way out of the browser, and of apps: a proxy that connects to granted origins alone.

It asks for the address of a name once and keeps to the answer, so that a name which later stands
for another machine leads nowhere else; it refuses addresses of this machine and its networks unless
they are granted. A redirect is a further request, and is judged like any. Knows nothing of pages.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from edvac.device.browser.origins import Grants, host_and_port, origin_of

Resolve = Callable[[str, int], Awaitable[list[str]]]
MAX_HEAD = 64 * 1024  # bytes of a request's lines
HEAD_S, CONNECT_S = 30.0, 20.0
_CHUNK = 64 * 1024
_OWN = (b"proxy-", b"connection:", b"keep-alive:", b"upgrade:", b"te:")  # between two neighbours


class _Refused(Exception):
    """A contact that is not granted; says why."""


async def resolve(host: str, port: int) -> list[str]:
    """Addresses of a name, from this machine's resolver.

    Raises:
        OSError: there is none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Proxy:
    """Use `start`, then give `url` to the browser.

    Attributes:
        met: origins that were connected to.
    """

    def __init__(
        self, allowed: frozenset[str], grants: Grants, resolver: Resolve = resolve
    ) -> None:
        self.met: set[str] = set()
        self._allowed = allowed
        self._grants = grants
        self._resolve = resolver
        self._pinned: dict[str, str] = {}
        self._refused: list[tuple[str, str]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Begin to listen; returns its URL."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_HEAD)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start_at(self, path: str) -> None:
        """Begin to listen on a Unix socket, for who has no network of its own."""
        self._server = await asyncio.start_unix_server(self._serve, path, limit=MAX_HEAD)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def take_refused(self) -> list[tuple[str, str]]:
        """Origins that were refused since the last call, each with the reason."""
        found, self._refused = self._refused, []
        return list(dict.fromkeys(found))

    # -- one connection of the browser

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the browser sees a connection that ends, as it would without a proxy
        finally:
            self._tasks.discard(task)
            await _end(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_S):
            head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        target = rest.rpartition(" ")[0]
        tunnel = method == "CONNECT"
        origin = origin_of(f"https://{target}" if tunnel else target)
        try:
            address = await self._address(origin, target)
        except _Refused as why:
            self._refused.append((origin, str(why)))
            await _say(writer, "403 Forbidden")
            return
        except OSError:
            await _say(writer, "502 Bad Gateway")
            return
        try:
            async with asyncio.timeout(CONNECT_S):
                opened = await asyncio.open_connection(address, host_and_port(origin)[1])
        except (OSError, TimeoutError):
            await _say(writer, "502 Bad Gateway")
            return
        self.met.add(origin)
        if tunnel:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            opened[1].write(_forwarded(method, target, head))
        await _between((reader, writer), opened)

    async def _address(self, origin: str, target: str) -> str:
        """Where a granted origin lies: the same for as long as the proxy lives.

        Raises:
            _Refused: it is not granted, or lies where it must not.
            OSError: its name has no address.
        """
        if not origin or origin not in self._allowed:
            raise _Refused("the program does not name it")
        host, port = host_and_port(origin)
        if host not in self._pinned:
            self._pinned[host] = (await self._resolve(host, port))[0]
        address = self._pinned[host]
        if not self._grants.lies_well(origin, address):
            raise _Refused(f"it lies at {address}, an address of this machine or its networks")
        return address


def _forwarded(method: str, target: str, head: bytes) -> bytes:
    """The request as the server gets it: one a connection, so that every one is judged here."""
    parts = urlsplit(target)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1")]
    for line in head.split(b"\r\n")[1:-2]:
        if not line.lower().startswith((*_OWN, b"host:")):
            lines.append(line)
    lines += [f"Host: {parts.netloc}".encode("latin-1"), b"Connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def _between(
    left: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    right: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Both directions, until the server has said all."""
    up = asyncio.ensure_future(_pour(left[0], right[1]))
    try:
        await _pour(right[0], left[1])
    finally:
        up.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await up
        await _end(right[1])


async def _end(writer: asyncio.StreamWriter) -> None:
    """Close it, and wait until it is."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()


async def _say(writer: asyncio.StreamWriter, status: str) -> None:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()
