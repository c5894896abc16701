"""The seam to a model: a request of messages made of segments, and the answer.

Knows nothing of programs: a request carries a run and a slot only as names that an engine may use
for scheduling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeAlias

from edvac.core.seams import Contacts


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a message. `keep` marks one that many requests share, worth keeping on disk."""

    text: str
    keep: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that a model wants called; `arguments` is the text of a JSON object."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; `calls` are what the assistant has called, in a turn of role ``tool`` one result
    is given back."""

    role: str  # system, user, assistant or tool
    segments: tuple[Segment, ...]
    calls: tuple[ToolCall, ...] = ()

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Tools:
    """Functions that an answer may call.

    Attributes:
        functions: each with ``name`` and, where known, ``description`` and ``parameters``, the JSON
            schema of its arguments.
        choice: ``auto``, ``required``, or the name of the only one that may be called.
        parallel: may one answer call several times?
    """

    functions: tuple[dict[str, Any], ...]
    choice: str = "auto"
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen beside the temperature; the defaults change nothing.

    Attributes:
        bias: what is added to a token's logit, by token id.
    """

    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    bias: tuple[tuple[int, float], ...] = ()


PLAIN = Sampling()


@dataclass(frozen=True, slots=True)
class Request:
    """One model call.

    Attributes:
        messages: shared parts first, data last, so that equal beginnings are computed once.
        prefill: the beginning of the assistant's answer, already decided.
        schema: JSON schema of the answer, or None for text; `lark` a Lark grammar instead.
        seed: makes sampling repeatable; derived from run and slot, never from time.
        cls: whether somebody waits for the answer (``online``), nobody does (``offline``), or it
            may not even be needed (``speculative``).
        key: the same for all attempts at one request, and for no other; an endpoint is told it as
            ``Idempotency-Key``. Empty: none.
        goes_on: a later request may begin with this one and its answer, as in a talk; the steps
            of a run do not.

    What follows is understood by the embedded engine alone.

    Attributes:
        prompt: all that the model sees, as texts and token ids, instead of messages. Special tokens
            count in it: it is written by who knows the model's template.
        fit: cut `max_tokens` to what the prompt leaves of the context, instead of failing.
        report: tell the tokens of the answer; from 0, `logprobs` asks for their log-probabilities
            and so many alternatives.
        adapter: name of a LoRA adapter that the processor has; empty for its own.
    """

    run: str
    slot: str
    messages: tuple[Message, ...]
    prefill: str = ""
    schema: dict[str, Any] | None = None
    lark: str | None = None
    max_tokens: int = 1024
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    reader_class: str = "user"
    cls: Literal["online", "offline", "speculative"] = "online"
    goes_on: bool = False
    key: str = ""
    prompt: tuple[str | tuple[int, ...], ...] = ()
    tools: Tools | None = None
    sampling: Sampling = PLAIN
    fit: bool = False
    report: bool = False
    logprobs: int = -1
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer; `top` holds (id, bytes, log-probability) of the likeliest."""

    id: int
    piece: bytes
    logprob: float = 0.0
    top: tuple[tuple[int, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of an answer went, in milliseconds, and how its drafts did, in tokens."""

    queue_ms: float = 0.0
    prompt_ms: float = 0.0
    answer_ms: float = 0.0
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        text: the answer, without what the model thought before it.
        sent: the exact text the model saw, in segments; `received` all that came back, where that
            is more than `text`.
        model: identity of the model that answered, where it is another than the processor's.
        stop: the stop string that ended it; `tokens` those that were asked for and not told yet.
    """

    text: str
    finish: str  # stop, length or cancelled
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    sent: tuple[str, ...]
    received: str = ""
    model: str = ""
    stop: str = ""
    tokens: tuple[Token, ...] = ()
    timings: Timings | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What a model asks for a million tokens, in the workspace's currency."""

    input: Decimal = Decimal(0)
    cached: Decimal = Decimal(0)
    output: Decimal = Decimal(0)

    def of(self, answer: Answer) -> Decimal:
        """The cost of a call; cached tokens are part of the prompt's."""
        fresh = self.input * (answer.prompt_tokens - answer.cached_tokens)
        known = self.cached * answer.cached_tokens
        return (fresh + known + self.output * answer.completion_tokens) / 1_000_000


FREE = Price()

Doing: TypeAlias = Literal["tool_started", "tool_ended"]
OnText: TypeAlias = Callable[[str, int], None]
OnTokens: TypeAlias = Callable[[tuple[Token, ...]], None]
OnStage: TypeAlias = Callable[[str, float, float], None]  # name, done, total


class Processor(Protocol):
    """Executes model calls. Everything outside edvac that runs a model hides behind this.

    Attributes:
        price: what its calls are charged at; a model on this machine is free.
        contacts: what was connected to over the network.
    """

    price: Price
    contacts: Contacts

    @property
    def identity(self) -> str:
        """Name and hash of the model, template and setting: part of the reuse key."""

    @property
    def concurrency(self) -> int:
        """How many calls are worth having in flight."""

    @property
    def context_tokens(self) -> int: ...

    @property
    def has_grammar(self) -> bool:
        """Are `schema` and `lark` enforced while decoding?"""

    @property
    def endpoint(self) -> str:
        """What it would contact: ``embedded engine`` or a host."""

    @property
    def local(self) -> bool:
        """Does a call stay on this machine, free of charge?"""

    async def open(self) -> None:
        """Connect, or start the engine.

        Raises:
            ProcessorError: it is away; ConfigError: it is set up wrongly.
        """

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        """One call.

        Raises:
            ProcessorError: away or overloaded, try again.
            OperandError: the prompt does not fit the context (`operand_too_large`).
        """

    def tell(self, run: str, doing: Doing, tool: str) -> None:
        """What a run does between its calls. Never fails, and may be ignored."""

    async def close(self) -> None: ...
