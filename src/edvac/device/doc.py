"""Documents: text of plain text, HTML, e-mail and CSV files.

Parsing happens in a separate process without network and without any file but the interpreter's
own; the content is handed to it through a pipe. Where the system has no isolation the process still
runs, with limits, and a note says so.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import struct
import sys
import sysconfig
from pathlib import Path
from typing import Any

from edvac.core.errors import DeviceError, ProcessorError
from edvac.core.label import combine
from edvac.core.schema import STR
from edvac.core.signature import Effect, Signature, address_param
from edvac.core.value import Scalar
from edvac.device.files import Files, clean
from edvac.device.port import Call, Reply
from edvac.device.roots import fingerprint
from edvac.sandbox import Grant, Spec, command_line, probe

SIGNATURES = (
    Signature(
        "doc.text",
        (address_param(doc="a text, HTML, e-mail (.eml) or CSV file"),),
        STR,
        Effect.READ,
        "The text of a document, whatever its encoding.",
        reads=("path",),
        timeout_s=60.0,
    ),
)


class Documents:
    """The `doc` device."""

    signatures = SIGNATURES
    version = "1"

    def __init__(self, files: Files) -> None:
        self._files = files
        self._parser = Parser()

    async def call(self, call: Call) -> Reply:
        path = clean(call.text("path"))
        found = await self._files.fetch(path)
        answer = await self._parser.parse(path, found.content)
        if "error" in answer:
            raise DeviceError(
                "document_unreadable",
                f"{path!r} cannot be read: {answer['error']}",
                "",
                "Mend or remove the file, then run `edvac resume --retry`.",
            )
        return Reply(Scalar(answer["text"], combine([found.label])), notes=tuple(answer["notes"]))

    async def read_version(self, call: Call) -> str | None:
        return fingerprint((await self._files.fetch(clean(call.text("path")))).content)

    async def close(self) -> None:
        await self._parser.close()


class Parser:
    """The parsing process: started at the first document, ended with the run."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def parse(self, name: str, data: bytes) -> dict[str, Any]:
        """The answer of `edvac.device.parse`.

        Raises:
            ProcessorError: the process died; try again.
        """
        async with self._turn:
            if self._process is None or self._process.returncode is not None:
                self._process = await self._start()
            process = self._process
            assert process.stdin and process.stdout
            encoded = Path(name).name.encode()
            try:
                process.stdin.write(struct.pack(">II", len(encoded), len(data)) + encoded + data)
                await process.stdin.drain()
                (size,) = struct.unpack(">I", await process.stdout.readexactly(4))
                found: dict[str, Any] = json.loads(await process.stdout.readexactly(size))
            except (OSError, asyncio.IncompleteReadError) as problem:
                await self.close()
                raise ProcessorError(
                    "parser_died", f"the document parser died while reading {name!r}"
                ) from problem
            except asyncio.CancelledError:
                await self.close()  # an answer half read would be taken for the next one's
                raise
        return found

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *_command(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


@functools.cache
def _command() -> list[str]:
    """The interpreter on the parser's file alone, isolated where the system can."""
    script = str(Path(__file__).with_name("parse.py"))
    library = sysconfig.get_path("platlib")
    code = [sys.executable, "-s", "-E", "-B", script]
    if not probe().available:
        return ["prlimit", "--as=2147483648", "--nofile=64", "--core=0", "--", *code]
    wanted = {sys.prefix, sys.base_prefix, library, str(Path(sys.executable).parent), script}
    wanted.add(str(Path(os.path.realpath(sys.executable)).parent.parent))
    grants = tuple(
        Grant(Path(path), path) for path in sorted(wanted) if not (path + "/").startswith("/usr/")
    )
    return command_line(Spec(tuple(code), grants, memory_mb=2048, files_mb=64, processes=64))
