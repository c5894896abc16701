"""`completion`: what a shell needs to complete commands, options and the names of runs."""

from __future__ import annotations

import os
from pathlib import PurePath

import click
from click.shell_completion import get_completion_class

from edvac.cli import ui
from edvac.core.errors import UsageError

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_EDVAC_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the completion script for SHELL (default: the one in use).

    Put it where the shell looks: eval "$(edvac completion bash)" in ~/.bashrc, the same with zsh in
    ~/.zshrc; edvac completion fish > ~/.config/fish/completions/edvac.fish.
    """
    from edvac.cli.main import cli

    name = shell or PurePath(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name) if name in SHELLS else None
    if kind is None:
        raise UsageError(
            "shell_unknown",
            f"there is no completion for the shell {name!r}",
            f"There is one for {', '.join(SHELLS)}.",
            "Name one of them: `edvac completion bash`.",
        )
    ui.out(kind(cli, {}, "edvac", VARIABLE).source().rstrip())
