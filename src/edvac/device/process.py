"""`python.run` and `shell.run`: code of the program's own text, inside the sandbox.

What `reads` and `writes` declare is what is mounted: declaration and enforcement are one. Files
under `reads` appear read-only below ``/work``; what matches `writes` afterwards becomes new
versions in the run's store; everything else
that the command leaves behind is gone. Data comes in by name: variables in Python, environment in
the shell.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edvac.core.errors import DeviceError
from edvac.core.label import Label, combine
from edvac.core.schema import ANY, STR, DictOf, ListOf
from edvac.core.signature import Effect, Param, Role, Signature, overlap
from edvac.core.value import Scalar, total_label
from edvac.device.files import Files, clean
from edvac.device.port import Call, NewFile, Reply
from edvac.device.roots import Roots, fingerprint
from edvac.sandbox import Completed, Grant, Spec, run
from edvac.sandbox.bubblewrap import require

MAX_WRITTEN = 256 * 1024 * 1024  # bytes of all files that one call may leave


def _signature(op: str, doc: str) -> Signature:
    return Signature(
        op,
        (
            Param("code", STR, role=Role.CODE, doc="a string literal"),
            Param("data", DictOf(ANY), default={}, keyword_only=True, doc="values, by name"),
            Param("reads", ListOf(STR), default=[], role=Role.ADDRESS, keyword_only=True),
            Param("writes", ListOf(STR), default=[], role=Role.ADDRESS, keyword_only=True),
        ),
        STR,
        Effect.WRITE,
        doc,
        reads=("reads",),
        writes=("writes",),
        timeout_s=300.0,
    )


SIGNATURES = (
    _signature("python.run", "Run Python code in a sandbox; returns what it prints."),
    _signature("shell.run", "Run a shell command in a sandbox; returns what it prints."),
)

_PRELUDE = (
    "import json as _json\n"
    "with open('/edvac/data.json', encoding='utf-8') as _file:\n"
    "    globals().update(_json.load(_file))\n"
    "del _file, _json\n"
)


@dataclass(frozen=True, slots=True)
class _Staged:
    root: Path
    grants: tuple[Grant, ...]
    label: Label
    reads: tuple[str, ...]


class Processes:
    """The `python` and `shell` devices."""

    signatures = SIGNATURES
    version = f"1/{sys.version_info.major}.{sys.version_info.minor}"

    def __init__(self, files: Files, roots: Roots) -> None:
        self._files = files
        self._roots = roots

    async def call(self, call: Call) -> Reply:
        require()
        root = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="edvac-call-"))
        try:
            staged = await self._stage(call, root)
            done = await run(self._spec(call, staged))
            if done.status != 0:
                raise _failed(call, done)
            label = combine([total_label(v) for v in call.operands.values()] + [staged.label])
            files = await asyncio.to_thread(_collect, call, root / "work", label, staged.reads)
        finally:
            await asyncio.to_thread(shutil.rmtree, root, True)
        return Reply(Scalar(done.stdout.decode(errors="replace").rstrip("\n"), label), files)

    async def read_version(self, call: Call) -> str | None:
        if call.data("writes"):
            return None
        seen = [
            f"{path}={fingerprint((await self._files.fetch(path)).content)}"
            for path in await self._inputs(call)
        ]
        return fingerprint("\n".join(seen).encode())

    async def _inputs(self, call: Call) -> list[str]:
        found: list[str] = []
        for pattern in call.data("reads"):
            found += await self._files.paths(clean(pattern))
        return sorted(set(found))

    async def _stage(self, call: Call, root: Path) -> _Staged:
        """Copies of the declared inputs, the data and the code, in a directory of this call."""
        work, control = root / "work", root / "edvac"
        work.mkdir()
        control.mkdir()
        labels: list[Label] = []
        paths = await self._inputs(call)
        for path in paths:
            held = await self._files.fetch(path)
            labels.append(held.label)
            target = work / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(held.content)
            if not any(overlap(path, pattern) for pattern in call.data("writes")):
                target.chmod(0o444)
        for pattern in call.data("writes"):
            (work / clean(pattern)).parent.mkdir(parents=True, exist_ok=True)
        data = call.data("data")
        (control / "data.json").write_text(
            json.dumps(data, default=str, ensure_ascii=False), encoding="utf-8"
        )
        code = call.text("code")
        prelude = _PRELUDE if call.signature.device == "python" else ""
        (control / "code").write_text(prelude + code, encoding="utf-8")
        grants = (Grant(work, "/work", write=True), Grant(control, "/edvac"))
        return _Staged(root, grants, combine(labels), tuple(paths))

    def _spec(self, call: Call, staged: _Staged) -> Spec:
        timeout = call.timeout_s - 1
        if call.signature.device == "python":
            argv: tuple[str, ...] = (sys.executable, "-s", "-E", "-B", "/edvac/code")
            return Spec(argv, _runtime() + staged.grants, cwd="/work", timeout_s=timeout)
        env = {name: _env(item) for name, item in call.data("data").items()}
        argv = ("/bin/sh", "/edvac/code")
        return Spec(argv, staged.grants, cwd="/work", env=env, timeout_s=timeout)


def _env(item: Any) -> str:
    text = item if isinstance(item, str) else json.dumps(item, default=str, ensure_ascii=False)
    if "\x00" in text or len(text.encode()) > 100_000:
        raise DeviceError(
            "data_too_large",
            "a value given to shell.run does not fit into its environment",
            "Values go in as environment variables of at most 100,000 bytes.",
            "Write it to a file first and declare that under reads=.",
        )
    return text


def _runtime() -> tuple[Grant, ...]:
    """The interpreter's own directories, read-only."""
    real = Path(os.path.realpath(sys.executable)).parent.parent
    wanted = {sys.prefix, sys.base_prefix, sysconfig.get_path("platlib"), str(real)}
    return tuple(
        Grant(Path(path), path) for path in sorted(wanted) if not (path + "/").startswith("/usr/")
    )


def _failed(call: Call, done: Completed) -> DeviceError:
    tail = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
    return DeviceError(
        "process_failed",
        f"{call.signature.op} ended with status {done.status}",
        " / ".join(tail)[:400],
        "See `edvac show` for its code; the sandbox has no network and only declared files.",
    )


def _collect(call: Call, work: Path, label: Label, read: tuple[str, ...]) -> tuple[NewFile, ...]:
    """New or changed files that the call declared under `writes`."""
    patterns = [clean(pattern) for pattern in call.data("writes")]
    found: list[NewFile] = []
    size = 0
    for host in sorted(work.rglob("*")):
        path = host.relative_to(work).as_posix()
        if host.is_symlink() or not host.is_file():
            continue
        if not any(overlap(path, pattern) for pattern in patterns):
            continue
        size += host.stat().st_size
        if size > MAX_WRITTEN:
            raise DeviceError(
                "too_much_written",
                f"{call.signature.op} wrote more than {MAX_WRITTEN // 2**20} MiB of files",
            )
        found.append(NewFile(path, host.read_bytes(), label))
    gone = [p for p in read if any(overlap(p, w) for w in patterns) and not (work / p).exists()]
    return tuple(found) + tuple(NewFile(path, None, label) for path in gone)
