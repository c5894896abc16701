"""The stored form of values: MessagePack with a label on every root, large texts in blobs.

A node is an atom, or ``[kind, body]`` with the label of its parent, or ``[kind, body, label]``.
Labels are named by the first 8 bytes of their hash and handed out beside the bytes, so that a store
keeps each label once.

Knows nothing of databases: blobs and labels go through the two functions given.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from edvac.core.errors import DamageError
from edvac.core.label import RECENT, Label
from edvac.core.value import (
    Failed,
    Instance,
    LazyText,
    Mapping,
    Operand,
    Scalar,
    Sequence,
    Value,
    settle,
)

INLINE_LIMIT = 64 * 1024  # bytes; longer text lies in a blob (design 2, large values)
_INT64 = 2**63

_SCALAR, _LIST, _TUPLE, _DICT, _RECORD, _FAILED, _DECIMAL, _DATE, _BIGINT, _BLOB = range(10)

_UNREADABLE = (  # what reading bytes that are no stored value ends in
    *(msgspec.DecodeError, RecursionError),
    *(ValueError, TypeError, ArithmeticError, LookupError),
)

PutBlob = Callable[[bytes], str]
GetBlob = Callable[[str], bytes]


@functools.lru_cache(maxsize=RECENT)
def label_form(label: Label) -> bytes:
    """The stored form of a label, in bytes."""
    return msgspec.msgpack.encode(label.stored())


@functools.lru_cache(maxsize=RECENT)
def label_key(label: Label) -> str:
    """Short stable name of a label, and the key under which a store keeps it."""
    return hashlib.blake2b(label_form(label), digest_size=8).hexdigest()


class Encoder:
    """Encodes values; collects the labels that it met in `labels`, by key, and in `blobs` what the
    encoded values need to be read back."""

    def __init__(self, put_blob: PutBlob) -> None:
        self._put_blob = put_blob
        self.labels: dict[str, Label] = {}
        self.blobs: list[str] = []

    def encode(self, value: Value) -> bytes:
        """Bytes of a complete value.

        Raises:
            InternalError: a part is still pending.
        """
        return msgspec.msgpack.encode(self._node(value, None))

    def _label(self, label: Label) -> str:
        key = label_key(label)
        self.labels[key] = label
        return key

    def _node(self, operand: Operand, inherited: Label | None) -> Any:
        here = settle(operand)
        match here:
            case Scalar():
                kind, body = self._atom(here)
                if kind == _SCALAR and here.label is inherited:
                    return body
            case Sequence():
                kind = _TUPLE if here.fixed else _LIST
                body = [self._node(item, here.label) for item in here.items]
            case Mapping():
                kind = _DICT
                body = [
                    [self._node(Scalar(k, here.label), here.label), self._node(v, here.label)]
                    for k, v in here.entries.items()
                ]
            case Instance():
                kind = _RECORD
                body = [
                    here.record,
                    [[k, self._node(v, here.label)] for k, v in here.fields.items()],
                ]
            case Failed():
                kind, body = _FAILED, [here.slot, here.code, here.what]
            case _:
                raise TypeError("a pending value has no stored form")
        return [kind, body] if here.label is inherited else [kind, body, self._label(here.label)]

    def _atom(self, scalar: Scalar) -> tuple[int, Any]:
        raw = scalar.raw
        match raw:
            case LazyText():
                self.blobs.append(raw.ref)
                return _BLOB, [raw.ref, raw.size]
            case Decimal():
                return _DECIMAL, str(raw)
            case dt.date():
                return _DATE, raw.isoformat()
            case int() if not isinstance(raw, bool) and not -_INT64 <= raw < _INT64:
                return _BIGINT, format(raw, "x")
            case str() if len(raw) * 4 > INLINE_LIMIT:
                body = raw.encode()
                if len(body) > INLINE_LIMIT:
                    self.blobs.append(self._put_blob(body))
                    return _BLOB, [self.blobs[-1], len(body)]
        return _SCALAR, raw


def holds_failure(data: bytes) -> bool:
    """Is this the stored form of a failed value? Looks at its first two bytes."""
    return data[:1] in (b"\x92", b"\x93") and data[1:2] == bytes([_FAILED])


class Decoder:
    """Reads the stored form back; texts in blobs stay there until somebody looks."""

    def __init__(self, get_blob: GetBlob, get_label: Callable[[str], Label]) -> None:
        self._get_blob = get_blob
        self._get_label = get_label

    def decode(self, data: bytes) -> Value:
        """The value.

        Raises:
            DamageError: the bytes are not a stored value, or the root has no label.
        """
        try:
            return self._node(msgspec.msgpack.decode(data), None)
        except _UNREADABLE as problem:
            raise DamageError(
                "stored_value_unreadable",
                "a stored value cannot be read",
                str(problem),
                "Run `edvac doctor` to verify the workspace.",
            ) from problem

    def _node(self, node: Any, inherited: Label | None) -> Value:
        if not isinstance(node, list):
            if inherited is None:
                return Scalar(None, Label.restore(None))  # raises: unlabelled
            return Scalar(_read_atom(_SCALAR, node), inherited)
        kind, body, *rest = node
        if len(rest) > 1:
            raise ValueError(f"a node has {len(node)} parts")
        label = self._get_label(rest[0]) if rest else inherited
        if label is None:
            label = Label.restore(None)  # raises: unlabelled
        match kind:
            case 1 | 2:
                items = tuple(self._node(item, label) for item in body)
                return Sequence(items, label, fixed=kind == _TUPLE)
            case 3:
                entries = {self._key(k, label): self._node(v, label) for k, v in body}
                return Mapping(_all_of(body, entries), label)
            case 4:
                record, fields = body
                parts = {_string(k): self._node(v, label) for k, v in fields}
                return Instance(_string(record), _all_of(fields, parts), label)
            case 5:
                slot, code, what = body
                return Failed(_string(slot), _string(code), _string(what), label)
            case 9:
                ref, size = body
                return Scalar(LazyText(_string(ref), int(size), self._text), label)
        return Scalar(_read_atom(kind, body), label)

    def _key(self, node: Any, label: Label) -> Any:
        found = self._node(node, label)
        if not isinstance(found, Scalar):
            raise TypeError("a dict key is a container")
        return found.data

    def _text(self, ref: str) -> str:
        return self._get_blob(ref).decode()


def _string(body: Any) -> str:
    if not isinstance(body, str):
        raise TypeError(f"a text was expected, got {type(body).__name__}")
    return body


def _all_of(body: list[Any], entries: dict[Any, Value]) -> dict[Any, Value]:
    if len(entries) != len(body):
        raise ValueError("a key occurs twice")
    return entries


def _read_atom(kind: int, body: Any) -> Any:
    match kind:
        case 0 if body is None or isinstance(body, bool | int | float | str):
            return body
        case 6:
            return Decimal(body)
        case 7:
            return dt.date.fromisoformat(body)
        case 8:
            return int(body, 16)
    raise ValueError(f"unknown node kind {kind!r}")
