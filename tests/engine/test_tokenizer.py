"""Text survives tokens; special tokens cannot be smuggled in by data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.engine.gguf import Meta, open_gguf
from edvac.engine.tokenizer import TextCodec, byte_alphabet, from_gguf, from_json

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


def test_what_models_write_as_one_token_is_shown_and_control_tokens_are_not(
    tmp_path: Path,
) -> None:
    """GGUF calls the first kind user defined: ``<tool_call>`` is a text that answers hold."""
    marks = {"<tool_call>": 4, "<|end|>": 3}
    metadata: dict[str, Meta] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*byte_alphabet(), *marks],
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.token_type": [*([1] * 256), *marks.values()],
    }
    document = {
        "model": {"type": "BPE", "vocab": byte_alphabet(), "merges": []},
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        },
        "added_tokens": [
            {"content": name, "id": 256 + at, "special": name == "<|end|>"}
            for at, name in enumerate(marks)
        ],
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document))
    for codec in (from_gguf(metadata, Path("marks.gguf")), from_json(path, [257], None, 258)):
        for name, shown in (("<tool_call>", "<tool_call>"), ("<|end|>", "")):
            assert codec.encode(name, control=True) == [codec.control[name]]
            assert codec.control[name] not in codec.encode(name, control=False)
            assert codec.decode([codec.control[name]]) == shown
            assert codec.spelled(codec.control[name]) == name.encode()
