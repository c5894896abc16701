"""Documentation is tested: pages are current, links lead somewhere, programs are legal."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edvac.cli.main import COMMANDS
from edvac.device import CATALOGUE
from edvac.program import parse

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


GENERATE = load(ROOT / "docs" / "generate.py")


@pytest.mark.parametrize("name", GENERATE.PAGES)
def test_generated_pages_are_current(name: str) -> None:
    found = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert found == GENERATE.PAGES[name](), "run: python docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    bad = [
        link
        for link in re.findall(r"\]\(([^)#\s]+)", text)
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert not bad


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_programs_in_pages_are_legal(page: Path) -> None:
    job = ROOT / "examples" / "jobs" / page.stem / "program.edv"
    about = job.read_text(encoding="utf-8") if page.parent.name == "jobs" and job.exists() else ""
    for text in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S):
        if about:  # lines of the job's program, with ... for what is left out
            left = [one for one in re.split(r"\.\.\.|…|\n", text) if one.strip() not in about]
            assert not left, "this is not in the program"
        else:
            parse(text, CATALOGUE)


def test_every_command_in_a_page_exists() -> None:
    used = set()
    for page in PAGES:
        used |= set(
            re.findall(r"(?:`|^|bin/)edvac ([a-z]+)\b", page.read_text(encoding="utf-8"), re.M)
        )
    commands = {word for word in used if word in COMMANDS}
    assert used == commands
    assert commands == set(COMMANDS), "every command is mentioned"


NAMED = re.compile(r"`((?:test_|c\d+_)[a-z0-9_]*)(…?)`")


def test_every_promise_of_the_guard_has_its_test() -> None:
    """Each test that the page names exists; where it names many by their beginning, one does."""
    page = (ROOT / "docs" / "explanation" / "security-model.md").read_text(encoding="utf-8")
    tests = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py"))
    )
    known = set(re.findall(r"def (test_\w+)\(", tests)) | set(re.findall(r'"(c\d+_\w+)"', tests))
    named = NAMED.findall(page)
    missing = [
        name
        for name, more in named
        if not (any(one.startswith(name) for one in known) if more else name in known)
    ]
    assert len(named) > 30 and not missing
    promised = page[page.index("## Promised") : page.index("## Measured")]
    paragraphs = [one for one in promised.split("\n\n") if one.startswith("**")]
    assert not [one[:60] for one in paragraphs if not NAMED.search(one)]
