"""May a program, or the beginning of one, do the task? All that is asked besides being legal."""

from __future__ import annotations

from collections.abc import Callable

from edvac.compiler.brief import read_brief
from edvac.compiler.misplaced import refuse_misplaced
from edvac.compiler.overlooked import refuse_overlooked
from edvac.compiler.rehearsal import rehearse
from edvac.compiler.review import refuse_astray, review
from edvac.compiler.trial import Sight, try_out
from edvac.compiler.undone import refuse_undone
from edvac.compiler.unmeant import refuse_unmeant
from edvac.compiler.unsaid import refuse_unsaid
from edvac.core.errors import ProgramError
from edvac.program import Program


def accept(
    program: Program,
    task: str,
    *,
    whole: bool,
    part: bool = False,
    running: Program | None = None,
    sight: Sight | None = None,
    may_be_empty: bool = True,
) -> None:
    """
    Args:
        whole: is nothing to follow?
        part: is it a part of another task, which need not read all that is spoken of?
        running: its first lines, where they run already: what is wrong with them cannot be mended.
        sight: files to try it on.
        may_be_empty: may it write nothing when it is tried?

    Raises:
        ProgramError: why not; its sentences are written for whoever wrote the line.
    """
    rehearse(program, read_brief(task))
    for check in _CHECKS:
        if running is None or _passes(check, running, task):
            check(program, task)
    for complete in (refuse_undone, refuse_overlooked):
        complete(program, task, whole=whole)
    if whole:
        review(program, task, part=part, running="" if running is None else running.text)
    if sight is not None:
        trial = try_out(program, read_brief(task), sight)
        if not may_be_empty:
            trial.refuse_empty(program)


_CHECKS: tuple[Callable[[Program, str], None], ...] = (
    refuse_astray,
    refuse_unsaid,
    refuse_unmeant,
    refuse_misplaced,
)


def _passes(check: Callable[[Program, str], None], program: Program, task: str) -> bool:
    try:
        check(program, task)
    except ProgramError:
        return False
    return True
