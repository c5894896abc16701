"""Made-up questions, in the shapes of the published ones, that several tests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edvac.bench.question import Question

COMPARISONS = [
    ("Were Anna Bell and Carl Dorn of the same trade?", "no", ["Anna Bell", "Carl Dorn"]),
    ("Are both Red Lake and Blue Hill towns?", "yes", ["Red Lake", "Blue Hill"]),
    ("Which is older, the Tower of Ash or Oak Hall?", "Oak Hall", ["Tower of Ash", "Oak Hall"]),
    ("Who was born first, J. F. Reed or Li Wei?", "J. F. Reed", ["J. F. Reed", "Li Wei"]),
]

FILMS = (
    "Find a movie similar to A One, B Two, C Three, D Four\nOptions:\nE Five\nF Six\nG\nH Eight\n"
)

SUMS: list[tuple[str, str, list[Any]]] = [
    (
        "If the height of Mount Ash grew by 20% and the height of Mount Birch shrank by 25%, which "
        "mountain would be taller?",
        "Mount Birch",
        [("multiply", 0, 1.2), ("multiply", 1, 0.75)],
    ),
    (
        "If the Ash River were shortened by half, the Elm River doubled and the Oak River "
        "lengthened by 15%, what would be the difference between the longest and the shortest?",
        "812.5",
        [("multiply", 0, 0.5), ("multiply", 1, 2.0), ("multiply", 2, 1.15),
         ("difference", 3, 4, 5)],
    ),
    (
        "If the Ash Sea shrank by 2 times and the Elm Sea expands by 2.5 times, what would be the "
        "ratio of their sizes?",
        "1.7",
        [("multiply", 0, 0.5), ("multiply", 1, 2.5), ("divide", 2, 3)],
    ),
    (
        "Take Mount Ash, subtract 10% of its height, then increase Mount Birch's height by the "
        "same fraction. Which mountain is shorter?",
        "Mount Ash",
        [("multiply", 0, 0.9), ("multiply", 1, 1.1)],
    ),
    (
        "If Ashland's population grows by 10% and Birchland's decreases by 5%, what would the "
        "combined population be?",
        "44.5",
        [("multiply", 0, 1.1), ("multiply", 1, 0.95), ("sum", 2, 3)],
    ),
    (
        "What is the smaller difference in height between Mount Ash and K9, and between Mount Elm "
        "and Mount Oak?",
        "120",
        [("difference", 0, 1), ("difference", 2, 3), ("smallest", 4, 5)],
    ),
    (
        "What is the larger ratio between the Ash River and the Elm River, and the Elm River and "
        "the Oak River?",
        "3.25",
        [("divide", 0, 1), ("divide", 1, 2), ("largest", 3, 4)],
    ),
]  # fmt: skip


def row(text: str, answer: str, number: int = 1) -> dict[str, Any]:
    return {"id": str(number), "question": text, "answer": answer}


def swapped(question: Question) -> Question:
    """With the pages of the first two topics exchanged."""
    first, second = list(question.pages)[:2]
    pages = dict(question.pages)
    pages[first], pages[second] = pages[second], pages[first]
    return Question(
        **{name: getattr(question, name) for name in Question.__slots__} | {"pages": pages}
    )


def data_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small copy of the data sets, made of the questions of these tests."""
    place = folder / "llmcompiler"
    place.mkdir()
    compared = [row(text, answer, n) for n, (text, answer, _) in enumerate(COMPARISONS)]
    compared.append(row("What do Ann Bee and Cod Dee share?", "smith", 9))
    films = [row(FILMS, "G", 1), row(FILMS.replace("B Two", "B, Two"), "G", 2)]
    counted = [row(text, answer, n) for n, (text, answer, _) in enumerate(SUMS)]
    counted.append(row("If Ashland and Elmland were to merge, what then?", "7", 9))
    for name, rows in (
        ("hotpotqa_comparison.json", compared),
        ("movie_recommendations_formatted.json", films),
        ("parallelqa_branch2_3.json", counted),
    ):
        (place / name).write_text(json.dumps(rows), encoding="utf-8")
    monkeypatch.setenv("EDVAC_DATA", str(folder))
