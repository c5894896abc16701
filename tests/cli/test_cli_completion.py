"""Completion as a shell asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cli_kit import Bench


def asked(words: str, directory: Path) -> list[str]:
    """What bash would offer for the last word."""
    line = ["edvac", *words.split(" ")]
    given = {
        "_EDVAC_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(line),
        "COMP_CWORD": str(len(line) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "edvac"],
        cwd=directory,
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.partition(",")[2] for line in done.stdout.split()]


def test_commands_options_runs_and_models_are_completed(edvac: Bench) -> None:
    assert edvac("run", "p.edv", "--yes").code == 0
    run = edvac("ps", "--json").document["runs"][0]["id"]
    here = Path.cwd()
    assert asked("re", here) == ["resume"]
    assert "--retry" in asked("resume --", here)
    assert asked(f"show {run[:3]}", here) == [run]
    assert asked(f"rm {run[:3]}", here) == [run]
    assert "qwen2.5-coder:1.5b" in asked("run --model qwen", here)


def test_nothing_is_offered_where_nothing_has_run(tmp_path: Path) -> None:
    assert asked("show ", tmp_path) == []


def test_the_script_of_a_shell_names_the_command(edvac: Bench) -> None:
    assert "_EDVAC_COMPLETE=bash_complete" in edvac("completion", "bash").out
    assert "_EDVAC_COMPLETE=zsh_complete" in edvac("completion", "zsh").out
    assert "complete --no-files --command edvac" in edvac("completion", "fish").out
