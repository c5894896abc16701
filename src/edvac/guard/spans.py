"""Spans of a text that speak to a model instead of telling something: what a sanitiser drops.

A small set of rules that anybody can get around, and that now and then hits an honest sentence.
They are an extra in front of labels and policy, which hold whatever a text says; nothing is trusted
because no rule fits it. Works sentence by sentence, in time linear in the text.

After the sanitiser of AgentSys (hierarchical memory for agents, 2026), with rules in place of a
model, so that what decides cannot itself be talked to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

REMOVED: Final = "[removed]"
_LONGEST: Final = 2_000  # characters of a sentence: what is longer is looked at in stretches
_END: Final = re.compile(r"\n|[.!?](?=\s|\Z)")
_WORD = r"[^\n]{0,60}?\b"
# By name, so that the trace says why something was dropped.
RULES: Final = {
    "override": re.compile(
        r"\b(?:ignore|disregard|forget|override|bypass|skip)\b" + _WORD +
        r"(?:instructions?|prompts?|goals?|tasks?|rules?|orders?|guidelines|polic(?:y|ies)|"
        r"(?:above|before|previous|prior|earlier) (?:text|words|message)s?)\b", re.I),
    "role": re.compile(
        r"^\W{0,6}(?:system|assistant|developer|user)\s{0,3}(?:prompt|message|note)?\s{0,3}:|"
        r"<\|\w{1,20}\|>|\[/?INST\]|<</?SYS>>|</?(?:system|assistant)>|"
        r"^#{1,6}\s{0,3}(?:system|instructions?)\b", re.I),
    "orders": re.compile(
        r"\b(?:you are now|from now on,? you|you must (?:now|instead|not|also)|act as (?:if|an?)|"
        r"pretend (?:to|that)|your (?:new|real|actual|true|only) (?:goal|task|job|instructions?)|"
        r"(?:new|updated|important|urgent) (?:system )?instructions?\b|"
        r"(?:answer|reply|respond|return|output|say|print|write) "
        r"(?:only|just|exactly|with only)\b)", re.I),
    "addressed": re.compile(
        r"\b(?:dear|attention|note to|message (?:to|for)|instructions? (?:to|for))\b[^\n]{0,20}?"
        r"\b(?:AI|LLM|assistants?|language models?|chat ?bots?)\b|"
        r"^\W{0,6}(?:AI|LLM|assistant|agent|language model)s?\s{0,3}[,:]|"
        r"\b(?:if|when|since|because|as) (?:you are|an?) (?:an? )?(?:AI|LLM|language model)\b",
        re.I),
    "call": re.compile(
        r"\b(?:call|invoke|use|run|execute)\b[^\n]{0,20}?\b(?:the )?(?:function|tool)\b|"
        r"\b(?:call|invoke) \w{1,20}\.\w{1,20}\b", re.I),
    "frame": re.compile(r"</?(?:result|data)\b[^>\n]{0,40}>|\"calls\"\s{0,3}:|\"answer\"\s{0,3}:"),
    "hidden": re.compile(r"[\U000e0000-\U000e007f]"),
}  # fmt: skip
# Where something else has said no already: every sentence that asks for anything.
WIDE: Final = {
    **RULES,
    "asks": re.compile(
        r"^\W{0,6}(?:please|kindly|now|then|first|also|instead|just|always|never|do|make sure|be "
        r"sure|remember|answer|reply|respond|return|output|write|say|tell|send|forward|email|mail|"
        r"upload|post|transfer|pay|delete|remove|execute|run|call|use|open|visit|go|click|follow|"
        r"read|list|include|add|insert|replace|change|set|choose|select|pick|treat|report|state)\b|"
        r"\b(?:you|your) (?:must|should|have to|need to|will|can|are to|task|goal|job)\b|"
        r"\bplease\b", re.I),
    "address": re.compile(r"https?://|\bwww\.|[\w.+-]{1,64}@[\w-]{1,64}\.\w"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Span:
    """A sentence from `start` to `end`, and the rule that it fits."""

    start: int
    end: int
    rule: str


def spans(text: str, *, wide: bool = False) -> list[Span]:
    """The sentences that speak to a model, in order; `wide` takes every one that asks for
    something."""
    rules = WIDE if wide else RULES
    found = []
    for start, end in _stretches(text):
        part = text[start:end]
        rule = next((name for name, one in rules.items() if one.search(part)), None)
        if rule is not None:
            found.append(Span(start, end, rule))
    return found


def without(text: str, found: list[Span]) -> str:
    """The text with a mark in place of each span; neighbours share one."""
    parts: list[str] = []
    at = 0
    for span in found:
        between = text[at : span.start]
        if between.strip() or not parts:
            parts += [between, REMOVED]
        at = span.end
        tail = text[span.start : span.end]
        if tail.endswith("\n"):
            parts.append("\n")
    return "".join([*parts, text[at:]])


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    for end in (*(match.end() for match in _END.finditer(text)), len(text)):
        for start in range(at, end, _LONGEST):
            yield start, min(start + _LONGEST, end)
        at = end
