"""A server on loopback that speaks as ollama, llama.cpp's server, vLLM, LM Studio or a paid service
does, with whatever ill will a test gives it."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Say = Callable[[Body], str]


def hello(body: Body) -> str:
    """What a model without schema or grammar says."""
    return "Hello there!"


def obedient(body: Body) -> str:
    """A model that decodes under a schema or a grammar when it is asked to."""
    if "response_format" in body:
        schema = body["response_format"]["json_schema"]["schema"]
        return json.dumps({"answer": schema["properties"]["answer"]["enum"][0]})
    if "grammar" in body or "structured_outputs" in body:
        return "edvac-7319"
    return "Hello there!"


def only_gbnf(body: Body) -> str:
    """As llama.cpp's server without Lark: it refuses that (see `Handler`)."""
    return "edvac-7319" if body.get("grammar", "").startswith("root ::=") else obedient_schema(body)


@dataclass
class Fake:
    """One endpoint.

    Attributes:
        pages: replies to GET (and to POST other than chat) by path.
        say: the text that answers a request.
        reply: writes the whole answer to a chat request, instead of the well-behaved one.
        answers_as: the model's name in answers; empty repeats the one that was asked.
    """

    pages: dict[str, Any] = field(default_factory=dict)
    say: Say = hello
    reply: Callable[[Handler, Body], None] | None = None
    answers_as: str = ""
    fingerprint: str = ""
    prompt_tokens: Callable[[Body], int] = lambda body: words(body) + 10
    cached_tokens: int = 0
    refuse: tuple[type[Exception], int] = (PermissionError, 403)  # when `say` raises it, the status
    key: str = ""
    bodies: list[Body] = field(default_factory=list)
    gets: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def chats(self) -> list[Body]:
        """Requests that are no probes."""
        return [b for b in self.bodies if b["messages"][-1]["content"] != "Say hello."]


def words(body: Body) -> int:
    """Words and marks, as many as an honest tokenizer would find at least."""
    return sum(len(re.findall(r"\w+?\b|_|\W", m["content"])) for m in body["messages"])


class Handler(BaseHTTPRequestHandler):
    fake: Fake

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        self.fake.gets.append(self.path)
        self.fake.keys.append(self.headers.get("authorization", ""))
        page = self.fake.pages.get(self.path)
        if page is None:
            self.send(404, {"error": {"message": "File Not Found", "code": 404}})
        else:
            self.send(200, page)

    def do_POST(self) -> None:
        fake = self.fake
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        fake.keys.append(self.headers.get("authorization", ""))
        if not self.path.endswith("/chat/completions"):
            self.send(200 if self.path in fake.pages else 404, fake.pages.get(self.path, {}))
            return
        with fake.lock:
            fake.bodies.append(body)
            fake.at_once += 1
            fake.most_at_once = max(fake.most_at_once, fake.at_once)
        try:
            probe = body["messages"][-1]["content"] == "Say hello."
            if fake.key and self.headers.get("authorization") != f"Bearer {fake.key}":
                self.send(401, {"error": {"message": "bad key"}})
            elif fake.reply is not None and not probe:
                fake.reply(self, body)
            else:
                self.answer(body, fake.say(body))
        except fake.refuse[0]:
            self.send(fake.refuse[1], {"error": {"message": "not now"}})
        except ConnectionError:
            pass
        finally:
            with fake.lock:
                fake.at_once -= 1

    def send(self, status: int, page: Any, **headers: str) -> None:
        data = page if isinstance(page, bytes) else json.dumps(page).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def answer(self, body: Body, text: str, **message: Any) -> None:
        """As the endpoint should."""
        head = self.head(body)
        tokens = max(1, len(text.split()) * 3 + len(text) // 4)
        usage = {
            "prompt_tokens": self.fake.prompt_tokens(body),
            "completion_tokens": tokens,
            "prompt_tokens_details": {"cached_tokens": self.fake.cached_tokens},
        }
        whole = {"role": "assistant", "content": text} | message
        if not body.get("stream"):
            choice = {"index": 0, "message": whole, "finish_reason": "stop"}
            self.send(200, head | {"choices": [choice], "usage": usage})
            return
        self.begin()
        self.event(head | {"choices": [{"delta": {"role": "assistant", "content": None}}]})
        for name, value in message.items():
            self.event(head | {"choices": [{"delta": {name: value}}]})
        for piece in pieces(text):
            self.event(head | {"choices": [{"delta": {"content": piece}, "finish_reason": None}]})
        self.event(head | {"choices": [{"delta": {}, "finish_reason": "stop"}]})
        self.event(head | {"choices": [], "usage": usage})
        self.line("data: [DONE]\n\n")

    def head(self, body: Body) -> Body:
        head = {"id": "chatcmpl-1", "model": self.fake.answers_as or body["model"]}
        if self.fake.fingerprint:
            head["system_fingerprint"] = self.fake.fingerprint
        return head

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()

    def event(self, data: Any) -> None:
        self.line(f"data: {json.dumps(data)}\n\n")

    def line(self, text: str) -> None:
        self.wfile.write(text.encode())
        self.wfile.flush()

    def text(self, content: str, finish: str | None = None) -> None:
        self.event({"choices": [{"delta": {"content": content}, "finish_reason": finish}]})

    def cut(self) -> None:
        """Break the connection."""
        self.connection.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


def pieces(text: str) -> Iterator[str]:
    yield from (text[at : at + 12] for at in range(0, len(text), 12))


@contextmanager
def running(fake: Fake, port: int = 0) -> Iterator[Fake]:
    class Bound(Handler):
        pass

    Bound.fake = fake

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: Any) -> None:
            return

    server = Quiet(("127.0.0.1", port), Bound)
    fake.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# -- each product's own shapes ------------------------------------------------------------------


def ollama(
    name: str = "llama3.2:latest", digest: str = "a80c4f17acd5", context: int = 4096, **more: Any
) -> Fake:
    model = {
        "name": name,
        "model": name,
        "modified_at": "2026-05-04T17:37:44Z",
        "size": 2019393189,
        "digest": digest,
        "details": {"format": "gguf", "family": "llama", "quantization_level": "Q4_K_M"},
    }
    pages = {
        "/v1/models": {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 1777916264, "owned_by": "library"}],
        },
        "/api/version": {"version": "0.40.12"},
        "/api/tags": {"models": [model]},
        "/api/ps": {"models": [model | {"context_length": context, "size_vram": 0}]},
        "/api/show": {"capabilities": ["completion", "tools"], "parameters": 'stop "x"'},
    }
    return Fake(pages, **{"say": obedient_schema} | more)


def obedient_schema(body: Body) -> str:
    """As ollama: schemas, but no grammar."""
    return obedient(body) if "response_format" in body else "Hello there!"


def llamacpp(
    name: str = "model.gguf", params: int = 134515008, context: int = 2048, **more: Any
) -> Fake:
    pages = {
        "/v1/models": {
            "models": [{"name": name, "capabilities": ["completion"]}],
            "object": "list",
            "data": [
                {
                    "id": name,
                    "object": "model",
                    "created": 1795394934,
                    "owned_by": "llamacpp",
                    "meta": {"n_vocab": 49152, "n_ctx": 2048, "n_params": params, "ftype": "Q4_1"},
                }
            ],
        },
        "/props": {
            "default_generation_settings": {"n_ctx": context},
            "total_slots": 2,
            "model_path": f"/models/{name}",
            "chat_template": "{{ messages }}",
            "chat_template_caps": {"supports_tools": False},
            "build_info": "b6000-abc",
        },
        "/health": {"status": "ok"},
    }
    return Fake(pages, **{"say": obedient} | more)


def vllm(name: str = "Qwen/Qwen3-8B", **more: Any) -> Fake:
    entry = {
        "id": name,
        "object": "model",
        "created": 1777916264,
        "owned_by": "vllm",
        "root": name,
        "parent": None,
        "max_model_len": 32768,
    }
    pages = {
        "/v1/models": {"object": "list", "data": [entry]},
        "/version": {"version": "0.19.0"},
    }
    return Fake(pages, **{"say": obedient} | more)


def lmstudio(name: str = "meta-llama-3.1-8b-instruct", **more: Any) -> Fake:
    listed = [
        {"id": one, "object": "model", "owned_by": "organization_owner"}
        for one in (name, "text-embedding-nomic")
    ]
    facts = {"object": "model", "publisher": "p", "arch": "llama", "quantization": "Q4_K_M"}
    pages = {
        "/v1/models": {"object": "list", "data": listed},
        "/api/v0/models": {
            "object": "list",
            "data": [
                facts
                | {
                    "id": name,
                    "type": "llm",
                    "state": "loaded",
                    "max_context_length": 131072,
                    "loaded_context_length": 4096,
                    "capabilities": ["tool_use"],
                },
                facts | {"id": "text-embedding-nomic", "type": "embeddings"},
            ],
        },
    }
    return Fake(pages, **{"say": obedient_schema} | more)
