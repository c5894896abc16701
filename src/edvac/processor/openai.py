"""Any OpenAI-compatible endpoint as the processor: ollama, llama-server, vLLM, a paid service.

The key is read from the environment at the moment of the call and appears in no error, log or
record.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from edvac.core.errors import ConfigError, OperandError, ProcessorError
from edvac.processor.port import Answer, OnText, Request

MAX_ANSWER = 8 * 1024 * 1024  # bytes of one streamed answer
CUT_RATIO = 16  # characters for each reported prompt token beyond which the prompt was cut


@dataclass(slots=True)
class _Stream:
    text: list[str] = field(default_factory=list)
    finish: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class OpenAIProcessor:
    """Talks to ``URL/chat/completions``.

    Args:
        url: base, such as ``http://127.0.0.1:11434/v1``.
        model: name that the endpoint knows.
        key_env: environment variable that holds the key; unset means no key is sent.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_env: str = "",
        concurrency: int = 8,
        timeout_s: float = 600,
    ) -> None:
        base = httpx2.URL(url)
        if base.scheme not in ("http", "https") or not base.host:
            raise ConfigError(
                "endpoint_url",
                f"{url!r} is not the address of an endpoint",
                "",
                "Use URL#MODEL, such as http://127.0.0.1:11434/v1#llama3.2.",
            )
        self.identity = f"{base.host}/{model}"
        self.concurrency = concurrency
        self.context_tokens = 0  # the endpoint's affair
        self.has_grammar = False
        self.endpoint = f"{base.scheme}://{base.netloc.decode()}"
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._model = model
        self._key_env = key_env
        self._schemas = True  # until the endpoint refuses them
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout_s, connect=10), follow_redirects=False, trust_env=False
        )

    async def open(self) -> None:
        return

    async def close(self) -> None:
        await self._client.aclose()

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        body = self._body(request)
        try:
            found = await self._stream(body, on_text)
        except _Unsupported:
            self._schemas = False
            body.pop("response_format", None)
            found = await self._stream(body, on_text)
        except httpx2.TimeoutException as problem:
            raise self._away("did not answer in time") from problem
        except httpx2.HTTPError as problem:
            raise self._away(f"could not be reached ({type(problem).__name__})") from problem
        return self._answer(request, found)

    def _body(self, request: Request) -> dict[str, Any]:
        messages = [{"role": m.role, "content": m.text} for m in request.messages]
        if request.prefill:
            messages.append({"role": "assistant", "content": request.prefill})
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.stop:
            body["stop"] = list(request.stop)
        if request.schema is not None and self._schemas:
            schema = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    async def _stream(self, body: dict[str, Any], on_text: OnText | None) -> _Stream:
        key = os.environ.get(self._key_env, "") if self._key_env else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        found = _Stream()
        async with self._client.stream("POST", self._url, json=body, headers=headers) as reply:
            if reply.status_code != 200:
                await self._refuse(reply, body)
            size = 0
            async for line in _lines(reply):
                size += len(line)
                if size > MAX_ANSWER:
                    raise self._garbage("its answer does not end")
                if line.startswith("data:") and line[5:].strip() != "[DONE]":
                    self._take(line[5:], found, on_text)
        return found

    def _take(self, data: str, found: _Stream, on_text: OnText | None) -> None:
        try:
            event = json.loads(data)
            if "error" in event:
                raise self._garbage(str(event["error"])[:200])
            usage = event.get("usage") or {}
            found.prompt_tokens = usage.get("prompt_tokens", found.prompt_tokens)
            found.completion_tokens = usage.get("completion_tokens", found.completion_tokens)
            details = usage.get("prompt_tokens_details") or {}
            found.cached_tokens = details.get("cached_tokens") or found.cached_tokens
            for choice in event.get("choices", ()):
                piece = (choice.get("delta") or {}).get("content") or ""
                found.text.append(piece)
                found.finish = choice.get("finish_reason") or found.finish
                if piece and on_text is not None:
                    on_text(piece, 1)
        except (ValueError, AttributeError, TypeError) as problem:
            raise self._garbage(f"it sent {data[:80]!r}") from problem

    async def _refuse(self, reply: httpx2.Response, body: dict[str, Any]) -> None:
        text = (await reply.aread())[:2000].decode(errors="replace")
        status = reply.status_code
        if status == 400 and "response_format" in body and "format" in text.lower():
            raise _Unsupported
        if status in (408, 409, 425, 429) or status >= 500:
            raise self._away(f"answered with status {status}")
        if status in (401, 403):
            raise ConfigError(
                "endpoint_key",
                f"{self.endpoint} refused the key",
                f"The key is read from ${self._key_env}." if self._key_env else "No key was sent.",
                "Set it, or name another variable with key_env.",
            )
        if "context" in text.lower() and status in (400, 413):
            raise OperandError(
                "operand_too_large",
                "the prompt does not fit the endpoint's context",
                text[:200],
                "Split the data into smaller parts.",
            )
        raise ConfigError(
            "endpoint_refused", f"{self.endpoint} answered with status {status}", text[:200], ""
        )

    def _answer(self, request: Request, found: _Stream) -> Answer:
        sent = tuple(f"<{m.role}>\n{m.text}\n" for m in request.messages)
        size = sum(len(m.text) for m in request.messages)
        text = "".join(found.text)
        if not found.finish and not text:
            raise self._garbage("the answer was empty")
        if found.prompt_tokens and size > CUT_RATIO * found.prompt_tokens + 200:
            raise OperandError(
                "operand_too_large",
                "the endpoint cut the prompt",
                f"It counted {found.prompt_tokens} tokens in {size} characters.",
                "Raise the endpoint's context length, or split the data.",
            )
        finish = "length" if found.finish == "length" else "stop"
        return Answer(
            text, finish, found.prompt_tokens, found.cached_tokens, found.completion_tokens, sent
        )

    def _away(self, why: str) -> ProcessorError:
        return ProcessorError(
            "endpoint_away", f"{self.endpoint} {why}", "", "Is it running? Then `edvac resume`."
        )

    def _garbage(self, why: str) -> ProcessorError:
        return ProcessorError(
            "endpoint_garbage",
            f"{self.endpoint} did not answer as an OpenAI-compatible endpoint does",
            why,
            "Check the address and the model's name.",
        )


class _Unsupported(Exception):
    """The endpoint knows no schemas."""


async def _lines(reply: httpx2.Response) -> AsyncIterator[str]:
    async for line in reply.aiter_lines():
        if line:
            yield line
