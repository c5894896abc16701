"""A program that is being written: its statements so far, and how the next one is getting on."""

from __future__ import annotations

from dataclasses import dataclass, field

from edvac.compiler.review import Misdeclared
from edvac.core.errors import ProgramError

TRIES = 3  # at one statement: a single sample, then several side by side
SIDE_BY_SIDE = 3
STEP, HOTTEST = 0.25, 0.75  # temperatures: a small model drifts into nonsense above
BACKTRACKS = 1  # statements taken back
HINT = 240  # characters


@dataclass(slots=True)
class Draft:
    """The program so far, by statement, and how the one under way is getting on."""

    attempt: int
    statements: list[str] = field(default_factory=list)
    given: int = 0  # of these that are not the model's
    tries: int = 0
    backtracks: int = 0
    samples: int = 0
    may_end: bool = True
    may_declare: bool = True
    hint: str = ""  # why the statement was refused: a comment that only the model sees
    declared_anew: bool = False
    spare: str = ""  # a whole program that finds nothing in the files, which may be right

    @property
    def text(self) -> str:
        return "".join(self.statements)

    def samplings(self) -> list[tuple[float, str]]:
        """Temperature and name of each sample of the next statement: one, the surest, at first;
        after a refusal several side by side, from the surest to more daring ones. A further
        attempt is no warmer: it has other examples."""
        steps = range(SIDE_BY_SIDE) if self.tries else range(1)
        base = STEP * (self.backtracks + max(0, self.tries - 1))
        name = f"{self.attempt} {len(self.statements)} {self.samples}"
        return [(min(HOTTEST, base + STEP * step), f"{name} {step}") for step in steps]

    def accept(self, piece: str) -> None:
        self.statements.append(piece)
        self.tries = 0
        self.hint = ""
        self.may_end = self.may_declare = True

    def refuse(self, problem: ProgramError, *, at_end: bool) -> None:
        """Count a refusal; take the statement before back once the budget is used up.

        Raises:
            ProgramError: the same one, when nothing is left to take back.
        """
        self.tries += 1
        self.samples += 1
        self.hint = f"# {problem.what}. {problem.fix}".replace("\n", " ")[:HINT].rstrip() + "\n"
        self.may_end = self.may_end and not at_end
        self.may_declare = self.may_declare and problem.code != "record_idle"
        if isinstance(problem, Misdeclared) and self._back_to(problem.field):
            return
        if self.tries < TRIES:
            return
        self.backtracks += 1
        if self.backtracks > BACKTRACKS or len(self.statements) <= self.given:
            raise problem
        self.statements.pop()
        self.tries = 0

    def _back_to(self, name: str) -> bool:
        """Take everything back from the record on that has the field; once, and after the line has
        been refused in other forms too."""
        found = [n for n, one in enumerate(self.statements) if f"\n    {name}: " in one]
        if self.declared_anew or self.tries < 2 or not found or found[-1] < self.given:
            return False
        self.declared_anew = True
        self.statements = self.statements[: found[-1]]
        self.tries = 0
        return True


class GivenUp(ProgramError):
    """No program that is surely right; `spare` is one that finds nothing in the files."""

    def __init__(self, refused: ProgramError, spare: str) -> None:
        super().__init__(refused.code, refused.what, refused.why, refused.fix, line=refused.line)
        self.spare = spare
