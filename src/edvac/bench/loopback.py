"""A server on loopback that counts what it answers: it stands in for an endpoint, or before one.

For the tour and for measuring. Knows nothing of what is answered.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Answers:
    """What has been answered, for whoever waits for it.

    Attributes:
        url: where the server is.
        answered: answers that have left, by a key of what was asked.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answered: Counter[str] = Counter()
        self._changed = threading.Condition()

    def count(self, key: str = "") -> None:
        """One more answer has left."""
        with self._changed:
            self.answered[key] += 1
            self._changed.notify_all()

    def wait(self, answers: int, timeout_s: float) -> bool:
        """Wait until there have been so many answers; False where they did not come in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.answered.total() >= answers, timeout_s)


class Handler(BaseHTTPRequestHandler):
    """One request; says nothing on the terminal."""

    here: Any  # what the server was started for

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@contextmanager
def serving(handler: type[Handler], here: Answers) -> Iterator[None]:
    """The server, on a free port and in threads of its own, until the block ends."""
    bound = type("Bound", (handler,), {"here": here})
    with ThreadingHTTPServer(("127.0.0.1", 0), bound) as server:
        here.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
