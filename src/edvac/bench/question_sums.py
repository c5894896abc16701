"""ParallelQA: plans with two or three branches of searches and calculations, from the words.

Two shapes are read. Things that grow or shrink by an amount, and then a question about the new
sizes: a search and a multiplication for each, and what is asked. And pairs of things whose
differences, ratios or averages are compared: searches, a calculation for each pair, and the larger
or the smaller one. The sizes on the pages are chosen so that the published answer comes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from edvac.bench.question import Call, Question, Ref, drawn, normal, number_in, run

_THING = re.compile(
    r"\ba ((?:peregrine )?[a-z]+) (?=that|flying|enhances|improves|decreases)"
    r"|((?:[A-Z][A-Za-z0-9]*)(?: (?:of|the|[A-Z][A-Za-z0-9]*))*)"
)
_NO_THING = re.compile(
    r"^(?:If|With|Given|Considering|After|Take|In|Which|What|Among|Calculate|Suppose|Answer|The|the"
    r"|of)\b ?"
)
_AMOUNT = re.compile(
    r"(?P<share>\d+(?:\.\d+)?)%|(?P<times>\d+(?:\.\d+)?) times|\b(?P<half>half)\b"
    r"|\b(?P<double>doubled|doubles)\b|\b(?P<same>same fraction)\b"
)
_CUT = re.compile(r",|\.(?!\d)|\?| and | while | \d\. ")
_UP = re.compile(
    r"increas|grow|grew|\brose|\brise|deeper|faster|higher|taller|larger|extend|magnif|expand"
    r"|lengthen|swell|enlarg|enhanc|improv"
)
_DOWN = re.compile(
    r"decreas|reduc|shr[iau]nk|shorter|shorten|shallower|slower|contract|diminish|subtract"
)
_LARGE = re.compile(
    r"deeper|deepest|faster|fastest|larger|largest|taller|tallest|higher|highest|more\b|greater"
    r"|greatest|longest|dominate"
)
_SMALL = re.compile(
    r"shallower|slower|slowest|shorter|shortest|smaller|smallest|least|minimum|lower|lowest"
)
_TRIES: Final = 200  # of sizes that may let the answer come out


@dataclass(frozen=True, slots=True)
class _Change:
    thing: str
    factor: float
    end: int  # of its words in the question


def sums(row: dict[str, Any]) -> Question | None:
    """A question as a plan; None where its words do not give one away."""
    text = str(row["question"])
    changes = _changes(text)
    if changes is None:
        return None
    made = _of_changes(text, changes) if changes else _of_pairs(text)
    if made is None:
        return None
    calls, rule, options = made
    answer = str(row["answer"])
    if options and normal(answer) not in map(normal, options):
        return None
    last = len(calls) - 1
    read = tuple(range(last + 1 - len(options), last + 1)) if options else (last,)
    pages = _pages(str(row["id"]), calls, _fits(answer, read, rule, options))
    if pages is None:
        return None
    return Question(f"sums {row['id']}", text, answer, calls, read, rule, options, pages)


def _things(text: str) -> list[tuple[str, int]]:
    """What is spoken of, in order and as often as it is, with the place in the text."""
    found = []
    for match in _THING.finditer(text):
        name, before = match[1] or match[2], ""
        while name != before:
            before = name
            name = re.sub(r" (?:of|the)$", "", _NO_THING.sub("", name))
        if name:
            found.append((name, match.start()))
    return found


def _changes(text: str) -> list[_Change] | None:
    """What grows or shrinks, by which factor; None where that cannot be told."""
    changes: list[_Change] = []
    things, begin, share = _things(text), 0, 0.0
    for amount in _AMOUNT.finditer(text):
        cut = _CUT.search(text, amount.end())
        end = cut.start() if cut else len(text)
        named = {name for name, place in things if begin <= place < amount.start()}
        named -= {change.thing for change in changes}
        if len(named) != 1:
            return None
        share = float(amount["share"]) / 100 if amount["share"] else share
        up = _grows(text[begin:end], amount.start() - begin)
        changes.append(_Change(named.pop(), _factor(amount, share, up=up), end))
        begin = end
    return changes


def _grows(clause: str, place: int) -> bool:
    """Does the word next to the amount say that it gets larger?"""
    said = [(abs(match.start() - place), up) for up, words in ((True, _UP), (False, _DOWN))
            for match in words.finditer(clause)]  # fmt: skip
    return min(said, default=(0, True))[1]


def _factor(amount: re.Match[str], share: float, *, up: bool) -> float:
    if amount["half"]:
        return 0.5
    if amount["double"]:
        return 2.0
    if amount["times"]:
        return float(amount["times"]) if up else round(1 / float(amount["times"]), 6)
    return round(1 + share if up else 1 - share, 6)


_Made = tuple[tuple[Call, ...], str, tuple[str, ...]]  # calls, rule, options


def _of_changes(text: str, changes: list[_Change]) -> _Made | None:
    count = len(changes)
    asked = text[changes[-1].end :]
    if len(asked) < 3:
        asked = text  # the amounts come last
    calls = [Call("search", (change.thing,)) for change in changes]
    calls += [
        Call("calculate", ("multiply", Ref(place), change.factor))
        for place, change in enumerate(changes)
    ]
    if re.search(r"\bwhich\b", asked, re.IGNORECASE):
        rule = _extreme(asked)
        options = tuple(change.thing for change in changes)
        return (tuple(calls), rule, options) if rule else None
    kind = _asked_of(asked, count)
    if not kind:
        return None
    calls.append(Call("calculate", (kind, *(Ref(count + place) for place in range(count)))))
    return tuple(calls), "number", ()


def _asked_of(asked: str, count: int) -> str:
    """The calculation that is asked for; empty where it is another one."""
    ends = _LARGE.search(asked) is not None and _SMALL.search(asked) is not None
    if "difference" in asked or "how much" in asked:
        return "difference" if count == 2 or ends else ""
    if "ratio" in asked:
        return "ratio of extremes" if ends else "divide" if count == 2 else ""
    if "combined" in asked:
        return "sum"
    if "average" in asked:
        return "average of extremes" if ends else "average"
    return "divide" if "how many times" in asked and count == 2 else ""


def _extreme(asked: str) -> str:
    large, small = _LARGE.search(asked), _SMALL.search(asked)
    if bool(large) is bool(small):
        return ""
    return "largest" if large else "smallest"


def _of_pairs(text: str) -> _Made | None:
    named = [name for name, _ in _things(text)]
    kinds = [kind for word, kind in _PAIRED.items() if word in text]
    pick = _extreme(text)
    if len(named) != 4 or len(kinds) != 1 or not pick or "merge" in text:
        return None
    things = list(dict.fromkeys(named))
    calls = [Call("search", (thing,)) for thing in things]
    for first, second in (named[:2], named[2:]):
        pair = (Ref(things.index(first)), Ref(things.index(second)))
        calls.append(Call("calculate", (kinds[0], *pair)))
    count = len(calls)
    calls.append(Call("calculate", (pick, Ref(count - 2), Ref(count - 1))))
    return tuple(calls), "number", ()


_PAIRED: Final = {"difference": "difference", "ratio": "divide", "average": "average"}
_Distance = Callable[[Mapping[int, str]], float]


def _fits(answer: str, read: Sequence[int], rule: str, options: Sequence[str]) -> _Distance:
    """How far the results are from the answer; below 0 on one side, above on the other. Of options
    it is only said whether the right one comes out (0) or not."""

    def number(results: Mapping[int, str]) -> float:
        return number_in(results[read[0]]) / number_in(answer) - 1

    def choice(results: Mapping[int, str]) -> float:
        sizes = [number_in(results[place]) for place in read]
        best = max(sizes) if rule == "largest" else min(sizes)
        clear = min((abs(one / best - 1) for one in sizes if one != best), default=0) > 0.05
        right = normal(options[sizes.index(best)]) == normal(answer)
        return 0.0 if right and clear else 1.0

    return choice if options else number


def _pages(id: str, calls: tuple[Call, ...], fits: _Distance) -> dict[str, str] | None:
    """Pages with sizes for which the answer comes out; None where none were found."""
    things = [str(call.args[0]) for call in calls if call.tool == "search"]
    for attempt in range(_TRIES):
        unit = 10.0 ** ((attempt + 2) % 10 - 1)  # an answer may be a ratio, or millions of people
        sizes = {name: unit * (1 + drawn(id, name, attempt) % 900 / 100) for name in things}
        if _off(fits, calls, sizes, things[0], sizes[things[0]]) == 0:
            return _written(sizes)
        for name in things:
            size = _solved(partial(_off, fits, calls, sizes, name))
            if size:
                return _written({**sizes, name: size})
    return None


def _off(
    fits: _Distance, calls: tuple[Call, ...], sizes: Mapping[str, float], name: str, size: float
) -> float:
    """How far the answer is off where one thing has another size."""
    return fits(run(calls, _written({**sizes, name: size})))


def _written(sizes: Mapping[str, float]) -> dict[str, str]:
    return {name: _PAGE.format(name=name, size=f"{size:.9g}") for name, size in sizes.items()}


_PAGE: Final = "{name} has an entry in this encyclopaedia. The size of {name} is {size}"


def _solved(distance: Callable[[float], float]) -> float:
    """A size at which the distance is 0, by bisection between two powers of two; 0 where there is
    none."""
    low, before = 1e-3, distance(1e-3)
    while low < 1e12:
        high = low * 2
        after = distance(high)
        if before * after < 0:
            for _ in range(60):
                middle = (low + high) / 2
                here = distance(middle)
                low, high = (middle, high) if here * before > 0 else (low, middle)
            return (low + high) / 2
        low, before = high, after
    return 0.0
