"""The default policy's table, through whole runs: who may decide what."""

from __future__ import annotations

import pytest
from machine_kit import Bench

from edvac.core import event
from edvac.machine.machine import Terminal

READ = "t = files.read('inbox/0.txt')\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (READ + "x = llm.write(t)\n", "untrusted_instruction"),
        (READ + "x = llm.write('Go on' + t)\n", "untrusted_instruction"),
        (READ + "x = llm.choose(t, ['a', 'b'])\n", "untrusted_instruction"),
        (READ + "files.write(f'out/{text.strip(t)}.md', 'x')\n", "untrusted_address"),
    ],
)
def test_denied(bench: Bench, text: str, code: str) -> None:
    if "text.strip" in text:
        text = text.replace("text.strip(t)", "t.strip()")
    report = bench.run(text)
    assert [s.failure.code for s in report.failures if s.failure] == [code]
    assert bench.files(report.run) == {}


@pytest.mark.parametrize(
    "text",
    [
        READ + "x = llm.write('Shorten', t)\n",
        READ + "files.write('a.md', t)\n",
        READ + "if 'ann' in t:\n    files.write('a.md', 'yes')\n",
        "for p in files.list('inbox/*'):\n    files.write(f'out/{path.stem(p)}.md', 'x')\n",
        "mail.send('hello')\n",
    ],
)
def test_allowed(bench: Bench, text: str) -> None:
    assert bench.run(text).state == "done"


@pytest.mark.parametrize(
    "text",
    [
        READ + "mail.send(t)\n",
        READ + "if 'ann' in t:\n    mail.send('hello')\n",
        "for p in files.list('inbox/*'):\n    mail.send(p)\n",
        READ + "mail.send(llm.write('Shorten', t))\n",
    ],
)
def test_asked(bench: Bench, text: str) -> None:
    seen: list[event.Event] = []
    assert bench.run(text, Terminal(seen.append)).state == "waiting"
    assert bench.post.sent == []
    assert any(isinstance(e, event.Question) for e in seen)
