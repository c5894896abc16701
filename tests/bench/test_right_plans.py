"""Programs that people wrote pass every check that a plan has to pass, at every statement: a check
that refuses a right line costs more than a wrong plan that gets through."""

from __future__ import annotations

import pytest

from edvac.bench.planset import tasks
from edvac.compiler import examples
from edvac.compiler.acceptance import accept
from edvac.compiler.statements import statements
from edvac.device import CATALOGUE
from edvac.program import parse, verify_prefix

SETS = (*tasks(), *tasks("tuning"), *tasks("documented"))
PROGRAMS = {task.id: (task.text, task.solution) for task in SETS}
PROGRAMS |= {f"example {one.name}": (one.task, one.program) for one in examples.library()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_right_program_is_refused_nowhere(name: str) -> None:
    task, program = PROGRAMS[name]
    pieces = statements(program)
    for number in range(1, len(pieces) + 1):
        text = "".join(pieces[:number])
        verify_prefix(text, CATALOGUE)
        accept(parse(text, CATALOGUE), task, whole=number == len(pieces))
