"""Tokens as an endpoint reports them, held against what can be known without its tokenizer.

A run of letters or of digits is at least one token, and a token is at least one byte: so a report
below the first bound means that a part of the prompt was not read, and one above the second is no
count of this prompt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RUN = re.compile(r"[^\W\d_]+|\d+")
SLACK = 0.9  # of the runs: a few tokenizers join some of them
TEMPLATE = 4096  # tokens that an endpoint may add to a prompt of its own
BYTES_A_TOKEN = 4  # a guess, where nothing is reported


@dataclass(frozen=True, slots=True)
class Size:
    """What is known of a prompt: bytes, and the least number of tokens."""

    size: int
    least: int

    @staticmethod
    def of(texts: list[str]) -> Size:
        runs = sum(1 for text in texts for _ in _RUN.finditer(text))
        return Size(sum(len(text.encode(errors="replace")) for text in texts), int(runs * SLACK))


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens of one call: of the prompt (`cached` of them not computed again) and of the answer."""

    prompt: int
    cached: int
    completion: int


def cut(size: Size, found: Counts, context: int) -> str:
    """Why a prompt was not read as a whole; empty where nothing speaks for that.

    Args:
        found: what was reported.
        context: tokens that the endpoint has room for; 0 where that is not known.
    """
    if not found.prompt:
        return ""
    if found.prompt < size.least:
        return f"It counted {found.prompt} tokens in a prompt of at least {size.least}."
    if context and found.prompt >= context:
        return f"Its {found.prompt} tokens fill the whole context of {context}."
    if context and found.prompt + found.completion > context:
        return f"Prompt and answer, {found.prompt + found.completion} tokens, exceed its {context}."
    full = found.prompt >= 1024 and found.prompt.bit_count() == 1
    if full and size.least * 1.3 >= found.prompt:
        return f"It counted {found.prompt} tokens, which is what a full context looks like."
    return ""


def sane(size: Size, answer: int, found: Counts, max_tokens: int) -> tuple[Counts, str]:
    """The report with what cannot be true replaced by a guess, and a word about that.

    Args:
        answer: bytes of the answer.
    """
    said = ""
    prompt, cached, completion = found.prompt, found.cached, found.completion
    if prompt == 0:
        prompt, said = size.size // BYTES_A_TOKEN + 1, "reports no tokens; they are estimated"
    if prompt > size.size + TEMPLATE:
        said = f"reports {prompt} tokens for a prompt of {size.size} bytes; that is not counted"
        prompt = size.size // BYTES_A_TOKEN + 1
    if completion > 4 * max_tokens + TEMPLATE:
        said = f"reports {completion} tokens of an answer of at most {max_tokens}"
        completion = max_tokens
    if completion == 0 and answer:
        completion = answer // BYTES_A_TOKEN + 1
    return Counts(prompt, min(cached, prompt), completion), said
