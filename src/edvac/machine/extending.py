"""Who does `program.extend`: the planner, asked for lines that go below a running program.

What it is told is trusted, or the guard has refused the step, so that the lines are as good as the
program's own; that they are there at all stays labelled with who decided so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from edvac.compiler import PLANNER_VERSION, Planner
from edvac.control import Failure, Intent, Outcome, Result, Usage
from edvac.control.context import rendered
from edvac.core import event
from edvac.core.errors import ProgramError
from edvac.core.label import PROGRAM
from edvac.core.signature import Catalogue
from edvac.core.value import Scalar, Sequence, plain
from edvac.processor import Answer, OnText, Processor, Request
from edvac.processor.passing import Passing

MOST = 16  # times that a run may be extended


@dataclass(frozen=True, slots=True)
class Extending:
    """
    Attributes:
        program: the text that the run began with.
        planner: writes the lines; the role *plan*.
    """

    program: str
    planner: Processor
    catalogue: Catalogue
    emit: Callable[[event.Event], None]

    @property
    def version(self) -> str:
        """Everything but the operands that decides what is written."""
        text = hashlib.blake2b(self.program.encode(), digest_size=20).hexdigest()
        return f"{PLANNER_VERSION} {self.planner.identity} {text}"

    async def write(self, intent: Intent) -> Outcome:
        """The lines of one step, below those of the steps before it.

        Raises:
            ProcessorError: the planner is away.
        """
        so_far = plain(intent.operands["so_far"])
        if len(so_far) >= MOST:
            return Failure(
                "extend_endless",
                f"the program has been extended {MOST} times",
                "Lines that always ask for more lines would never end.",
                "Say in one goal what is left to do.",
            )
        await self.planner.open()
        counted = _Counted(self.planner)
        emit = (lambda _: None) if intent.key else self.emit  # what may be thrown away is not shown
        planner = Planner(counted, self.catalogue, emit)
        goal = str(plain(intent.operands["goal"]))
        told = "\n".join(map(rendered, plain(intent.operands["data"])))
        try:
            lines = await planner.extend(goal, self.program + "".join(so_far), told)
        except ProgramError as refused:
            return Failure.of(refused, usage=counted.usage)
        texts = tuple(Scalar(text, PROGRAM) for text in (*so_far, lines))
        model = self.planner.identity
        return Result(Sequence(texts, PROGRAM), usage=counted.usage, answer=lines, model=model)


class _Counted(Passing):
    """Counts what is used; of an answer that was not waited for to its end, what was heard."""

    def __init__(self, inner: Processor) -> None:
        super().__init__(inner)
        self.usage = Usage()

    async def complete(self, request: Request, on_text: OnText | None = None) -> Answer:
        heard = 0

        def listen(text: str, tokens: int) -> None:
            nonlocal heard
            heard += tokens
            if on_text is not None:
                on_text(text, tokens)

        used: Usage | None = None
        try:
            answer = await self._inner.complete(request, listen)
            used = Usage.of(answer, self.price)
            return answer
        finally:
            self.usage = self.usage + (used or Usage(completion=heard))
