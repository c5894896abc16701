"""The parsing process: how it is started, isolated, asked, and served with the document's bytes.

It has no network and no file but the interpreter's own; the bytes of the one document go to it
through a pipe, as it asks for them, so that a large one is never held as a whole. What it says is
checked like any hostile input.
"""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from edvac.core.errors import DeviceError, ProcessorError
from edvac.device.content import Content
from edvac.device.reading import ocr
from edvac.device.reading.place import MailHead, Place
from edvac.sandbox import Grant, Spec, bubblewrap, end, interpreter, start

READING = Path(__file__).with_name("reading")  # the modules that run inside
MAX_ANSWER = 128 * 1024 * 1024  # bytes that a parser may answer
BLOCK = 1 << 17  # bytes that it may ask for at once; of a whole document the first go along
MAX_READ = 16  # times the size of the document, in all
SECONDS = 20  # of computing for a document, and one more for each
PER_SECOND = 2_000_000  # bytes
NO_SANDBOX = "read without a sandbox: there is none here (see `edvac doctor`)"
WORKERS = 4  # processes; no more documents are begun at once, so none waits for a slow one's time

_REQUEST = struct.Struct(">II")
_ASK = struct.Struct(">cQI")
_SIZE = struct.Struct(">I")
_INSIDE = "/.edvac/edvac/device/reading"
_MAIN = (
    "import sys; sys.path.insert(0, {!r})\nfrom edvac.device.reading import serve; serve.serve()"
)


Atom: TypeAlias = str | int | float | bool | None


class Parsed(msgspec.Struct):
    """What a parser says.

    Attributes:
        columns, rows, count: of a database.
        made: a file that was asked for; it comes apart from the rest, in pieces.
    """

    text: str = ""
    parts: list[Place] = []
    mails: list[MailHead] = []
    notes: list[str] = []
    error: str = ""
    kind: str = ""
    columns: list[str] = []
    rows: list[list[Atom]] = []
    count: int = 0
    made: bytes = b""


class Parser:
    """One parsing process: started at its first document, ended with the run."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def ask(
        self, request: dict[str, Any], content: Content, *, stretch: bool = False
    ) -> Parsed:
        """The answer of `edvac.device.reading.serve`; a stretch has no use for the beginning.
        `makes` of the request is how many bytes of a new file it may make.

        Raises:
            ProcessorError: the process died or lied; try again with another parser.
            DeviceError: it cannot be started, or the document's disk refused.
        """
        name = str(request["name"])
        try:
            self._process = self._process or await _start()
        except OSError as problem:
            raise unread(name, f"its parser did not start: {problem.strerror}") from problem
        process = self._process
        assert process.stdin and process.stdout
        allowed = SECONDS + content.size // PER_SECOND
        header = msgspec.json.encode(request | {"bytes": content.size, "seconds": allowed})
        try:
            head = await asyncio.to_thread(content.read, 0, 0 if stretch else BLOCK)
        except OSError as problem:
            raise unread(name, f"{problem.strerror or problem}") from problem
        try:
            process.stdin.write(_REQUEST.pack(len(header), len(head)) + header + head)
            await process.stdin.drain()
            makes = int(request.get("makes", 0))
            return await self._serve(process.stdin, process.stdout, (name, makes), content)
        except (OSError, asyncio.IncompleteReadError, msgspec.DecodeError, struct.error) as problem:
            raise _died(name) from problem

    async def _serve(
        self,
        sink: asyncio.StreamWriter,
        source: asyncio.StreamReader,
        asked: tuple[str, int],
        content: Content,
    ) -> Parsed:
        """Hand over what is asked for, and take what is made, until the answer comes."""
        name, makes = asked
        left, made = MAX_READ * (content.size + BLOCK), bytearray()
        while True:
            kind, offset, size = _ASK.unpack(await source.readexactly(_ASK.size))
            if kind == b"A" and size <= MAX_ANSWER:
                answer = msgspec.json.decode(await source.readexactly(size), type=Parsed)
                answer.made = bytes(made)
                return answer
            if kind == b"M" and size <= BLOCK and len(made) + size <= makes:
                made += await source.readexactly(size)
                continue
            left -= max(size, BLOCK // 2)
            if kind != b"R" or size > BLOCK or offset + size > content.size or left < 0:
                raise _died(name)
            data = await asyncio.to_thread(content.read, offset, size)
            sink.write(_SIZE.pack(len(data)) + data)
            await sink.drain()

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end(process)


class Parsers:
    """A few parsing processes, kept for the next document; no more are read at once."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(WORKERS)
        self._idle: list[Parser] = []

    async def ask(
        self, request: dict[str, Any], content: Content, *, stretch: bool = False
    ) -> Parsed:
        """See `Parser.ask`."""
        async with self._room:
            parser = self._idle.pop() if self._idle else Parser()
            try:
                answer = await parser.ask(request, content, stretch=stretch)
                self._idle.append(parser)
            finally:
                if parser not in self._idle:
                    await parser.close()  # an answer half read would be taken for the next one's
        return answer

    async def close(self) -> None:
        idle, self._idle = self._idle, []
        for parser in idle:
            await parser.close()


def unread(path: str, why: str) -> DeviceError:
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
    """The interpreter on the reading modules alone, isolated where the system can."""
    if bubblewrap.probe().available:
        # They lie below empty packages of the names above them, so that they are imported as here.
        empty = READING / "__init__.py"
        grants = (
            *interpreter(),
            Grant(empty, "/.edvac/edvac/__init__.py"),
            Grant(empty, "/.edvac/edvac/device/__init__.py"),
            Grant(READING, _INSIDE),
        )
        code = (sys.executable, "-I", "-B", "-c", _MAIN.format("/.edvac"))
        return await start(Spec(code, grants, memory_mb=2048, files_mb=64, processes=64))
    limits = ["prlimit", "--as=2147483648", "--nofile=64", "--core=0", "--"]
    return await asyncio.create_subprocess_exec(
        *limits,
        *(sys.executable, "-I", "-B", "-c", _MAIN.format(str(READING.parents[2]))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        cwd="/",
        env={"PATH": ocr.PATH, "LC_ALL": "C.UTF-8"},
    )


def ocr_version() -> str:
    """What tesseract here says of itself and its languages, which decides what it reads; empty
    where there is none."""
    found = ocr.program()
    if found is None:
        return ""
    try:
        said = [
            subprocess.run(
                [found, option], capture_output=True, timeout=10, check=False, env=ocr.ENV
            ).stdout
            for option in ("--version", "--list-langs")
        ]
    except (OSError, subprocess.TimeoutExpired):
        return "tesseract ?"
    return "/".join(" ".join(one.decode(errors="replace").split()) for one in said)
