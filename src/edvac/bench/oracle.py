"""A processor that knows the answers: what is true of each document, whatever a program calls it.

It stands in for the model when *plans* are measured, so that a wrong result is the plan's fault. A
program is free in how it asks: the oracle finds the document in a step's data, and the fact by the
words of a field, a question or a goal. What nothing is known about gets an empty answer, as from an
honest model.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from edvac.processor import Request

_WORD = re.compile(r"[a-zäöüß]+|\d+")
_PLAIN = re.compile(r"[^\W_]+")
_DATA = re.compile(r"\n\n<data \d+[^>\n]*>\n(.*?)\n</data \d+>", re.DOTALL)
_NO = {"not", "no", "non", "un", "false", "without", "never"}
_YES = {"ye", "true"}  # as `words` leaves them


def words(text: str) -> list[str]:
    """Words in one form: small, without plural, spelt in one way."""
    plain = re.sub(r"([a-z])([A-Z])", r"\1 \2", text).casefold().replace("_", " ")
    return [w.replace("ize", "ise").rstrip("s") for w in _WORD.findall(plain)]


def _flat(text: str) -> str:
    """Text for finding one in another: words alone, JSON's marks undone."""
    undone = text.replace("\\n", " ").replace("\\t", " ")
    return f" {' '.join(_PLAIN.findall(undone.casefold()))} "


def _where(shown: str, data: str) -> int:
    """Where most of a text begins in another, -1 where it is not there. A reader of documents may
    have changed its head a little."""
    place = data.find(shown)
    parts = shown.split()
    if place >= 0 or len(parts) < 8:
        return place
    runs = [f" {' '.join(parts[at : at + 4])} " for at in range(len(parts) - 3)]
    found = [at for at in map(data.find, runs) if at >= 0]
    return min(found) if len(found) > 0.6 * len(runs) else -1


@dataclass(frozen=True, slots=True)
class Entity:
    """A document, or a piece of one, by the text that it is recognised by, and its facts."""

    shown: str
    facts: Mapping[str, Any]


class Oracle:
    """Answers requests from facts.

    Args:
        names: further words for each fact.
    """

    def __init__(self, names: Mapping[str, Sequence[str]], entities: tuple[Entity, ...]) -> None:
        self._names = {
            fact: {w for one in found for w in words(one)} for fact, found in names.items()
        }
        self._entities = entities
        self._shown = [_flat(entity.shown) for entity in entities]
        self._marks = _distinctive(entities)

    def __call__(self, request: Request) -> str:
        text = request.messages[-1].text
        data = "\n".join(_DATA.findall(text))
        asked = text.partition("\n\n<data ")[0]
        about = self._about(data)
        schema = request.schema
        if schema is None:
            return self._write(asked, about, data)
        properties = schema["properties"]
        if list(properties) == ["answer"] and "enum" in properties["answer"]:
            question = asked.rpartition("\nAnswer with exactly one")[0]
            return json.dumps(
                {"answer": self._choose(question, properties["answer"]["enum"], about)}
            )
        return json.dumps(self._record(properties, about, [e.facts for e in about]))

    # -- which documents a step is about --------------------------------------------------------

    def _about(self, data: str) -> list[Entity]:
        flat = _flat(data)
        found = [(_where(shown, flat), place) for place, shown in enumerate(self._shown)]
        here = sorted(one for one in found if one[0] >= 0)
        if not here:
            hits = [sum(mark in flat for mark in marks) for marks in self._marks]
            here = [(0, place) for place, count in enumerate(hits) if count]
        return [self._entities[place] for _, place in here]

    # -- text -----------------------------------------------------------------------------------

    def _write(self, goal: str, about: list[Entity], data: str) -> str:
        """The facts that the goal names, prose before single words; else what it was given."""
        known = [fact for fact in self._names if any(fact in entity.facts for entity in about)]
        prose = [fact for fact in known if any(_is_prose(e.facts.get(fact)) for e in about)]
        for group in (prose, [fact for fact in known if fact not in prose]):
            best = self._best(words(goal), group)
            if best is not None:
                return "\n\n".join(_plain(e.facts[best]) for e in about if best in e.facts)
        if "summary" in prose:
            return "\n\n".join(_plain(e.facts["summary"]) for e in about if "summary" in e.facts)
        return data.strip()[:4000] or "There is nothing to say."

    def _best(self, asked: Iterable[str], facts: Iterable[str], least: float = 0.0) -> str | None:
        wanted = set(asked)
        scored = [(self._score(wanted, fact), fact) for fact in facts]
        best = max(scored, key=lambda one: one[0], default=(0.0, None))
        return best[1] if best[0] > least else None

    def _score(self, wanted: set[str], fact: str) -> float:
        own = set(words(fact))
        return 2.0 * (own <= wanted) + len(self._names[fact] & wanted)

    # -- a choice -------------------------------------------------------------------------------

    def _choose(self, question: str, options: list[str], about: list[Entity]) -> str:
        wanted = set(words(question)) | {w for option in options for w in words(option)}
        for entity in about:
            scored = [
                (self._score(wanted, fact), place, option)
                for place, (fact, value) in enumerate(entity.facts.items())
                if (option := _option(options, fact, value)) is not None
            ]
            if scored:
                return max(scored, key=lambda one: (one[0], -one[1]))[2]
        return options[-1]

    # -- a record -------------------------------------------------------------------------------

    def _record(
        self, properties: Mapping[str, Any], about: list[Entity], rows: list[Mapping[str, Any]]
    ) -> dict[str, Any]:
        facts = rows[0] if rows else {}
        made = {}
        for name, schema in properties.items():
            fact = self._fact(name, str(schema.get("description", "")), facts)
            value = facts.get(fact) if fact is not None else None
            if value is None and _takes_records(schema):
                value = rows
            made[name] = self._fit(value, schema, name)
        return made

    def _fact(self, name: str, description: str, facts: Mapping[str, Any]) -> str | None:
        if name in facts:
            return name
        asked = words(name)
        known = [fact for fact in facts if fact in self._names]
        return self._best(asked, known) or self._best(words(description), known, 1.0)

    def _fit(self, value: Any, schema: Mapping[str, Any], name: str) -> Any:
        """The value in the form that the schema asks for; something empty where there is none."""
        if "anyOf" in schema:
            inner = schema["anyOf"][0]
            if value is None:
                return None
            return self._fit(value, inner, name)
        if "enum" in schema:
            return _option(schema["enum"], name, value) or schema["enum"][-1]
        match schema.get("type"):
            case "boolean":
                return bool(value)
            case "integer":
                return int(Decimal(_number(value)))
            case "array":
                items = value if isinstance(value, list) else [] if value is None else [value]
                return [self._fit(item, schema["items"], name) for item in items]
            case "object":
                return self._object(value, schema)
        if "pattern" in schema:
            return _number(value)
        if schema.get("format") == "date":
            return str(value) if re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)) else "1900-01-01"
        return _plain(value)

    def _object(self, value: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties", {})
        if isinstance(value, Mapping):
            return self._record(properties, [], [value])
        if list(properties) == ["quote", "value"]:
            return {"quote": _plain(value), "value": self._fit(value, properties["value"], "value")}
        first = next(iter(properties), "")
        return {
            name: self._fit(value if name == first else None, part, name)
            for name, part in properties.items()
        }


def _takes_records(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "array" and schema["items"].get("type") == "object"


def _distinctive(entities: tuple[Entity, ...]) -> list[set[str]]:
    """For each entity the values that no other one has."""
    values = [{_flat(v) for v in e.facts.values() if isinstance(v, str)} for e in entities]
    shared = Counter(value for own in values for value in own)
    return [{value for value in own if len(value) > 4 and shared[value] == 1} for own in values]


def _is_prose(value: Any) -> bool:
    return isinstance(value, str) and len(value.split()) > 3


def _option(options: Sequence[Any], fact: str, value: Any) -> str | None:
    """The option that says the value: by its words, or yes and no for a truth."""
    named = {str(option): set(words(str(option))) for option in options}
    if isinstance(value, bool):
        about = set(words(fact)) | _YES
        for option, said in named.items():
            denied = bool(said & _NO)
            if (said & (about | _NO)) and denied is not value:
                return option
        return None
    if not isinstance(value, str):
        return None
    own = set(words(value))
    whole = next((option for option, said in named.items() if said == own), None)
    return whole or next(
        (option for option, said in named.items() if own and (own <= said or said <= own)), None
    )


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_plain(item)}" for name, item in value.items())
    return "" if value is None else str(value)


def _number(value: Any) -> str:
    found = re.search(r"-?\d+(?:\.\d+)?", str(value)) if value is not None else None
    return found.group() if found else "0"
