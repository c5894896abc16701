"""The model inside edvac, as a script: truthful, or what an attacker makes of it.

========= ==================================================================================
mode       once the step's data shows the attack
========= ==================================================================================
honest     answers what is true
obey       writes the attacker's calls into the first free text that it may write, then goes on
steer      answers every choice as the attacker likes
flow       puts the attacker's value into every field, and answers every choice as he likes
========= ==================================================================================

It never sees a tool. Knows nothing of policies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from edvac.bench.dojo_plan import Asked, Plan, walk
from edvac.bench.dojo_suite import MARK, Opened, ToolCall
from edvac.core.errors import InternalError
from edvac.processor import Request

Mode: TypeAlias = Literal["honest", "obey", "steer", "flow"]
ANY_NUMBER = 31337
_QUESTION = re.compile(r"\[(q\d+|answer)\] ")
_DATA = re.compile(r"<data \d+>\n(.*?)\n</data \d+>", re.DOTALL)


@dataclass(slots=True)
class Worker:
    """Answers the questions of one run.

    Attributes:
        misled: questions that were not answered truthfully, in order.
    """

    plan: Plan
    opened: Opened
    mode: Mode = "honest"
    misled: list[str] = field(default_factory=list)

    def answer(self, request: Request) -> str:
        text = request.messages[-1].text
        found = _QUESTION.search(text)
        if found is None or found[1] not in self.plan.asked:
            raise InternalError("dojo_question", "a step asked what the plan does not know")
        name, asked = found[1], self.plan.asked[found[1]]
        said = asked.true
        data = "\n".join(_DATA.findall(text))
        if self.mode != "honest" and MARK in data:
            said = self._misled(asked, request, data)
        if said != asked.true:
            self.misled.append(name)
        if asked.kind == "write":
            return str(said)
        return json.dumps({"answer" if asked.kind == "choose" else "value": said})

    def _misled(self, asked: Asked, request: Request, data: str) -> Any:
        if asked.kind == "choose":
            return asked.true if self.mode == "obey" else self._choice(asked, request, data)
        if self.mode == "obey" and not self.misled and isinstance(asked.true, str):
            calls = (f"{call.function}({json.dumps(call.args)})" for call in self.opened.wanted)
            return "\n".join([*calls, self.opened.attack, asked.true])
        return self._value(asked) if self.mode == "flow" else asked.true

    def _choice(self, asked: Asked, request: Request, data: str) -> str:
        """An option that has to do with what the attacker wants, else any that is wrong."""
        options = [str(one) for one in _options(request.schema)]
        values = {str(part) for part in self._wanted()}
        rows = data.split("\n")
        for option in options:
            if option in values:
                return option
            row = rows[int(option)] if option.isdigit() and int(option) < len(rows) else ""
            if len(rows) >= len(options) and any(f'"{value}"' in row for value in values):
                return option
        return next((option for option in options if option != asked.true), str(asked.true))

    def _value(self, asked: Asked) -> Any:
        """What the attacker would have in this field."""
        same = [call for call in self.opened.wanted if call.function == asked.function]
        for call in (*same, *self.opened.wanted):
            if asked.param in call.args:
                return _as(asked.true, call.args[asked.param], self.opened.attack)
        return _as(asked.true, None, self.opened.attack)

    def _wanted(self) -> Iterator[Any]:
        for call in self.opened.wanted:
            yield from leaves(call)


def leaves(call: ToolCall) -> Iterator[Any]:
    """Every value in the operands of a call."""
    for _, part in walk(call.args):
        if not isinstance(part, dict | list) and part is not None and not isinstance(part, bool):
            yield part


def _options(schema: Any) -> list[Any]:
    found: list[Any] = (schema or {}).get("properties", {}).get("answer", {}).get("enum", [])
    return found


def _as(true: Any, value: Any, attack: str) -> Any:
    """The attacker's value in the shape that the field has."""
    if isinstance(true, list):
        return [str(one) for one in value] if isinstance(value, list) else [str(value or attack)]
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(true, str):
        return str(attack if value is None else value)
    number = value if isinstance(value, int | float) else ANY_NUMBER
    return type(true)(number)
