"""What a client and the engine say to each other over their socket.

A frame is a 4-byte big-endian length and that many bytes of msgpack: one tagged struct of the
closed sets below. The length is checked before anything is allocated, and unknown types or fields
are refused. The engine does not know chat: a client renders its template into segments and marks
template text as control, data as not.
"""

from __future__ import annotations

import struct
from typing import Final, Literal, TypeAlias

import msgspec

from edvac.core.errors import (
    BudgetError,
    ConfigError,
    EdvacError,
    InternalError,
    ModelFileError,
    OperandError,
    ProcessorError,
)

VERSION: Final = 2
MAX_FRAME: Final = 32 << 20
_LENGTH: Final = struct.Struct(">I")

RequestClass: TypeAlias = Literal["online", "offline", "speculative"]
FinishReason: TypeAlias = Literal["stop", "length", "cancelled"]
Setting: TypeAlias = Literal["fast", "reference"]
STEPS: Final = "steps"  # detail of `open`: no request of the program goes on from another
HintKind: TypeAlias = Literal["open", "close", "tool_started", "tool_ended", "next_use", "drop"]


class _Message(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True, omit_defaults=True
):
    """Root of everything that travels."""


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A piece of a prompt. Special tokens are recognised only where `control` is true.

    `keep` asks that the prompt up to the end of this segment be kept on disk for later engines;
    of several such prefixes the longest that is found is used. Where there are `tokens`, they stand
    in the prompt as they are, instead of `text`.
    """

    text: str = ""
    control: bool = False
    keep: bool = False
    tokens: list[int] = []


class Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A token of an answer; `logprob` is natural, and `top` holds (id, piece, logprob) of the
    likeliest, both before grammar, bias and temperature."""

    id: int
    piece: bytes
    logprob: float = 0.0
    top: list[tuple[int, bytes, float]] = []


class Hello(_Message, frozen=True):
    version: int = VERSION


class Generate(_Message, frozen=True, kw_only=True):
    """One completion, for step `slot` of `program`; `reader_class` bounds KV sharing,
    `adapter` is the name of a loaded one.

    With `max_tokens` 0 the prompt is read and no answer written; what is to be kept of it lies on
    disk when that is done. With `fit`, `max_tokens` is cut to what the prompt leaves of the
    context. With `exact` nothing is read on from that came back from disk in fewer bits than it was
    computed in. `bias` is added to tokens' logits. `report` asks for the tokens of the answer,
    `logprobs` from 0 for their log-probabilities and so many alternatives; nothing is forced by a
    grammar then, since a forced token has none.
    """

    id: str
    segments: list[Segment]
    program: str = ""
    slot: str = ""
    cls: RequestClass = "online"
    reader_class: str = ""
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: list[str] = []
    schema: str | None = None
    lark: str | None = None
    stream: bool = False
    fit: bool = False
    bias: dict[int, float] = {}
    report: bool = False
    logprobs: int = -1

    adapter: str = ""
    exact: bool = False


class Tokenize(_Message, frozen=True, kw_only=True):
    """The tokens of a prompt, with `bos` before them where the model wants it there."""

    id: str
    segments: list[Segment]
    bos: bool = False


class LoadAdapter(_Message, frozen=True, kw_only=True):
    """Read a LoRA adapter, so that requests may name it; answered by `AdapterHeld` or `Failed`.

    It is held until this connection ends or unloads it.
    """

    id: str
    name: str
    path: str


class UnloadAdapter(_Message, frozen=True, kw_only=True):
    """Let go of a name; requests that run with it go on. Answered like the loading."""

    id: str
    name: str


class Cancel(_Message, frozen=True):
    id: str


class Hint(_Message, frozen=True, kw_only=True):
    """What a program is about to do. Accepted always, acted on at best effort."""

    kind: HintKind
    program: str
    detail: str = ""
    after: float = 0.0
    lease: float = 60.0


class Stats(_Message, frozen=True):
    pass


class Shutdown(_Message, frozen=True):
    """End once nothing is running; with `alone` only where nobody else is connected, and otherwise
    the sender alone is sent away (`engine_shared`)."""

    alone: bool = False


class Forget(_Message, frozen=True):
    """Give up all that was kept of finished sequences, in memory and on disk."""


class Ready(_Message, frozen=True, kw_only=True):
    """The model is loaded; `sha256` names the weight file's content."""

    version: int
    model: str
    sha256: str
    architecture: str
    context_length: int
    chat_template: str | None
    special_tokens: dict[str, str]
    control_tokens: list[str] = []
    setting: Setting
    pid: int
    threads: int


class Progress(_Message, frozen=True):
    """`id` is None for loading; `stage` is one of load, queue, prefill."""

    id: str | None
    stage: str
    done: int
    total: int


class Text(_Message, frozen=True):
    id: str
    text: str
    tokens: int
    chosen: list[Token] = []


class Tokens(_Message, frozen=True):
    """`pieces` are the tokens' bytes; a control token's are its name."""

    id: str
    tokens: list[int]
    pieces: list[bytes]


class Done(_Message, frozen=True, kw_only=True):
    id: str
    text: str
    finish_reason: FinishReason
    stop: str = ""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    forced_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    program: str = ""  # by which hints name it; the engine's own name where none was given
    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    chosen: list[Token] = []


class Failed(_Message, frozen=True, kw_only=True):
    """`id` is None where the failure is the connection's or the engine's, not one request's."""

    id: str | None
    code: str
    what: str
    why: str = ""
    fix: str = ""
    kind: str = "InternalError"


class AdapterHeld(_Message, frozen=True, kw_only=True):
    """What was loaded or let go of; `sha256` names the adapter's content."""

    id: str
    name: str
    sha256: str = ""


class StatsReply(_Message, frozen=True, kw_only=True):
    """Counters since start, and the state right now."""

    running: int
    waiting: int
    slots: int = 0
    kv_tokens: int
    kv_bytes: int
    kv_capacity_bytes: int
    parked_prefixes: int
    steps: int
    prefill_tokens: int
    cached_tokens: int
    decode_tokens: int
    forced_tokens: int
    busy_seconds: float
    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    resident_bytes: int
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    adapters: int = 0
    adapter_bytes: int = 0


ToEngine: TypeAlias = (
    Hello
    | Generate
    | Tokenize
    | LoadAdapter
    | UnloadAdapter
    | Cancel
    | Hint
    | Stats
    | Shutdown
    | Forget
)
FromEngine: TypeAlias = Ready | Progress | Text | Tokens | Done | Failed | AdapterHeld | StatsReply

_encoder = msgspec.msgpack.Encoder()
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)

_KINDS: Final[dict[str, type[EdvacError]]] = {
    kind.__name__: kind
    for kind in (
        BudgetError,
        ConfigError,
        InternalError,
        ModelFileError,
        OperandError,
        ProcessorError,
    )
}


class FrameError(Exception):
    """The other side sent what is not a message; the connection must be closed."""


def encode(message: ToEngine | FromEngine) -> bytes:
    """A message as a whole frame."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise OperandError(
            "operand_too_large",
            f"the message is {len(body)} bytes long",
            f"One message to or from the engine holds at most {MAX_FRAME} bytes.",
            "Give the step less data, such as one of text.chunks(text, size).",
        )
    return _LENGTH.pack(len(body)) + body


def frame_length(head: bytes) -> int:
    """The length that four header bytes announce, if it is allowed."""
    if len(head) != _LENGTH.size:
        raise FrameError("a frame's header is cut short")
    length = int(_LENGTH.unpack(head)[0])
    if not 1 <= length <= MAX_FRAME:
        raise FrameError(f"a frame announces {length} bytes; at most {MAX_FRAME} are allowed")
    return length


def decode_to_engine(body: bytes) -> ToEngine:
    try:
        return _to_engine.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"not a message to the engine: {error}") from error


def decode_from_engine(body: bytes) -> FromEngine:
    try:
        return _from_engine.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"not a message from the engine: {error}") from error


def failure(identity: str | None, error: EdvacError) -> Failed:
    """An error as a message; its class travels as `kind`."""
    kind = type(error).__name__
    return Failed(
        id=identity,
        code=error.code,
        what=error.what,
        why=error.why,
        fix=error.fix,
        kind=kind if kind in _KINDS else "InternalError",
    )


def raised(message: Failed) -> EdvacError:
    """The error that a message carries."""
    kind = _KINDS.get(message.kind, InternalError)
    return kind(message.code, message.what, message.why, message.fix)
