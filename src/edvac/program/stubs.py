"""Type stubs: what an editor needs to complete and check a program.

Knows nothing of programs.
"""

from __future__ import annotations

from collections.abc import Iterable

from edvac.core.schema import Quoted, Type, show
from edvac.core.signature import REQUIRED, Catalogue, Effect, Param, Role, Signature
from edvac.program.basics import BASICS
from edvac.program.library import FUNCTIONS, NAMESPACES
from edvac.program.native import Native

STARS = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
HEAD = '''"""Names that an edvac program can use. Written by edvac; do not edit."""

from datetime import date
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")

class Quoted(Generic[T]):
    value: T
    quote: str

class Previous:
    date: date | None
    files: dict[str, str]
    written: dict[str, str]

class run:
    date: date
    previous: Previous
'''
PYTHON = BASICS.keys() - {"attempt", "failure", "ok", "param"}  # what an editor knows already


def stubs(catalogue: Catalogue) -> str:
    """The text of a ``.pyi`` file for the devices of a catalogue and the library."""
    parts = [HEAD]
    for device in catalogue.devices:
        parts.append(_class(device, map(_step, catalogue.functions(device))))
    for space in sorted(NAMESPACES):
        found = [one for name, one in FUNCTIONS.items() if name.startswith(f"{space}.")]
        parts.append(_class(space, map(_member, found)))
    plain = [one for name, one in FUNCTIONS.items() if "." not in name and name not in PYTHON]
    parts.append("\n".join(f"def {_native(one)}" for one in plain) + "\n")
    return "\n".join(parts)


def _class(name: str, members: Iterable[str]) -> str:
    inner = "\n".join(f"    @staticmethod\n    def {member}" for member in members)
    return f"class {name}:\n{inner}\n"


def _step(signature: Signature) -> str:
    params: list[str] = []
    starred = False
    for param in signature.params:
        if param.keyword_only and not starred:
            params.append("*")
            starred = True
        starred = starred or param.variadic
        params.append(_param(param))
    options = _options(signature)
    params += [*(["*"] if options and not starred else []), *options]
    result = "T" if signature.result is None else _shown(signature.result)
    return f'{signature.function}({", ".join(params)}) -> {result}:\n        """{signature.doc}"""'


def _options(signature: Signature) -> list[str]:
    """What may be said of the step, see `options`."""
    waits = signature.person or signature.awaits == "signal"
    names = ["within"] if waits else [] if signature.awaits else ["retries", "timeout"]
    names += ["undo"] if signature.effect is Effect.EXTERNAL else []
    kinds = {"retries": "int | None", "undo": "str | None"}
    return [
        f"{name}: {kinds.get(name, 'str | float | None')} = None"
        for name in names
        if signature.param(name) is None
    ]


def _param(param: Param) -> str:
    kind = "type[T]" if param.role is Role.TYPE else _shown(param.type)
    if param.variadic:
        return f"*{param.name}: {kind}"
    default = "" if param.default is REQUIRED else f" = {param.default!r}"
    return f"{param.name}: {kind}{default}"


def _member(found: Native) -> str:
    return f"{_native(found, found.name.partition('.')[2])}"


def _native(found: Native, name: str = "") -> str:
    params = []
    for param in found.shape.parameters.values():
        star = STARS.get(param.kind.name, "")
        default = "" if param.default is param.empty else " = ..."
        params.append(f"{star}{param.name}: Any{default}")
    kinds = [one.kind for one in found.shape.parameters.values()]
    first = next((at for at, kind in enumerate(kinds) if kind.name == "KEYWORD_ONLY"), None)
    if first is not None and all(kind.name != "VAR_POSITIONAL" for kind in kinds):
        params.insert(first, "*")
    result = "Any" if callable(found.result) else _shown(found.result)
    return f'{name or found.name}({", ".join(params)}) -> {result}:\n        """{found.doc}"""'


def _shown(kind: Type) -> str:
    if isinstance(kind, Quoted):
        return f"Quoted[{_shown(kind.item)}]"
    return show(kind).replace("any", "Any")
