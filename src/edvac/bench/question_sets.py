"""The data sets that LLMCompiler was published with, as far as plans can be made of them by code.

HotpotQA's comparisons: two searches, then yes or no, or one of two. Movie recommendations: eight
searches, then one of four. ParallelQA: see `question_sums`. What a question's words do not give
away is left out and counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from edvac.bench.external import data
from edvac.bench.question import Call, Question, drawn, normal
from edvac.bench.question_sums import sums

_NAME = (
    r"(?:[A-Z0-9][\w.'!&:/-]*)(?:,? (?:Jr\.|Inc\.)| (?:[A-Z0-9][\w.'!&:/-]*|of|the|de|du|von"
    r"|and the|in|on|for|to|a|at|from|with))*"
)
_PAIR = re.compile(rf"({_NAME}),? (and|or) (?:the )?({_NAME})")
_ASKS = re.compile(
    r"^(?:Are|Were|Was|Is|Did|Do|Does|Have|Has|Had|Which|Who|Both|Between|Among|Of|In|The|What"
    r"|Can|Could|the|both|bands?|films?) "
)
_LOOSE = re.compile(r" (?:of|the|de|du|von|in|on|for|to|a|at|from|with)$")
_CLASSES: Final = ("Alder", "Birch", "Cedar", "Elm", "Hazel", "Larch", "Maple", "Rowan")
_TONES: Final = ("amber", "azure", "coral", "ebony", "ivory", "jade", "lilac", "ochre")
FOLDER: Final = "llmcompiler"
FILMS: Final = 4  # that somebody likes, and as many to choose from

_Derive: TypeAlias = Callable[[dict[str, Any]], Question | None]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """What was made of one data set.

    Attributes:
        published: how many questions it has.
        file: its name.
    """

    name: str
    file: str
    published: int
    questions: tuple[Question, ...]


def read_sets() -> list[QuestionSet]:
    """All sets; of ParallelQA the whole file, or where only that is there, the half of it that has
    two and three branches.

    Raises:
        UsageError: the data are absent.
    """
    return [_read(name, files, derive) for name, (files, derive) in _SETS.items()]


def _read(name: str, files: Sequence[str], derive: _Derive) -> QuestionSet:
    folder = data(FOLDER)
    file = next((one for one in files if (folder / one).exists()), files[-1])
    rows = json.loads(data(f"{FOLDER}/{file}").read_text(encoding="utf-8"))
    found = [question for question in map(derive, rows) if question is not None]
    return QuestionSet(name, file, len(rows), tuple(found))


def comparison(row: dict[str, Any]) -> Question | None:
    """A comparison of two things; None where its words do not say which."""
    text, answer = str(row["question"]), str(row["answer"])
    names = _pair(text, answer)
    if names is None:
        return None
    pages = {}
    if normal(answer) in ("yes", "no"):
        rule, options = "alike", ("yes", "no")
        first = drawn(row["id"], "class") % len(_CLASSES)
        other = first if normal(answer) == "yes" else (first + 1) % len(_CLASSES)
        for name, kind in zip(names, (first, other), strict=True):
            pages[name] = _ALIKE.format(name=name, kind=_CLASSES[kind])
    else:
        rule, options = "largest", names
        low = drawn(row["id"], "rank") % 50 + 10
        for name in names:
            rank = low + 5 * (normal(name) == normal(answer))
            pages[name] = _RANK.format(name=name, rank=rank)
    calls = tuple(Call("search", (name,)) for name in names)
    return Question(str(row["id"]), text, answer, calls, (0, 1), rule, options, pages)


_ALIKE: Final = (
    "{name} has an entry in this encyclopaedia. Entries of one class have in common what a "
    "question asks for, entries of two classes have not. {name} is of class {kind}."
)
_RANK: Final = (
    "{name} has an entry in this encyclopaedia. Of two entries, the one of the higher rank is what "
    "a question asks for. {name} has the rank {rank}."
)
_TONED: Final = (
    "{name} is a film. Films are the more alike the more marks they share. Its marks: {marks}."
)


def _pair(text: str, answer: str) -> tuple[str, str] | None:
    """The two things that are compared, if the words leave no doubt."""
    word = "and" if normal(answer) in ("yes", "no") else "or"
    found = [match for match in _PAIR.finditer(text) if match[2] == word]
    pairs = [(_trimmed(match[1]), _trimmed(match[3])) for match in found]
    pairs = [(a, b) for a, b in pairs if a and b and normal(a) != normal(b)]
    if len(pairs) != 1:
        return None
    if word == "or" and normal(answer) not in map(normal, pairs[0]):
        return None
    return pairs[0]


def _trimmed(name: str) -> str:
    """Without the words of the question before it, and the marks and small words behind it."""
    before = ""
    while name != before:
        before = name
        name = _LOOSE.sub("", _ASKS.sub("", name)).strip(" ,:;")
        name = name.removesuffix("'s")
    return name


def recommendation(row: dict[str, Any]) -> Question | None:
    """Four films that somebody likes, four to choose from; None where a title has a comma."""
    text, answer = str(row["question"]), str(row["answer"])
    head, _, tail = text.partition("\nOptions:\n")
    liked = head.removeprefix("Find a movie similar to ").split(", ")
    options = tuple(line.strip() for line in tail.split("\n") if line.strip())
    names = (*liked, *options)
    right = answer in options and len(liked) == FILMS == len(options)
    if not right or len(set(names)) != len(names):
        return None
    pages = {}
    start = drawn(row["id"], "marks") % len(_TONES)
    tones = [*_TONES[start:], *_TONES[:start]]
    for place, name in enumerate(names):
        own = tones[:3] if name in liked or name == answer else tones[2:5]
        shift = place % 3
        marks = ", ".join([*own[shift:], *own[:shift]])
        pages[name] = _TONED.format(name=name, marks=marks)
    calls = tuple(Call("search", (name,)) for name in names)
    places = tuple(range(len(names)))
    return Question(str(row["id"]), text, answer, calls, places, "most like", options, pages)


_SETS: Final[dict[str, tuple[tuple[str, ...], _Derive]]] = {
    "HotpotQA": (("hotpotqa_comparison.json",), comparison),
    "movies": (("movie_recommendations_formatted.json",), recommendation),
    "ParallelQA": (("parallelqa_dataset.json", "parallelqa_branch2_3.json"), sums),
}
