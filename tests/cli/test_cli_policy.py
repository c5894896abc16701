"""`edvac policy`: which rule decides, and whether the rules do what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edvac.cli.main import cli
from edvac.core.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["policy", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_what_comes_with_edvac(here: Path) -> None:
    code, shown = run("show")
    assert code == 0 and "llm.write" in shown and "goal: trusted" in shown
    code, checked = run("check")
    assert code == 0 and "0 rules are wrong" in checked


def test_a_rule_of_the_workspace(here: Path) -> None:
    (here / "policy.toml").write_text(
        "[rule.none]\ncalls = 'shell.*'\nanswer = 'deny'\nmost = 2\n"
        "needs.data = { by = ['file:*'], bits = 2 }\n"
    )
    _, shown = run("show", "--json")
    (one,) = [f for f in json.loads(shown)["functions"] if f["function"] == "shell.run"]
    assert (one["rule"], one["answer"]) == ("none", "deny, else ask, at most 2 times in a run")
    assert one["needs"]["data"] == "trusted, file:*, or 2 bits"
    _, found = run("check", "--json")
    assert json.loads(found) == {"findings": []}


def test_a_rule_that_is_wrong_is_the_exit_code(here: Path) -> None:
    (here / "policy.toml").write_text(
        "[rule.open]\ncalls = 'files.write'\nneeds.text = ['stranger:*']\n"
    )
    code, found = run("check")
    assert code == 1 and "an outsider's text passes" in found


def test_a_policy_that_means_nothing(here: Path) -> None:
    (here / "policy.toml").write_text("[rule.open]\ncalls = 'files.wirte'\n")
    with pytest.raises(ConfigError) as refused:
        run("show")
    assert refused.value.code == "policy_device_unknown" and "files.write" in refused.value.fix
