"""`python.run` and `shell.run`: code of the program's own text, inside the sandbox.

What `reads` and `writes` declare is what is mounted: declaration and enforcement are one. Files
under `reads` appear read-only below ``/work``; what `writes` names afterwards becomes new versions
in the run's store; everything else that the command leaves behind is gone. Data comes in by name:
variables in Python, environment in the shell; decimals and dates come as text.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edvac.core.errors import DeviceError
from edvac.core.label import Label, combine
from edvac.core.schema import ANY, STR, DictOf, ListOf
from edvac.core.signature import Effect, Param, Role, Signature
from edvac.core.value import Scalar, total_label
from edvac.device import checking
from edvac.device.carried import Carry, Laid, carry_out, inside, prepare, remove, versions
from edvac.device.files import Files, clean, writable
from edvac.device.glob import covers
from edvac.device.port import Call, NewFile, Reply
from edvac.device.roots import fingerprint
from edvac.sandbox import Completed, bubblewrap


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


class Processes:
    """The `python` and `shell` devices."""

    signatures = SIGNATURES
    version = f"2/{versions()}"

    def __init__(self, files: Files, carry: Carry = carry_out) -> None:
        self._files = files  # all is read through them, so that what the run wrote counts
        self.carry = carry  # out what has been laid out: here, or somewhere else

    async def call(self, call: Call) -> Reply:
        try:
            if call.signature.op == checking.SIGNATURE.op:
                bubblewrap.require()
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
            spec = checking.spec_of(asked, work, control, inside())
            return Reply(await checking.verdict(spec, label))
        finally:
            await asyncio.to_thread(remove, root)

    async def _carried_out(self, call: Call, writes: tuple[str, ...]) -> Reply:
        root = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="edvac-call-"))
        try:
            laid, label, notes = await self._stage(call, root, writes)
            made = await self.carry(laid)
        finally:
            await asyncio.to_thread(remove, root)
        if made.done.status != 0:
            raise _failed(call, made.done)
        text = made.done.stdout.decode(errors="replace").rstrip("\n")
        files = []
        for path, content in made.files.items():
            if not laid.may_write(path) or (content is None and path not in laid.before):
                raise _undeclared(call, path)
            files.append(NewFile(writable(path), content, label))
        return Reply(Scalar(text, label), tuple(files), (*notes, *made.notes))

    async def read_version(self, call: Call) -> str | None:
        if call.signature.writes and call.data("writes"):
            return None
        patterns = [pattern for name in call.signature.reads for pattern in call.data(name)]
        seen = [
            f"{path}={fingerprint((await self._files.fetch(path)).content)}"
            for path in sorted((await self._files.named(patterns)).labels)
        ]
        return fingerprint("\n".join(seen).encode())

    async def _stage(
        self, call: Call, root: Path, writes: tuple[str, ...]
    ) -> tuple[Laid, Label, tuple[str, ...]]:
        """Copies of the declared inputs, the data and the code, in a directory of this call; who
        has influenced it, and what there is to say."""
        env: dict[str, str] = {}
        if call.signature.device == "shell":
            env = {name: _env(name, item) for name, item in call.data("data").items()}
        work, control = root / "work", root / "edvac"
        work.mkdir()
        control.mkdir()
        before, label, notes = await self._laid_out(call, work, ("reads",))
        (control / "data.json").write_text(
            json.dumps(call.data("data"), default=str), encoding="utf-8"
        )
        (control / "run").write_text(_RUNNER, encoding="utf-8")
        code = call.text("code").encode(errors="surrogatepass")
        (control / "code").write_bytes(code)
        laid = Laid(root, call.signature.op, call.slot, env, before, writes, call.timeout_s)
        prepare(laid)
        return laid, label, notes

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


def _undeclared(call: Call, path: str) -> DeviceError:
    return DeviceError(
        "write_undeclared",
        f"{call.signature.op} came back with {path!r}, which it may not write",
        "Somebody else carried it out, and its answer does not keep to `writes`.",
        "Look after the machines whose workers have this store's URL.",
    )


def _no_room(call: Call, problem: OSError) -> DeviceError:
    return DeviceError(
        "staging_failed",
        f"the files of {call.signature.op} could not be laid out",
        f"{problem.strerror or problem}.",
        "Make room in the directory for temporary files, or declare fewer.",
    )
