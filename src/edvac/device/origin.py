"""Whose words are in a tool's answer: labels for each part, by a contract of the tool.

A contract is a list of (place, principal); the first that fits a part says whose data it is. A
place is written as a program would reach it, ``[].sender`` or ``*.price``; ``*`` stands for any key
and ``[]`` for any item. A principal may quote fields of the record that the part stands in:
``mail:{sender}``. What no place names is the contract's `rest`.

Knows nothing of what a tool does or who is trusted.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from edvac.core.errors import ConfigError, DeviceError
from edvac.core.label import UNBOUNDED, Label
from edvac.core.schema import ANY, DictOf, ListOf, Maybe, Record, Type
from edvac.core.value import Instance, Scalar, Sequence, Value
from edvac.core.value import Mapping as Entries

Place: TypeAlias = tuple[str, ...]
ITEM, ANY_KEY = "[]", "*"
MAX_DEPTH, MAX_PARTS = 32, 200_000
_NAME = re.compile(r"[\w.+-]+(?:@[\w.-]+)?(?:/[\w./-]*)?")
_STEP = re.compile(r"\[\]|[^.\[\]]+")
_QUOTED = re.compile(r"\{(\w+)\}")


def place(text: str) -> Place:
    """``[].sender`` as its steps.

    Raises:
        ConfigError: it is no place.
    """
    steps = _STEP.findall(text)
    if "".join(steps) != text.replace(".", ""):
        raise ConfigError(
            "origin_place", f"{text!r} is no place in an answer", "", "Write [].sender or *.price."
        )
    return tuple(steps)


@dataclass(frozen=True, slots=True)
class Origin:
    """A contract.

    Attributes:
        rest: principal of whatever no place names.
        parts: places and principals, in the order in which they are tried.
        inside: principals, as globs, who are no outsiders: what they choose is not counted.
        readers: who may see the answer; None is everybody.
    """

    rest: str
    parts: tuple[tuple[Place, str], ...] = ()
    inside: tuple[str, ...] = ()
    readers: tuple[str, ...] | None = None

    @staticmethod
    def of(
        rest: str,
        parts: Mapping[str, str] | None = None,
        inside: Iterable[str] = (),
        readers: Iterable[str] | None = None,
    ) -> Origin:
        return Origin(
            rest,
            tuple((place(where), who) for where, who in (parts or {}).items()),
            tuple(inside),
            None if readers is None else tuple(readers),
        )

    def principal(self, at: Place, around: Mapping[str, Any]) -> str:
        """Whose part this is; `around` are the fields of the record that it stands in."""
        for where, who in self.parts:
            if len(where) == len(at) and all(map(_meets, where, at)):
                return _QUOTED.sub(lambda found: _quoted(around.get(found[1])), who)
        return _QUOTED.sub(lambda found: _quoted(around.get(found[1])), self.rest)

    def label(self, at: Place = (), around: Mapping[str, Any] | None = None) -> Label:
        who = self.principal(at, around or {})
        known = any(fnmatchcase(who, glob) for glob in self.inside)
        return Label.of([who], readers=self.readers, bits=0 if known else UNBOUNDED)


def _meets(step: str, key: str) -> bool:
    return step == key or (step == ANY_KEY and key != ITEM)


def _quoted(data: Any) -> str:
    """A field's text as part of a principal: a word or an address, and else nobody in particular.

    Whoever writes the field must not be able to spell a principal that a policy's glob means for
    somebody else.
    """
    text = str(data)
    return text if _NAME.fullmatch(text) and len(text) <= 200 else "?"


def labelled(data: Any, origin: Origin, kind: Type = ANY) -> Value:
    """An answer as a value, each part labelled with whose it is.

    Raises:
        DeviceError: it holds what is no data of the language, or too much.
    """
    return _Labelling(origin).value(data, (), {}, kind)


class _Labelling:
    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._left = MAX_PARTS

    def value(self, data: Any, at: Place, around: Mapping[str, Any], kind: Type) -> Value:
        self._left -= 1
        if self._left < 0 or len(at) > MAX_DEPTH:
            raise _unfit("it is too large or nested too deeply")
        if isinstance(kind, Maybe) and data is not None:
            kind = kind.item
        match data:
            case None | bool() | int() | float() | Decimal() | str() | dt.date():
                return Scalar(data, self._origin.label(at, around))
            case list() | tuple():
                item = kind.item if isinstance(kind, ListOf) else ANY
                items = tuple(self.value(one, (*at, ITEM), around, item) for one in data)
                label = self._origin.label(at, around)
                return Sequence(items, label, fixed=isinstance(data, tuple))
            case dict() if all(isinstance(key, str) for key in data):
                parts = {
                    key: self.value(one, (*at, key), data, _kind_at(kind, key))
                    for key, one in data.items()
                }
                label = self._origin.label(at, data)
                if isinstance(kind, Record):
                    return Instance(kind.name, parts, label)
                return Entries(parts, label)
        raise _unfit(f"{type(data).__name__} is not data of the language")


def _kind_at(kind: Type, key: str) -> Type:
    if isinstance(kind, DictOf):
        return kind.item
    part = kind.field(key) if isinstance(kind, Record) else None
    return part.type if part is not None else ANY


def _unfit(why: str) -> DeviceError:
    return DeviceError("tool_answer_unfit", "a tool's answer is no value", why.capitalize() + ".")
