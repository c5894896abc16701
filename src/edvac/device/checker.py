"""Runs inside the sandbox of `python.check`, as a script: reads its question, prints a verdict.

The tests run in a process of their own over a copy of the files, so that neither what they print
nor how they end is taken for the verdict: a run of which no report is there has not passed.
Knows nothing of edvac; it has Python, pyflakes and pytest.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

COPY = Path("/tmp/files")  # noqa: S108 (the sandbox's own)
REPORT = Path("/tmp/report.json")  # noqa: S108
LIBRARIES = "/.edvac/lib"
_OPTIONS = (
    "-q",
    "--tb=short",
    "--no-header",
    "-rN",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:randomly",
)


def main() -> None:
    """Print the verdict on the question in /.edvac/question.json."""
    question = json.loads(Path("/.edvac/question.json").read_text(encoding="utf-8"))
    shutil.copytree(question["files"], COPY, symlinks=True)
    for path in COPY.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    paths = [path for path in question["paths"] if path.endswith(".py")]
    said = [complaint for path in question["paths"] for complaint in _missing(path)]
    said += [complaint for path in paths for complaint in _linted(path)]
    own = [path for path in paths if Path(path).name.startswith("test_")]
    passed = failed = 0
    if not said and (own or question["tests"]):
        passed, failed, said = _tested([*own, *question["tests"]], question["seconds"])
    text = _shortened("\n".join(said), question["chars"])
    sys.stdout.write(json.dumps({"passed": passed, "failed": failed, "said": text}))


def _missing(path: str) -> list[str]:
    return [] if (COPY / path).is_file() else [f"{path}: this file is not there."]


def _linted(path: str) -> list[str]:
    """Syntax errors, and what pyflakes takes for an error and not for untidiness."""
    sys.path.append(LIBRARIES)
    from pyflakes import api, messages, reporter

    place = COPY / path
    if not place.is_file():
        return []
    try:
        text = place.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        return [f"{path}: this is not UTF-8 (byte {problem.start})."]
    if not text.strip():
        return [f"{path}: this file is empty."]
    grave = (
        messages.UndefinedName,
        messages.UndefinedExport,
        messages.UndefinedLocal,
        messages.ReturnOutsideFunction,
        messages.YieldOutsideFunction,
        messages.DuplicateArgument,
        messages.StringDotFormatMissingArgument,
        messages.PercentFormatPositionalCountMismatch,
    )
    found: list[str] = []

    class Grave(reporter.Reporter):  # type: ignore[misc]  # it has no types
        def flake(self, message: messages.Message) -> None:
            if isinstance(message, grave):
                what = message.message % message.message_args
                found.append(f"{path}:{message.lineno}: {what}")

    errors = io.StringIO()
    api.check(text, path, Grave(io.StringIO(), errors))
    if errors.getvalue():
        found.append(errors.getvalue().strip())
    return found


def _tested(tests: list[str], seconds: int) -> tuple[int, int, list[str]]:
    """Passed, failed, and what is wrong."""
    REPORT.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-B", __file__, "--", *tests],
            cwd=COPY,
            capture_output=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )
    except subprocess.TimeoutExpired as problem:
        out = (problem.stdout or b"").decode(errors="replace")
        return 0, 1, [f"The tests did not end within {seconds} s.", out]
    out = done.stdout.decode(errors="replace").strip()
    try:
        passed, failed = json.loads(REPORT.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        tail = done.stderr.decode(errors="replace").strip()[-1000:]
        return 0, 1, [f"The tests ended without a report (status {done.returncode}).", out, tail]
    if done.returncode == 0 and passed and not failed:
        return passed, 0, []
    if done.returncode in (0, 5):  # 5 is pytest's for having found none
        return 0, 0, ["There is no test in the tests.", out]
    return passed, max(failed, 1), [out or f"The tests did not pass (status {done.returncode})."]


class _Counts:
    """A plugin of pytest: how many tests passed and failed, written when it ends."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.when == "call" and report.passed
        self.failed += report.failed

    def pytest_sessionfinish(self) -> None:
        REPORT.write_text(json.dumps([self.passed, self.failed]), encoding="utf-8")


def run_tests(tests: list[str]) -> int:
    """Run them by pytest, with the checked files to import from; its exit status."""
    sys.path.insert(0, str(COPY))
    sys.path.append(LIBRARIES)
    import pytest

    return int(pytest.main([*_OPTIONS, f"--rootdir={COPY}", "--", *tests], plugins=[_Counts()]))


def _shortened(text: str, chars: int) -> str:
    """At most so many characters: the beginning and the end, and what is missing is said."""
    if len(text) <= chars:
        return text
    half = chars // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--"]:
        sys.exit(run_tests(sys.argv[2:]))
    main()
