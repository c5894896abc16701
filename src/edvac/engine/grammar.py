"""Grammars over tokens: which may come next, and which must.

A wrapper around llguidance that turns JSON schemas (written with one fixed spacing) and Lark
grammars into masks, forced tokens and typed errors. It knows no logits and no requests.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any, Final

import llguidance
import numpy as np
import torch

from edvac.core.errors import ConfigError, InternalError
from edvac.engine.tokenizer import TextCodec

# The spaces are those that models are used to. Without them `":"` is one common token, which leads
# into a string where `null` was due.
_SPACING: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
MAX_GRAMMAR_BYTES: Final = 1 << 20
_INSIDE: Final = -1  # no token: what is forced goes on, and no blank is put before it
_REMEMBERED: Final = 64  # compiled grammars; programs ask for the same few again and again
# The library's own limits stop legal answers under large grammars in the middle. These allow a
# mask some tenths of a second at the very worst, where the defaults allow some hundredths.
_LIMITS: Final = {
    "initial_lexer_fuel": 10_000_000,
    "step_lexer_fuel": 5_000_000,
    "step_max_items": 1_000_000,
    "max_items_in_row": 20_000,
}


class _Vocabulary:
    """The shape in which llguidance wants a vocabulary."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        ends = codec.specials.ends
        first_end = min(ends) if ends else 0
        self.eos_token_id = codec.specials.eos if codec.specials.eos is not None else first_end
        self.bos_token_id = codec.specials.bos
        names = {index: name for name, index in codec.control.items()}
        # The 0xFF in front tells llguidance that a token is special and matches no text.
        self.tokens = [
            b"\xff" + names[index].encode() if index in names else piece
            for index, piece in enumerate(codec.pieces)
        ]
        self.special_token_ids = sorted(codec.control_ids)

    def __call__(self, text: bytes | str) -> list[int]:
        clear = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return self._codec.encode(clear, control=False, after=_INSIDE)


class Grammars:
    """Compiles grammars for one vocabulary."""

    def __init__(self, codec: TextCodec, rows: int) -> None:
        wrapped = llguidance.TokenizerWrapper(_Vocabulary(codec))
        self._tokenizer: Any = llguidance.LLTokenizer(wrapped, n_vocab=rows)
        self._rows = rows
        self._limits: Any = llguidance.LLParserLimits(**_LIMITS)
        self._made: OrderedDict[str, Any] = OrderedDict()

    def from_schema(self, schema: str) -> Matcher:
        """A matcher for one JSON value of this schema, in one fixed spacing."""
        _check_length(schema)
        try:
            text = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=_SPACING)
        except ValueError as error:
            raise _refused(str(error)) from error
        return self._matcher(text)

    def from_lark(self, lark: str) -> Matcher:
        _check_length(lark)
        return self._matcher(llguidance.LLMatcher.grammar_from_lark(lark))

    def _matcher(self, text: str) -> Matcher:
        made = self._made.pop(text, None) or self._compile(text)
        self._made[text] = made
        if len(self._made) > _REMEMBERED:
            self._made.popitem(last=False)
        return Matcher(made.deep_copy(), self._rows)

    def _compile(self, text: str) -> Any:
        made = llguidance.LLMatcher(self._tokenizer, text, log_level=0, limits=self._limits)
        if not made.is_error():
            made.compute_bitmask()  # the first mask is the dearest, and copies keep it
        if made.is_error():
            raise _refused(made.get_error())
        return made


class Matcher:
    """The state of one answer under its grammar."""

    def __init__(self, matcher: Any, rows: int) -> None:
        self._matcher, self._rows = matcher, rows

    def forced(self) -> list[int]:
        """Tokens that must come next, whatever the model thinks."""
        found: list[int] = self._matcher.compute_ff_tokens()
        return found

    def allowed(self) -> torch.Tensor:
        """One boolean per token."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        flags = np.unpackbits(bits, bitorder="little")[: self._rows]
        self._check()
        return torch.from_numpy(flags.view(np.bool_))

    def take(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            self._check()
            raise InternalError("grammar_rejected", "the grammar refused a token it had allowed")

    def legal(self, tokens: list[int]) -> int:
        """How many of the tokens, from the first, could come next; the state stays as it is."""
        if self._matcher.is_stopped():
            return 0
        found: int = self._matcher.validate_tokens(tokens)
        self._check()
        return found

    def complete(self) -> bool:
        """Nothing more can follow but the end."""
        return bool(self._matcher.is_stopped())

    def accepting(self) -> bool:
        return bool(self._matcher.is_accepting())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refused(self._matcher.get_error())


def _check_length(text: str) -> None:
    if len(text) > MAX_GRAMMAR_BYTES:
        raise _refused(f"it is {len(text)} characters long, more than {MAX_GRAMMAR_BYTES}")


def _refused(why: str) -> ConfigError:
    return ConfigError(
        "grammar_invalid",
        "the answer's schema or grammar cannot be used",
        why.strip().splitlines()[0][:500] if why.strip() else "",
        "Simplify the schema; unsupported keywords are named above.",
    )


def schema_text(schema: dict[str, Any]) -> str:
    """A schema as text, the same for equal schemas whatever the order they were built in."""
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
