"""`edvac`: the command line. Subcommands are imported when they are called, so that ``--help`` is
quick."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from edvac import __version__

if TYPE_CHECKING:
    from edvac.core.errors import EdvacError

COMMANDS = {
    "run": ("run", "run", "Run a task in words, or a program."),
    "resume": ("run", "resume", "Go on with an interrupted run."),
    "every": ("every", "every", "Run a program at set times."),
    "queue": ("queue", "queue", "Let runs wait their turn."),
    "worker": ("worker", "worker", "Do steps of other machines' runs."),
    "ps": ("inspect", "ps", "List runs."),
    "find": ("find", "find", "Find a text in runs."),
    "answer": ("answer", "answer", "Answer the questions of a run."),
    "signal": ("signal", "signal", "Send a signal to a run."),
    "show": ("inspect", "show", "Show a run, or one step of it."),
    "log": ("inspect", "log", "Print the journal of a run."),
    "trace": ("trace", "trace", "Show where a line of a result file comes from."),
    "diff": ("deliver", "diff", "Show what apply would change."),
    "apply": ("deliver", "apply", "Make a run's files real."),
    "undo": ("deliver", "undo", "Put back what apply replaced."),
    "fork": ("manage", "fork", "Begin another run from a step of one."),
    "kill": ("manage", "kill", "Stop a run."),
    "rm": ("manage", "rm", "Remove a run."),
    "gc": ("manage", "gc", "Free the space of what nothing needs."),
    "grants": ("grants", "grants", "List and revoke what was permitted for later runs."),
    "app": ("app", "app", "Add third-party tools, each in a sandbox of its own."),
    "policy": ("policy", "policy", "Show and check what the guard lets programs do."),
    "check": ("source", "check", "Check a program without running it."),
    "fmt": ("source", "fmt", "Format a program."),
    "stubs": ("source", "stubs", "Print editor type stubs for the devices."),
    "serve": ("serve", "serve", "Serve a model to OpenAI clients."),
    "model": ("model", "model", "List, fetch, verify and remove models."),
    "completion": ("completion", "completion", "Print a shell's completion script."),
    "doctor": ("doctor", "doctor", "Look at this machine and this workspace."),
    "config": ("settings", "config", "Show every setting and where it comes from."),
    "demo": ("demo", "demo", "Take a tour without a model and without a network."),
    "bench": ("bench", "bench", "Measure edvac beside its peers."),
}


class Lazy(click.Group):
    """Knows the names of its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        found: click.Command = getattr(importlib.import_module(f"edvac.cli.{module}"), name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands with their texts from the table: a key press must not import them all."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        found = ((name, text) for name, (_, _, text) in COMMANDS.items())
        return [
            CompletionItem(name, help=text) for name, text in found if name.startswith(incomplete)
        ]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: edvac run 'Read the invoices in inbox/ and total them per vendor'",
)
@click.version_option(__version__, prog_name="edvac")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Long AI jobs over your private files, on your own machine.

    A task becomes a program that you can read; its steps run in parallel on a local model; every
    result is journalled, so that nothing is lost and nothing runs twice.
    """
    ctx.obj = {"debug": debug}


def main(args: list[str] | None = None) -> Any:
    """Entry point: every expected error becomes a message and its exit code."""
    from edvac.core.errors import EXIT_INTERRUPTED, EdvacError

    given = sys.argv[1:] if args is None else args
    try:
        sys.exit(cli.main(args=given, prog_name="edvac", standalone_mode=False) or 0)
    except EdvacError as error:
        _tell_starter(error)
        if "--debug" in given:
            raise
        from edvac.cli.ui import report_error

        sys.exit(report_error(error, as_json="--json" in given))
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read what a command prints has enough; what is left must not fail on its way out.
        # A run whose reader goes away is stopped by `cli.talk`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if "--debug" in given:
            raise
        from edvac.cli.ui import report_error
        from edvac.core.errors import TransientError

        refused = TransientError(
            "system_refused",
            f"the system said: {error.strerror or error}",
            f"It was about {error.filename!r}." if error.filename else "What is finished is kept.",
            "Mend it and repeat; `edvac --debug` in front of the command shows where it was.",
        )
        _tell_starter(refused)
        sys.exit(report_error(refused, as_json="--json" in given))


def _tell_starter(error: EdvacError) -> None:
    """Of a detached run, which has no terminal; in all others nobody listens."""
    if "EDVAC_HANDSHAKE" in os.environ or "edvac.machine.detach" in sys.modules:
        from edvac.machine.detach import HANDSHAKE

        HANDSHAKE.failed(error)


if __name__ == "__main__":
    main()
