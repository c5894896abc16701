"""The house's style, as numbers: sizes, layers, banned calls. What fails here names the place."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "edvac"

# Design 3: a package may import only packages above it in this list.
LAYERS = [
    "core",
    "store",
    "program",
    "guard",
    "sandbox",
    "memory",
    "engine",
    "processor",
    "device",
    "compiler",
    "control",
    "machine",
    "train",
    "sim",
    "bench",
    "apps",
    "serve",
    "cli",
]
MAX_FILE, MAX_FUNCTION, MAX_ARGUMENTS, MAX_COLUMNS, MAX_DEPTH = 600, 60, 6, 100, 2

# Call -> the places that may make it, and why the others may not.
BANNED = {
    "eval": (),
    "exec": (),
    "pickle.loads": (),
    "pickle.load": (),
    "marshal.loads": (),
    "yaml.load": (),
    "torch.load": (),
    "os.system": (),
    "time.time": ("core/seams.py",),
    "print": (),
}


@cache
def sources() -> tuple[tuple[Path, ast.Module], ...]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        found.append((path, ast.parse(path.read_text(encoding="utf-8"))))
    return tuple(found)


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def place(path: Path, node: ast.AST | None = None) -> str:
    line = f":{node.lineno}" if node is not None and hasattr(node, "lineno") else ""
    return f"{path.relative_to(ROOT)}{line}"


def test_files_are_short_and_narrow() -> None:
    bad = []
    for path, _ in sources():
        lines = path.read_text(encoding="utf-8").split("\n")
        if len(lines) > MAX_FILE:
            bad.append(f"{place(path)} has {len(lines)} lines")
        bad += [
            f"{place(path)}:{n} has {len(line)} columns"
            for n, line in enumerate(lines, 1)
            if len(line) > MAX_COLUMNS
        ]
        if len(path.relative_to(SOURCE).parts) > MAX_DEPTH + 1:
            bad.append(f"{place(path)} lies too deep")
    assert not bad


def test_functions_are_short_with_few_arguments() -> None:
    bad = []
    for path, tree in sources():
        for node in functions(tree):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size > MAX_FUNCTION:
                bad.append(f"{place(path, node)} {node.name} has {size} lines")
            names = [*node.args.posonlyargs, *node.args.args]
            count = len([a for a in names if a.arg not in ("self", "cls")])
            if count > MAX_ARGUMENTS:
                bad.append(f"{place(path, node)} {node.name} takes {count} arguments")
    assert not bad


def test_most_functions_are_very_short() -> None:
    sizes = sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for _, tree in sources()
        for node in functions(tree)
    )
    assert sizes[len(sizes) // 2] <= 9
    assert sizes[len(sizes) * 9 // 10] <= 30


def imports(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node, node.module
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node, "relative"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name


def test_imports_only_go_up_the_layers() -> None:
    bad = []
    for path, tree in sources():
        parts = path.relative_to(SOURCE).parts
        if len(parts) == 1:
            continue
        here = parts[0]
        assert here in LAYERS, f"{here} is not a package of the design"
        for node, module in imports(tree):
            if module == "relative":
                bad.append(f"{place(path, node)} imports relatively")
            if not module.startswith("edvac."):
                continue
            there = module.split(".")[1]
            if there != here and LAYERS.index(there) >= LAYERS.index(here):
                bad.append(f"{place(path, node)}: {here} imports {there}")
    assert not bad


def test_layer_check_sees_a_planted_import() -> None:
    tree = ast.parse("from edvac.cli import main\nimport edvac.machine")
    assert [module for _, module in imports(tree)] == ["edvac.cli", "edvac.machine"]


@pytest.mark.parametrize("call", BANNED)
def test_banned_calls_are_absent(call: str) -> None:
    bad = []
    for path, tree in sources():
        if str(path.relative_to(SOURCE)) in BANNED[call]:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == call:
                bad.append(place(path, node))
    assert not bad


def test_no_shell_and_no_catch_all() -> None:
    bad = []
    for path, tree in sources():
        text = path.read_text(encoding="utf-8").split("\n")
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                bad.append(f"{place(path, node.value)} uses shell=")
            if isinstance(node, ast.ExceptHandler):
                kind = ast.unparse(node.type) if node.type else ""
                reason = "#" in text[node.lineno - 1]
                if kind in ("", "Exception", "BaseException") and not reason:
                    last = node.body[-1]
                    if not isinstance(last, ast.Raise):
                        bad.append(f"{place(path, node)} catches everything without a reason")
    assert not bad


def test_what_an_error_says_is_a_clause() -> None:
    """It is shown after a name: no capital, no full stop."""
    bad = []
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error"):
                for what in node.args[1:2]:
                    text = ast.unparse(what).lstrip("f").strip("\"'")
                    if re.match("[A-Z][a-z ]", text) or text.endswith("."):
                        bad.append(place(path, node))
    assert not bad


def test_every_module_says_what_it_does() -> None:
    bad = [place(path) for path, tree in sources() if not ast.get_docstring(tree)]
    assert not bad


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\n") if name]


def test_nothing_tracked_names_a_place_of_one_machine() -> None:
    leak = re.compile(
        r"/root/|/home/[a-z]|/(simple|packages)/[a-z0-9]{2}/|--(extra-)?index-url https?:"
    )
    bad = []
    for name in tracked():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        if name != "tests/house/test_tidy.py" and leak.search(text):
            bad.append(name)
    assert not bad


def test_lock_has_hashes_and_no_addresses() -> None:
    text = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8")
    assert "http" not in re.sub(r"^httpc?o?r?e?x?\d?==", "", text, flags=re.M).replace(
        "httpx2", ""
    ).replace("httpcore2", "")
    pinned = [line for line in text.split("\n") if re.match(r"^[a-z0-9-]+==", line)]
    assert len(pinned) > 20
    assert all(line.endswith("\\") for line in pinned)
