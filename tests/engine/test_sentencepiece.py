"""SentencePiece vocabularies: joins as the rule says, bytes for what is no piece, blanks that come
and go."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.core.errors import ModelFileError
from edvac.engine.gguf import Meta
from edvac.engine.sentencepiece import SPACE, SentencePieces
from edvac.engine.tokenizer import TextCodec, from_gguf, from_json

from . import tiny
from .families import array

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
BYTES = 7  # where they begin
WORDS = ["▁", "a", "b", "c", "ab", "bc", "abc", "▁a", "▁ab", "▁▁", "▁▁▁▁", "aa", "é"]


def metadata(**changed: object) -> dict[str, Meta]:
    """A vocabulary as a file holds it; the earlier a word stands above, the better its score."""
    tokens = ["<unk>", "<s>", "</s>", "<turn>", "\n", "\n\n", "<unused7>"]
    kinds = [UNKNOWN, CONTROL, CONTROL, USER, USER, USER, UNUSED]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)] + WORDS
    kinds += [BYTE] * 256 + [NORMAL] * len(WORDS)
    rare = [0.0] * (len(tokens) - len(WORDS))
    found: dict[str, object] = {
        "model": "llama",
        "tokens": tokens,
        "token_type": kinds,
        "scores": rare + [float(-number) for number in range(len(WORDS))],
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in (found | changed).items()}  # type: ignore[misc]


def tiny_spm(path: Path) -> Path:
    """A tiny Gemma 3 with this vocabulary, whole."""
    columns = (metadata()[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    tokens, scores, kinds = (column for column in columns if isinstance(column, list))
    keys = [one for one in tiny.metadata("gemma3", 32) if b"tokenizer.ggml" not in one]
    keys += [
        tiny.key("tokenizer.ggml.model", 8, tiny.text("llama")),
        tiny.strings("tokenizer.ggml.tokens", [str(token) for token in tokens]),
        array("tokenizer.ggml.scores", 6, "f", scores),
        array("tokenizer.ggml.token_type", 5, "i", kinds),
        tiny.number("tokenizer.ggml.bos_token_id", 1),
        tiny.number("tokenizer.ggml.eos_token_id", 2),
    ]
    weights = tiny.tensors("gemma3", 1, 32)
    weights["token_embd.weight"] = np.resize(
        weights["token_embd.weight"], (len(tokens), tiny.WIDTH)
    )
    return tiny.write_model(path, keys, weights)


def codec(**changed: object) -> TextCodec:
    return from_gguf(metadata(**changed), Path("tiny.gguf"))


def words(found: TextCodec, tokens: list[int]) -> list[str]:
    spelled = metadata()["tokenizer.ggml.tokens"]
    assert isinstance(spelled, list)
    return [str(spelled[token]) for token in tokens]


def joined(text: str, scores: dict[str, float]) -> list[str]:
    """The rule, word for word: look at all neighbours, join the best, begin again."""
    parts = list(text)
    while True:
        pairs = [
            (-scores[left + right], at)
            for at, (left, right) in enumerate(itertools.pairwise(parts))
            if left + right in scores
        ]
        if not pairs:
            return parts
        at = min(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.text("ab▁c", min_size=2, max_size=4), st.integers(-5, 0), max_size=14),
    st.text("abc ", max_size=24),
)
def test_joins_are_those_of_the_rule(scores: dict[str, int], text: str) -> None:
    """Scores may be equal, and a piece may have no parts that lead to it."""
    known = dict.fromkeys("abc▁", -9.0) | {word: float(score) for word, score in scores.items()}
    numbers = {word: (number, score) for number, (word, score) in enumerate(known.items())}
    wanted = [numbers[part][0] for part in joined(text.replace(" ", SPACE), known)]
    assert SentencePieces(numbers, [], None).ids(text) == wanted


def test_a_blank_is_put_first_and_after_special_tokens() -> None:
    plain = codec()
    assert words(plain, plain.encode("ab", control=False)) == ["▁ab"]
    assert words(plain, plain.encode("ab", control=False, after=1)) == ["▁ab"]
    last = plain.encode("a", control=False)[-1]
    assert words(plain, plain.encode("ab", control=False, after=last)) == ["ab"]
    assert words(plain, plain.encode("<turn>ab", control=True)) == ["<turn>", "▁ab"]
    bare = codec(add_space_prefix=False)
    assert words(bare, bare.encode("ab", control=False)) == ["ab"]
    assert bare.decode(bare.encode(" ab", control=False)) == " ab"


def test_what_is_no_piece_becomes_bytes() -> None:
    found = codec(add_space_prefix=False)
    assert words(found, found.encode("日a", control=False)) == ["<0xE6>", "<0x97>", "<0xA5>", "a"]
    without = SentencePieces({"a": (7, 0.0)}, [], 3)
    assert without.ids("a日a") == [7, 3, 7]
    assert SentencePieces({"a": (7, 0.0)}, [], None).ids("a日a") == [7, 7]


def test_tokens_of_users_that_are_text_are_found_in_data_and_markers_are_not() -> None:
    found = codec(add_space_prefix=False)
    assert words(found, found.encode("a\n\n\nb", control=False)) == ["a", "\n\n", "\n", "b"]
    for marker in ("<turn>", "</s>", "<unused7>", "<0x41>"):
        tokens = found.encode(marker, control=False)
        assert found.decode(tokens) == marker
        assert set(words(found, tokens)) <= {f"<0x{byte:02X}>" for byte in range(256)}
    assert words(found, found.encode("</s>", control=True)) == ["</s>"]


def test_answers_show_what_users_defined_and_hide_what_controls() -> None:
    found = codec()
    tokens = found.encode("</s><turn>ab", control=True)
    assert found.decode(tokens) == "<turn> ab"


@settings(max_examples=300, deadline=None)
@given(st.text(st.one_of(st.sampled_from("abc \n<turn>é▁"), st.characters(codec="utf-8"))))
def test_data_round_trips(text: str) -> None:
    found = codec()
    tokens = found.encode(text, control=False)
    assert not set(tokens) & found.control_ids
    assert found.decode(tokens) == text.replace(SPACE, " ")  # the two are one to SentencePiece


def test_the_first_blank_of_an_answer_is_taken_off_unless_a_grammar_wrote_it() -> None:
    found = codec()
    tokens = found.encode("ab", control=False)
    for verbatim, wanted in ((False, "ab"), (True, " ab")):
        stream = found.stream(verbatim)
        assert "".join(map(stream.feed, tokens)) + stream.finish() == wanted


def test_half_a_character_waits_for_the_rest() -> None:
    found = codec(add_space_prefix=False)
    stream = found.stream()
    shown = [stream.feed(token) for token in found.encode("日", control=False)]
    assert shown == ["", "", "日"]
    stream = found.stream()
    broken = [stream.feed(token) for token in (BYTES + 0xE6, BYTES + 0x41)]
    assert "".join(broken) == "\ufffdA"


def test_beginnings_and_ends() -> None:
    assert codec().specials.add_bos
    assert not codec(add_bos_token=False).specials.add_bos
    assert codec(eot_token_id=3).specials.ends == {2, 3}


def document(normalizer: object, cutter: object) -> dict[str, object]:
    """The same vocabulary as a tokenizer.json; its merges are in the order of their scores."""
    tokens, kinds = (metadata()[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type"))
    assert isinstance(tokens, list) and isinstance(kinds, list)
    special = [index for index, kind in enumerate(kinds) if kind in (CONTROL, USER, UNKNOWN)]
    merges = [
        [word[:at], word[at:]]
        for word in WORDS
        for at in range(1, len(word))
        if word[:at] in WORDS and word[at:] in WORDS
    ]
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": at, "content": tokens[at], "special": kinds[at] != USER} for at in special
        ],
        "normalizer": normalizer,
        "pre_tokenizer": cutter,
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "vocab": {token: at for at, token in enumerate(tokens) if at not in special},
            "merges": merges,
        },
    }


FORMS = {
    "older": (
        {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        None,
    ),
    "newer": (
        None,
        {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False},
    ),
    "bare": ({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}, None),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_tokenizer_json_means_the_same(form: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document(*FORMS[form])), encoding="utf-8")
    found = from_json(path, [2], 1, BYTES + 256 + len(WORDS))
    wanted = codec(add_space_prefix=form != "bare")
    assert (found.control.keys() - {"<unk>"}, found.specials) == (
        wanted.control.keys(),
        wanted.specials,
    )
    for text in ("", "ab abc", " a  b", "a日é", "\n\naa aaaa", "</s><turn>", "    abcabc"):
        tokens = wanted.encode(text, control=False)
        assert found.encode(text, control=False) == tokens
        assert found.decode(tokens) == wanted.decode(tokens)


@pytest.mark.parametrize(
    "changed",
    [
        {"scores": [0.0]},
        {"scores": None},
        {"scores": [float("nan")] * (BYTES + 256 + len(WORDS))},
        {"tokens": None},
        {"model": "bert"},
    ],
    ids=str,
)
def test_broken_vocabularies_are_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ModelFileError):
        codec(**changed)


def test_a_long_text_without_blanks_takes_no_quadratic_time() -> None:
    """Joins are looked for in a queue: a hundred thousand letters are as many steps, not 10^10."""
    found = codec()
    assert found.decode(found.encode("a" * 100_000, control=False)) == "a" * 100_000


def test_scores_are_floats_in_a_file() -> None:
    """Equal scores as 32-bit floats are equal here too: the leftmost pair is then joined first."""
    score = struct.unpack("<f", struct.pack("<f", -1.1))[0]
    pieces = {"a": (0, score), "aa": (1, score), "aaa": (2, score)}
    assert SentencePieces(pieces, [], None).ids("aaaa") == [2, 0]
