"""One sandboxed call with all that it may see laid out: carried out here, or wherever its directory
has been copied to.

Knows nothing of runs, labels or where the files came from.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edvac.core.errors import DeviceError
from edvac.device.glob import covers, is_glob
from edvac.device.roots import Listing, Roots, fingerprint
from edvac.sandbox import Completed, Grant, Spec, bubblewrap, interpreter

MAX_WRITTEN = 256 * 1024 * 1024  # bytes of all files that one call may leave


@dataclass(frozen=True, slots=True)
class Laid:
    """A call whose files, data and code lie in `root`, below `work` and `edvac`.

    Attributes:
        slot: of the step that it is.
        env: what a shell sees beside a few constants.
        before: fingerprints of the files that it reads, by path.
        writes: patterns of what it may leave.
    """

    root: Path
    op: str
    slot: str
    env: Mapping[str, str]
    before: Mapping[str, str]
    writes: tuple[str, ...]
    timeout_s: float

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def control(self) -> Path:
        return self.root / "edvac"

    def may_write(self, path: str) -> bool:
        return any(covers(pattern, path) for pattern in self.writes)


@dataclass(frozen=True, slots=True)
class Made:
    """What a call came to. `files` holds what is new or changed, None for what it removed; nothing
    where its status says that it failed."""

    done: Completed
    files: Mapping[str, bytes | None]
    notes: tuple[str, ...] = ()


Carry: TypeAlias = Callable[[Laid], Awaitable[Made]]


def versions() -> str:
    """What of the interpreter decides what a call comes to."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def prepare(laid: Laid) -> None:
    """What is only read cannot be written, and where something may be written is a directory."""
    for path in laid.before:
        if not laid.may_write(path):
            (laid.work / path).chmod(0o444)
    for pattern in laid.writes:
        above = itertools.takewhile(lambda part: not is_glob(part), pattern.split("/")[:-1])
        laid.work.joinpath(*above).mkdir(parents=True, exist_ok=True)


async def carry_out(laid: Laid) -> Made:
    """On this machine, in its sandbox.

    Raises:
        SandboxError: there is none here, or it stopped the call.
        DeviceError: it wrote too much.
    """
    bubblewrap.require()
    done = await bubblewrap.run(_spec(laid))
    if done.status != 0:
        return Made(done, {})
    return await asyncio.to_thread(_collect, laid, done)


def inside() -> str:
    """Where a call's files appear; elsewhere if the interpreter itself lives below ``/work``."""
    taken = any((grant.inside + "/").startswith("/work/") for grant in interpreter())
    return "/call" if taken else "/work"


def remove(root: Path) -> None:
    """The call's directory goes, whatever the call has done to it."""
    try:
        shutil.rmtree(root, ignore_errors=True)
    except RecursionError:
        pass  # directories too deep for it; the system's own tool goes on
    if root.exists():
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, "--", str(root)], capture_output=True, check=False)


def _spec(laid: Laid) -> Spec:
    timeout = max(0.1, laid.timeout_s - 1)
    grants = (Grant(laid.work, inside(), write=True), Grant(laid.control, "/.edvac"))
    if laid.op.startswith("python."):
        argv: tuple[str, ...] = (sys.executable, "-I", "-B", "/.edvac/run")
        return Spec(argv, interpreter() + grants, cwd=inside(), timeout_s=timeout)
    argv = ("/bin/sh", "/.edvac/code")
    return Spec(argv, grants, cwd=inside(), env=dict(laid.env), timeout_s=timeout)


def _collect(laid: Laid, done: Completed) -> Made:
    """New or changed files that the call declared under `writes`; read without following links,
    for what the call left behind may point anywhere."""
    found: dict[str, bytes] = {}
    left: set[str] = set()
    size = 0
    roots = Roots({"": laid.work})
    try:
        for pattern in laid.writes:
            listed = _written(roots, pattern)
            left |= set(listed.notes())
            for path, status in listed.found:
                if path in found:
                    continue
                size += status.size
                if size > MAX_WRITTEN:
                    raise _too_much(laid.op)
                found[path] = roots.read(path, MAX_WRITTEN)
        mine = [path for path in laid.before if laid.may_write(path)]
        gone = [path for path in mine if path not in found and not roots.exists(path)]
    finally:
        roots.close()
    changed = [p for p in sorted(found) if laid.before.get(p) != fingerprint(found[p])]
    files: dict[str, bytes | None] = {path: found[path] for path in changed}
    return Made(done, files | dict.fromkeys(gone), tuple(sorted(left)))


def _written(roots: Roots, pattern: str) -> Listing:
    """What a declared pattern names: itself, what it matches, what lies below it."""
    if roots.exists(pattern):
        return Listing([(pattern, roots.stat(pattern))])
    listed = roots.matching(pattern)
    if not is_glob(pattern):
        listed = roots.matching(f"{pattern}/**")
    return listed


def _too_much(op: str) -> DeviceError:
    return DeviceError(
        "too_much_written",
        f"{op} wrote more than {MAX_WRITTEN // 2**20} MiB of files",
        "They are kept by the run until it is removed.",
        "Write less, or split the step.",
    )
