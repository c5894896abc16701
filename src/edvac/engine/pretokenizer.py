"""How byte-level BPE vocabularies cut text before they merge, by the name a GGUF file gives.

A name stands for regular expressions, applied one after the other: what one matches is a piece of
its own, and so is what lies between two matches. The expressions are those of the models' own
tokenizer.json files, under the names that llama.cpp gave them (its `llama-vocab.cpp`). It knows
no vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENGLISH: Final = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST: Final = r" ?[^\s\p{L}\p{N}]+[\r\n%s]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
# A capital after a small letter begins a new word.
_CASED: Final = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
)
_HAN: Final = "[一-龥ࠀ-一가-\ud7ff]+"
_ASCII_MARKS: Final = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"


@dataclass(frozen=True, slots=True)
class Cutting:
    """One way of cutting.

    Attributes:
        patterns: in order of application.
        whole_words: a piece that is a token is not merged (``ignore_merges``).
        bos: prompts begin with the beginning-of-text token unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    bos: bool = False


_LLAMA3: Final = Cutting(
    (rf"{_ENGLISH}|{_WORDS}|\p{{N}}{{1,3}}|{_REST % ''}",), whole_words=True, bos=True
)
_QWEN2: Final = Cutting((rf"{_ENGLISH}|{_WORDS}|\p{{N}}|{_REST % ''}",))
_PLAIN: Final = Cutting((_GPT2,))
_DIGITS: Final = Cutting((r"\p{N}", _GPT2))

_CUTTINGS: Final[dict[str, Cutting]] = {
    "gpt-2": _PLAIN,
    "phi-2": _PLAIN,
    "mpt": _PLAIN,
    "olmo": _PLAIN,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "command-r": _DIGITS,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "falcon3": _LLAMA3,
    "pixtral": _LLAMA3,
    "smaug-bpe": Cutting(_LLAMA3.patterns),
    "dbrx": Cutting(_LLAMA3.patterns),
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "stablelm2": _QWEN2,
    "qwen35": Cutting(
        (
            rf"{_ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
            r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )
    ),
    "tekken": Cutting((rf"{_CASED % ('', '')}|\p{{N}}|{_REST % '/'}",), whole_words=True, bos=True),
    "gpt-4o": Cutting(
        (rf"{_CASED % (f'{_ENGLISH}?', f'{_ENGLISH}?')}|\p{{N}}{{1,3}}|{_REST % '/'}",)
    ),
    "deepseek-llm": Cutting(
        (
            "[\r\n]",
            r"\s?[\p{Lu}\p{Ll}\p{Lt}]+",
            r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
            r"\s+$",
            _HAN,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": Cutting(("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN, r"\p{N}")),
    "deepseek-v3": Cutting(
        (
            r"\p{N}{1,3}",
            "[一-龥぀-ゟ゠-ヿ]+",
            rf"{_ASCII_MARKS}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )
    ),
    "falcon": Cutting((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
}


def cutting(name: str) -> Cutting | None:
    """The cutting of this name, or None where it is not known."""
    return _CUTTINGS.get(name)


def names() -> list[str]:
    """All that are known."""
    return sorted(_CUTTINGS)
