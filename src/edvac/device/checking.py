"""`python.check`: does the Python that a program has written hold? Syntax, names, tests.

It runs in the sandbox, over a copy of the declared files that is gone afterwards: nothing that the
checked code does can change what it is checked by, and the call writes nothing. Code that does not
end, or takes too much, is code that does not pass. Files named under `tests` are taken as they were
before the run; a run that has changed one is refused.

Knows nothing of who wrote the code or of what comes of the verdict.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edvac.core.errors import ConfigError, DeviceError, SandboxError
from edvac.core.label import Label
from edvac.core.schema import BOOL, INT, STR, Field, ListOf, Record
from edvac.core.signature import Effect, Param, Role, Signature
from edvac.core.value import Instance, Scalar, Value
from edvac.sandbox import Completed, Grant, Spec, bubblewrap, interpreter

VERDICT = Record(
    "Verdict",
    (
        Field("ok", BOOL, "nothing was found wrong, and every test passed"),
        Field("passed", INT, "tests that passed"),
        Field("failed", INT, "tests that did not"),
        Field("said", STR, "what is wrong, for whoever repairs it; empty where nothing is"),
    ),
)
SAID_CHARS = 6_000  # of what is wrong: what a small context can still hold
SECONDS = 60
MEMORY_MB = 1024


def _paths(name: str, doc: str, **more: Any) -> Param:
    return Param(name, ListOf(STR), role=Role.ADDRESS, glob=True, doc=doc, **more)


SIGNATURE = Signature(
    "python.check",
    (
        _paths("paths", "the code, and tests of its own: test_*.py"),
        _paths("reads", "what it needs besides", default=[], keyword_only=True),
        _paths("tests", "tests that nobody may change", default=[], keyword_only=True),
        Param("seconds", INT, default=SECONDS, keyword_only=True, doc="for all of it"),
    ),
    VERDICT,
    Effect.READ,
    "Check Python files in a sandbox: syntax, names that are not there, tests. Needs the extra "
    "`check`.",
    reads=("paths", "reads", "tests"),
    timeout_s=300.0,
    planned=False,
)

# What the checker runs with, found beside edvac and laid into the sandbox by name.
_LIBRARIES = ("pyflakes", "pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments")
_CHECKER = Path(__file__).with_name("checker.py")


@dataclass(frozen=True, slots=True)
class Checked:
    """What one call asks: paths below the sandbox's directory of files."""

    paths: tuple[str, ...]
    tests: tuple[str, ...]
    seconds: int


@functools.cache
def libraries() -> tuple[Grant, ...]:
    """The checker's libraries as they appear inside.

    Raises:
        ConfigError: they are not installed.
    """
    found: list[Grant] = []
    for name in _LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin:
            raise ConfigError(
                "checker_missing",
                f"python.check needs {name}, which is not installed",
                "It comes with an extra of its own.",
                "Install it: pip install 'edvac[check]'.",
            )
        place = Path(spec.origin)
        package = place.name == "__init__.py"
        host = place.parent if package else place
        found.append(Grant(host, f"/.edvac/lib/{name}" + ("" if package else ".py")))
    return tuple(found)


def version() -> str:
    """Changes whenever the same files may get another verdict."""
    return f"1/{sys.version_info.major}.{sys.version_info.minor}"


def spec_of(checked: Checked, work: Path, control: Path, inside: str) -> Spec:
    """The sandbox of one check; `control` gets its question."""
    question = {
        "files": inside,
        "paths": checked.paths,
        "tests": checked.tests,
        "seconds": checked.seconds,
        "chars": SAID_CHARS,
    }
    (control / "question.json").write_text(json.dumps(question), encoding="utf-8")
    (control / "lib").mkdir()
    grants = (
        *interpreter(),
        Grant(work, inside),
        Grant(control, "/.edvac"),
        Grant(_CHECKER, "/.edvac/checker.py"),
        *libraries(),
    )
    for grant in grants[-1 - len(libraries()) :]:  # bubblewrap mounts only on what is there
        place = control / Path(grant.inside).relative_to("/.edvac")
        if grant.host.is_dir():
            place.mkdir()
        else:
            place.touch()
    return Spec(
        (sys.executable, "-I", "-B", "/.edvac/checker.py"),
        grants,
        cwd="/tmp",  # noqa: S108 (the sandbox's own)
        timeout_s=checked.seconds + 15,  # the checker ends its tests itself, and says which
        memory_mb=MEMORY_MB,
    )


async def verdict(spec: Spec, label: Label) -> Value:
    """Run a check.

    Raises:
        SandboxError: there is no isolation here.
        DeviceError: the checker itself broke.
    """
    try:
        done = await bubblewrap.run(spec)
    except SandboxError as problem:
        if problem.code == "no_isolation":
            raise
        return value_of(False, 0, 0, f"The check was ended: {problem.what}.", label)
    return _read(done, label)


def _read(done: Completed, label: Label) -> Value:
    try:
        found = json.loads(done.stdout)
        passed, failed, said = found["passed"], found["failed"], found["said"]
    except (ValueError, KeyError, TypeError):
        raise DeviceError(
            "checker_broken",
            f"the checker ended with status {done.status} and no verdict",
            done.stderr.decode(errors="replace").strip()[-300:],
            "This is a fault of edvac or of the libraries that it checks with.",
        ) from None
    return value_of(not said, int(passed), int(failed), str(said), label)


def value_of(ok: bool, passed: int, failed: int, said: str, label: Label) -> Value:
    """A verdict as programs see it."""
    fields: dict[str, Value] = {
        "ok": Scalar(ok, label.cap(1)),
        "passed": Scalar(passed, label),
        "failed": Scalar(failed, label),
        "said": Scalar(said, label),
    }
    return Instance("Verdict", fields, label)


def changed(path: str) -> DeviceError:
    """The error of a run that has written its own acceptance tests."""
    return DeviceError(
        "test_changed",
        f"{path!r} is a test that nobody may change, and this run has written it",
        "What is checked must not choose what it is checked by.",
        "Let the run write elsewhere; tests of its own belong among the checked paths.",
    )
