"""A proxy on loopback that counts which prompts a server has answered, and how often."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

PROBE = "Say hello."


class Meter:
    """What has gone through a proxy.

    Attributes:
        url: where clients send requests to.
        answered: answers that the server gave, by the prompt.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.url = ""
        self.answered: Counter[str] = Counter()
        self._changed = threading.Condition()

    def count(self, body: bytes) -> None:
        try:
            messages = json.loads(body)["messages"]
        except (ValueError, KeyError, TypeError):
            return
        if messages[-1]["content"] != PROBE:
            key = hashlib.blake2b(json.dumps(messages).encode(), digest_size=16).hexdigest()
            with self._changed:
                self.answered[key] += 1
                self._changed.notify_all()

    def wait(self, answers: int, timeout_s: float) -> None:
        """Wait until there have been so many answers."""
        with self._changed:
            self._changed.wait_for(lambda: self.answered.total() >= answers, timeout_s)

    @property
    def repeated(self) -> int:
        return self.answered.total() - len(self.answered)


@contextmanager
def metered(upstream: str) -> Iterator[Meter]:
    """A proxy before `upstream` (``http://host:port``), until the block ends."""
    meter = Meter(upstream)

    class Bound(_Handler):
        here = meter

    with ThreadingHTTPServer(("127.0.0.1", 0), Bound) as server:
        meter.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield meter
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    here: Meter

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def do_GET(self) -> None:
        self._pass_on(b"")

    def do_POST(self) -> None:
        self._pass_on(self.rfile.read(int(self.headers.get("content-length") or 0)))

    def _pass_on(self, body: bytes) -> None:
        meter = self.here
        assert meter.upstream.hostname is not None
        server = http.client.HTTPConnection(meter.upstream.hostname, meter.upstream.port)
        try:
            kind = {"content-type": "application/json"} if body else {}
            server.request(self.command, self.path, body or None, kind)
            answer = server.getresponse()
            self.send_response(answer.status)
            length = answer.getheader("content-length")
            self.send_header("content-type", answer.getheader("content-type") or "text/plain")
            if length is not None:
                self.send_header("content-length", length)
            self.end_headers()
            while piece := answer.read1(65_536):
                self.wfile.write(piece)
                self.wfile.flush()
            if self.path.endswith("/chat/completions") and answer.status == 200:
                meter.count(body)
        except ConnectionError:
            return  # whoever asked was killed
        finally:
            server.close()
