"""May a program, or the beginning of one, do the task? All that is asked besides being legal."""

from __future__ import annotations

from edvac.compiler.brief import read_brief
from edvac.compiler.misplaced import refuse_misplaced
from edvac.compiler.overlooked import refuse_overlooked
from edvac.compiler.rehearsal import rehearse
from edvac.compiler.review import refuse_astray, review
from edvac.compiler.trial import Sight, try_out
from edvac.compiler.undone import refuse_undone
from edvac.compiler.unmeant import refuse_unmeant
from edvac.compiler.unsaid import refuse_unsaid
from edvac.program import Program


def accept(
    program: Program,
    task: str,
    *,
    whole: bool,
    part: bool = False,
    sight: Sight | None = None,
    may_be_empty: bool = True,
) -> None:
    """
    Args:
        whole: is nothing to follow?
        part: is it a part of another task, which need not read all that is spoken of?
        sight: files to try it on.
        may_be_empty: may it write nothing when it is tried?

    Raises:
        ProgramError: why not; its sentences are written for whoever wrote the line.
    """
    rehearse(program, read_brief(task))
    refuse_astray(program, task)
    refuse_unsaid(program, task)
    refuse_unmeant(program, task)
    refuse_misplaced(program, task)
    refuse_undone(program, task, whole=whole)
    refuse_overlooked(program, task, whole=whole)
    if whole:
        review(program, task, part=part)
    if sight is not None:
        trial = try_out(program, read_brief(task), sight)
        if not may_be_empty:
            trial.refuse_empty(program)
