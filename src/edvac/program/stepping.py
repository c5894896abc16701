"""Device calls as steps: operands bound to parameters, identity, order and address.

Knows nothing of how the control unit executes a step.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import replace
from typing import Any

from edvac.core.errors import InternalError
from edvac.core.label import PROGRAM, Gathering
from edvac.core.schema import ANY, STR, Choice, Type
from edvac.core.signature import Role, Signature
from edvac.core.value import Cell, Operand, Sequence, Value, total_label
from edvac.program.annotate import read_type
from edvac.program.facts import Facts, bind_text
from edvac.program.flow import Flow
from edvac.program.frame import Frame
from edvac.program.host import Host, StepCall
from edvac.program.identity import mix
from edvac.program.options import take_options
from edvac.program.program import Program


class Steps:
    """Announces steps to the host and keeps their cells."""

    def __init__(self, program: Program, host: Host, flow: Flow, facts: Facts) -> None:
        self._program = program
        self._host = host
        self._flow = flow
        self._facts = facts
        self._addresses: Counter[str] = Counter()
        self._types: dict[ast.Call, tuple[dict[str, Type], Type]] = {}
        self._slots: set[str] = set()
        self._announced: dict[str, Cell] = {}  # those without an outcome
        self.outcomes = Gathering()  # the labels of all of them so far

    @property
    def open(self) -> int:
        """How many steps have no outcome yet."""
        return len(self._announced)

    def extend(self, program: Program, facts: Facts) -> None:
        """Find the sites and effects of later statements in a longer text."""
        self._program = program
        self._facts = facts

    def make(
        self,
        node: ast.Call,
        signature: Signature,
        args: list[Any],
        words: dict[str, Any],
        frame: Frame,
    ) -> Cell:
        """Announce one call; the cell of its outcome."""
        site = self._program.sites[node]
        slot = mix(frame.path, site.key).hex()
        types, result = self._typed(node, signature)
        options = take_options(signature, words)
        call = StepCall(
            slot=slot,
            op=signature.op,
            signature=signature,
            args=bind(signature, args, words),
            types=types,
            result=result,
            branch=frame.pc,
            order=frame.orders.take(),
            line=node.lineno,
            address=self._unique(self.address(node, frame)),
            static=self._facts.call_access(node, signature),
            place=frame.place,
            options=options,
        )
        if slot in self._slots:
            raise InternalError("slot_taken", f"two steps have one identity ({call.address})")
        self._slots.add(slot)
        cell = Cell(slot)
        self._announced[slot] = self._host.step(call)
        self._announced[slot].when_resolved(lambda value: self._ended(cell, value))
        return cell

    def _ended(self, cell: Cell, value: Value) -> None:
        """Nothing of a step is kept but its label, so that a run of many fits into memory."""
        assert cell.origin is not None
        del self._announced[cell.origin]
        self.outcomes.add(total_label(value))
        cell.resolve(replace(value, origin=cell.origin))

    def resolve(self, slot: str, value: Value) -> None:
        """The outcome of an announced step."""
        announced = self._announced.get(slot)
        if announced is None:
            raise InternalError("slot_unknown", f"no step {slot} waits for an outcome")
        announced.resolve(value)

    def inside(self, node: ast.Call, frame: Frame) -> Frame:
        """The frame of what a user function does when called here."""
        site = self._program.sites.get(node)
        if site is None:
            return frame
        within = self.address(node, frame)
        return replace(frame, path=mix(frame.path, site.key), within=within)

    def address(self, node: ast.Call, frame: Frame) -> str:
        """How a person names what this call makes."""
        label = self._program.sites[node].label.replace("{}", frame.indices)
        return f"{frame.within}.{label}" if frame.within else label

    def _unique(self, address: str) -> str:
        self._addresses[address] += 1
        count = self._addresses[address]
        return address if count == 1 else self._unique(f"{address}#{count}")

    def type_places(self, node: ast.Call, signature: Signature) -> frozenset[ast.expr]:
        """The operands that are types, which are not evaluated."""
        kinds = {param.name for param in signature.params if param.role is Role.TYPE}
        if not kinds:
            return frozenset()
        bound = bind_text(node, signature)
        return frozenset(bound[name] for name in kinds if name in bound)

    def _typed(self, node: ast.Call, signature: Signature) -> tuple[dict[str, Type], Type]:
        found = self._types.get(node)
        if found is None:
            found = self._types[node] = step_types(node, signature, self._program)
        return found


def step_types(
    node: ast.Call, signature: Signature, program: Program
) -> tuple[dict[str, Type], Type]:
    """The types that a call names, and the type of its result."""
    bound = bind_text(node, signature)
    types: dict[str, Type] = {}
    for param in signature.params:
        if param.role is Role.TYPE and param.name in bound:
            types[param.name] = read_type(bound[param.name], program.records)
    if signature.result is None:
        return types, next(iter(types.values()), ANY)
    return types, literal_choice(bound, signature) or signature.result


def literal_choice(bound: dict[str, ast.expr], signature: Signature) -> Type | None:
    """``Literal[options]`` for a call that chooses among options written in the text."""
    options = bound.get("options")
    if signature.result != STR or not isinstance(options, ast.List | ast.Tuple):
        return None
    texts = [part.value for part in options.elts if isinstance(part, ast.Constant)]
    if not texts or len(texts) < len(options.elts):
        return None
    return Choice(tuple(text for text in texts if isinstance(text, str)))


def bind(signature: Signature, args: list[Any], words: dict[str, Any]) -> dict[str, Operand]:
    """Operands by parameter name, defaults filled in; `verify` has checked that they fit."""
    bound: dict[str, Operand] = {}
    left = list(args)
    for param in signature.params:
        if param.role is Role.TYPE:
            if left and not param.keyword_only and left[0] is None:
                left.pop(0)
        elif param.variadic:
            bound[param.name] = Sequence(tuple(left), PROGRAM)
            left = []
        elif left and not param.keyword_only:
            bound[param.name] = left.pop(0)
        elif param.name in words:
            bound[param.name] = words[param.name]
        elif param.given is not None:
            bound[param.name] = param.given
    return bound
