"""What an instruction returns, with the label that it has for being returned by it (isolation notes
1.3, K and rules 1, 6 and 8).

Knows nothing of who executes it.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from edvac.core.errors import InternalError
from edvac.core.label import PUBLIC, Label
from edvac.core.schema import (
    ANY,
    DictOf,
    ListOf,
    Maybe,
    Record,
    TupleOf,
    Type,
    capacity,
    selected,
)
from edvac.core.value import (
    Cell,
    Instance,
    Mapping,
    Operand,
    Scalar,
    Sequence,
    Value,
    settle,
    steered,
)


def result_of(value: Value, kind: Type, operands: Label, branch: Label) -> Value:
    """The value of a step, joined with what it was given and what decided that it is done.

    Whoever chose the operands chose what came of them, as far as the type of each part lets it
    hold a choice: K(out) = min(capacity of its type, sum of K(in)).

    Args:
        value: with what the execution added: who is in it, and the bits that they had beside the
            operands.
        kind: type of the value; of parts that it does not name nothing is known.

    Raises:
        InternalError: a part is pending.
    """
    made = value if operands is PUBLIC else influenced(value, kind, operands)
    return steered(selected(made, kind), branch)


def influenced(value: Value, kind: Type, operands: Label) -> Value:
    """The value, and in every part whoever is in the operands, with the bits that they had there.

    Raises:
        InternalError: a part is pending.
    """
    kind = kind.item if isinstance(kind, Maybe) and not isinstance(value, Scalar) else kind
    label = _added(value.label, operands, capacity(kind))
    match value:
        case Sequence():
            parts = (_part(item, _item(kind, at), operands) for at, item in enumerate(value.items))
            return replace(value, label=label, items=tuple(parts))
        case Mapping():
            inner = kind.item if isinstance(kind, DictOf) else ANY
            entries = {key: _part(one, inner, operands) for key, one in value.entries.items()}
            return replace(value, label=label, entries=entries)
        case Instance():
            fields = {
                name: _part(one, _field(kind, name), operands) for name, one in value.fields.items()
            }
            return replace(value, label=label, fields=fields)
        case Scalar():
            return value if label is value.label else Scalar(value.raw, label, value.origin)
    return replace(value, label=label)


def _part(operand: Operand, kind: Type, operands: Label) -> Value:
    here = settle(operand)
    if isinstance(here, Cell):
        raise InternalError("value_pending", "a pending value was returned by a step")
    return influenced(here, kind, operands)


def _item(kind: Type, at: int) -> Type:
    if isinstance(kind, TupleOf):
        return kind.items[at]
    return kind.item if isinstance(kind, ListOf) else ANY


def _field(kind: Type, name: str) -> Type:
    found = kind.field(name) if isinstance(kind, Record) else None
    return found.type if found is not None else ANY


@functools.lru_cache(maxsize=4096)
def _added(label: Label, operands: Label, most: float) -> Label:
    who = label.join(operands.cap(0))
    bits = max(label.bits, min(most, label.bits + operands.bits))
    return Label.of(who.sources, who.steered, who.readers, bits)
