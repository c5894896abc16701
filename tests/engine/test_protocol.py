"""Frames from anybody: only whole messages of the closed set get through."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.core.errors import OperandError, ProcessorError
from edvac.engine.protocol import (
    MAX_FRAME,
    FrameError,
    Generate,
    Hello,
    Segment,
    decode_from_engine,
    decode_to_engine,
    encode,
    failure,
    frame_length,
    raised,
)

WHOLE = encode(Generate(id="a", segments=[Segment("text", keep=True)], stop=["x"]))[4:]


def test_messages_round_trip() -> None:
    message = Generate(id="a", segments=[Segment("é", control=True)], seed=3, schema="{}")
    frame = encode(message)
    assert frame_length(frame[:4]) == len(frame) - 4
    assert decode_to_engine(frame[4:]) == message


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    for decode in (decode_to_engine, decode_from_engine):
        try:
            decode(noise)
        except FrameError:
            pass


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(0, len(WHOLE)))
def test_damaged_messages_are_refused_or_valid(place: int, byte: int, cut: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[place] = byte
    try:
        decode_to_engine(bytes(damaged[:cut]))
    except FrameError:
        pass


def test_unknown_types_and_fields_are_refused() -> None:
    for document in (
        {"type": "Nonsense"},
        {"type": "Hello", "version": 1, "extra": 1},
        {"type": "Generate", "id": "a"},
        {"type": "Generate", "id": "a", "segments": [{"text": "x", "role": "system"}]},
        {"type": "Generate", "id": "a", "segments": [], "cls": "root"},
        [1, 2],
    ):
        with pytest.raises(FrameError):
            decode_to_engine(msgspec.msgpack.encode(document))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(FrameError):
        decode_to_engine(b"\x91" * 200_000)


@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 0xFFFFFFFF])
def test_lengths_are_checked_before_reading(length: int) -> None:
    with pytest.raises(FrameError):
        frame_length(length.to_bytes(4, "big"))


def test_too_large_a_message_is_the_operands_fault() -> None:
    with pytest.raises(OperandError):
        encode(Generate(id="a", segments=[Segment("x" * (MAX_FRAME + 1))]))


def test_errors_keep_their_class() -> None:
    error = ProcessorError("engine_overloaded", "what", "why", "fix")
    again = raised(failure("a", error))
    assert type(again) is ProcessorError
    assert again.as_dict() == error.as_dict()
    assert encode(Hello())


def test_light_modules_load_no_heavy_ones() -> None:
    code = (
        "import sys, edvac.engine.client, edvac.engine.pull, edvac.engine.catalogue;"
        "print([m for m in ('torch', 'numpy', 'tokenizers') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert ended.stdout.strip() == b"[]"
