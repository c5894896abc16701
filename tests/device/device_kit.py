"""Devices over a directory and a run's files in memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from edvac.core.errors import EdvacError
from edvac.core.label import PROGRAM, PUBLIC, Label
from edvac.core.signature import REQUIRED
from edvac.core.value import Failed, Value, lift, plain
from edvac.device import (
    CATALOGUE,
    Call,
    Databases,
    Documents,
    Files,
    Held,
    NewFile,
    Processes,
    Reply,
    Roots,
    Version,
)
from edvac.device.reading.read import read
from edvac.device.reading.source import Source

T = TypeVar("T")


def to_text(name: str, data: bytes) -> tuple[str, list[str]]:
    """Text and notes of a document, read in this process."""
    found = read(name, Source.of(data))
    return found.text(), found.notes


class RunFiles:
    """The run's own versions, as the overlay of a machine gives them; None is a removed one."""

    def __init__(self) -> None:
        self.kept: dict[str, Held | None] = {}
        self.makers: dict[str, str] = {}
        self.asked = 0  # questions to the store

    async def latest(self, path: str) -> Held | None:
        self.asked += 1
        return self.kept.get(path)

    async def deleted(self, path: str) -> bool:
        return path in self.kept and self.kept[path] is None

    async def origin(self, path: str, digest: str) -> Label:
        return PUBLIC

    async def maker(self, path: str) -> str:
        return self.makers.get(path, "") if self.kept.get(path) is not None else ""

    async def versions(self) -> dict[str, Version]:
        self.asked += 1
        return {p: Version(PROGRAM, True) if h is None else Version(h.label)
                for p, h in self.kept.items()}  # fmt: skip


class World:
    """A run's devices; what they write is kept, as the journal would."""

    def __init__(self, roots: dict[str, Path]) -> None:
        self.held = RunFiles()
        self.roots = Roots(roots)
        self.files = Files(self.roots, self.held)
        self.documents = Documents(self.files)
        self.databases = Databases(self.files)
        self.processes = Processes(self.files)

    async def call(self, op: str, *, timeout_s: float = 30.0, **operands: Any) -> Reply:
        call = make_call(op, timeout_s=timeout_s, **operands)
        device: Any = {
            "files": self.files,
            "doc": self.documents,
            "sql": self.databases,
            "python": self.processes,
            "shell": self.processes,
        }[call.signature.device]
        reply: Reply = await device.call(call)
        self.keep(reply.files, call.slot)
        return reply

    def keep(self, files: tuple[NewFile, ...], slot: str = "slot") -> None:
        for new in files:
            held = None if new.content is None else Held(new.content, new.label)
            self.held.kept[new.path] = held
            self.held.makers[new.path] = slot

    def do(self, op: str, **operands: Any) -> Reply:
        """One call, with a loop of its own."""

        async def one() -> Reply:
            try:
                return await self.call(op, **operands)
            finally:
                await self.documents.close()
                await self.databases.close()

        return asyncio.run(one())

    def get(self, op: str, **operands: Any) -> Any:
        value = self.do(op, **operands).value
        assert not isinstance(value, Failed)
        return plain(value)

    def refused(self, op: str, **operands: Any) -> EdvacError:
        """The error of a call that must fail; it says what and what to do."""
        try:
            self.do(op, **operands)
        except EdvacError as error:
            assert error.what and error.fix, error
            return error
        raise AssertionError(f"{op} did not fail")


_SLOTS = itertools.count()


def make_call(op: str, *, timeout_s: float = 30.0, **operands: Any) -> Call:
    signature = CATALOGUE.signatures[op]
    values: dict[str, Value] = {}
    for param in signature.params:
        if param.name in operands:
            values[param.name] = lift(operands[param.name], PROGRAM)
        elif param.default is not REQUIRED:
            values[param.name] = lift(param.default, PROGRAM)
    return Call(signature, values, f"slot {next(_SLOTS)}", "here", timeout_s)


def wait(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@contextlib.contextmanager
def few_files(spare: int) -> Iterator[None]:
    """This process may open only so many files more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(spare):
            os.close(taken.pop())
        yield
    finally:
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
