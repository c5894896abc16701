"""`edvac` as a person types it, in a workspace of its own and with a scripted model."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edvac.cli.main import main
from edvac.core import event
from edvac.machine import processors
from edvac.machine.settings import Settings
from edvac.processor import Processor, Request
from edvac.processor.scripted import ScriptedProcessor

PROGRAM = """\
limit = param(3)
notes = [llm.write("Shorten", files.read(p)) for p in files.list("inbox/*")]
files.write("out/notes.md", "\\n".join(notes))
files.write("limit.txt", f"{limit}")
"""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@dataclass
class Bench:
    """A workspace with an inbox; `answer` is the model."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    answer: Callable[[Request], str] = lambda request: f"[{len(request.messages[-1].text)}]"
    answers: dict[str, Callable[[Request], str]] = field(default_factory=dict)  # by model
    processors: list[ScriptedProcessor] = field(default_factory=list)

    def choose(
        self, settings: Settings, emit: Callable[[event.Event], None] = lambda _: None
    ) -> Processor:
        made = ScriptedProcessor(self.answers.get(settings.model, self.answer), name=settings.model)
        self.processors.append(made)
        return made

    def __call__(self, *args: str, stdin: str | bytes = "") -> Done:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(args))
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        return Done(int(ended.value.code or 0), out, err)

    def write(self, path: str, text: str) -> Path:
        made = self.root / path
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(text, encoding="utf-8")
        return made

    @property
    def stored(self) -> bool:
        """Has anything been stored in the workspace?"""
        return (self.root / ".edvac").exists()


def make_bench(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bench:
    bench = Bench(root, monkeypatch, capsys)
    bench.write("inbox/a.txt", "alpha")
    bench.write("inbox/b.txt", "beta!")
    bench.write("p.edv", PROGRAM)
    monkeypatch.chdir(root)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(root / "config"))
    monkeypatch.setattr(processors, "choose_processor", bench.choose)
    return bench


@pytest.fixture
def edvac(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bench:
    for name in [name for name in os.environ if name.startswith("EDVAC_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "work"
    root.mkdir()
    return make_bench(root, monkeypatch, capsys)
