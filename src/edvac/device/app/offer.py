"""What a server offers, as signatures: names, types, whether it answers with data or with text.

Two offers are equal where a program could not tell them apart: descriptions, titles, annotations
and the order of a server's lists are no part of one. Knows nothing of effects, which are a person's
to say, nor of how an offer came here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from edvac.core.schema import ANY, STR, Maybe, Plain, Record, Type
from edvac.core.signature import REQUIRED, Param
from edvac.device.app.types import of_schema, open_parts, restored, shown, stored, word

TOOLS, PARAMS, WORDS = 200, 30, 4_000
RESULT = "result"  # the one field of an object in which servers wrap what is no object


class Operand(msgspec.Struct, frozen=True, omit_defaults=True):
    """One parameter. `wire` is its name as the server spells it, `type` is kept as `types` says."""

    name: str
    wire: str
    type: Any
    required: bool
    default: Any = None

    @property
    def kind(self) -> Type:
        return restored(self.type)

    def param(self) -> Param:
        return Param(self.name, self.kind, REQUIRED if self.required else self.default)

    def __str__(self) -> str:
        default = "" if self.required else f" = {self.default!r}"
        return f"{self.name}: {shown(self.kind)}{default}"


class Offer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tool of a server.

    Attributes:
        result: type of the answer, kept as `types` says; a text where the server promises no data.
        data: does it promise data? Then `wrapped` says whether that lies in a field of its own.
    """

    name: str
    wire: str
    operands: tuple[Operand, ...]
    result: Any
    data: bool = False
    wrapped: bool = False

    @property
    def kind(self) -> Type:
        return restored(self.result)

    @property
    def digest(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.operands))}) -> {shown(self.kind)}"


class Offered(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that a server offers; `left_out` says why some of it cannot be called, by number."""

    tools: dict[str, Offer]
    words: dict[str, str]  # descriptions, by tool: a stranger's, for people alone
    left_out: tuple[str, ...] = ()


def read_offers(listed: Iterable[object]) -> Offered:
    """A server's list of tools, as far as it can be said in the language."""
    tools: dict[str, Offer] = {}
    words: dict[str, str] = {}
    left_out: list[str] = []
    for number, one in enumerate(listed, 1):
        made = _offer(one)
        if isinstance(made, str):
            left_out.append(f"tool {number}: {made}")
        elif made.name in tools:
            left_out.append(f"tool {number}: another is called {made.name} already")
        elif len(tools) >= TOOLS:
            left_out.append(f"tool {number}: there are {TOOLS} already")
        else:
            tools[made.name] = made
            said = one.get("description") if isinstance(one, Mapping) else None
            words[made.name] = said[:WORDS] if isinstance(said, str) else ""
    return Offered(tools, words, tuple(left_out))


def _offer(said: object) -> Offer | str:
    """One tool, or why it is none, in words of our own."""
    if not isinstance(said, Mapping):
        return "it is no object"
    name = word(said.get("name"))
    if not name:
        return "its name is no word of at most 40 letters"
    schema = said.get("inputSchema", {})
    fields = schema.get("properties", {}) if isinstance(schema, Mapping) else None
    needed = schema.get("required", []) if isinstance(schema, Mapping) else None
    if not isinstance(fields, Mapping) or not isinstance(needed, list):
        return f"{name} does not say what it takes"
    if len(fields) > PARAMS:
        return f"{name} takes more than {PARAMS} operands"
    operands = [_operand(key, part, required=key in needed) for key, part in fields.items()]
    found = [one for one in operands if one is not None]
    names = {one.name for one in found}
    if len(found) < len(operands) or len(names) < len(found) or "self" in names:
        return f"{name} takes an operand whose name is no word of its own"
    if any(key not in fields for key in needed if isinstance(key, str)):
        return f"{name} needs an operand that it does not describe"
    result, data, wrapped = _result(said.get("outputSchema"), name)
    ordered = sorted(
        found, key=lambda one: (not one.required, one.name if not one.required else "")
    )
    return Offer(name, str(said["name"]), tuple(ordered), stored(result), data, wrapped)


def _operand(key: object, schema: object, *, required: bool) -> Operand | None:
    name = word(key)
    if not name:
        return None
    kind = of_schema(schema, f"{name.title().replace('_', '')}")
    if isinstance(kind, Record):
        kind = ANY  # programs write records of their own; what is in it is checked by the server
    default = schema.get("default") if isinstance(schema, Mapping) else None
    if required:
        return Operand(name, str(key), stored(kind), True)
    if isinstance(default, bool | int | str) and _is(default, kind):
        return Operand(name, str(key), stored(kind), False, default)
    open_kind = kind if isinstance(kind, Maybe) or kind == ANY else Maybe(kind)
    return Operand(name, str(key), stored(open_kind), False, None)


def _is(default: object, kind: Type) -> bool:
    short = not isinstance(default, str) or len(default) <= 40
    return short and isinstance(kind, Plain) and type(default).__name__ == kind.name


def _result(schema: object, tool: str) -> tuple[Type, bool, bool]:
    """Type of the answer, whether it comes as data, and whether that is wrapped."""
    if not isinstance(schema, Mapping):
        return STR, False, False
    called = tool.title().replace("_", "")[:40]
    fields = schema.get("properties")
    if isinstance(fields, Mapping) and list(fields) == [RESULT]:
        kind = of_schema(fields[RESULT], called)
        return (STR, False, False) if open_parts(kind) else (kind, True, True)
    kind = of_schema(schema, called)
    return (STR, False, False) if open_parts(kind) else (kind, True, False)


def changes(approved: Mapping[str, Offer], now: Mapping[str, Offer]) -> list[str]:
    """What is other than it was, of the tools that were approved; a clause for each."""
    found: list[str] = []
    for name, before in approved.items():
        after = now.get(name)
        if after is None:
            found.append(f"{name} is gone")
        elif after != before:
            found += [f"{name}: {clause}" for clause in _differences(before, after)]
    return found


def _differences(before: Offer, after: Offer) -> list[str]:
    old = {one.name: one for one in before.operands}
    new = {one.name: one for one in after.operands}
    found = [f"operand {new[name]} is new" for name in new if name not in old]
    found += [f"operand {name} is gone" for name in old if name not in new]
    both = (name for name in old if name in new and old[name] != new[name])
    found += [f"operand {new[name]} was {old[name]}" for name in both]
    if after.result != before.result:
        found.append(f"the result is {shown(after.kind)} and was {shown(before.kind)}")
    return found or ["it is put into other words on the wire"]
