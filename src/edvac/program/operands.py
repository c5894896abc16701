"""Do the complete operands of a step fit its signature?

The verifier refuses what certainly does not fit and lets a value of type `any` through; what it
could not know is decided here: in a rehearsal on made-up values, and in a run before anything of
the step is asked for or executed. Knows nothing of devices: a signature says what they take.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from edvac.core.errors import OperandError
from edvac.core.schema import (
    DECIMAL,
    FLOAT,
    INT,
    STR,
    DictOf,
    ListOf,
    Maybe,
    Quoted,
    Record,
    TupleOf,
    Type,
    fits,
    show,
)
from edvac.core.signature import Param
from edvac.core.value import Instance, Mapping, Scalar, Sequence, Value, plain
from edvac.program.host import StepCall


@dataclass(frozen=True, slots=True)
class Part:
    """An operand, or a part of one, and what it has to be; `at` as a program would write it."""

    at: str
    value: Value
    kind: Type

    @property
    def is_none(self) -> bool:
        return isinstance(self.value, Scalar) and self.value.data is None


def misfit(call: StepCall, operands: dict[str, Value]) -> OperandError | None:
    """What the first operand that does not fit is to be told; None where all fit.

    A default of None that a device declares fits, whatever the parameter's type.
    """
    for param in call.signature.params:
        if param.name not in operands:
            continue
        if _plainly_fits(param, operands[param.name]):
            why = param.wrong(plain(operands[param.name])) if param.wrong else ""
            if why:
                what = f"{param.name} of {call.op}: {why}"
                return OperandError("operand_misfit", what, "", param.doc, line=call.line)
            continue
        for part in _given(param, operands[param.name]):
            if part.is_none and param.default is None:
                continue
            wrong = _first_misfit(part)
            if wrong is not None:
                return _refused(call, wrong)
    return None


def _plainly_fits(param: Param, value: Value) -> bool:
    """Whether it fits as it is, which spares nearly every operand the look at each of its parts."""
    if param.variadic and isinstance(value, Sequence):
        return all(fits(item, param.type) for item in value.items)
    return fits(value, param.type)


def _given(param: Param, value: Value) -> Iterator[Part]:
    """The operand; of a variadic parameter each of those that it took."""
    if param.variadic and isinstance(value, Sequence):
        for place, item in enumerate(value.items):
            yield Part(f"{param.name}[{place}]", item, param.type)
    else:
        yield Part(param.name, value, param.type)


def _first_misfit(part: Part) -> Part | None:
    inner = _inside(part)
    if inner is None:
        return None if _is_fit(part) else part
    return next(filter(None, map(_first_misfit, inner)), None)


def _inside(part: Part) -> list[Part] | None:
    """The parts that decide whether a container fits; None where it is decided as a whole."""
    at = part.at
    match part.kind, part.value:
        case Maybe(item=kind), value if not part.is_none:
            return [Part(at, value, kind)]
        case ListOf(item=kind), Sequence(items=items):
            return [Part(f"{at}[{place}]", item, kind) for place, item in enumerate(items)]
        case TupleOf(items=kinds), Sequence(items=items) if len(kinds) == len(items):
            pairs = enumerate(zip(items, kinds, strict=True))
            return [Part(f"{at}[{place}]", item, kind) for place, (item, kind) in pairs]
        case DictOf() as kind, Mapping(entries=entries, label=label):
            keys = [Part(f"a key of {at}", Scalar(key, label), kind.key) for key in entries]
            return keys + [Part(f"{at}[{k!r}]", item, kind.item) for k, item in entries.items()]
        case Quoted(item=kind), Instance(record="Quoted", fields=fields):
            return [Part(f"{at}.value", fields["value"], kind)]
        case Record() as record, Instance(record=name, fields=fields) if name == record.name:
            known = [found for found in record.fields if found.name in fields]
            return [Part(f"{at}.{found.name}", fields[found.name], found.type) for found in known]
    return None


def _is_fit(part: Part) -> bool:
    """As the verifier has it for types that it knows: any number does for a wider one, and a bool
    is a number, as in Python."""
    if part.kind in (INT, FLOAT, DECIMAL) and isinstance(part.value, Scalar):
        numbers = int if part.kind == INT else int | float | Decimal
        return isinstance(part.value.data, numbers)
    return fits(part.value, part.kind)


def _refused(call: StepCall, part: Part) -> OperandError:
    found = _kind(part.value)
    return OperandError(
        "operand_misfit",
        f"{part.at} of {call.op} is a {show(part.kind)}, not {found}",
        "The value's type was not known before the run.",
        _fix(part),
        line=call.line,
    )


def _fix(part: Part) -> str:
    if part.is_none:
        return "Decide with `if x is not None:` what to do without a value."
    match part.kind, part.value:
        case kind, Scalar(data=str()) if kind in (INT, FLOAT, DECIMAL):
            return f"Write {show(kind)}(x)."
        case kind, Scalar() if kind == STR:
            return 'Write f"{x}".'
        case kind, Sequence() if kind == STR:
            return 'Write "\\n".join(x), csv.dump(x), or loop over it.'
        case kind, Instance(record="Quoted") if kind == STR:
            return "Write x.value or x.quote."
        case kind, Mapping() | Instance() if kind == STR:
            return "Write json.dump(x), or one field of it."
        case ListOf(), Scalar():
            return "Write [x]."
    return f"Give it a {show(part.kind)}."


def _kind(value: Value) -> str:
    match value:
        case Scalar(data=None):
            return "None"
        case Scalar(data=data):
            return f"a {type(data).__name__}"
        case Sequence():
            return "a tuple" if value.fixed else "a list"
        case Instance():
            return f"a {value.record}"
        case Mapping():
            return "a dict"
    return "a failed value"
