"""What belongs to an answer and what only surrounds it: a model's thinking, and fences of Markdown.

The value is what is left; the record keeps every byte. Nothing is searched for inside JSON: a text
in it may well hold the marks of a fence.
"""

from __future__ import annotations

import re

# Where a model's family puts its thinking: the mark before it and the mark behind it.
_MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
_TICKS = ("```", "~~~")
_ENDS = ("<|return|>", "<|end|>", "<|END_RESPONSE|>")
_BEGINS = ("<|start|>assistant", "<|channel|>final<|message|>", "<|START_RESPONSE|>")
MAX_FENCED = 1_000_000  # characters of an answer in which fences are looked for
_FENCE = re.compile(r"^(`{3,}|~{3,})[^\n`]*\n(.*?)^\1[ \t]*$", re.S | re.M)


def without_thinking(text: str) -> str:
    """The answer without the thinking before it; empty where there is nothing but thinking."""
    bare = text.lstrip()
    for mark, close in _MARKS * 2:  # two blocks in a row happen
        if bare.startswith(mark):
            bare = bare[len(mark) :].partition(close)[2].lstrip()
    if not bare.startswith(("{", "[", '"', *_TICKS)):
        bare = _closed_only(bare)
    # Nothing found: the text as it was, its beginning too.
    return _trimmed(text if bare == text.lstrip() else bare)


def _closed_only(text: str) -> str:
    """Some templates open the block in the prompt, so that an answer only closes it, at the end of
    a line: a mark within a line is one that the answer speaks of."""
    for mark, close in _MARKS:
        before, found, rest = text.partition(close)
        if found and mark not in before and rest[:1] in ("", "\n", "\r"):
            return rest.lstrip()
    return text


def _trimmed(text: str) -> str:
    for mark in _BEGINS:
        bare = text.lstrip()
        text = bare.removeprefix(mark) if bare.startswith(mark) else text
    for mark in _ENDS:
        text = text.removesuffix(mark)
    return text


def unfenced(text: str) -> str:
    """A text that is one fenced block and nothing else, without the fence."""
    bare = text.strip()
    found = _blocks(bare)
    whole = len(found) == 1 and bare.startswith(_TICKS) and bare.endswith(_TICKS)
    return found[0] if whole else text


def fenced_json(text: str) -> str:
    """The JSON in an answer that may talk around it: the only fenced block of a text that does not
    begin as JSON."""
    bare = text.strip()
    found = [] if bare.startswith(("{", "[")) else _blocks(bare)
    return found[0].strip() if len(found) == 1 else bare


def _blocks(text: str) -> list[str]:
    """What the fenced blocks of a text hold."""
    bare = text.strip()
    if len(bare) > MAX_FENCED:
        return []
    found = list(_FENCE.finditer(bare))
    return [one.group(2) for one in found]
