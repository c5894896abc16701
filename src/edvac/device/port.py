"""The seam to a device: a call with complete operands in, a labelled value and written files out.

Knows nothing of scheduling, journals or programs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from edvac.core.errors import InternalError
from edvac.core.label import UNBOUNDED, Label
from edvac.core.signature import Signature
from edvac.core.value import Value, plain


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a device function.

    Attributes:
        key: the same for all attempts at this step, over any number of resumes, and for no other
            step of any run: for a service that does a request of one key once.
    """

    signature: Signature
    operands: dict[str, Value]
    slot: str
    address: str
    timeout_s: float
    key: str = ""

    def data(self, name: str) -> Any:
        """The plain data of an operand."""
        return plain(self.operands[name])

    def text(self, name: str) -> str:
        found = self.data(name)
        if not isinstance(found, str):
            raise InternalError("operand_not_text", f"`{name}` of {self.signature.op} is no text")
        return found


@dataclass(frozen=True, slots=True)
class NewFile:
    """A version of a file that a call makes in the run's own store; `content` None deletes it."""

    path: str
    content: bytes | None
    label: Label


@dataclass(frozen=True, slots=True)
class Reply:
    value: Value
    files: tuple[NewFile, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """Content of a file of the run, with the label of what was written."""

    content: bytes
    label: Label


@dataclass(frozen=True, slots=True)
class Version:
    """The newest version of a path that the run wrote or removed.

    Attributes:
        label: who has influenced its content, its name, or that it is there or gone.
    """

    label: Label
    removed: bool = False


class RunFiles(Protocol):
    """The run's own versioned files, laid over the input roots."""

    async def latest(self, path: str) -> Held | None:
        """The run's newest version; None where the run never wrote it."""

    async def deleted(self, path: str) -> bool: ...

    async def maker(self, path: str) -> str:
        """Slot of the step that made the run's newest version; empty where the run has none."""

    async def origin(self, path: str, digest: str) -> Label:
        """Who is in an input file beside whoever may have written it: whoever is in what an earlier
        run has put there with this content, or with any where that is empty."""

    async def versions(self) -> dict[str, Version]:
        """All that the run wrote or removed, by path, sorted; however many, it is one question."""


class Device(Protocol):
    """A device: what it offers, and how to call it."""

    @property
    def signatures(self) -> tuple[Signature, ...]: ...

    @property
    def version(self) -> str:
        """Changes whenever the same operands may give another result; part of the reuse key."""

    async def call(self, call: Call) -> Reply:
        """Do it.

        Raises:
            StepError: it could not be done; TransientError: it may work later.
        """

    async def read_version(self, call: Call) -> str | None:
        """Identity of everything outside the operands that the call would read.

        None means that a result of this call must not be reused in another run.
        """


AskPerson = Callable[[str, str, list[str]], Awaitable[str]]


def file_label(path: str) -> Label:
    """The label of an input file's content: one principal a file, readable by the user."""
    return Label.of([f"file:{path}"], readers=["user"], bits=UNBOUNDED)


def name_label(path: str) -> Label:
    """The label of an input file's name."""
    return Label.of([f"name:{path}"], readers=["user"], bits=UNBOUNDED)
