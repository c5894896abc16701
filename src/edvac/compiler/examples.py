"""The library of example programs, and which of them resemble a task."""

from __future__ import annotations

import functools
import importlib.resources
import itertools
import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from edvac.compiler.brief import LONGEST, placeholder, read_brief
from edvac.compiler.idioms import idioms

_WORD = re.compile(r"[a-z]{2,}|\d+")
_ENDING = re.compile(r"(?:ies|es|s|ing|ed)$")
_FILE = re.compile(r"[\w/-]+\.(csv|tsv|md|txt|jsonl|json|log|eml|xml|html|pdf|docx)\b")
_FOLDER = re.compile(r"(?<!\w)[\w-]+/(?:\*\S*)?")
_MARK = "# task: "
SHOWN = 3  # examples in a prompt, and one more where several files are written


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
    task: str,
    count: int | None = None,
    among: frozenset[str] | None = None,
    *,
    attempt: int = 0,
) -> tuple[Example, ...]:
    """Examples that together show how a program for the task may be written, the nearest last,
    where a model heeds it most.

    The examples whose tasks are nearest say how likely the program is to consist of an idiom. Those
    are taken that show what is likely, each further one for what those before it do not show, and
    little else: a model copies what it sees. The same task always gives the same examples; a
    further attempt gets others.

    Args:
        count: how many; as many as the task needs where it is None.
        among: names of those to take from.
    """
    allowed = frozenset(one.name for one in library()) if among is None else among
    count = _shown(task) if count is None else count
    for _ in range(attempt):
        allowed -= {one.name for one in _choose(task, count, allowed)}
    return _choose(task, count, allowed)


def _choose(task: str, count: int, among: frozenset[str]) -> tuple[Example, ...]:
    examples = [one for one in library() if one.name in among]
    known = _known(tuple(examples))
    wanted = _bag(task)
    near = [_cosine(wanted, bag, known.words) for bag in known.bags]
    neighbours = sorted(range(len(examples)), key=lambda place: -near[place])[:_NEIGHBOURS]
    votes = sum(near[place] ** 2 for place in neighbours) or 1.0
    likely: dict[str, float] = defaultdict(float)
    for place in neighbours:
        for idiom in known.idioms[place]:
            likely[idiom] += near[place] ** 2 / votes
    whole = sum(known.rarity[idiom] * chance for idiom, chance in likely.items()) or 1.0
    taken: list[int] = []
    shown: set[str] = set()

    def gain(place: int) -> float:
        new = known.idioms[place] - shown
        use = sum(known.rarity[idiom] * (likely.get(idiom, 0.0) - _UNLIKELY) for idiom in new)
        return use / whole + near[place]

    while len(taken) < min(count, len(examples)):
        best = max((place for place in range(len(examples)) if place not in taken), key=gain)
        taken.append(best)
        shown |= known.idioms[best]
    return tuple(examples[place] for place in sorted(taken, key=lambda place: near[place]))


def _shown(task: str) -> int:
    """How many examples a task needs: what writes several files is put together of more idioms."""
    return SHOWN + (len(read_brief(task).results) > 1)


_NEIGHBOURS = 20  # examples that say what a program will consist of
_UNLIKELY = 0.15  # how often neighbours have an idiom that is no gain and no loss to show


@dataclass(frozen=True, slots=True)
class _Known:
    """Of some examples: bags of words and idioms, and how rare each of these is among them."""

    bags: tuple[Counter[str], ...]
    words: dict[str, float]
    idioms: tuple[frozenset[str], ...]
    rarity: dict[str, float]


@functools.lru_cache(maxsize=4)
def _known(examples: tuple[Example, ...]) -> _Known:
    bags = tuple(_bag(example.task) for example in examples)
    seen = Counter(word for bag in bags for word in bag)
    words = {word: _rarity(word, len(examples), times) for word, times in seen.items()}
    consists = tuple(idioms(example.program) for example in examples)
    used = Counter(idiom for own in consists for idiom in own)
    rarity = {idiom: math.log(1 + len(examples) / times) for idiom, times in used.items()}
    return _Known(bags, words, consists, rarity)


_CUES = {
    "sum": r"\badd(?:s|ed)? up|\bsums?\b|\btotals?\b|altogether",
    "count": r"\bcount|how many|number of|how often",
    "mean": r"\baverage|\bmean\b",
    "order": r"\bfirst\b|\bsorted\b|(?:high|larg|earli|old|soon)est|\b(?:most|best)\b|alphabetical",
    "bound": r"above|below|(?:more|fewer|less) than|at least|longer|shorter"
    r"|\b(?:over|under|before|after) \d",
    "words": r"\b\w+, \w+ (?:or|and) \w+\)|\b\w+ or \w+|whether|\bjudge|\blabel|\bassign",
    "text": r"remind|summar|repl(?:y|ies)|letter|\bnote\b|report|describe|explain|answer|paragraph"
    r"|invit",
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
    """Words and pairs of them, in one form, and what kind of work they speak of; each counts once.
    A file is a word by its kind, and a folder is one word, whatever they are called."""
    text = text[:LONGEST]
    bare = _FOLDER.sub(" folder ", _FILE.sub(r" file\1 ", text))
    words = [_ENDING.sub("", word) for word in _WORD.findall(bare.lower())]
    pairs = [f"{left} {right}" for left, right in itertools.pairwise(words)]
    return Counter({*words, *pairs, *(_KIND + name for name in kinds_of_work(text))})


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
