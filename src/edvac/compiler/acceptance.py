"""May a program, or the beginning of one, do the task? All that is asked besides being legal."""

from __future__ import annotations

from edvac.compiler.brief import read_brief
from edvac.compiler.rehearsal import rehearse
from edvac.compiler.review import refuse_astray, review
from edvac.compiler.undone import refuse_undone
from edvac.compiler.unmeant import refuse_unmeant
from edvac.compiler.unsaid import refuse_unsaid
from edvac.program import Program


def accept(program: Program, task: str, *, whole: bool) -> None:
    """
    Args:
        whole: is nothing to follow?

    Raises:
        ProgramError: why not; its sentences are written for whoever wrote the line.
    """
    rehearse(program, read_brief(task))
    refuse_astray(program, task)
    refuse_unsaid(program, task)
    refuse_unmeant(program, task)
    refuse_undone(program, task, whole=whole)
    if whole:
        review(program, task)
