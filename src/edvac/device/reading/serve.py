"""The parser's process: reads framed requests from standard input and forks for each, so that one
document can neither crash nor change the reading of another.

A request is a header in JSON and the beginning of the document. While a document is read, its
process asks for more of it; all between it and edvac passes through here and is checked.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import IO, Any, NoReturn

from edvac.device.reading import ocr
from edvac.device.reading.heads import heads
from edvac.device.reading.parts import parts
from edvac.device.reading.place import Place
from edvac.device.reading.read import MALFORMED, read
from edvac.device.reading.refusal import Unreadable
from edvac.device.reading.source import BLOCK, Source

MAX_NOTES = 100
MAX_ANSWER = 64 * 1024 * 1024
_REQUEST = struct.Struct(">II")  # sizes of the header and of the beginning
_ASK = struct.Struct(">cQI")  # b"R", offset, size; b"M", 0, size of a piece of what is made; or
# b"A", 0, size of the answer
_SIZE = struct.Struct(">I")


def answer(
    header: dict[str, Any], source: Source, put: Callable[[bytes], None] | None = None
) -> dict[str, Any]:
    """What is said of one request; a file that it makes goes to `put`."""
    try:
        if header["op"].startswith("sql."):
            return _database(header, source, put)
        if header["op"] == "parts":
            found, notes = parts(header["name"], source, header["size"])
            return {"parts": found, "notes": _few(notes)}
        if header["op"] == "mails":
            mails, notes = heads(header["name"], source)
            return {"mails": [asdict(one) for one in mails], "notes": _few(notes)}
        part = Place(**header["part"]) if header.get("part") else None
        reading = read(header["name"], source, part)
        text = reading.text()
        text.encode()  # some declared encodings give halves of surrogate pairs
        return {"text": text, "notes": _few(reading.notes)}
    except Unreadable as problem:
        return {"error": str(problem), "kind": problem.kind}
    except MALFORMED as problem:
        why = f"it is malformed ({type(problem).__name__}: {str(problem)[:200]})"
        return {"error": why, "kind": "unreadable"}


def _database(
    header: dict[str, Any], source: Source, put: Callable[[bytes], None] | None
) -> dict[str, Any]:
    from edvac.device.reading import database, tables  # only here: most runs have no database

    match header["op"]:
        case "sql.query":
            return database.query(header, source)
        case "sql.compare":
            return {"text": json.dumps(tables.compare(header, source))}
    count, made = database.change(header, source)
    if put is not None:
        put(made)
    return {"count": count}


def _few(notes: list[str]) -> list[str]:
    return (
        notes
        if len(notes) <= MAX_NOTES
        else [*notes[:MAX_NOTES], f"and {len(notes) - MAX_NOTES} more notes"]
    )


def serve() -> None:
    """Until standard input ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _warm()
    while begun := source.read(_REQUEST.size):
        header_size, head_size = _REQUEST.unpack(begun)
        header = json.loads(source.read(header_size))
        reply = _in_child(header, source.read(head_size), source, sink)
        sink.write(_ASK.pack(b"A", 0, len(reply)) + reply)
        sink.flush()


def _warm() -> None:
    """Import once, before the forks."""
    import charset_normalizer
    import selectolax.lexbor

    assert charset_normalizer and selectolax.lexbor
    pillow = [f"PIL.{name}ImagePlugin" for name in ("Jpeg", "Png", "Tiff", "WebP")]
    for name in ("pypdfium2", "python_calamine", *pillow):
        try:
            __import__(name)
        except ImportError:
            pass  # an extra that is not installed; a document that needs it says so
    ocr.languages()


def _in_child(header: dict[str, Any], head: bytes, source: IO[bytes], sink: IO[bytes]) -> bytes:
    """The answer of a process of its own, whose questions and pieces are handed on."""
    asking, child_asks = os.pipe()
    child_reads, telling = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(asking)
        os.close(telling)
        _child(header, head, child_reads, child_asks)
    os.close(child_asks)
    os.close(child_reads)
    with os.fdopen(asking, "rb") as questions, os.fdopen(telling, "wb", 0) as answers:
        reply = _relay(header, questions, answers, (source, sink))
        if not reply:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    if reply and ended == 0:
        return reply
    why = f"its parser died (status {ended})"
    if ended == -signal.SIGXCPU:
        why = f"it took more than {header['seconds']} s of computing"
    elif ended == 0:
        why = "its parser gave no proper answer"
    elif ended in (-signal.SIGABRT, -signal.SIGSEGV):
        why = f"it is malformed or needs too much memory: its parser died (status {ended})"
    return json.dumps({"error": why, "kind": "unreadable"}).encode()


def _relay(
    header: dict[str, Any], questions: IO[bytes], answers: IO[bytes], edvac: tuple[IO[bytes], ...]
) -> bytes:
    """Hand questions on until the answer comes; empty where none does, or no honest one."""
    source, sink = edvac
    makes = header.get("makes", 0)
    while len(question := questions.read(_ASK.size)) == _ASK.size:
        kind, offset, size = _ASK.unpack(question)
        if kind == b"A" and size <= MAX_ANSWER:
            reply = questions.read(size)
            return reply if len(reply) == size else b""
        if kind == b"M" and size <= min(BLOCK, makes):
            piece = questions.read(size)
            if len(piece) != size:
                return b""
            makes -= size
            sink.write(question + piece)
            continue
        if kind != b"R" or size > BLOCK or offset + size > header["bytes"]:
            return b""
        sink.write(question)
        sink.flush()
        given = source.read(_SIZE.size)
        data = source.read(_SIZE.unpack(given)[0])
        try:
            for rest in (given, data):
                while rest:
                    rest = rest[answers.write(rest) :]
        except BrokenPipeError:
            return b""
    return b""


def _child(header: dict[str, Any], head: bytes, reading: int, asking: int) -> NoReturn:
    """Read one document, with nothing at hand but the two pipes."""
    seconds = header["seconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    code = 1
    try:
        reply = _reply(header, head, reading, asking)
        with os.fdopen(asking, "wb") as pipe:
            pipe.write(_ASK.pack(b"A", 0, len(reply)) + reply)
        code = 0
    finally:
        os._exit(code)


def _reply(header: dict[str, Any], head: bytes, reading: int, asking: int) -> bytes:
    def more(offset: int, size: int) -> bytes:
        if offset + size <= len(head):
            return head[offset : offset + size]
        _write(asking, _ASK.pack(b"R", offset, size))
        (given,) = _SIZE.unpack(_read(reading, _SIZE.size))
        if given != size:
            raise Unreadable("the file changed while it was read")
        return _read(reading, size)

    def put(made: bytes) -> None:
        for start in range(0, len(made), BLOCK):
            piece = made[start : start + BLOCK]
            _write(asking, _ASK.pack(b"M", 0, len(piece)) + piece)

    return json.dumps(answer(header, Source(header["bytes"], more), put)).encode()


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(descriptor, size)
        if not part:
            raise Unreadable("nobody gives it any more of the file")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    serve()
