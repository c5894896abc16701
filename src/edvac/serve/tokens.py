"""Texts as tokens and tokens as texts, in the form of llama.cpp's server."""

from __future__ import annotations

from typing import Any

import msgspec

from edvac.engine.protocol import Segment, Tokens
from edvac.serve.forms import token_text
from edvac.serve.reading import decode, malformed


class _Text(msgspec.Struct, kw_only=True):
    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False

    @property
    def segment(self) -> Segment:
        return Segment(self.content, control=self.parse_special)


class _Tokens(msgspec.Struct, kw_only=True):
    tokens: list[int]


def read_text(data: bytes) -> _Text:
    """
    Raises:
        UsageError: there is no text in it.
    """
    return decode(data, _Text)


def read_tokens(data: bytes) -> list[int]:
    """
    Raises:
        UsageError: there are no token ids in it.
    """
    tokens = decode(data, _Tokens).tokens
    if any(not 0 <= token < 1 << 31 for token in tokens):
        raise malformed("a token id is a number from 0")
    return tokens


def told_tokens(found: Tokens, with_pieces: bool) -> dict[str, Any]:
    if not with_pieces:
        return {"tokens": found.tokens}
    pieces = zip(found.tokens, found.pieces, strict=True)
    return {"tokens": [{"id": token, "piece": _piece(piece)} for token, piece in pieces]}


def _piece(piece: bytes) -> str | list[int]:
    """A text, or the bytes of a part of a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


def told_text(found: Tokens) -> dict[str, Any]:
    return {"content": token_text(b"".join(found.pieces))}
