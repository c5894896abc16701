"""Names and their types at one place of a program.

Knows nothing of syntax.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace

from edvac.core.schema import Record, Type
from edvac.core.signature import Catalogue
from edvac.program.infer import joined
from edvac.program.program import Function


@dataclass(slots=True)
class Scope:
    """What may be named here.

    Attributes:
        names: certainly bound names with their types.
        uncertain: names bound on some ways only, with the line that binds them.
        functions: user functions defined above, with the types of their results.
        function: the function whose body this is, or "".
    """

    catalogue: Catalogue
    names: dict[str, Type] = field(default_factory=dict)
    uncertain: dict[str, int] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    results: dict[str, Type] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    function: str = ""

    def fork(self) -> Scope:
        """A copy for one arm of a branch."""
        return replace(self, names=dict(self.names), uncertain=dict(self.uncertain))

    def mentions(self, name: str) -> bool:
        """Whether the program itself gives the name a meaning, if only on some ways."""
        places = (self.names, self.uncertain, self.functions, self.records)
        return any(name in place for place in places)

    def bind(self, name: str, kind: Type) -> None:
        self.names[name] = kind
        self.uncertain.pop(name, None)

    def meet(self, left: Scope, right: Scope, line: int) -> None:
        """Become what is true after one of two ways."""
        both = left.names.keys() & right.names.keys()
        for name in left.names.keys() | right.names.keys():
            if name not in both:
                self.names.pop(name, None)
                self.uncertain[name] = line
        self.names = {
            name: joined(left.names[name], right.names[name])
            for name in [*left.names]
            if name in both
        }
        self.uncertain |= {**left.uncertain, **right.uncertain}
        for name in both:
            self.uncertain.pop(name, None)


def nearest(name: str, known: object) -> str:
    """A suggestion for a misspelt name, or a list of what there is."""
    names = [str(one) for one in known]  # type: ignore[attr-defined]
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.55)
    if found:
        return f"Did you mean {found[0]}?"
    return f"There is: {', '.join(names[:12])}." if names else ""
