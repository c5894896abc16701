"""`llm.do`: a worker is a program that grows by what its model asks for.

Each turn is a step: the model sees the goal, the data, and what its calls gave, and answers with
calls of the functions it was granted, or with the answer. Calls become lines that refer to the turn
which asked for them, so they pass the verifier, carry the turn's labels, run in parallel where they
may, and are journalled and replayed like any other step::

    turn1 = llm.turn(goal, WorkerTurn, data, [], [], None)
    r1_1 = files.read(turn1.files_read[0].path)
    seen1 = [attempt(r1_1, failure(r1_1))]
    past2 = [turn1, seen1]
    turn2 = llm.turn(goal, WorkerTurn, data, past2, [], None)

A worker that was granted `llm.do` itself hands part of its goal to another one, which has the other
functions of the first, the same paths, half of its budget at most, and answers in a text. It gains
nothing by it but room: what the other reads stays in a context of its own.

When what was seen fills half of a context, a step writes down the facts in it, and from then on the
model is shown those, with every call so far and how it ended; code, not the model, keeps that list.

Everything here follows from the values of turns alone, so a replay writes the same lines. Does no
input or output.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edvac.control.texts import class_text, with_inner
from edvac.core.errors import ModelOutputError, OperandError
from edvac.core.label import Label
from edvac.core.schema import (
    ANY,
    STR,
    Field,
    ListOf,
    Maybe,
    Record,
    Type,
    decode,
    json_schema,
    object_schema,
)
from edvac.core.signature import REQUIRED, Catalogue, Effect, Param, Role, Signature
from edvac.core.value import Instance, Scalar, Sequence, Value, plain

TURN, ANSWER, KEPT = "WorkerTurn", "WorkerAnswer", "WorkerNotes"
DO = "llm.do"
DEEPEST = 3  # workers in workers
MOST_TURNS = 40
MOST_CALLS = 8  # of one turn
SAME = 3  # turns in a row that ask for the same: it goes in circles
SHARE = 0.5  # of a context that what was seen may take
_CHARACTERS = 3  # of a token, about
_THOUGHT = 400  # characters
_AGAIN = "You have asked for exactly this before, and it gives the same. Do something else."
_DATA = Param("data", ANY)

SIGNATURES = (
    Signature(
        "llm.turn",
        (
            Param("goal", STR, role=Role.INSTRUCTION),
            Param("T", ANY, role=Role.TYPE),
            _DATA,
            Param("past", ANY),
            Param("earlier", ANY),
            Param("kept", ANY),
            Param("note", STR, default="", role=Role.INSTRUCTION, keyword_only=True),
        ),
        None,
        Effect.PURE,
        "Let a worker's model go on: what to call next, or the answer.",
        timeout_s=1800.0,
        planned=False,
    ),
    Signature(
        "llm.note",
        (
            Param("goal", STR, role=Role.INSTRUCTION),
            Param("T", ANY, role=Role.TYPE),
            Param("past", ANY),
            Param("kept", ANY),
        ),
        None,
        Effect.PURE,
        "Write down the facts in what a worker has seen.",
        timeout_s=1800.0,
        planned=False,
    ),
)


@dataclass(frozen=True, slots=True)
class Brief:
    """What a worker may do.

    Attributes:
        functions: that it may call.
        answer: type of what it returns.
        context: tokens that its model sees at a time.
        budget: tokens that it may use; 0 is no limit.
        reads: the paths that it may read.
        depth: in how many workers it stands.
    """

    functions: tuple[Signature, ...]
    answer: Type
    context: int
    budget: int = 0
    reads: tuple[str, ...] = ("**",)
    depth: int = 0

    @property
    def text(self) -> str:
        """The program that it begins with."""
        records = {TURN: self._turn(), ANSWER: Record(ANSWER, (Field("value", self.answer),))}
        records[KEPT] = Record(KEPT, (Field("facts", ListOf(STR)),))
        parts = [class_text(record) for record in with_inner(records.values())]
        parts.append('goal = param("")\ndata = param([])\npast1 = []\n')
        return "\n".join(parts) + _turn_line(1, "past1", "[]", "None")

    def _turn(self) -> Record:
        answer = Record(ANSWER, (Field("value", self.answer),))
        calls = (Field(_name(one), ListOf(arguments_of(one))) for one in self.functions)
        order = Field("order", ListOf(STR))
        return Record(TURN, (Field("thought", STR), order, *calls, Field("answer", Maybe(answer))))

    def schema(self) -> dict[str, Any]:
        """What a turn of the model is decoded under."""
        calls = [
            object_schema({"name": {"enum": [one.op]}, "arguments": json_schema(arguments_of(one))})
            for one in self.functions
        ]
        items = {"anyOf": calls} if len(calls) > 1 else calls[0]
        thought = {"type": "string", "maxLength": _THOUGHT}
        some = {"type": "array", "items": items, "minItems": 1, "maxItems": MOST_CALLS}
        turns = [{"thought": thought, "calls": some}]
        turns.append({"thought": thought, "answer": json_schema(self.answer)})
        return {"anyOf": [object_schema(one) for one in turns]}

    def decode(self, data: Any, label: Label) -> Value:
        """A model's turn as the record that the program reads.

        Raises:
            ModelOutputError: it is none.
        """
        if not isinstance(data, dict) or not isinstance(data.get("calls", []), list):
            raise ModelOutputError("turn_malformed", "a turn has a thought, and calls or an answer")
        known = {one.op: one for one in self.functions}
        made: dict[str, list[Value]] = {_name(one): [] for one in self.functions}
        order: list[Value] = []
        for call in data.get("calls", [])[:MOST_CALLS]:
            called = known.get(call.get("name", "") if isinstance(call, dict) else "")
            if called is None:
                raise ModelOutputError(
                    "turn_function", f"there is no such function: {call}", "", _offer(known)
                )
            arguments = decode(call.get("arguments"), arguments_of(called), label, at=called.op)
            made[_name(called)].append(arguments)
            order.append(Scalar(_name(called), label))
        answer = data.get("answer")
        if not order and answer is None and not isinstance(self.answer, Maybe):
            fix = "Give calls, or the answer."
            raise ModelOutputError("turn_empty", "neither a call nor an answer", "", fix)
        kind = Maybe(Record(ANSWER, (Field("value", self.answer),)))
        wrapped = None if order else {"value": answer}
        return Instance(
            TURN,
            {
                "thought": Scalar(str(data.get("thought", ""))[:_THOUGHT], label),
                "order": Sequence(tuple(order), label),
                **{name: Sequence(tuple(calls), label) for name, calls in made.items()},
                "answer": decode(wrapped, kind, label),
            },
            label,
        )


def functions_of(names: Iterable[str], catalogue: Catalogue) -> tuple[Signature, ...]:
    """What a worker may call.

    Raises:
        OperandError: a function is unknown, or one that a worker may not have.
    """
    found: list[Signature] = []
    for name in dict.fromkeys(names):
        signature = catalogue.signatures.get(name)
        if signature is None:
            raise OperandError("function_unknown", f"there is no function {name!r}")
        changes = signature.effect not in (Effect.PURE, Effect.READ)
        if changes or signature.person or signature.awaits:
            raise OperandError(
                "function_refused",
                f"a worker may not call {name}",
                "It reads and computes; what changes something is a line of the program.",
                "Let it return what to do, and do that in the program.",
            )
        own = (
            signature.device == "llm"
            or bool(signature.turn)
            or any(param.role in (Role.TYPE, Role.CODE) for param in signature.params)
        )
        if own and name != DO:
            raise OperandError("function_refused", f"a worker may not call {name}")
        found.append(signature)
    if all(one.op == DO for one in found):
        fix = 'Name some, such as ["files.list", "files.read"], or use llm.extract.'
        raise OperandError("functions_none", "a worker needs functions", "", fix)
    return tuple(found)


@dataclass(slots=True)
class Growth:
    """The lines that follow from the turns so far."""

    brief: Brief
    turns: int = 1
    past: str = "past1"  # the name that holds what the next turn is shown
    seen_from: int = 1  # the first turn whose results are shown whole
    kept: str = "None"
    size: int = 0  # characters of what is shown whole
    asked: list[str] = field(default_factory=list)

    def after(self, turn: Value, size_of_last: int) -> str | None:
        """The lines for this turn's calls and for the next turn; None where it has answered.

        Args:
            size_of_last: characters of what the calls of the turn before it gave.

        Raises:
            ModelOutputError: it goes in circles, or on for too long.
        """
        data: dict[str, Any] = plain(turn)
        if data["answer"] is not None:
            return None
        number = self.turns
        self.size += size_of_last
        note = self._circles(data)
        if number >= MOST_TURNS:
            raise ModelOutputError("worker_endless", f"no answer after {number} turns")
        lines = list(self._calls(data, number))
        count = len(data["order"])
        parts = ", ".join(f"attempt(r{number}_{at}, failure(r{number}_{at}))"
                          for at in range(1, count + 1))  # fmt: skip
        lines.append(f"seen{number} = [{parts}]")
        told = ", ".join(f"failure(r{number}_{at})" for at in range(1, count + 1))
        lines.append(f"told{number} = [{told}]")
        if self.size > self.brief.context * _CHARACTERS * SHARE and self.seen_from < number:
            lines.append(f"kept{number} = llm.note(goal, {KEPT}, {self.past}, {self.kept})")
            self.kept, self.seen_from, self.size = f"kept{number}", number, 0
        shown = [f"turn{at}, seen{at}" for at in range(self.seen_from, number + 1)]
        earlier = [f"turn{at}, told{at}" for at in range(1, self.seen_from)]
        self.turns += 1
        self.past = f"past{self.turns}"
        lines.append(f"{self.past} = [{', '.join(shown)}]")
        lines.append(
            _turn_line(self.turns, self.past, f"[{', '.join(earlier)}]", self.kept, note).rstrip()
        )
        return "\n".join(lines) + "\n"

    def _calls(self, data: Mapping[str, Any], number: int) -> Iterator[str]:
        used: Counter[str] = Counter()
        of = {_name(one): one for one in self.brief.functions}
        for at, name in enumerate(data["order"], 1):
            place = f"turn{number}.{name}[{used[name]}]"
            used[name] += 1
            words = ", ".join(f"{one.name}={place}.{one.name}" for one in needed(of[name]))
            handed = self._handed(len(data[name])) if of[name].op == DO else ""
            yield f"r{number}_{at} = {of[name].op}({words}{handed})"

    def _handed(self, workers: int) -> str:
        """The operands of so many workers below this one that are not its model's to choose."""
        brief = self.brief
        deeper = brief.depth + 2 < DEEPEST
        names = [one.op for one in brief.functions if one.op != DO or deeper]
        budget = max(1, brief.budget // (2 * workers)) if brief.budget else 0
        return f", functions={names!r}, budget={budget}, T=str, reads={[*brief.reads]!r}"

    def _circles(self, data: Mapping[str, Any]) -> str:
        """A word to the model that repeats itself."""
        calls = {name: part for name, part in data.items() if name not in ("thought", "answer")}
        self.asked.append(json.dumps(calls, default=str, sort_keys=True))
        same = 1
        while same < len(self.asked) and self.asked[-same - 1] == self.asked[-1]:
            same += 1
        if same >= SAME:
            what = f"it asked for the same {same} times in a row"
            raise ModelOutputError("worker_circles", what, "", "Say the goal more precisely.")
        return _AGAIN if same > 1 else ""


def call_lines(turn: Mapping[str, Any], told: Iterable[str | None]) -> list[str]:
    """Each call of a turn and how it ended: what is kept of it for good."""
    used: Counter[str] = Counter()
    lines = []
    for name, failed in zip(turn["order"], told, strict=True):
        arguments = turn[name][used[name]]
        used[name] += 1
        end = f"failed: {failed}" if failed is not None else "done"
        lines.append(f"{name}({json.dumps(arguments, ensure_ascii=False, default=str)}): {end}")
    return lines


def _turn_line(number: int, past: str, earlier: str, kept: str, note: str = "") -> str:
    word = f", note={note!r}" if note else ""
    return f"turn{number} = llm.turn(goal, {TURN}, data, {past}, {earlier}, {kept}{word})\n"


def _name(signature: Signature) -> str:
    return signature.op.replace(".", "_")


def needed(signature: Signature) -> list[Param]:
    """What a worker's model gives; the rest stays as it is by default, or as it was granted."""
    found = [param for param in signature.params if param.default is REQUIRED]
    return found[:1] if signature.op == DO else found


def arguments_of(signature: Signature) -> Record:
    name = "".join(part.capitalize() for part in signature.op.replace("_", ".").split("."))
    fields = (Field(one.name, one.type, one.doc) for one in needed(signature))
    return Record(f"Worker{name}", tuple(fields))


def _offer(known: Iterable[str]) -> str:
    return f"There is: {', '.join(known)}."
