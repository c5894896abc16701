"""The library of example programs, and which of them resemble a task."""

from __future__ import annotations

import functools
import importlib.resources
import math
import re
from collections import Counter
from dataclasses import dataclass

from edvac.compiler.brief import LONGEST, placeholder, read_brief

_WORD = re.compile(r"[a-z]{3,}")
_MARK = "# task: "
SHOWN = 3  # examples in a prompt
SHOWN_AGAIN = 0.25  # what a kind of work is worth that an example shows already


@dataclass(frozen=True, slots=True)
class Example:
    name: str
    task: str
    program: str


@functools.cache
def library() -> tuple[Example, ...]:
    """Every example, in the order of its name."""
    folder = importlib.resources.files("edvac.compiler") / "exemplars"
    found = []
    for entry in sorted(folder.iterdir(), key=lambda file: file.name):
        head, _, program = entry.read_text(encoding="utf-8").partition("\n")
        found.append(Example(entry.name.removesuffix(".edv"), head.removeprefix(_MARK), program))
    return tuple(found)


def similar(
    task: str, count: int = SHOWN, among: frozenset[str] | None = None
) -> tuple[Example, ...]:
    """Examples near to the task that together show the kinds of work it consists of, the nearest
    last, where a model heeds it most.

    What counts is the kind of work (a sum by group, a file for each name, a choice among words) and
    only a little what it is about. Each further example is taken for what those before it do not
    show: three of one kind would leave a model alone with the rest. The same task always gives the
    same examples.
    """
    examples = [one for one in library() if among is None or one.name in among]
    bags = [_bag(example.task) for example in examples]
    seen = Counter(word for bag in bags for word in bag)
    weight = {word: _rarity(word, len(examples), times) for word, times in seen.items()}
    wanted = _bag(task)
    near = [_cosine(wanted, bag, weight) for bag in bags]
    open_kinds = {word: weight.get(word, 0.0) for word in wanted if word.startswith(_KIND)}
    whole = sum(open_kinds.values()) or 1.0
    taken: list[int] = []
    while len(taken) < count:
        left = (place for place in range(len(examples)) if place not in taken)
        best = max(
            left,
            key=lambda place: (
                near[place] + sum(open_kinds.get(word, 0.0) for word in bags[place]) / whole
            ),
        )
        taken.append(best)
        for word in bags[best]:
            open_kinds[word] = open_kinds.get(word, 0.0) * SHOWN_AGAIN
    return tuple(examples[place] for place in sorted(taken, key=lambda place: near[place]))


_CUES = {
    "sum": r"\badd(?:s|ed)? up|\bsums?\b|\btotals?\b|altogether",
    "count": r"\bcount|how many|number of|how often",
    "mean": r"\baverage|\bmean\b",
    "order": r"\bfirst\b|\bsorted\b|(?:high|larg|earli|old|soon)est|\b(?:most|best)\b|alphabetical",
    "bound": r"above|below|(?:more|fewer|less) than|at least|longer|shorter"
    r"|\b(?:over|under|before|after) \d",
    "words": r"\b\w+, \w+ (?:or|and) \w+\)|\b\w+ or \w+|whether|\bjudge|\blabel|\bassign",
    "text": r"summar|repl(?:y|ies)|letter|\bnote\b|report|describe|explain|answer|paragraph|invit",
    "language": r"translat",
    "line each": r"per line|(?:a|each) line|line each|on each line",
    "by each": r"\bper\b|(?:for|of|by) (?:each|every)|\bby \w+ \(",
    "file each": r"\b(?:one|a) (?:file|page|list) (?:per|for)",
    "same names": r"same (?:file )?names?|under (?:the|its|their) (?:same|own|name)",
    "move": r"\bcop(?:y|ies)\b|\bmoves?\b|\brenam",
    "marks": r"\[\[|@|mention|\blinks?\b",
    "without": r"\bwithout\b|\bno \w|\bempty\b|\bnone\b|still open|not yet",
    "lines": r"\blines? (?:of|with|from)|every line|each line",
    "month": r"\bmonths?\b|\byears?\b",
    "table in": r"\.csv\b (?:has|have|\()|(?:from|in|of|file|split|through|row of) [\w/-]+\.csv",
    "json in": r"\.json\b",
    "text in": r"(?:from|of|in|through|each|every line of) [\w/-]+\.(?:log|txt)|\.log\b",
}
_CUE = 2.5  # how much more than a word a kind of work counts


def _rarity(word: str, of: int, times: int) -> float:
    rare = math.log(1 + of / times)
    return _CUE * rare if word.startswith(_KIND) else rare


_KIND = "kind: "


def _bag(text: str) -> Counter[str]:
    """Words in one form, and what kind of work they speak of."""
    text = text[:LONGEST]
    found = Counter({word.rstrip("s"): 1 for word in _WORD.findall(text.lower())})
    return found + Counter({_KIND + name: 1 for name in kinds_of_work(text)})


def kinds_of_work(text: str) -> list[str]:
    """What a task asks for, by the words that give it away."""
    kinds = [name for name, cue in _CUES.items() if re.search(cue, text, re.IGNORECASE)]
    brief = read_brief(text)
    if any(placeholder(name) for name in brief.files) and "file each" not in kinds:
        kinds.append("file each")
    kinds += ["folder in"] if brief.folders else []
    return [*kinds, f"{len(brief.files)} files"]


def _cosine(left: Counter[str], right: Counter[str], weight: dict[str, float]) -> float:
    def size(bag: Counter[str]) -> float:
        return math.sqrt(sum((n * weight.get(w, 0.0)) ** 2 for w, n in bag.items())) or 1.0

    shared = sum(n * right[w] * weight.get(w, 0.0) ** 2 for w, n in left.items())
    return shared / (size(left) * size(right))
