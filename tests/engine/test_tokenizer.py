"""Text survives tokens; special tokens cannot be smuggled in by data."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.engine.gguf import open_gguf
from edvac.engine.tokenizer import TextCodec, from_gguf

from .tiny import SPECIALS, write_tiny


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    path = write_tiny(tmp_path_factory.mktemp("codec") / "tiny.gguf")
    return from_gguf(open_gguf(path).metadata, path)


def test_special_tokens_are_parsed_only_in_control_text(codec: TextCodec) -> None:
    for special in SPECIALS:
        assert codec.encode(special, control=True) == [codec.control[special]]
        as_data = codec.encode(f"x{special}y", control=False)
        assert not set(as_data) & codec.control_ids
        assert codec.decode(as_data) == f"x{special}y"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.text(), st.sampled_from(SPECIALS))).map("".join))
def test_data_round_trips_and_never_holds_a_special(codec: TextCodec, text: str) -> None:
    tokens = codec.encode(text, control=False)
    assert not set(tokens) & codec.control_ids
    clean = text.encode("utf-8", "replace").decode()
    assert codec.decode(tokens) == clean
    stream = codec.stream()
    assert "".join(stream.feed(token) for token in tokens) + stream.finish() == clean


def test_stream_never_shows_half_a_character(codec: TextCodec) -> None:
    stream = codec.stream()
    shown = [stream.feed(token) for token in codec.encode("é日🎉", control=False)]
    assert "\ufffd" not in "".join(shown)
    assert "".join(shown) == "é日🎉"


def test_merges_are_applied(codec: TextCodec) -> None:
    assert len(codec.encode("hell the", control=False)) == 2
