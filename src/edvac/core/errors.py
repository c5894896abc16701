"""Every error that edvac raises on purpose, in one tree.

::

    EdvacError
      UsageError                     you asked for something that cannot be meant          exit 2
        ProgramError                 the program text is not legal (line, column, fix)
        ConfigError                  a setting or flag is unknown or out of range
      StepError                      one step of a run failed; the run goes on             exit 1
        OperandError                 an operand has the wrong type, shape or size
        FuelError                    pure code used more steps or memory than it may
        ModelOutputError             a model's answer does not fit its schema
        DeviceError                  a device could not do what was asked
        SandboxError                 no isolation here, or the sandbox stopped the call
      PolicyError                    the guard said no, or needs a person                  exit 4
      BudgetError                    tokens, time or money are spent                       exit 5
      TransientError                 try again: nothing is wrong with the request          exit 3
        ProcessorError               the engine or an endpoint is away or overloaded
        LeaseError                   another process owns the run
      ModelFileError                 a weight file is missing, cut short or malformed      exit 2
      StoreError                     the workspace cannot be read or written               exit 1
        DamageError                  stored bytes are not what was written                 exit 6
        UnreachableError             the store's server is away: try again                 exit 3
      Interrupted                    a person or a signal asked to stop                    exit 130
      InternalError                  edvac's own fault: please report                      exit 1

A class says who is at fault and fixes the exit code; `code` names the exact case, is stable across
versions and has an entry in docs/reference/errors.md. `what` is a clause without capital and full
stop, since it is shown after a name; `why` and `fix` are one sentence each.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_TRANSIENT = 0, 1, 2, 3
EXIT_DENIED, EXIT_BUDGET, EXIT_DAMAGED, EXIT_INTERRUPTED = 4, 5, 6, 130


class EdvacError(Exception):
    """Root of the tree.

    Args:
        code: stable lower_snake_case name of the case, e.g. ``operand_too_large``.
        what: what happened.
        why: the cause, as far as it is known.
        fix: what the reader can do about it.
        line, column: 1-based place in the program, where there is one.
    """

    exit_code: ClassVar[int] = EXIT_FAILED
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        code: str,
        what: str,
        why: str = "",
        fix: str = "",
        *,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(code, what, why, fix)
        self.code = code
        self.what = what
        self.why = why
        self.fix = fix
        self.line = line
        self.column = column

    def __str__(self) -> str:
        place = "" if self.line is None else f"line {self.line}"
        if self.column is not None:
            place += f", column {self.column}"
        head = f"{place}: {self.what}" if place else self.what
        return "\n".join(part for part in (head, self.why, self.fix) if part)

    def as_dict(self) -> dict[str, str | int | None]:
        """The error as data: what a journal record, an event or ``--json`` carries."""
        found: dict[str, str | int | None] = {
            "code": self.code,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
        }
        if self.line is not None:
            found["line"] = self.line
            found["column"] = self.column
        return found


class UsageError(EdvacError):
    exit_code = EXIT_USAGE


class ProgramError(UsageError):
    """The program text is not legal; `line` and `column` say where."""


class ConfigError(UsageError):
    pass


class StepError(EdvacError):
    """One step failed. Failure is data: the run goes on without what depends on it."""


class OperandError(StepError):
    pass


class FuelError(StepError):
    pass


class ModelOutputError(StepError):
    pass


class DeviceError(StepError):
    pass


class SandboxError(StepError):
    pass


class PolicyError(EdvacError):
    exit_code = EXIT_DENIED


class BudgetError(EdvacError):
    exit_code = EXIT_BUDGET


class TransientError(EdvacError):
    """Try again. `wait_s`: seconds to wait before that, where the other side has asked for it."""

    exit_code = EXIT_TRANSIENT
    retryable = True
    wait_s: float = 0.0


class ProcessorError(TransientError):
    pass


class LeaseError(TransientError):
    pass


class ModelFileError(EdvacError):
    exit_code = EXIT_USAGE


class StoreError(EdvacError):
    pass


class DamageError(StoreError):
    exit_code = EXIT_DAMAGED


class UnreachableError(StoreError):
    """The server that keeps the store is away. Nothing of what was asked is stored, unless
    `in_doubt`: then it is there in full or not at all, and nobody could be asked which."""

    exit_code = EXIT_TRANSIENT
    retryable = True
    in_doubt: bool = False


class Interrupted(EdvacError):
    exit_code = EXIT_INTERRUPTED


class InternalError(EdvacError):
    pass
