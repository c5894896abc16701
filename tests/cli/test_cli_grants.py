"""Before files leave this machine somebody agrees: once, for a program, always, or not at all."""

from __future__ import annotations

import pytest
from cli_kit import Bench
from test_cli_terminal import Terminal

from edvac.machine.settings import Settings
from edvac.machine.sharing import shares
from edvac.program import parse

AWAY, OTHER = "https://api.example.com/v1#m", "https://other.example.com/v1#m"
HERE = "http://127.0.0.1:11434/v1#m"
QUESTION = "would be sent to api.example.com: [o]nce, for this [p]rogram, [a]lways, [n]o"


def start(edvac: Bench, *args: str, program: str = "p.edv", model: str = AWAY) -> Terminal:
    terminal = Terminal(edvac.root, "run", program, "--model", model, "--fresh", *args)
    terminal.until("Run it?")
    terminal.type("y\n")
    return terminal


def kept(edvac: Bench) -> list[tuple[str, str]]:
    found = edvac("grants", "ls", "--json").document["grants"]
    return [(one["host"], one["scope"]) for one in found]


def test_once_is_asked_again_and_always_is_not_until_it_is_revoked(edvac: Bench) -> None:
    for answer in ("maybe\no\n", "a\n"):
        terminal = start(edvac)
        terminal.until(QUESTION)
        assert "inbox/ (" in terminal.seen
        terminal.type(answer)
        assert terminal.ended() == 0
    assert "Please answer one of: o, p, a, n." not in terminal.seen
    assert kept(edvac) == [("api.example.com", "always")]
    terminal = start(edvac)
    assert terminal.ended() == 0 and QUESTION not in terminal.seen
    (found,) = edvac("grants", "ls", "--json").document["grants"]
    assert edvac("grants", "rm", found["id"]).code == 0
    assert "nothing may be sent" in edvac("grants", "ls").out
    assert edvac("grants", "rm", found["id"]).code == 2
    terminal = start(edvac)
    terminal.until(QUESTION)
    terminal.type("n\n")
    assert terminal.ended() == 4
    assert "sharing_refused" in terminal.seen
    assert len(edvac("ps", "--json").document["runs"]) == 3, "the refused one was not begun"


def test_a_grant_for_a_program_is_for_no_other_and_for_no_other_host(edvac: Bench) -> None:
    terminal = start(edvac)
    terminal.until(QUESTION)
    terminal.type("p\n")
    assert terminal.ended() == 0
    terminal = start(edvac)
    assert terminal.ended() == 0 and QUESTION not in terminal.seen
    edvac.write("q.edv", (edvac.root / "p.edv").read_text())
    for program, model in (("q.edv", AWAY), ("p.edv", OTHER)):
        terminal = start(edvac, program=program, model=model)
        terminal.until("[a]lways, [n]o")
        terminal.type("n\n")
        assert terminal.ended() == 4


def test_yes_covers_what_the_plan_names_and_the_run_keeps_it(edvac: Bench) -> None:
    assert edvac("run", "p.edv", "--yes", "--model", AWAY, "--budget", "1").code == 5
    assert kept(edvac) == [], "yes is for this run"
    budget = ("--budget", "100000")
    refused = edvac("resume", "--model", OTHER, *budget)
    assert refused.code == 4 and "sharing_not_agreed" in refused.err
    assert edvac("resume", *budget).code == 0, "the host of the run itself was agreed to"


def test_a_resumed_run_asks_about_another_host(edvac: Bench) -> None:
    assert edvac("run", "p.edv", "--yes", "--budget", "1").code == 5
    flags = ("--budget", "100000", "--model", AWAY)
    terminal = Terminal(edvac.root, "resume", *flags)
    terminal.until(QUESTION)
    terminal.type("o\n")
    assert terminal.ended() == 0
    ((host, scope),) = kept(edvac)
    assert host == "api.example.com" and scope.startswith("run:")


@pytest.mark.parametrize(
    ("model", "text", "count"),
    [
        (AWAY, 'a = llm.write("x", files.read("inbox/a.txt"))\n', 1),
        (AWAY, 'a = files.read("inbox/a.txt")\n', 0),
        (HERE, 'a = llm.write("x", files.read("inbox/a.txt"))\n', 0),
        ("qwen2.5-coder:0.5b", 'a = llm.write("x", files.read("inbox/a.txt"))\n', 0),
    ],
)
def test_only_what_would_leave_is_asked_about(
    edvac: Bench, model: str, text: str, count: int
) -> None:
    from edvac.device import CATALOGUE

    roots = {"inbox": edvac.root / "inbox"}
    settings = Settings(model=model, plan_model=OTHER)
    found = shares(settings, parse(text, CATALOGUE), roots)
    assert len(found) == count
