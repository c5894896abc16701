"""Text to token ids and back, for the vocabularies of GGUF metadata or a tokenizer.json: byte-level
BPE (GPT-2's way, the pieces spelled in its alphabet of bytes) and SentencePiece's (blanks spelled
``▁``, what is no piece falls back to bytes).

Special tokens are kept out of the merging tokeniser altogether: they are found only in text that
the caller marks as control (template text). Data that spells out ``<|im_end|>`` becomes ordinary
tokens, so a document can never close the user's turn. It knows nothing of chat templates; that is
the client's business.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from edvac.core.errors import ModelFileError
from edvac.engine.gguf import Meta
from edvac.engine.pretokenizer import Cutting, cutting
from edvac.engine.sentencepiece import SPACE, SentencePieces

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)  # kinds of tokens in GGUF
_BRACKETS: Final = frozenset("<>[]{}|")
MAX_VOCABULARY: Final = 1_000_000
MAX_TOKEN: Final = 8192  # characters; runs of blanks are the longest in practice
MAX_FOUND: Final = 65_536  # tokens that are looked for by their spelling
MAX_JSON_BYTES: Final = 64 << 20

Merging = Callable[[str], list[int]]


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


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What each token is.

    Attributes:
        pieces: the bytes of each; none where an answer must not show it.
        control: special tokens by their spelling, found in control text alone.
        plain: tokens that are found in any text before it is merged: runs of blanks and the like.
        prefix: text begins with a blank that its writer did not write.
    """

    pieces: list[bytes]
    control: dict[str, int]
    plain: dict[str, int]
    prefix: bool = False


class TextCodec:
    """One vocabulary: encodes segments and decodes tokens to bytes."""

    def __init__(self, merging: Merging, vocabulary: Vocabulary, specials: Specials) -> None:
        self._merging = merging
        self.pieces = vocabulary.pieces
        self.control = vocabulary.control
        self.control_ids = frozenset(vocabulary.control.values())
        self.specials = specials
        self.size = len(vocabulary.pieces)
        self._names = {index: name.encode() for name, index in vocabulary.control.items()}
        self.longest = max(map(len, vocabulary.pieces), default=1)  # bytes of one token
        self._prefix = vocabulary.prefix
        self._plain = vocabulary.plain
        self._known = vocabulary.plain | vocabulary.control
        self._cuts = {False: _alternatives(self._plain), True: _alternatives(self._known)}

    def encode(self, text: str, control: bool, after: int | None = None) -> list[int]:
        """Token ids of `text`; special tokens are recognised only where `control` says so.

        Args:
            after: the token that the text follows, None where it begins. SentencePiece puts a
                blank before text that begins or follows a special token.
        """
        # Lone surrogates cannot come over the socket but can come from a library user.
        clean = text.encode("utf-8", "replace").decode("utf-8")
        known = self._known if control else self._plain
        found: list[int] = []
        for part in self._parts(clean, control):
            token = known.get(part)
            if token is not None:
                found.append(token)
                continue
            last = found[-1] if found else after
            begins = self._prefix and (last is None or last in self.control_ids)
            found += self._merging(f" {part}" if begins else part)
        return found

    def _parts(self, text: str, control: bool) -> Iterator[str]:
        """Tokens that are found by their spelling, and what lies between them."""
        cuts = self._cuts[control]
        return filter(None, [text] if cuts is None else cuts.split(text))

    def decode(self, tokens: list[int]) -> str:
        stream = self.stream()
        return "".join(map(stream.feed, tokens)) + stream.finish()

    def spelled(self, token: int) -> bytes:
        """The bytes of a token, control tokens by their names."""
        return self._names.get(token) or self.pieces[token]

    def stream(self, verbatim: bool = False) -> TextStream:
        """A decoder of one answer; unless `verbatim`, the blank that encoding puts first is taken
        off."""
        return TextStream(self.pieces, self._prefix and not verbatim)


def _alternatives(tokens: dict[str, int]) -> re.Pattern[str] | None:
    """What splits a text at these spellings, the longest first."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if tokens else None


class TextStream:
    """Decodes tokens as they come and never shows half a character."""

    def __init__(self, pieces: list[bytes], prefix: bool) -> None:
        self._pieces, self._prefix = pieces, prefix
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        piece = self._pieces[token]
        if self._prefix and piece:
            piece, self._prefix = piece.removeprefix(b" "), False
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """What an unfinished character is shown as."""
        return self._decoder.decode(b"", final=True)


def from_gguf(metadata: dict[str, Meta], path: Path) -> TextCodec:
    """The codec that a GGUF file's metadata describes.

    Raises:
        ModelFileError: it describes none, or one of another kind.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise _unsupported(path, f"the tokeniser {model!r}")
    tokens = _strings(metadata, "tokenizer.ggml.tokens", path)
    kinds = _kinds(metadata, len(tokens))
    control: dict[str, int] = {}
    plain: dict[str, int] = {}
    for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        if token and kind in (_CONTROL, _USER):
            (plain if kind == _USER and _is_plain(token) else control)[token] = index
    _check_sizes(tokens, len(control) + len(plain), path)
    words = {
        token: index
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind not in (_CONTROL, _USER, _UNUSED)
    }
    if model == "llama":
        merging = _sentence_pieces(metadata, words, kinds, path)
        pieces = [_spelled(token, kind) for token, kind in zip(tokens, kinds, strict=True)]
        prefix, bos = metadata.get("tokenizer.ggml.add_space_prefix") is not False, True
    else:
        merging, bos = _byte_level(metadata, words, path)
        pieces = [_literal(token, kind) for token, kind in zip(tokens, kinds, strict=True)]
        prefix = False
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", bos) is True
    roles = {name: _token_id(metadata, name, len(tokens)) for name in ("bos", "eos", "eot", "eom")}
    more = [found for name in ("eot", "eom") if (found := roles[name]) is not None]
    specials = _specials(control, roles["bos"], roles["eos"], add_bos, more)
    return TextCodec(merging, Vocabulary(pieces, control, plain, prefix), specials)


def _kinds(metadata: dict[str, Meta], count: int) -> list[int]:
    found = metadata.get("tokenizer.ggml.token_type")
    if not isinstance(found, list) or len(found) != count:
        return [_NORMAL] * count
    return [kind if isinstance(kind, int) else _NORMAL for kind in found]


def _check_sizes(words: Iterable[str], found: int, path: Path) -> None:
    """Bounds on what a vocabulary costs to look through."""
    longest = max(map(len, words), default=0)
    if longest > MAX_TOKEN:
        raise _malformed(path, f"a token has {longest} characters")
    if found > MAX_FOUND:
        raise _malformed(path, f"{found} tokens are special")


def _is_plain(token: str) -> bool:
    """Is a token that users defined text, like a run of blanks, and no marker of a template?

    A marker must never be found in data, and how it is used is not known here: whatever is
    spelled with brackets or bars counts as one.
    """
    return _BRACKETS.isdisjoint(token)


def _byte_level(
    metadata: dict[str, Meta], words: dict[str, int], path: Path
) -> tuple[Merging, bool]:
    name = str(metadata.get("tokenizer.ggml.pre", "gpt-2"))
    how = cutting(name)
    if how is None:
        raise _unsupported(path, f"the pre-tokeniser {name!r}")
    merges = _strings(metadata, "tokenizer.ggml.merges", path)
    core = _core(words, [_pair(merge, path) for merge in merges], how, path)
    return _merging(core, path), how.bos


def _merging(core: Tokenizer, path: Path) -> Merging:
    def merge(text: str) -> list[int]:
        with _library(path):
            ids: list[int] = core.encode(text, add_special_tokens=False).ids
        return ids

    return merge


@contextlib.contextmanager
def _library(path: Path) -> Iterator[None]:
    """What the tokenizers library raises, a panic among it, as an error of the file's."""
    try:
        yield
    except BaseException as error:  # it has no classes of its own, and a panic is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise _malformed(path, f"the library says {str(error)[:200]!r}") from error


def _core(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], how: Cutting, path: Path
) -> Tokenizer:
    for left, right in merges:
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise _malformed(path, f"the merge of {left!r} and {right!r} is not in its vocabulary")
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=how.whole_words))
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in how.patterns]
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([*cuts, bytewise])
    core.decoder = decoders.ByteLevel()
    return core


def _sentence_pieces(
    metadata: dict[str, Meta], words: dict[str, int], kinds: list[int], path: Path
) -> Merging:
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(kinds):
        raise _malformed(path, "its tokens have no scores")
    by_byte = [words.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
    unknown = next((index for index, kind in enumerate(kinds) if kind == _UNKNOWN), None)
    pieces = {
        word: (index, float(scores[index]))
        for word, index in words.items()
        if kinds[index] not in (_BYTE, _UNKNOWN)
    }
    if any(math.isnan(score) for _, score in pieces.values()):
        raise _malformed(path, "the score of a token is no number")
    return SentencePieces(pieces, by_byte if min(by_byte) >= 0 else [], unknown).ids


def from_json(path: Path, eos: list[int], bos: int | None, size: int) -> TextCodec:
    """The codec of a tokenizer.json; `size` is the model's vocabulary.

    Raises:
        ModelFileError: the file is none, or of another kind.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise _malformed(path, "it is larger than any tokeniser")
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        added = document.pop("added_tokens", [])
        words: dict[str, int] = dict(document["model"]["vocab"])
        marked = [(str(one["content"]), one["id"], bool(one.get("special"))) for one in added]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _malformed(path, "it is not a tokenizer.json") from error
    if document["model"].get("type") not in ("BPE", None):
        raise _unsupported(path, f"the tokeniser {document['model'].get('type')!r}")
    for word, _, _ in marked:
        words.pop(word, None)
    ids = [*words.values(), *(index for _, index, _ in marked)]
    if any(type(index) is not int or not 0 <= index < size for index in ids):
        raise _malformed(path, "a token's id is outside the model's vocabulary")
    plain = {word: at for word, at, special in marked if word and not special and _is_plain(word)}
    control = {word: at for word, at, _ in marked if word and word not in plain}
    _check_sizes([*words, *control, *plain], len(marked), path)
    by_byte = bool(document["model"].get("byte_fallback"))
    prefix = by_byte and _puts_blank(document)
    document |= {"added_tokens": [], "post_processor": None, "normalizer": None}
    document["model"]["vocab"] = words
    if by_byte:
        document |= {"pre_tokenizer": None, "decoder": None}
    with _library(path):
        core = Tokenizer.from_str(json.dumps(document))
    if by_byte:
        core.normalizer = normalizers.Replace(" ", SPACE)
    pieces = [b""] * size
    for word, index in words.items():
        byte = by_byte and _BYTE_TOKEN.fullmatch(word) is not None
        pieces[index] = (
            _spelled(word, _BYTE if byte else _NORMAL) if by_byte else _literal(word, _NORMAL)
        )
    for word, index, special in marked:
        pieces[index] = b"" if special else _spelled(word, _USER)
    specials = _specials(control, bos, eos[0] if eos else None, by_byte and bos is not None, eos)
    return TextCodec(_merging(core, path), Vocabulary(pieces, control, plain, prefix), specials)


_BYTE_TOKEN: Final = re.compile("<0x([0-9A-F]{2})>")


def _puts_blank(document: dict[str, Any]) -> bool:
    """Does a SentencePiece tokeniser put a blank before its text?

    Older files say so as a step of normalising, newer ones in how they cut.
    """
    normalizer, cutter = document.get("normalizer") or {}, document.get("pre_tokenizer") or {}
    steps = [normalizer, *(normalizer.get("normalizers") or [])]
    if any(step.get("type") == "Prepend" for step in steps):
        return True
    return cutter.get("type") == "Metaspace" and cutter.get("prepend_scheme") != "never"


def _literal(token: str, kind: int) -> bytes:
    """The bytes of a token that is spelled in the alphabet of bytes. A special one has none:
    answers must not show it."""
    if kind == _USER:
        return token.encode()
    alphabet = byte_alphabet()
    return b"" if kind == _CONTROL else bytes(alphabet.get(char, 0x3F) for char in token)


def _spelled(token: str, kind: int) -> bytes:
    """The bytes of a token that is spelled as SentencePiece does."""
    if kind == _CONTROL:
        return b""
    byte = _BYTE_TOKEN.fullmatch(token) if kind == _BYTE else None
    if byte is not None:
        return bytes([int(byte.group(1), 16)])
    return token.replace(SPACE, " ").encode()


_ENDS: Final = (
    *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>"),
    *("<end_of_turn>", "<|end|>", "<eos>"),
)


def _specials(
    control: dict[str, int],
    bos: int | None,
    eos: int | None,
    add_bos: bool,
    more: list[int],
) -> Specials:
    ends = {control[name] for name in _ENDS if name in control} | set(more)
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
        "Choose a model of a family that `docs/reference/models.md` names.",
    )
