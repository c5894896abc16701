"""A hub on this machine that misbehaves as it is told: one behaviour for each request, in order.

When the behaviours are used up the file is served as a good hub does, with ranges.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Behaviour = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request; its helpers are what behaviours are made of."""

    server: Hub

    def do_GET(self) -> None:
        hub = self.server
        hub.asked.append({name.lower(): value for name, value in self.headers.items()})
        (hub.behaviours.pop(0) if hub.behaviours else good)(self)

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def start(self) -> int:
        """Where the range that was asked for begins."""
        return int(self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")[0])

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # the other side has gone
            self.close_connection = True


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.data = data
        self.behaviours: list[Behaviour] = []
        self.asked: list[dict[str, str]] = []  # the headers of each request
        self.released = threading.Event()  # ends behaviours that wait
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


def good(request: Request) -> None:
    partly(len(request.server.data))(request)


def partly(end: int) -> Behaviour:
    """All the right headers, and then only the bytes up to `end`."""

    def behave(request: Request) -> None:
        data, start = request.server.data, request.start
        span = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        headers = {"Content_Length": str(len(data) - start)} | (span if start else {})
        request.reply(206 if start else 200, data[start:end], **headers)

    return behave


def no_ranges(request: Request) -> None:
    request.reply(200, request.server.data, Content_Length=str(len(request.server.data)))


def says(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    return lambda request: request.reply(
        status, body, **{"Content_Length": str(len(body))} | headers
    )


def stalls(end: int) -> Behaviour:
    """Sends up to `end` and then nothing, with the connection open."""

    def behave(request: Request) -> None:
        partly(end)(request)
        request.wfile.flush()
        request.server.released.wait(600)

    return behave
