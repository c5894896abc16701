"""`python.run` and `shell.run`: code of the program's own text, inside the sandbox.

What `reads` and `writes` declare is what is mounted: declaration and enforcement are one. Files
under `reads` appear read-only below ``/work``; what `writes` names afterwards becomes new versions
in the run's store; everything else that the command leaves behind is gone. Data comes in by name:
variables in Python, environment in the shell; decimals and dates come as text.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edvac.core.errors import DeviceError
from edvac.core.label import Label, combine
from edvac.core.schema import ANY, STR, DictOf, ListOf
from edvac.core.signature import Effect, Param, Role, Signature
from edvac.core.value import Scalar, total_label
from edvac.device import checking
from edvac.device.files import Files, clean, writable
from edvac.device.glob import covers, is_glob
from edvac.device.port import Call, NewFile, Reply
from edvac.device.roots import Listing, Roots, fingerprint
from edvac.sandbox import Completed, Grant, Spec, bubblewrap, interpreter

MAX_WRITTEN = 256 * 1024 * 1024  # bytes of all files that one call may leave


def _paths(name: str) -> Param:
    return Param(name, ListOf(STR), default=[], role=Role.ADDRESS, keyword_only=True, glob=True)


def _signature(op: str, doc: str) -> Signature:
    return Signature(
        op,
        (
            Param("code", STR, role=Role.CODE, doc="a string literal"),
            Param("data", DictOf(ANY), default={}, keyword_only=True, doc="values, by name"),
            _paths("reads"),
            _paths("writes"),
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
    checking.SIGNATURE,
)

# Runs the code as a file of its own, so that its line numbers are the program's, and with only this
# directory to import from besides the library: a file that is read is never taken for a module.
_RUNNER = (
    "import json, runpy\n"
    "with open('/.edvac/data.json', encoding='utf-8') as file:\n"
    "    data = json.load(file)\n"
    "runpy.run_path('/.edvac/code', data, '__main__')\n"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Names that would change how the shell or Python work instead of handing a value to the code.
_TAKEN = re.compile(r"PATH|HOME|TMPDIR|LANG|LC_.*|LD_.*|IFS|ENV|BASH.*|PS[0-9]|PYTHON.*|__.*")


@dataclass(frozen=True, slots=True)
class _Staged:
    """A call's directory: what it may see, and who has influenced that."""

    work: Path
    grants: tuple[Grant, ...]
    label: Label
    before: dict[str, str]  # fingerprints of what it reads
    writes: tuple[str, ...]
    notes: tuple[str, ...]


class Processes:
    """The `python` and `shell` devices."""

    signatures = SIGNATURES
    version = f"2/{sys.version_info.major}.{sys.version_info.minor}"

    def __init__(self, files: Files) -> None:
        self._files = files  # all is read through them, so that what the run wrote counts

    async def call(self, call: Call) -> Reply:
        bubblewrap.require()
        try:
            if call.signature.op == checking.SIGNATURE.op:
                return await self._checked(call)
            check_names(call.data("data"))
            writes = tuple(writable(pattern) for pattern in call.data("writes"))
            return await self._carried_out(call, writes)
        except OSError as problem:
            raise _no_room(call, problem) from problem

    async def _checked(self, call: Call) -> Reply:
        """A verdict on files as they are now; the tests as they were before the run."""
        checking.libraries()
        paths, tests = [], []
        for path in map(clean, call.data("tests")):
            if await self._files.written(path):
                raise checking.changed(path)
            tests.append(path)
        root = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="edvac-call-"))
        try:
            work, control = root / "work", root / "edvac"
            work.mkdir()
            control.mkdir()
            found, label, _ = await self._laid_out(call, work, ("paths", "reads", "tests"))
            for pattern in map(clean, call.data("paths")):
                matching = [path for path in sorted(found) if covers(pattern, path)]
                paths += matching or [pattern]
            asked = checking.Checked(
                tuple(dict.fromkeys(paths)), tuple(tests), call.data("seconds")
            )
            spec = checking.spec_of(asked, work, control, _inside())
            return Reply(await checking.verdict(spec, label))
        finally:
            await asyncio.to_thread(_remove, root)

    async def _carried_out(self, call: Call, writes: tuple[str, ...]) -> Reply:
        root = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="edvac-call-"))
        try:
            staged = await self._stage(call, root, writes)
            done = await bubblewrap.run(_spec(call, staged))
            if done.status != 0:
                raise _failed(call, done)
            files, notes = await asyncio.to_thread(_collect, call, staged)
        finally:
            await asyncio.to_thread(_remove, root)
        text = done.stdout.decode(errors="replace").rstrip("\n")
        return Reply(Scalar(text, staged.label), files, (*staged.notes, *notes))

    async def read_version(self, call: Call) -> str | None:
        if call.signature.writes and call.data("writes"):
            return None
        patterns = [pattern for name in call.signature.reads for pattern in call.data(name)]
        seen = [
            f"{path}={fingerprint((await self._files.fetch(path)).content)}"
            for path in sorted((await self._files.named(patterns)).labels)
        ]
        return fingerprint("\n".join(seen).encode())

    async def _stage(self, call: Call, root: Path, writes: tuple[str, ...]) -> _Staged:
        """Copies of the declared inputs, the data and the code, in a directory of this call."""
        work, control = root / "work", root / "edvac"
        work.mkdir()
        control.mkdir()
        before, label, notes = await self._laid_out(call, work, ("reads",))
        for path in before:
            if not any(covers(pattern, path) for pattern in writes):
                (work / path).chmod(0o444)
        for pattern in writes:
            above = list(
                itertools.takewhile(lambda part: not is_glob(part), pattern.split("/")[:-1])
            )
            work.joinpath(*above).mkdir(parents=True, exist_ok=True)
        (control / "data.json").write_text(
            json.dumps(call.data("data"), default=str), encoding="utf-8"
        )
        (control / "run").write_text(_RUNNER, encoding="utf-8")
        code = call.text("code").encode(errors="surrogatepass")
        (control / "code").write_bytes(code)
        grants = (Grant(work, _inside(), write=True), Grant(control, "/.edvac"))
        return _Staged(work, grants, label, before, writes, notes)

    async def _laid_out(
        self, call: Call, work: Path, names: tuple[str, ...]
    ) -> tuple[dict[str, str], Label, tuple[str, ...]]:
        """Copies of the files that operands declare: their fingerprints, who has influenced the
        call by them, and what there is to say."""
        found = await self._files.named([path for name in names for path in call.data(name)])
        labels = [total_label(operand) for operand in call.operands.values()]
        labels += [found.shape, *found.labels.values()]
        before: dict[str, str] = {}
        for path in sorted(found.labels):
            held = await self._files.fetch(path)
            labels.append(held.label)
            await asyncio.to_thread(_put, work / path, held.content)
            before[path] = fingerprint(held.content)
        return before, combine(labels), found.notes


def _spec(call: Call, staged: _Staged) -> Spec:
    timeout = max(0.1, call.timeout_s - 1)
    if call.signature.device == "python":
        argv: tuple[str, ...] = (sys.executable, "-I", "-B", "/.edvac/run")
        return Spec(argv, interpreter() + staged.grants, cwd=_inside(), timeout_s=timeout)
    env = {name: _env(name, item) for name, item in call.data("data").items()}
    argv = ("/bin/sh", "/.edvac/code")
    return Spec(argv, staged.grants, cwd=_inside(), env=env, timeout_s=timeout)


def _inside() -> str:
    """Where a call's files appear; elsewhere if the interpreter itself lives below ``/work``."""
    taken = any((grant.inside + "/").startswith("/work/") for grant in interpreter())
    return "/call" if taken else "/work"


def _put(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def check_names(names: Iterable[str]) -> None:
    """Refuse names of data that the shell or Python would take for something else.

    Raises:
        DeviceError: not a plain name, or one with a meaning of its own.
    """
    for name in names:
        if not _NAME.fullmatch(name) or _TAKEN.fullmatch(name):
            raise DeviceError(
                "data_name_illegal",
                f"{name!r} cannot be the name of a value given to a process",
                "It is no plain name, or one that changes how the process works.",
                "Use letters, digits and underscores, such as data={'rows': rows}.",
            )


def _env(name: str, item: Any) -> str:
    text = item if isinstance(item, str) else json.dumps(item, default=str, ensure_ascii=False)
    size = len(text.encode(errors="replace"))
    if "\x00" in text or size > 100_000 or not _is_utf8(text):
        raise DeviceError(
            "data_too_large",
            f"the value {name!r} given to shell.run does not fit into its environment",
            "Values go in as environment variables: text of at most 100,000 bytes without NUL.",
            "Write it to a file first and declare that under reads=.",
        )
    return text


def _is_utf8(text: str) -> bool:
    return not any(0xD800 <= ord(char) < 0xE000 for char in text)


def _failed(call: Call, done: Completed) -> DeviceError:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    tail = [line.strip() for line in lines if line.strip(" ^~")][-3:]
    status = f"status {done.status}"
    if done.status < 0 or done.status > 128:
        number = -done.status if done.status < 0 else done.status - 128
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        status += f" ({name})"
    return DeviceError(
        "process_failed",
        f"{call.signature.op} ended with {status}",
        " / ".join(tail)[:400] or "It wrote nothing to standard error.",
        "See `edvac show` for its code; the sandbox has no network and only declared files.",
    )


def _no_room(call: Call, problem: OSError) -> DeviceError:
    return DeviceError(
        "staging_failed",
        f"the files of {call.signature.op} could not be laid out",
        f"{problem.strerror or problem}.",
        "Make room in the directory for temporary files, or declare fewer.",
    )


def _collect(call: Call, staged: _Staged) -> tuple[tuple[NewFile, ...], list[str]]:
    """New or changed files that the call declared under `writes`; read without following links,
    for what the call left behind may point anywhere."""
    found: dict[str, bytes] = {}
    left: set[str] = set()
    size = 0
    roots = Roots({"": staged.work})
    try:
        for pattern in staged.writes:
            listed = _written(roots, pattern)
            left |= set(listed.notes())
            for path, status in listed.found:
                if path in found:
                    continue
                size += status.size
                if size > MAX_WRITTEN:
                    raise _too_much(call)
                found[writable(path)] = roots.read(path, MAX_WRITTEN)
        mine = [p for p in staged.before if any(covers(w, p) for w in staged.writes)]
        gone = [path for path in mine if path not in found and not roots.exists(path)]
    finally:
        roots.close()
    changed = [p for p in sorted(found) if staged.before.get(p) != fingerprint(found[p])]
    files = [NewFile(path, found[path], staged.label) for path in changed]
    files += [NewFile(path, None, staged.label) for path in gone]
    return tuple(files), sorted(left)


def _written(roots: Roots, pattern: str) -> Listing:
    """What a declared pattern names: itself, what it matches, what lies below it."""
    if roots.exists(pattern):
        return Listing([(pattern, roots.stat(pattern))])
    listed = roots.matching(pattern)
    if not is_glob(pattern):
        listed = roots.matching(f"{pattern}/**")
    return listed


def _too_much(call: Call) -> DeviceError:
    return DeviceError(
        "too_much_written",
        f"{call.signature.op} wrote more than {MAX_WRITTEN // 2**20} MiB of files",
        "They are kept by the run until it is removed.",
        "Write less, or split the step.",
    )


def _remove(root: Path) -> None:
    """The call's directory goes, whatever the call has done to it."""
    try:
        shutil.rmtree(root, ignore_errors=True)
    except RecursionError:
        pass  # directories too deep for it; the system's own tool goes on
    if root.exists():
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, "--", str(root)], capture_output=True, check=False)
