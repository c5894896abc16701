"""Text to token ids and back, for byte-level BPE vocabularies from GGUF metadata or a
tokenizer.json.

Special tokens are kept out of the merging tokeniser altogether: they are found only in text that
the caller marks as control (template text). Data that spells out ``<|im_end|>`` becomes ordinary
tokens, so a document can never close the user's turn. It knows nothing of chat templates; that is
the client's business.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from edvac.core.errors import ModelFileError
from edvac.engine.gguf import Meta

_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_MODERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Each family's way of cutting text before merging, in order of application.
_PATTERNS: Final[dict[str, tuple[str, ...]]] = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "qwen2": (_MODERN % "",),
    "llama-bpe": (_MODERN % "{1,3}",),
}
_USER_TYPE: Final = 4  # GGUF's "user defined"
_CONTROL_TYPES: Final = (3, _USER_TYPE)
_UNUSED_TYPE: Final = 5
MAX_VOCABULARY: Final = 1_000_000
MAX_JSON_BYTES: Final = 64 << 20


@lru_cache(maxsize=1)
def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte: visible Latin-1 stays, the rest moves above 255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    found = {chr(byte): byte for byte in plain}
    moved = [byte for byte in range(256) if chr(byte) not in found]
    return found | {chr(256 + index): byte for index, byte in enumerate(moved)}


@dataclass(frozen=True, slots=True)
class Specials:
    """The ids that begin and end things; `ends` holds every token that finishes an answer."""

    bos: int | None
    eos: int | None
    add_bos: bool
    ends: frozenset[int]


class TextCodec:
    """One vocabulary: encodes segments and decodes tokens to bytes."""

    def __init__(
        self, core: Tokenizer, pieces: list[bytes], control: dict[str, int], specials: Specials
    ) -> None:
        self._core = core
        self.pieces = pieces
        self.control = control
        self.control_ids = frozenset(control.values())
        self._names = {index: name.encode() for name, index in control.items()}
        self.specials = specials
        self.size = len(pieces)
        self.longest = max(map(len, pieces), default=1)  # bytes of one token
        longest_first = sorted(control, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def encode(self, text: str, control: bool) -> list[int]:
        """Token ids of `text`; special tokens are recognised only where `control` says so."""
        if not control or not self.control:
            return self._plain(text)
        found: list[int] = []
        for part in self._split.split(text):
            special = self.control.get(part)
            if special is not None:
                found.append(special)
            elif part:
                found.extend(self._plain(part))
        return found

    def _plain(self, text: str) -> list[int]:
        # Lone surrogates cannot come over the socket but can come from a library user.
        clean = text.encode("utf-8", "replace").decode("utf-8")
        ids: list[int] = self._core.encode(clean, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: list[int]) -> str:
        return b"".join(self.pieces[token] for token in tokens).decode("utf-8", "replace")

    def spelled(self, token: int) -> bytes:
        """The bytes of a token, control tokens by their names."""
        return self._names.get(token) or self.pieces[token]

    def stream(self) -> TextStream:
        return TextStream(self.pieces)


class TextStream:
    """Decodes tokens as they come and never shows half a character."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        return self._decoder.decode(self._pieces[token])

    def finish(self) -> str:
        """What an unfinished character is shown as."""
        return self._decoder.decode(b"", final=True)


def from_gguf(metadata: dict[str, Meta], path: Path) -> TextCodec:
    """The codec that a GGUF file's metadata describes."""
    if metadata.get("tokenizer.ggml.model") != "gpt2":
        raise _unsupported(path, f"the tokeniser {metadata.get('tokenizer.ggml.model')!r}")
    name = str(metadata.get("tokenizer.ggml.pre", "gpt-2"))
    patterns = _PATTERNS.get(name)
    if patterns is None:
        raise _unsupported(path, f"the pre-tokeniser {name!r}")
    tokens = _strings(metadata, "tokenizer.ggml.tokens", path)
    merges = _strings(metadata, "tokenizer.ggml.merges", path)
    kinds = metadata.get("tokenizer.ggml.token_type")
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        kinds = [1] * len(tokens)
    control = {t: i for i, t in enumerate(tokens) if kinds[i] in _CONTROL_TYPES and t}
    skipped = {i for i, kind in enumerate(kinds) if kind in (*_CONTROL_TYPES, _UNUSED_TYPE)}
    vocabulary = {t: i for i, t in enumerate(tokens) if i not in skipped}
    pairs = [_pair(merge, path) for merge in merges]
    core = _core(vocabulary, pairs, patterns, name == "llama-bpe", path)
    specials = _specials(
        control,
        _token_id(metadata, "bos", len(tokens)),
        _token_id(metadata, "eos", len(tokens)),
        metadata.get("tokenizer.ggml.add_bos_token") is True,
    )
    shown = {i for i, kind in enumerate(kinds) if kind == _USER_TYPE}
    return TextCodec(core, _pieces(tokens, control, shown), control, specials)


def _core(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    patterns: tuple[str, ...],
    whole_words: bool,
    path: Path,
) -> Tokenizer:
    for left, right in merges:
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise _malformed(path, f"the merge of {left!r} and {right!r} is not in its vocabulary")
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole_words))
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([*cuts, bytewise])
    core.decoder = decoders.ByteLevel()
    return core


def from_json(path: Path, eos: list[int], bos: int | None, size: int) -> TextCodec:
    """The codec of a tokenizer.json; `size` is the model's vocabulary."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise _malformed(path, "it is larger than any tokeniser")
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        added = document.pop("added_tokens", [])
        words: dict[str, int] = dict(document["model"]["vocab"])
        control = {str(one["content"]): int(one["id"]) for one in added}
    except (ValueError, KeyError, TypeError) as error:
        raise _malformed(path, "it is not a tokenizer.json") from error
    if document["model"].get("type") not in ("BPE", None):
        raise _unsupported(path, f"the tokeniser {document['model'].get('type')!r}")
    for word in control:
        words.pop(word, None)
    if any(not 0 <= index < size for index in [*words.values(), *control.values()]):
        raise _malformed(path, "a token's id is outside the model's vocabulary")
    document |= {"added_tokens": [], "post_processor": None, "normalizer": None}
    document["model"]["vocab"] = words
    core = Tokenizer.from_str(json.dumps(document))
    tokens = [""] * size
    for word, index in (*words.items(), *control.items()):
        tokens[index] = word
    specials = _specials(control, bos, eos[0] if eos else None, False, eos)
    shown = {int(one["id"]) for one in added if not one.get("special", True)}
    return TextCodec(core, _pieces(tokens, control, shown), control, specials)


def _pieces(tokens: list[str], control: dict[str, int], shown: set[int]) -> list[bytes]:
    """The bytes of each token. A control token has none: answers must not show it. A `shown` one is
    text that the model writes as one token, such as ``<tool_call>``."""
    alphabet = byte_alphabet()
    found = [bytes(alphabet.get(char, 0x3F) for char in token) for token in tokens]
    for name, index in control.items():
        found[index] = name.encode() if index in shown else b""
    return found


def _specials(
    control: dict[str, int],
    bos: int | None,
    eos: int | None,
    add_bos: bool,
    more: list[int] | None = None,
) -> Specials:
    usual = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>")
    ends = {control[name] for name in usual if name in control} | set(more or [])
    if eos is not None:
        ends.add(eos)
    return Specials(bos, eos, add_bos, frozenset(ends))


def _strings(metadata: dict[str, Meta], key: str, path: Path) -> list[str]:
    found = metadata.get(key)
    if not isinstance(found, list) or len(found) > MAX_VOCABULARY:
        raise _malformed(path, f"{key} is not a list of tokens")
    return [str(one) for one in found]


def _pair(merge: str, path: Path) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not space or not left or not right:
        raise _malformed(path, f"the merge {merge!r} is not a pair")
    return left, right


def _token_id(metadata: dict[str, Meta], name: str, size: int) -> int | None:
    found = metadata.get(f"tokenizer.ggml.{name}_token_id")
    return found if isinstance(found, int) and 0 <= found < size else None


def _malformed(path: Path, why: str) -> ModelFileError:
    return ModelFileError(
        "model_malformed",
        f"the tokeniser of {path.name} cannot be used",
        f"In it {why}.",
        "Fetch the model again with `edvac model pull`, or choose another file.",
    )


def _unsupported(path: Path, what: str) -> ModelFileError:
    return ModelFileError(
        "model_unsupported",
        f"the tokeniser of {path.name} is not one that edvac knows",
        f"It needs {what}.",
        "Choose a Qwen2, Qwen3, Llama 3 or SmolLM2 model.",
    )
