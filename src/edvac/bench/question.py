"""Questions that take several calls of tools, as plans, with a frozen encyclopaedia for each.

A question is answered by calls of two tools, `search` and `calculate`, and a conclusion from what
some of them returned. The pages that `search` finds are made by code from the question's entities:
they say nothing true, but the published answer follows from them, and from nothing less. Knows
nothing of who makes the calls.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from edvac.core.errors import DeviceError

TOLERANCE: Final = 0.001  # of a number, as a share: pages are made so that it comes out
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_CLASS = re.compile(r"class (\w+)")
_MARKS = re.compile(r"marks: ([\w, ]+)")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True, slots=True)
class Ref:
    """What an earlier call returned; `call` is its place among the calls."""

    call: int


Argument: TypeAlias = str | float | Ref


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool."""

    tool: str
    args: tuple[Argument, ...]

    @property
    def needs(self) -> tuple[int, ...]:
        """Places of the calls whose results it takes."""
        return tuple(dict.fromkeys(arg.call for arg in self.args if isinstance(arg, Ref)))

    def filled(self, results: Mapping[int, str]) -> list[str | float]:
        """Its arguments, with results in the place of references."""
        return [results[arg.call] if isinstance(arg, Ref) else arg for arg in self.args]


@dataclass(frozen=True, slots=True)
class Question:
    """
    Attributes:
        answer: as published.
        read: places of the calls whose results the answer is made of.
        rule: how it is; see `conclude`.
        options: what may be answered; empty where it is a number.
        pages: what `search` finds.
    """

    id: str
    text: str
    answer: str
    calls: tuple[Call, ...]
    read: tuple[int, ...]
    rule: str
    options: tuple[str, ...]
    pages: Mapping[str, str] = field(hash=False)

    def conclude(self, found: Sequence[str]) -> str:
        """The answer, from the results in `read`: what a model would say that reads them well."""
        match self.rule:
            case "alike":
                return "yes" if len({_CLASS.findall(text)[-1] for text in found}) == 1 else "no"
            case "largest" | "smallest":
                sizes = [number_in(text) for text in found]
                return self.options[
                    sizes.index(max(sizes) if self.rule == "largest" else min(sizes))
                ]
            case "most like":
                return self._most_like([_marks(text) for text in found])
        return shown(number_in(found[0]))

    def _most_like(self, marks: list[set[str]]) -> str:
        """The option that shares most marks with the films that are not options."""
        liked, offered = marks[: -len(self.options)], marks[-len(self.options) :]
        shared = [sum(len(one & other) for other in liked) for one in offered]
        return self.options[shared.index(max(shared))]

    def is_right(self, said: str) -> bool:
        """Is it the published answer, but for case, articles and punctuation, or the last digits of
        a number?"""
        if self.rule != "number":
            return normal(said) == normal(self.answer)
        wanted, numbers = number_in(self.answer), _NUMBER.findall(said)
        return bool(numbers) and abs(float(numbers[-1]) - wanted) <= TOLERANCE * abs(wanted)


class Tools:
    """The tools of one question, each call of which takes a time.

    Attributes:
        begun, ended: when each call was begun and had ended, by its place, on the loop's clock.
    """

    def __init__(self, question: Question, latency_s: float) -> None:
        self.question = question
        self._latency_s = latency_s
        self.begun: dict[int, float] = {}
        self.ended: dict[int, float] = {}

    async def use(self, place: int, tool: str, args: Sequence[str | float]) -> str:
        """
        Args:
            place: of the call in the plan.

        Raises:
            DeviceError: there is no such tool or page, or the arguments do not fit.
        """
        now = asyncio.get_running_loop().time
        self.begun[place] = now()
        await asyncio.sleep(self._latency_s)
        result = execute(self.question.pages, tool, args)
        self.ended[place] = now()
        return result


def execute(pages: Mapping[str, str], tool: str, args: Sequence[str | float]) -> str:
    """What a tool returns.

    Raises:
        DeviceError: there is no such tool or page, or the arguments do not fit.
    """
    if tool == "search" and len(args) == 1:
        if str(args[0]) in pages:
            return pages[str(args[0])]
        raise DeviceError("page_missing", f"the encyclopaedia has no page {args[0]!r}")
    if tool != "calculate" or len(args) < 2 or str(args[0]) not in CALCULATIONS:
        raise DeviceError("tool_misused", f"{tool} does not take {list(args)}")
    return shown(CALCULATIONS[str(args[0])]([number_in(arg) for arg in args[1:]]))


def run(calls: Sequence[Call], pages: Mapping[str, str]) -> dict[int, str]:
    """The results of all calls, one after the other."""
    results: dict[int, str] = {}
    for place, call in enumerate(calls):
        results[place] = execute(pages, call.tool, call.filled(results))
    return results


def _product(values: list[float]) -> float:
    made = 1.0
    for value in values:
        made *= value
    return made


CALCULATIONS: Final[Mapping[str, Callable[[list[float]], float]]] = {
    "multiply": _product,
    "divide": lambda values: values[0] / values[1],
    "sum": sum,
    "difference": lambda values: max(values) - min(values),
    "average": lambda values: sum(values) / len(values),
    "largest": max,
    "smallest": min,
    "ratio of extremes": lambda values: max(values) / min(values),
    "average of extremes": lambda values: (max(values) + min(values)) / 2,
}


def number_in(given: str | float) -> float:
    """The number that a text ends with.

    Raises:
        DeviceError: there is none.
    """
    if not isinstance(given, str):
        return float(given)
    found = _NUMBER.findall(given)
    if not found:
        raise DeviceError("number_missing", f"there is no number in {given[:60]!r}")
    return float(found[-1])


def shown(number: float) -> str:
    return f"{number:.10g}"


def normal(text: str) -> str:
    """A text as published scorers compare it: in small letters, without articles, marks and
    superfluous space."""
    kept = "".join(mark if mark.isalnum() else " " for mark in text.lower())
    return " ".join(_ARTICLES.sub(" ", kept).split())


def drawn(*parts: object) -> int:
    """A number that looks like chance and is always the same for the same parts."""
    mixed = hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=8)
    return int.from_bytes(mixed.digest(), "big")


def _marks(text: str) -> set[str]:
    found = _MARKS.findall(text)
    return {mark.strip() for mark in found[-1].split(",")} if found else set()
