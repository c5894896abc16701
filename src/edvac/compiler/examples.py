"""The library of example programs, and which of them resemble a task."""

from __future__ import annotations

import functools
import importlib.resources
import math
import re
from collections import Counter
from dataclasses import dataclass

_WORD = re.compile(r"[a-z]{3,}")
_MARK = "# task: "


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
        found.append(Example(entry.name, head.removeprefix(_MARK), program))
    return tuple(found)


def similar(task: str, count: int = 3) -> tuple[Example, ...]:
    """The `count` examples nearest to the task, the nearest last, where a model heeds it most.

    Cosine of words weighted by rarity (TF-IDF); the same task always gives the same examples.
    """
    examples = library()
    bags = [_bag(example.task) for example in examples]
    seen = Counter(word for bag in bags for word in bag)
    weight = {word: math.log(1 + len(examples) / times) for word, times in seen.items()}
    wanted = _bag(task)
    scored = sorted(
        (
            (_cosine(wanted, bag, weight), example.name)
            for bag, example in zip(bags, examples, strict=True)
        ),
        reverse=True,
    )
    by_name = {example.name: example for example in examples}
    return tuple(by_name[name] for _, name in reversed(scored[:count]))


def _bag(text: str) -> Counter[str]:
    return Counter(word.rstrip("s") for word in _WORD.findall(text.lower()))


def _cosine(left: Counter[str], right: Counter[str], weight: dict[str, float]) -> float:
    def size(bag: Counter[str]) -> float:
        return math.sqrt(sum((n * weight.get(w, 0.0)) ** 2 for w, n in bag.items())) or 1.0

    shared = sum(n * right[w] * weight.get(w, 0.0) ** 2 for w, n in left.items())
    return shared / (size(left) * size(right))
