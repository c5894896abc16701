"""Pure programs give exactly CPython's results; what Python would show differently is refused."""

from __future__ import annotations

import ast
import random
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program_gen import Generator
from program_kit import CATALOGUE, run, shown

from edvac.core.errors import ProgramError
from edvac.program import parse


def never(*_: Any) -> Any:
    raise AssertionError("a pure program called a device")


def oracle(text: str) -> tuple[dict[str, Any], int | None]:
    """Names after CPython ran the text, and the line of the statement that raised."""
    scope: dict[str, Any] = {"Decimal": Decimal}
    for stmt in ast.parse(text).body:
        try:
            exec(compile(ast.Module([stmt], []), "program", "exec"), scope)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return scope, stmt.lineno
    return scope, None


def same(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)


def agree(text: str) -> bool:
    """Do both give the same? False where the program was refused."""
    try:
        program = parse(text, CATALOGUE)
    except ProgramError as error:
        known = {"container_shared", "name_uncertain", "operand_unfit", "name_unknown"}
        assert error.code in known, f"{error}\n{text}"
        return False
    expected, failed = oracle(text)
    evaluator, _ = run(program, never)
    if evaluator.unreached:
        return False  # refused when it ran: the type was open until then
    found = shown(evaluator)
    if failed is not None:
        body = [stmt for stmt in ast.parse(text).body if stmt.lineno <= failed]
        program = parse("\n".join(map(ast.unparse, body)), CATALOGUE)
        evaluator, _ = run(program, never)
        found = shown(evaluator)
        broken = body[-1]
        names = {n.id for n in ast.walk(broken) if isinstance(n, ast.Name)}
        for name, value in found.items():
            if name not in names:
                assert same(value, expected.get(name)), f"{name}\n{text}"
        return True
    for name, value in found.items():
        assert same(value, expected.get(name, "unbound")), f"{name}: {value!r}\n{text}"
    return True


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_random_programs_agree_with_python(chance: random.Random) -> None:
    agree(Generator(chance).program())


def test_most_random_programs_are_legal() -> None:
    legal = sum(agree(Generator(random.Random(seed)).program()) for seed in range(200))
    assert legal > 80
