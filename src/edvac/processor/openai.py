"""Any OpenAI-compatible endpoint as the processor: ollama, llama-server, vLLM, LM Studio, a paid
service.

What it can do is probed once and recorded (`abilities`); what it reports is held against what can
be known (`counts`); what it asks for in peace and quiet is given (`gate`). The key is read at the
moment of the call and appears in no error, log or record.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

from edvac.core.errors import ConfigError, ModelOutputError, OperandError, ProcessorError
from edvac.core.seams import Clock, Contacts, SystemClock
from edvac.processor import abilities, product
from edvac.processor.abilities import Abilities
from edvac.processor.address import KeySource, parse_address
from edvac.processor.clean import without_thinking
from edvac.processor.counts import Size, cut, sane
from edvac.processor.gate import Gate
from edvac.processor.port import FREE, Answer, Doing, OnStage, OnText, Request
from edvac.processor.refusal import MAX_REFUSAL, OPTIONAL, Refused, Unsupported
from edvac.processor.stream import Garbled, Reported, Silent, Stream, beginning, receive
from edvac.processor.web import ask_json, bearer, client

CONCURRENCY = 8  # calls at once where the endpoint does not say how many it computes
PREFILLS = (
    product.EDVAC,
    product.LLAMACPP,
    product.VLLM,
)  # go on with an answer that has been begun
THINKING_ROOM = 4096  # further tokens for a model that thinks before it answers
FIRST_LOOK_S, LOOK_S = 15.0, 5.0  # how long a listing may take; a busy server is slow
LOOK_AGAIN_S = 10.0  # how old what is known of the weights may be
UNDECIDED = frozenset({401, 402, 403, 408, 425, 429, 503})  # say nothing of an ability
MOST_TRIES = len(OPTIONAL) + 1


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: until a connection stands, until an answer begins, between two parts of it, and for
    one probe."""

    connect: float = 10.0
    first: float = 600.0
    idle: float = 120.0
    probe: float = 120.0


class OpenAIProcessor:
    """Talks to ``URL/chat/completions``.

    Args:
        url: base, such as ``http://127.0.0.1:11434/v1``.
        model: name that the endpoint knows.
        key_env: environment variable that holds the key; the key file comes first.
        concurrency: calls at once; 0 leaves it to the endpoint.
        records: directory of the records of abilities; None probes nothing.
        on_note: told what a person should know, once each.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_env: str = "",
        concurrency: int = 0,
        timeouts: Timeouts = Timeouts(),
        records: Path | None = None,
        on_note: Callable[[str], None] = lambda _: None,
        on_stage: OnStage = lambda name, done, total: None,
        clock: Clock | None = None,
    ) -> None:
        self._address = parse_address(url)
        self.price = FREE
        self.contacts = Contacts()
        self._model = model
        self._key = KeySource(self._address.origin, key_env)
        self._timeouts = timeouts
        self._records = records
        self._tell = on_note
        self._told: set[str] = set()
        self._on_stage = on_stage
        self._clock = clock or SystemClock()
        self._left_out: set[str] = set()  # of OPTIONAL, as this endpoint refused it
        self._abilities: Abilities | None = None
        self._answers_as = ""
        self._fingerprint = ""
        self._looked_at: float | None = None  # clock time of the last look; None: look again
        self._looking = asyncio.Lock()
        self._gave_up = False  # probing, until the next run
        self._most = concurrency
        self._gate = Gate(concurrency or CONCURRENCY)
        self._http = client(max(timeouts.first, timeouts.idle), timeouts.connect, self.contacts)

    @property
    def identity(self) -> str:
        return self._identity(self._abilities.answers_as if self._abilities is not None else "")

    def _identity(self, answers_as: str) -> str:
        """The model's name at this host, and what tells it from another one behind that name."""
        name = f"{self._address.host}/{self._model}"
        mark = self._abilities.mark if self._abilities is not None else ""
        if not mark and answers_as in ("", self._model):
            return name
        mixed = hashlib.blake2b(f"{mark}\n{answers_as}".encode(), digest_size=6).hexdigest()
        return f"{name}@{mixed}"

    @property
    def endpoint(self) -> str:
        return self._address.origin

    @property
    def local(self) -> bool:
        return self._address.local and self.price == FREE

    @property
    def concurrency(self) -> int:
        return self._gate.most

    @property
    def context_tokens(self) -> int:
        return self._abilities.context if self._abilities is not None else 0

    @property
    def has_grammar(self) -> bool:
        found = self._abilities
        return found is not None and bool(found.grammar) and found.product in PREFILLS

    @property
    def abilities(self) -> Abilities | None:
        """What it can do, where that was found out."""
        return self._abilities

    async def open(self) -> None:
        """Find out what is there. An endpoint that is away now may be there when it is needed."""
        if self._records is None:
            return
        try:
            await self._look(self._records)
        except httpx2.HTTPError:
            if self._abilities is None:
                self._use(abilities.recall(self._records, self._address.base, self._model))

    def tell(self, run: str, doing: Doing, tool: str) -> None:
        """Endpoints have no ear for it."""

    async def close(self) -> None:
        await self._http.aclose()

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        await self.open()
        size = Size.of([message.text for message in request.messages])
        if 0 < self.context_tokens <= size.least:
            raise OperandError(
                "operand_too_large",
                "the prompt does not fit the endpoint's context",
                f"It has at least {size.least} tokens, and there is room for "
                f"{self.context_tokens}.",
                "Raise the endpoint's context length, or split the data.",
            )
        asked = self.identity
        async with self._gate:
            found = await self._exchange(request, on_text)
        answer = self._answer(request, size, found)
        if answer.model or asked == self.identity:
            return answer
        return replace(answer, model=asked)  # another one took its place meanwhile

    # -- what is there ----------------------------------------------------------------------------

    async def _look(self, records: Path) -> None:
        """Compare what is there with the record, and probe where they differ.

        Raises:
            httpx2.HTTPError: nobody is there, or not in time.
        """
        async with self._looking:
            now, before = self._clock.now(), self._abilities
            if self._looked_at is not None and now - self._looked_at < LOOK_AGAIN_S:
                return
            if self._looked_at is not None and before is not None and not before.mark:
                return  # it tells nothing that another look could compare
            wait_s = FIRST_LOOK_S if self._looked_at is None and before is None else LOOK_S
            self._looked_at = now
            server = await product.look(self._http, self._address, self._key.read(), wait_s)
            served = await self._served(server)
            known = before or abilities.recall(records, self._address.base, self._model)
            if known is not None and known.holds(served, self._clock.wall()):
                self._use(known.updated(served))
                return
            if before is not None:
                self._note("the model behind this name has changed")
            found = await self._probe(server, served)
            if found is not None:
                abilities.keep(records, self._address.base, self._model, found)
            elif served is not None:
                # Whatever it can do, its identity is that of the weights that are there.
                found = (known or abilities.UNPROVEN).of(served)
            self._use(found or known)

    async def _served(self, server: product.Server | None) -> product.Served | None:
        """What the server says of the model.

        Raises:
            ConfigError: it says that it has no such model.
        """
        if server is None:
            return None
        served = server.served(self._model)
        if served is None and server.product != product.OTHER:
            names = ", ".join(one.name for one in server.models[:20] if one.chat) or "none"
            raise ConfigError(
                "endpoint_model",
                f"{server.product} at {self.endpoint} has no model {self._model!r}",
                f"It has: {names}.",
                "Name one of these after the #; `edvac doctor` prints the lines to paste.",
            )
        if served is None:
            return None
        return await product.detail(self._http, self._address, self._key.read(), server, served)

    async def _probe(
        self, server: product.Server | None, served: product.Served | None
    ) -> Abilities | None:
        """Try what it can do; None where it did not say, and then it is not asked again here."""
        if self._gave_up:
            return None
        self._gave_up = True
        self._on_stage(f"finding out what {self.endpoint} can do", 0, 0)
        kind = server.product if server is not None else product.OTHER
        try:
            found = await abilities.probe(self._ask, kind, served, self._clock.wall())
        except httpx2.HTTPError:
            found = None
        if found is None:
            self._note("did not say what it can do; it is asked again in the next run")
            return None
        self._gave_up = False
        if found.context or kind != product.OLLAMA:
            return found
        # Its context is known only while the model is loaded, as it is now.
        server = await product.look(self._http, self._address, self._key.read())
        served = server.served(self._model) if server is not None else None
        return found.updated(served)

    async def _ask(self, body: dict[str, Any]) -> Any | None:
        """One probe."""
        return await ask_json(
            self._http,
            f"{self._address.base}/chat/completions",
            key=self._key.read(),
            body={"model": self._model} | body,
            timeout_s=self._timeouts.probe,
            undecided=UNDECIDED,
        )

    def _use(self, found: Abilities | None) -> None:
        self._abilities = found
        if found is not None:
            self._answers_as = found.answers_as or self._answers_as
            self._gate.allow(self._most or found.slots or CONCURRENCY)

    # -- one call ---------------------------------------------------------------------------------

    async def _exchange(self, request: Request, on_text: OnText | None) -> Stream:
        """Send the request in the form that this endpoint takes, and receive what comes.

        Raises:
            EdvacError: what stands in the way of an answer.
        """
        for _ in range(MOST_TRIES):
            found = Stream(on_text)
            try:
                await self._send(self._body(request), found, request.key)
            except Unsupported as refusal:
                self._left_out.add(refusal.part)
                continue
            except Silent as silence:
                seconds = self._timeouts.idle if silence.begun else self._timeouts.first
                what = "go on with its answer" if silence.begun else "begin to answer"
                raise self._away(f"did not {what} in time ({seconds:g} s)") from silence
            except Reported as problem:
                raise self._away("reported an error", self._shown(str(problem))) from problem
            except Garbled as problem:
                raise self._garbage(f"It sent {self._shown(str(problem))[:80]!r}.") from problem
            except httpx2.TimeoutException as problem:
                raise self._away("did not answer in time") from problem
            except httpx2.HTTPError as problem:
                raise self._away(f"could not be reached ({type(problem).__name__})") from problem
            self._gate.answered()
            return found
        raise self._garbage("It refuses every form of the request.")

    def _body(self, request: Request) -> dict[str, Any]:
        able = self._abilities
        thinks = able is not None and able.thinks
        messages = [{"role": m.role, "content": m.text} for m in request.messages]
        most = request.max_tokens + (THINKING_ROOM if thinks else 0)
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "max_tokens": most,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if "stream" not in self._left_out:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if request.prefill:
            messages.append({"role": "assistant", "content": request.prefill})
            if able is not None and able.product == product.VLLM:
                body |= {"add_generation_prompt": False, "continue_final_message": True}
        if request.stop:
            body["stop"] = list(request.stop)
        if request.schema is not None and (able is None or able.schema):
            body["response_format"] = abilities.schema_format(request.schema)
        if request.lark is not None and able is not None and able.grammar:
            body |= abilities.grammar_part(able.product, able.grammar, request.lark)
        if "max_tokens" in self._left_out:
            body["max_completion_tokens"] = most
        return {name: part for name, part in body.items() if name not in self._left_out}

    async def _send(self, body: dict[str, Any], found: Stream, name: str) -> None:
        key = self._key.read()
        url = f"{self._address.base}/chat/completions"
        headers = bearer(key) | ({"Idempotency-Key": name} if name else {})
        async with self._http.stream("POST", url, json=body, headers=headers) as reply:
            if reply.status_code == 200:
                await receive(reply, found, self._timeouts.first, self._timeouts.idle)
                return
            shown = self._shown(await beginning(reply, MAX_REFUSAL))
            place = f"${self._key.variable}" if self._key.variable else "the key file"
            refused = Refused(
                self.endpoint, self._model, place, reply.status_code, shown, reply.headers
            )
        error = refused.error(body, key_sent=bool(key))
        if isinstance(error, ProcessorError) and error.code == "endpoint_busy":
            error.wait_s = self._gate.refused(refused.wait_s)
            self._note(f"asks to be left alone; nothing is sent to it for {error.wait_s:g} s")
        raise error

    # -- what came --------------------------------------------------------------------------------

    def _answer(self, request: Request, size: Size, found: Stream) -> Answer:
        content, thinking = found.text, found.thinking
        if not content and not thinking and not found.finish:
            raise self._garbage("The answer was empty.")
        if not found.finish and not found.over:
            raise self._away("stopped in the middle of an answer")
        if found.doubled:
            self._left_out.add("stream")  # in one piece nothing can come twice
            raise self._garbage(
                f"It sent {found.pieces} pieces and counted {found.completion_tokens} tokens."
            )
        why = cut(size, found.counts, self.context_tokens)
        if why:
            raise OperandError(
                "operand_too_large",
                "the endpoint cut the prompt",
                why,
                "Raise the endpoint's context length, or split the data.",
            )
        if found.finish == "content_filter":
            raise ModelOutputError(
                "answer_filtered",
                f"{self.endpoint} held back a part of the answer",
                "Its content filter said no.",
                "Use another model for this step.",
            )
        counts, lie = sane(
            size, len(content.encode()) + len(thinking.encode()), found.counts, request.max_tokens
        )
        if lie:
            self._note(lie)
        sent = [f"<{m.role}>\n{m.text}\n" for m in request.messages]
        if request.prefill:
            sent.append(f"<assistant>\n{request.prefill}")
            content = content.removeprefix(request.prefill)  # some send it back
        text = without_thinking(content)
        received = f"<reasoning_content>\n{thinking}\n</reasoning_content>\n" if thinking else ""
        received += content
        return Answer(
            text,
            "length" if found.finish == "length" else "stop",
            counts.prompt,
            counts.cached,
            counts.completion,
            tuple(sent),
            received if received != text else "",
            self._made_by(found),
        )

    def _made_by(self, found: Stream) -> str:
        """The identity of the model that answered, where it is another than the one asked."""
        if found.fingerprint and self._fingerprint and found.fingerprint != self._fingerprint:
            self._note("its software or settings have changed")
        self._fingerprint = found.fingerprint or self._fingerprint
        self._answers_as = self._answers_as or found.model
        if found.model and found.model != self._answers_as:
            if self._note(f"answers as {found.model!r} and no longer as {self._answers_as!r}"):
                self._looked_at = None
            return self._identity(found.model)
        return ""

    # -- what is said -----------------------------------------------------------------------------

    def _note(self, what: str) -> bool:
        """Say it, once; True when that was now."""
        if what in self._told:
            return False
        self._told.add(what)
        self._tell(f"{self.endpoint}: {what}")
        return True

    def _shown(self, text: str) -> str:
        """Text of the endpoint without the key, which some repeat."""
        key = self._key.read()
        return text.replace(key, "(key)") if key else text

    def _away(self, why: str, more: str = "") -> ProcessorError:
        self._looked_at = None  # whoever comes back may be another
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
