"""A verified program, ready to be evaluated, shown or kept.

Knows nothing of how it was verified or of how it runs.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from edvac.core.schema import Record, Type
from edvac.core.signature import NO_ACCESS, Access, Catalogue, Effect
from edvac.core.value import Value
from edvac.program.library import NAMESPACES


@dataclass(frozen=True, slots=True)
class ParamInfo:
    """A value that whoever runs the program may set."""

    name: str
    default: Value
    type: Type
    line: int


@dataclass(frozen=True, slots=True)
class Function:
    """A user function, lowered so that it has one exit."""

    name: str
    params: tuple[str, ...]
    defaults: dict[str, ast.expr]
    body: tuple[ast.stmt, ...]
    line: int
    types: dict[str, Type] = field(default_factory=dict)
    result: Type | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A call in the text that makes steps: the static half of their identity and of their address.

    `main` marks the call whose result the statement's target receives.
    """

    key: bytes
    label: str
    main: bool


@dataclass(frozen=True, slots=True)
class Use:
    """One device call in the text, with what it may touch as far as the text says."""

    op: str
    effect: Effect
    access: Access
    line: int
    repeated: bool  # inside a loop, a comprehension or a function


@dataclass(frozen=True, slots=True)
class Outline:
    """What a person is shown before anything runs: how many calls of each kind, and where."""

    steps: dict[str, int]
    effects: dict[Effect, int]
    uses: tuple[Use, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A program that `verify` accepted."""

    name: str
    text: str
    statements: tuple[ast.stmt, ...]
    functions: dict[str, Function]
    records: dict[str, Record]
    params: dict[str, ParamInfo]
    catalogue: Catalogue
    sites: dict[ast.Call, Site]
    conditions: dict[ast.expr, str]  # identity of each condition of an `if`
    uses_of: Callable[[Program], Iterable[Use]]
    patterns: dict[str, str] = field(default_factory=dict)  # see `patterns`; with the defaults
    guarded: frozenset[ast.AugAssign] = frozenset()  # may not turn out to change a list

    @functools.cached_property
    def access(self) -> tuple[Use, ...]:
        """Every device call, with what it may touch; found when it is first asked for."""
        return tuple(self.uses_of(self))

    @functools.cached_property
    def outside(self) -> frozenset[str]:
        """Names that hold no values: devices, parts of the library, the run itself."""
        return frozenset(self.catalogue.devices) | NAMESPACES | {"run"}

    @property
    def digest(self) -> str:
        """Identity of the text: 40 hex digits."""
        return hashlib.blake2b(self.text.encode(), digest_size=20).hexdigest()

    @property
    def touches(self) -> Access:
        """The union of everything that the program may touch."""
        found = NO_ACCESS
        for use in self.access:
            found = found.union(use.access)
        return found

    def uses(self, effect: Effect) -> Iterator[Use]:
        """The device calls of one effect."""
        return (use for use in self.access if use.effect is effect)

    def outline(self) -> Outline:
        """Steps by kind, for a person."""
        steps: dict[str, int] = {}
        effects: dict[Effect, int] = {}
        for use in self.access:
            steps[use.op] = steps.get(use.op, 0) + 1
            effects[use.effect] = effects.get(use.effect, 0) + 1
        return Outline(steps, effects, self.access)
