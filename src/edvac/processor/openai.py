"""Any OpenAI-compatible endpoint as the processor: ollama, llama-server, vLLM, a paid service.

The key is read from the environment at the moment of the call and appears in no error, log or
record.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from edvac.core.errors import ConfigError, ModelOutputError, OperandError, ProcessorError
from edvac.processor.port import FREE, Answer, OnText, Request

MAX_ANSWER = 8 * 1024 * 1024  # bytes of one streamed answer
MAX_REFUSAL = 64 * 1024  # bytes read of an error's text
CUT_RATIO = 16  # characters for each reported prompt token beyond which the prompt was cut

# Parts of a request that some endpoints refuse; what one refuses, it is not sent again.
OPTIONAL = ("response_format", "stream_options", "seed", "max_tokens", "temperature", "stop")
_OTHER_WORDS = {"response_format": ("schema", "grammar", "json_object")}


@dataclass(slots=True)
class _Stream:
    """One answer as it comes in."""

    on_text: OnText | None
    text: list[str] = field(default_factory=list)
    finish: str = ""
    over: bool = False  # its end was seen, not only the end of the connection
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
        base = _address(url)
        self.identity = f"{base.netloc.decode()}/{model}"
        self.concurrency = concurrency
        self.price = FREE
        self.context_tokens = 0  # the endpoint's affair
        self.has_grammar = False
        self.endpoint = f"{base.scheme}://{base.netloc.decode()}"
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._model = model
        self._key_env = key_env
        self._left_out: set[str] = set()  # of OPTIONAL, as this endpoint refused it
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout_s, connect=10), follow_redirects=False, trust_env=False
        )

    async def open(self) -> None:
        return

    async def close(self) -> None:
        await self._client.aclose()

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        for _ in range(len(OPTIONAL) + 1):
            found = _Stream(on_text)
            try:
                await self._stream(self._body(request), found)
            except _Unsupported as refusal:
                self._left_out.add(refusal.part)
                continue
            except httpx2.TimeoutException as problem:
                raise self._away("did not answer in time") from problem
            except httpx2.HTTPError as problem:
                raise self._away(f"could not be reached ({type(problem).__name__})") from problem
            return self._answer(request, found)
        raise self._garbage("It refuses every form of the request.")

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
        if request.schema is not None:
            schema = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if "max_tokens" in self._left_out:
            body["max_completion_tokens"] = request.max_tokens
        return {name: part for name, part in body.items() if name not in self._left_out}

    def _key(self) -> str:
        key = os.environ.get(self._key_env, "").strip() if self._key_env else ""
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise ConfigError(
                "endpoint_key",
                f"the key in ${self._key_env} has characters that no key has",
                "",
                "Set it again, without quotes, spaces or line ends.",
            )
        return key

    async def _stream(self, body: dict[str, Any], found: _Stream) -> None:
        key = self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with self._client.stream("POST", self._url, json=body, headers=headers) as reply:
            if reply.status_code != 200:
                raise self._refusal(reply.status_code, await _start(reply), body)
            if reply.headers.get("content-type", "").startswith("application/json"):
                whole = b"".join([part async for part in _bounded(reply, self)])
                found.over = True
                self._take(whole.decode(errors="replace"), found)
                return
            async for line in _lines(reply, self):
                if line.startswith("data:") and line[5:].strip() == "[DONE]":
                    found.over = True
                elif line.startswith("data:"):
                    self._take(line[5:], found)

    def _take(self, data: str, found: _Stream) -> None:
        """One event of the stream, or a whole answer."""
        try:
            event = json.loads(data)
            if event.get("error"):
                raise self._away("reported an error", self._shown(str(event["error"])))
            usage = event.get("usage") or {}
            found.prompt_tokens = _count(usage.get("prompt_tokens")) or found.prompt_tokens
            found.completion_tokens = (
                _count(usage.get("completion_tokens")) or found.completion_tokens
            )
            details = usage.get("prompt_tokens_details") or {}
            found.cached_tokens = _count(details.get("cached_tokens")) or found.cached_tokens
            for choice in event.get("choices") or ():
                part = choice.get("delta") or choice.get("message") or {}
                piece = part.get("content") or ""
                found.text.append(piece + "")
                found.finish = str(choice.get("finish_reason") or found.finish)
                if piece and found.on_text is not None:
                    found.on_text(_whole(piece), 1)
        except (ValueError, AttributeError, TypeError, RecursionError) as problem:
            raise self._garbage(f"It sent {self._shown(data)[:80]!r}.") from problem

    def _refusal(self, status: int, text: str, body: dict[str, Any]) -> Exception:
        """What an answer other than 200 means."""
        low = text.lower()
        shown = self._shown(text)[:200]
        if status in (400, 422):
            for part in OPTIONAL:
                words = (part, *_OTHER_WORDS.get(part, ()))
                if part in body and any(word in low for word in words):
                    return _Unsupported(part)
        if status in (400, 413) and ("context" in low or status == 413):
            return OperandError(
                "operand_too_large",
                "the prompt does not fit the endpoint's context",
                shown,
                "Split the data into smaller parts.",
            )
        if status in (408, 409, 425, 429) or status >= 500:
            return self._away(f"answered with status {status}", shown)
        if status in (401, 403):
            return ConfigError(
                "endpoint_key",
                f"{self.endpoint} refused the key",
                f"The key is read from ${self._key_env}." if self._key() else "No key was sent.",
                f"Set ${self._key_env}, or name another variable with the setting key_env.",
            )
        return ConfigError(
            "endpoint_refused",
            f"{self.endpoint} answered with status {status}",
            shown,
            f"Check the address and the model's name, {self._model!r}.",
        )

    def _answer(self, request: Request, found: _Stream) -> Answer:
        sent = tuple(f"<{m.role}>\n{m.text}\n" for m in request.messages)
        size = sum(len(m.text) for m in request.messages)
        text = _whole("".join(found.text))
        if not text and not found.finish:
            raise self._garbage("The answer was empty.")
        if not found.finish and not found.over:
            raise self._away("stopped in the middle of an answer")
        if found.prompt_tokens and size > CUT_RATIO * found.prompt_tokens + 200:
            raise OperandError(
                "operand_too_large",
                "the endpoint cut the prompt",
                f"It counted {found.prompt_tokens} tokens in {size} characters.",
                "Raise the endpoint's context length, or split the data.",
            )
        if found.finish == "content_filter":
            raise ModelOutputError(
                "answer_filtered",
                f"{self.endpoint} held back a part of the answer",
                "Its content filter said no.",
                "Use another model for this step.",
            )
        finish = "length" if found.finish == "length" else "stop"
        return Answer(
            text, finish, found.prompt_tokens, found.cached_tokens, found.completion_tokens, sent
        )

    def _shown(self, text: str) -> str:
        """Text of the endpoint without the key, which some repeat."""
        key = self._key()
        return text.replace(key, "(key)") if key else text

    def _away(self, why: str, more: str = "") -> ProcessorError:
        return ProcessorError(
            "endpoint_away", f"{self.endpoint} {why}", more[:200], "Is it running, and is it free?"
        )

    def _garbage(self, why: str) -> ProcessorError:
        return ProcessorError(
            "endpoint_garbage",
            f"{self.endpoint} did not answer as an OpenAI-compatible endpoint does",
            why,
            f"Check the address and the model's name, {self._model!r}.",
        )


class _Unsupported(Exception):
    """The endpoint refuses a part of the request that it can do without."""

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self.part = part


def _address(url: str) -> httpx2.URL:
    try:
        base = httpx2.URL(url)
        port = base.port
    except (httpx2.InvalidURL, ValueError):
        base, port = httpx2.URL(""), None
    if base.scheme not in ("http", "https") or not base.host or not 0 < (port or 80) < 65536:
        raise ConfigError(
            "endpoint_url",
            f"{url!r} is not the address of an endpoint",
            "",
            "Use URL#MODEL, such as http://127.0.0.1:11434/v1#llama3.2.",
        )
    if base.userinfo or base.query:
        raise ConfigError(
            "endpoint_url",
            f"the address of {base.host} holds a name, a key or a query",
            "It would be stored and shown with every run.",
            "Put the key into an environment variable and name that with key_env.",
        )
    return base


def _whole(text: str) -> str:
    """Text without halves of surrogate pairs, which JSON can bring and nothing can store; halves
    that were sent apart are put together."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _count(found: Any) -> int:
    return found if isinstance(found, int) and found > 0 else 0


async def _start(reply: httpx2.Response) -> str:
    """The beginning of an error's text; it may not end."""
    found = b""
    async for part in reply.aiter_bytes():
        found += part
        if len(found) > MAX_REFUSAL:
            break
    return found[:MAX_REFUSAL].decode(errors="replace")


async def _bounded(reply: httpx2.Response, processor: OpenAIProcessor) -> AsyncIterator[bytes]:
    size = 0
    async for part in reply.aiter_bytes():
        size += len(part)
        if size > MAX_ANSWER:
            raise processor._garbage("Its answer does not end.")
        yield part


async def _lines(reply: httpx2.Response, processor: OpenAIProcessor) -> AsyncIterator[str]:
    """Lines, of which one may never end."""
    rest = b""
    async for part in _bounded(reply, processor):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")
