"""Documents: text of plain text, HTML, e-mail and CSV files.

Parsing happens in a separate process without network and without any file but the interpreter's
own; the content is handed to it through a pipe. Where the system has no isolation the process still
runs, with limits and a clean environment, and a note says so.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from pathlib import Path

import msgspec

from edvac.core.errors import DeviceError, ProcessorError
from edvac.core.label import combine
from edvac.core.schema import STR
from edvac.core.signature import Effect, Signature, address_param
from edvac.core.value import Scalar
from edvac.device.files import Files, clean
from edvac.device.port import Call, Reply
from edvac.device.roots import fingerprint
from edvac.sandbox import Grant, Spec, bubblewrap, end, interpreter, start

WORKERS = 4  # processes; no more documents are begun at once, so none waits for a slow one's time
MAX_ANSWER = 128 * 1024 * 1024  # bytes that a parser may answer

SIGNATURES = (
    Signature(
        "doc.text",
        (address_param(doc="a text, HTML, e-mail (.eml) or CSV file"),),
        STR,
        Effect.READ,
        "The text of a document, whatever its encoding.",
        reads=("path",),
        limit=WORKERS,
        timeout_s=60.0,
    ),
)


class Documents:
    """The `doc` device."""

    signatures = SIGNATURES
    version = "2"

    def __init__(self, files: Files) -> None:
        self._files = files
        self._room = asyncio.Semaphore(WORKERS)
        self._idle: list[Parser] = []

    async def call(self, call: Call) -> Reply:
        path = clean(call.text("path"))
        found = await self._files.fetch(path)
        async with self._room:
            parser = self._idle.pop() if self._idle else Parser()
            try:
                answer = await parser.parse(path, found.content)
                self._idle.append(parser)
            finally:
                if parser not in self._idle:
                    await parser.close()  # an answer half read would be taken for the next one's
        if answer.error:
            raise _unread(path, answer.error)
        notes = list(answer.notes)
        if not bubblewrap.probe().available:
            notes.append("read without a sandbox: there is none here (see `edvac doctor`)")
        return Reply(Scalar(answer.text, combine([found.label])), notes=tuple(notes))

    async def read_version(self, call: Call) -> str | None:
        return fingerprint((await self._files.fetch(clean(call.text("path")))).content)

    async def close(self) -> None:
        idle, self._idle = self._idle, []
        for parser in idle:
            await parser.close()


class Parsed(msgspec.Struct):
    """What a parser says. It read hostile input: its answer is checked like any other."""

    text: str = ""
    notes: list[str] = []
    error: str = ""


class Parser:
    """One parsing process: started at its first document, ended with the run."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def parse(self, name: str, data: bytes) -> Parsed:
        """The answer of `edvac.device.parse`.

        Raises:
            ProcessorError: the process died; try again with another parser.
            DeviceError: it cannot be started.
        """
        if self._process is None:
            try:
                self._process = await _start()
            except OSError as problem:
                raise _unread(name, f"its parser did not start: {problem.strerror}") from problem
        process = self._process
        assert process.stdin and process.stdout
        encoded = Path(name).name.encode()
        try:
            process.stdin.write(struct.pack(">II", len(encoded), len(data)) + encoded + data)
            await process.stdin.drain()
            (size,) = struct.unpack(">I", await process.stdout.readexactly(4))
            if size > MAX_ANSWER:
                raise _died(name)
            return msgspec.json.decode(await process.stdout.readexactly(size), type=Parsed)
        except (OSError, asyncio.IncompleteReadError, msgspec.DecodeError) as problem:
            raise _died(name) from problem

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end(process)


def _unread(path: str, why: str) -> DeviceError:
    return DeviceError(
        "document_unreadable",
        f"{path!r} cannot be read",
        f"{why[0].upper()}{why[1:]}.",
        "Mend that or remove the file, then run `edvac resume --retry`.",
    )


def _died(name: str) -> ProcessorError:
    return ProcessorError(
        "parser_died",
        f"the document parser died while reading {name!r}",
        "Nothing else is affected.",
        "It is tried again; if that fails too, remove the file.",
    )


async def _start() -> asyncio.subprocess.Process:
    """The interpreter on the parser's file alone, isolated where the system can."""
    script = Path(__file__).with_name("parse.py")
    if bubblewrap.probe().available:
        code = (sys.executable, "-I", "-B", "/.edvac/parse.py")
        grants = (*interpreter(), Grant(script, "/.edvac/parse.py"))
        return await start(Spec(code, grants, memory_mb=2048, files_mb=64, processes=64))
    limits = ["prlimit", "--as=2147483648", "--nofile=64", "--core=0", "--"]
    return await asyncio.create_subprocess_exec(
        *limits,
        *(sys.executable, "-I", "-B", str(script)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
