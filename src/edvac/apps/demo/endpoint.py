"""An OpenAI-compatible endpoint on loopback whose answers come from a function."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edvac.bench.loopback import Answers, Handler, serving
from edvac.processor.abilities import PROBE

NAME = "written-beforehand"
LARGEST = 1_000_000  # bytes of a request
DELAY_S = 0.4  # of an answer, so that there is something to watch


class Endpoint(Answers):
    """Answers the last message with a function."""

    def __init__(self, answer: Callable[[str], str], delay_s: float) -> None:
        super().__init__()
        self._answer = answer
        self._delay_s = delay_s

    @property
    def model(self) -> str:
        """For `--model`."""
        return f"{self.url}/v1#{NAME}"

    def answer(self, messages: list[dict[str, Any]]) -> str:
        asked = str(messages[-1].get("content", ""))
        if asked == PROBE:
            return "Hello."
        time.sleep(self._delay_s)
        return self._answer(asked)


@contextmanager
def answering(answer: Callable[[str], str], delay_s: float = DELAY_S) -> Iterator[Endpoint]:
    """The endpoint, on a free port of loopback, until the block ends."""
    endpoint = Endpoint(answer, delay_s)
    with serving(_Handler, endpoint):
        yield endpoint


class _Handler(Handler):
    here: Endpoint

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": NAME, "object": "model"}]})
        else:
            self._send(404, {"error": {"message": "there is no such page"}})

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        if self.path != "/v1/chat/completions" or not 0 < size <= LARGEST:
            self._send(404, {"error": {"message": "there is no such page"}})
            return
        body = json.loads(self.rfile.read(size))
        text = self.here.answer(body["messages"])
        try:
            self._complete(body, text)
        except ConnectionError:
            return  # whoever asked was killed meanwhile
        if body["messages"][-1].get("content") != PROBE:
            self.here.count()

    def _complete(self, body: Mapping[str, Any], text: str) -> None:
        asked = sum(len(str(message.get("content", ""))) for message in body["messages"])
        usage = {"prompt_tokens": asked // 3 + 1, "completion_tokens": len(text) // 3 + 1}
        head = {"id": "demo", "model": NAME}
        if not body.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._send(200, head | {"choices": [choice], "usage": usage})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self._event(head | {"choices": [{"index": 0, "delta": {"content": text}}]})
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        self._event(head | {"choices": [last]})
        self._event(head | {"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.wfile.flush()

    def _event(self, data: Any) -> None:
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())

    def _send(self, status: int, page: Any) -> None:
        data = json.dumps(page).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
