"""A proxy on loopback that counts which prompts a server has answered, and how often."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from edvac.bench.loopback import Answers, Handler, serving
from edvac.processor.abilities import PROBE

# What llama.cpp's server says at the end of each answer: tokens that it read and wrote, and the
# milliseconds that took.
_TIMINGS = re.compile(rb'"(prompt_n|prompt_ms|predicted_n|predicted_ms)":\s*([0-9.]+)')
_TAIL = 4096  # bytes of an answer in which they stand


class Meter(Answers):
    """What has gone through a proxy; answers are counted by their prompt.

    Attributes:
        spent: sums of the server's own timings, by name.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self.upstream = urlsplit(upstream)
        self.spent: Counter[str] = Counter()

    def timed(self, tail: bytes) -> None:
        """An answer ended so."""
        for name, value in dict(_TIMINGS.findall(tail)).items():
            self.spent[name.decode()] += round(float(value))

    def passed(self, body: bytes) -> None:
        """The request with this body was answered."""
        try:
            messages = json.loads(body)["messages"]
        except (ValueError, KeyError, TypeError):
            return
        if messages[-1]["content"] != PROBE:
            self.count(hashlib.blake2b(json.dumps(messages).encode(), digest_size=16).hexdigest())

    @property
    def repeated(self) -> int:
        return self.answered.total() - len(self.answered)


@contextmanager
def metered(upstream: str) -> Iterator[Meter]:
    """A proxy before `upstream` (``http://host:port``), until the block ends."""
    meter = Meter(upstream)
    with serving(_Handler, meter):
        yield meter


class _Handler(Handler):
    here: Meter

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
            tail = b""
            while piece := answer.read1(65_536):
                tail = (tail + piece)[-_TAIL:]
                self.wfile.write(piece)
                self.wfile.flush()
            if self.path.endswith("/chat/completions") and answer.status == 200:
                meter.passed(body)
                meter.timed(tail)
        except ConnectionError:
            return  # whoever asked was killed
        finally:
            server.close()
