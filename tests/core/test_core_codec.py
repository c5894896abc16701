"""The stored form: every value comes back with every label, and nothing else is read as a value."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from core_kit import labels, values
from hypothesis import example, given
from hypothesis import strategies as st

from edvac.core.codec import INLINE_LIMIT, Decoder, Encoder, label_key
from edvac.core.errors import DamageError
from edvac.core.label import PROGRAM, PUBLIC, USER, Label
from edvac.core.prefix import grown
from edvac.core.value import Cell, Failed, LazyText, Mapping, Scalar, Sequence, Value, digest, lift


class Shelf:
    """A store of blobs and labels in dicts, which counts what is read."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.labels: dict[str, Label] = {}
        self.read = 0

    def put(self, body: bytes) -> str:
        ref = hashlib.sha256(body).hexdigest()
        self.blobs[ref] = body
        return ref

    def get(self, ref: str) -> bytes:
        self.read += 1
        return self.blobs[ref]

    def encode(self, value: Value) -> bytes:
        encoder = Encoder(self.put)
        made = encoder.encode(value)
        self.labels |= encoder.labels
        return made

    def decode(self, stored: bytes) -> Value:
        return Decoder(self.get, self.labels.__getitem__).decode(stored)


def pack(node: Any) -> bytes:
    return msgspec.msgpack.encode(node)


@given(values)
@example(Scalar(-(2**63), USER))
@example(Scalar(2**63, USER))
@example(Scalar(-(2**63) - 1, USER))
@example(lift([True, 1, 1.0, "1", None], USER))
@example(lift({1: "a", "1": "b", None: "c"}, USER))
def test_values_come_back_whole(value: Value) -> None:
    shelf = Shelf()
    found = shelf.decode(shelf.encode(value))
    assert found == value and repr(found) == repr(value) and digest(found) == digest(value)


@given(values)
def test_the_stored_form_does_not_depend_on_what_was_stored_before(value: Value) -> None:
    shelf = Shelf()
    made = shelf.encode(value)
    assert Shelf().encode(value) == made and shelf.encode(shelf.decode(made)) == made


@given(values, st.data())
def test_a_label_is_kept_once_and_is_needed(value: Value, draw: st.DataObject) -> None:
    shelf = Shelf()
    made = shelf.encode(value)
    assert {key: label_key(label) for key, label in shelf.labels.items()} == {
        key: key for key in shelf.labels
    }
    gone = draw.draw(st.sampled_from(sorted(shelf.labels)))
    del shelf.labels[gone]
    with pytest.raises(DamageError):
        shelf.decode(made)


@given(labels, labels)
def test_labels_have_one_key_each(a: Label, b: Label) -> None:
    assert (label_key(a) == label_key(b)) is (a is b)


def test_a_list_that_grew_is_stored_like_any_other() -> None:
    items = tuple(Scalar(n, USER) for n in range(3))
    made = Sequence(grown(items[:1], items[1:]), USER)
    assert Shelf().encode(made) == Shelf().encode(Sequence(items, USER))


def test_a_settled_cell_is_stored_as_its_value_and_a_pending_one_not_at_all() -> None:
    cell = Cell()
    with pytest.raises(TypeError, match="pending"):
        Shelf().encode(Sequence((cell,), USER))
    cell.resolve(Scalar(1, PROGRAM))
    shelf = Shelf()
    found = shelf.decode(shelf.encode(Sequence((cell,), USER)))
    assert found == Sequence((Scalar(1, PROGRAM),), USER)


@pytest.mark.parametrize("size", [INLINE_LIMIT, INLINE_LIMIT + 1])
@pytest.mark.parametrize("sign", ["a", "é", "😀"])
def test_long_text_lies_in_a_blob_until_it_is_read(size: int, sign: str) -> None:
    text = sign * (size // len(sign.encode())) + "a" * (size % len(sign.encode()))
    assert len(text.encode()) == size
    shelf = Shelf()
    stored = shelf.encode(lift([text, {text: text}], USER))
    large = size > INLINE_LIMIT
    assert len(shelf.blobs) == large and (len(stored) < 1000) is large
    found = shelf.decode(stored)
    assert isinstance(found, Sequence) and isinstance(found.items[1], Mapping)
    first, held = found.items[0], found.items[1]
    assert isinstance(first.raw, LazyText) is large and shelf.read == large  # the key is needed
    assert first.data == text and held.entries[text].data == text
    if large:
        assert first.raw.size == size and shelf.read == 1
        assert first.data == text and shelf.read == 1, "a text is loaded once"
        again = shelf.encode(found)
        assert again == stored and len(shelf.blobs) == 1


ROOT = label_key(PUBLIC)
DAMAGED: dict[str, Any] = {
    "an unlabelled atom": 5,
    "an unlabelled null": None,
    "an unlabelled dict": {"a": 1},
    "an unlabelled list": [1, [1, 2]],
    "an unlabelled record": [4, ["Row", []]],
    "nothing": [],
    "a kind alone": [0],
    "a fourth part": [0, 1, ROOT, 1],
    "an unknown label": [0, 1, "00"],
    "a label that is no name": [0, 1, ["00"]],
    "an unknown kind": [77, 1, ROOT],
    "a kind that is text": ["0", 1, ROOT],
    "an atom that is a list": [0, [1], ROOT],
    "an atom that is a dict": [0, {"a": 1}, ROOT],
    "an atom that is bytes": [0, b"a", ROOT],
    "an item that is a dict": [1, [{"a": 1}], ROOT],
    "a list that is none": [1, 5, ROOT],
    "a dict without pairs": [3, [1], ROOT],
    "a dict with a key alone": [3, [["a"]], ROOT],
    "a dict whose key is a list": [3, [[[1, []], 1]], ROOT],
    "a dict with a key twice": [3, [["a", 1], ["a", 2]], ROOT],
    "a record without a name": [4, [5, []], ROOT],
    "a record with a third part": [4, ["Row", [], []], ROOT],
    "a record with a number for a field": [4, ["Row", [[1, 1]]], ROOT],
    "a record with a field twice": [4, ["Row", [["a", 1], ["a", 2]]], ROOT],
    "a failure without a code": [5, ["slot", "what"], ROOT],
    "a failure with numbers": [5, [1, 2, 3], ROOT],
    "a decimal that is none": [6, "1,5", ROOT],
    "a decimal that is a list": [6, [1], ROOT],
    "a date that is none": [7, "2026-02-30", ROOT],
    "a date that is a number": [7, 5, ROOT],
    "a large int that is none": [8, "xyz", ROOT],
    "a blob without a size": [9, ["ref"], ROOT],
    "a blob without a name": [9, [5, 5], ROOT],
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_no_stored_value_is_damage(what: str) -> None:
    shelf = Shelf()
    shelf.labels[ROOT] = PUBLIC
    with pytest.raises(DamageError) as caught:
        shelf.decode(pack(DAMAGED[what]))
    wanted = "unlabelled_value" if "unlabelled" in what else "stored_value_unreadable"
    assert caught.value.code == wanted


@given(st.binary(max_size=40))
@example(b"")
@example(b"\x91" * 100_000)
def test_bytes_at_random_are_damage(stored: bytes) -> None:
    shelf = Shelf()
    shelf.labels[ROOT] = PUBLIC
    with pytest.raises(DamageError):
        shelf.decode(stored)


@given(values, st.data())
def test_damaged_bytes_give_a_value_or_the_typed_error(value: Value, draw: st.DataObject) -> None:
    shelf = Shelf()
    stored = bytearray(shelf.encode(value))
    at = draw.draw(st.integers(0, len(stored) - 1))
    stored[at] ^= 1 << draw.draw(st.integers(0, 7))
    for damaged in (bytes(stored), bytes(stored[:at])):
        try:
            found = shelf.decode(damaged)
        except DamageError:
            continue
        assert isinstance(found, Value) and isinstance(found.label, Label)
        assert isinstance(digest(found), str), "whatever is read can be used"


def test_a_failure_keeps_what_is_said_of_it() -> None:
    shelf = Shelf()
    value = Failed("slot", "code", "what happened", USER, origin="other")
    found = shelf.decode(shelf.encode(value))
    assert found == value and isinstance(found, Failed) and found.what == "what happened"
