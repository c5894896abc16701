"""A model step whose data does not fit one context, as a program over pieces of it.

The step says how (``over=``), and its result says what was done. The pieces are cut from its
largest operand; the other operands are seen with each of them.

=========== ======================================================================================
refuse      fail (`operand_too_large`); what holds unless a step says otherwise
split       do the step on each piece, then merge: texts by the model, lists end to end, of records
            each field from the first piece that states it; a choice is made over what each piece
            has to say on the question
retrieve    see the pieces that share most words with the goal, and no others
summarise   note for each piece what bears on the goal, each note with the words that it stands on,
            which must occur there; then do the step on the notes
=========== ======================================================================================

The ranking is BM25 (Robertson and Zaragoza, 2009). Does no input or output: the same step always
becomes the same program.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from edvac.control.context import rendered
from edvac.control.step import Intent
from edvac.control.texts import class_text, with_inner
from edvac.core.errors import OperandError
from edvac.core.schema import Field, ListOf, Maybe, Record, Type, show
from edvac.core.signature import Role
from edvac.core.value import Scalar, Sequence, Value, completed, plain, total_label

MERGED = 8  # texts that are put together at a time
PASSAGE = 600  # characters of what is ranked
ANSWER, PART = "PagedAnswer", "PagedPart"
_CUT = "\n[...]\n"
_BETWEEN, _LINE = "\n\n---\n\n", "\n"
_WORD = re.compile(r"[\w]{2,}")
_K1, _B = 1.5, 0.75  # BM25's usual

_MERGE = (
    "The data below was made from pieces of something longer, in order, each by this instruction. "
    "Put it together into the one result that the instruction asks of the whole: "
)
_BEARS = (
    "The data is a piece of something longer. What in it bears on the following? Say it in at most "
    "three sentences, or just: nothing. "
)
_POINTS = (
    "The data is a piece of something longer. Note each fact in it that bears on the following, in "
    "few words, with the exact words of the data that it stands on. "
)


def pages(operands: Mapping[str, Value]) -> bool:
    """Does a step with these operands say what to do with data that does not fit?"""
    rule = operands.get("over")
    return rule is not None and plain(rule) != "refuse"


@dataclass(frozen=True, slots=True)
class Paged:
    """
    Attributes:
        text: the program; its name `answer` holds the step's value.
        params: values of its parameters.
        note: what was done, for the result.
    """

    text: str
    params: dict[str, Value]
    note: str


def paged(intent: Intent, rule: str, room: int) -> Paged:
    """The program.

    Args:
        room: characters of data that one context holds.

    Raises:
        OperandError: what is beside the largest operand takes more than half of the room.
    """
    data = _data(intent)
    sizes = [len(rendered(plain(one))) for one in data]
    at = max(range(len(data)), key=sizes.__getitem__)
    beside = sum(sizes) - sizes[at]
    if beside > room // 2:
        raise OperandError(
            "operand_too_large",
            "more than one operand of the step does not fit a context",
            f"Beside its largest there are {beside:,} characters, and {room // 2:,} are left.",
            "Make the others smaller first, such as with a step of their own.",
        )
    size = room - beside
    if rule == "retrieve":
        words = f"{_goal(intent)} {' '.join(_fields(intent.call.result))}"
        pieces, done = _retrieved(data[at], words, size)
    else:
        cut = tuple(_pieces(data[at], size))
        pieces = Sequence(cut, data[at].label)
        verb = "done on each, and merged" if rule == "split" else "and noted down with its sources"
        done = f"it was cut into {len(cut)} pieces, {verb}"
    names = [f"data{number}" for number in range(len(data))]
    params = {name: one for name, one in zip(names, data, strict=True) if name != names[at]}
    params |= {"goal": _goal_value(intent), "pieces": pieces}
    if intent.call.signature.function == "choose":
        params["options"] = intent.operands["options"]
    text = "".join(_lines(intent, rule, names, at))
    note = f"data {at + 1} ({sizes[at]:,} characters) did not fit: {done}"
    return Paged(text, params, note)


# -- the program


def _lines(intent: Intent, rule: str, names: list[str], at: int) -> Iterator[str]:
    verb, kind = intent.call.signature.function, intent.call.result
    asked = kind if isinstance(kind, Record) else Record(ANSWER, (Field("value", kind),))
    records = [asked] if verb == "extract" else []
    if rule == "summarise":
        yield "class PagedPoint:\n    point: Quoted[str]\n\n"
        yield "class PagedPoints:\n    points: list[PagedPoint]\n\n"
    if rule == "split" and verb == "extract" and not isinstance(kind, ListOf):
        fields = (Field(f.name, _maybe(f.type), f.description) for f in asked.fields)
        records.append(Record(PART, tuple(fields)))
    yield from (class_text(record) for record in with_inner(records))
    yield 'goal = param("")\n'
    yield f"pieces = param({'[]' if rule != 'retrieve' else repr('')})\n"
    yield from (f"{name} = param([])\n" for name in names if name != names[at])
    if verb == "choose":
        yield "options = param([])\n"

    def step(one: str) -> str:
        parts = ", ".join(one if name == names[at] else name for name in names)
        return _call(verb, parts, show(kind))

    if rule == "retrieve":
        yield f"answer = {step('pieces')}\n"
    elif rule == "summarise":
        yield f"hint = {_POINTS!r} + goal\n"
        yield "noted = [llm.extract(piece, PagedPoints, hint) for piece in pieces]\n"
        yield "seen = [\n    f'[piece {n + 1}] {p.point.value} (it says: {p.point.quote})'\n"
        yield "    for n, one in enumerate(noted) for p in one.points\n]\n"
        yield f"answer = {step(f'{_LINE!r}.join(seen)')}\n"
    elif verb == "choose":
        parts = ", ".join("piece" if name == names[at] else name for name in names)
        yield f"ask = {_BEARS!r} + goal\n"
        yield f"seen = [llm.write(ask, {parts}) for piece in pieces]\n"
        yield f"answer = {step(f'{_BETWEEN!r}.join(seen)')}\n"
    elif verb == "write":
        yield from _merged(step("piece"), MERGED)
    elif isinstance(kind, ListOf):
        yield f"answer = flatten([{step('piece')} for piece in pieces])\n"
    else:
        yield f"found = [{_call('extract', 'piece', PART)} for piece in pieces]\n"
        yield from _first_stated(asked, whole=asked is kind)


def _call(verb: str, parts: str, kind: str) -> str:
    match verb:
        case "extract":
            return f"llm.extract({parts}, {kind}, goal)"
        case "choose":
            return f"llm.choose(goal, options, {parts})"
    return f"llm.write(goal, {parts})"


def _merged(step: str, at_a_time: int) -> Iterator[str]:
    """A tree: however many pieces there are, no merge sees more than so many texts. What was not
    cut into more pieces than one level takes is through after that level."""
    yield f"merge = {_MERGE!r} + goal\n"
    yield f"texts = [{step} for piece in pieces]\n"
    for _ in range(4):  # 8**4 pieces
        yield "texts = [\n"
        yield f"    part[0] if len(part) == 1 else llm.write(merge, {_BETWEEN!r}.join(part))\n"
        yield f"    for part in chunk(texts, {at_a_time})\n]\n"
    yield "answer = texts[0]\n"


def _first_stated(asked: Record, *, whole: bool) -> Iterator[str]:
    given = []
    for field in asked.fields:
        name = f"stated_{field.name}"
        yield f"{name} = [one.{field.name} for one in found if one.{field.name} is not None]\n"
        none = f"{name}[0] if {name} else None"
        given.append(none if isinstance(field.type, Maybe) else f"{name}[0]")
    if whole:
        words = ", ".join(f"{f.name}={one}" for f, one in zip(asked.fields, given, strict=True))
        yield f"answer = {asked.name}({words})\n"
    else:
        yield f"answer = {given[0]}\n"


def _maybe(kind: Type) -> Type:
    return kind if isinstance(kind, Maybe) else Maybe(kind)


# -- operands


def _data(intent: Intent) -> list[Value]:
    found: list[Value] = []
    for param in intent.call.signature.params:
        operand = intent.operands.get(param.name)
        if operand is None or param.role is not Role.DATA:
            continue
        if param.variadic and isinstance(operand, Sequence):
            found += map(completed, operand.items)
        else:
            found.append(operand)
    return found


def _goal_value(intent: Intent) -> Value:
    name = {"extract": "hint", "choose": "question"}.get(intent.call.signature.function, "goal")
    return intent.operands[name]


def _goal(intent: Intent) -> str:
    return str(plain(_goal_value(intent)))


def _fields(kind: Type) -> Iterator[str]:
    """The words by which a record's fields are known."""
    match kind:
        case Record():
            for field in kind.fields:
                yield f"{field.name.replace('_', ' ')} {field.description}"
                yield from _fields(field.type)
        case ListOf() | Maybe():
            yield from _fields(kind.item)


def _pieces(value: Value, size: int) -> Iterator[Value]:
    """Runs of elements of a list, runs of lines of anything else, none larger than it must be."""
    if isinstance(value, Sequence):
        yield from _runs(value, size)
        return
    label = total_label(value)
    for text in _cuts(rendered(plain(value)), size):
        yield Scalar(text, label)


def _runs(value: Sequence, size: int) -> Iterator[Value]:
    run: list[Value] = []
    held = 0
    for item in value.items:
        one = completed(item)
        length = len(rendered(plain(one))) + 1
        if run and held + length > size:
            yield Sequence(tuple(run), value.label)
            run, held = [], 0
        if length > size:  # an element that fills more than one piece
            yield from _pieces(one, size)
            continue
        run.append(one)
        held += length
    if run:
        yield Sequence(tuple(run), value.label)


def _cuts(text: str, size: int) -> Iterator[str]:
    """At a blank line, a line's end or a space where there is one in the last third."""
    at = 0
    while at < len(text):
        end = min(at + size, len(text))
        if end < len(text):
            least = at + 2 * size // 3
            places = (text.rfind(mark, least, end) + len(mark) for mark in ("\n\n", "\n", " "))
            end = next((place for place in places if place > least), end)
        yield text[at:end]
        at = end


def _retrieved(value: Value, words: str, size: int) -> tuple[Value, str]:
    """The passages that rank highest, in the order in which they stand, and what was done."""
    passages = list(_pieces(value, min(PASSAGE, size)))
    texts = [rendered(plain(one)) for one in passages]
    chosen: list[int] = []
    held = 0
    for at in ranked(texts, words):
        if held + len(texts[at]) + len(_CUT) <= size:
            chosen.append(at)
            held += len(texts[at]) + len(_CUT)
    done = f"{len(chosen)} of {len(passages)} pieces of it were seen, those nearest to the goal"
    kept = [passages[at] for at in sorted(chosen)]
    if not isinstance(value, Sequence):
        return Scalar(_CUT.join(str(plain(one)) for one in kept), total_label(value)), done
    items = (one.items if isinstance(one, Sequence) else (one,) for one in kept)
    return Sequence(tuple(itertools.chain.from_iterable(items)), total_label(value)), done


def ranked(texts: list[str], words: str) -> list[int]:
    """Places of the texts, those that share most with the words first; equal ones as they stand."""
    counts = [Counter(_terms(text)) for text in texts]
    lengths = [sum(one.values()) or 1 for one in counts]
    mean = sum(lengths) / max(1, len(lengths))
    score = [0.0] * len(texts)
    for term in sorted(set(_terms(words))):
        having = [at for at, one in enumerate(counts) if term in one]
        weight = math.log(1 + (len(texts) - len(having) + 0.5) / (len(having) + 0.5))
        for at in having:
            often = counts[at][term]
            norm = _K1 * (1 - _B + _B * lengths[at] / mean)
            score[at] += weight * often * (_K1 + 1) / (often + norm)
    return sorted(range(len(texts)), key=lambda at: (-score[at], at))


def _terms(text: str) -> Iterable[str]:
    return _WORD.findall(text.casefold())
