"""Asking before data leaves the machine, and `grants`: what was permitted for later runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edvac.cli import ui
from edvac.cli.ui import open_store
from edvac.core.errors import PolicyError, UsageError
from edvac.core.seams import SystemClock

if TYPE_CHECKING:
    from edvac.cli.ask import Asker
    from edvac.cli.view import View
    from edvac.machine import Job, Machine
    from edvac.machine.history import History
    from edvac.machine.settings import Settings
    from edvac.machine.sharing import Share
    from edvac.store import RunInfo

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
CHOICES = {"o": "once", "p": "program", "a": "always", "n": "no"}


class Agreement:
    """Whether the files that a run reads may be sent to the hosts of its models.

    Args:
        yes: whoever gave --yes agreed to what the plan's line `contacts` names.
    """

    def __init__(self, settings: Settings, asker: Asker, view: View, *, yes: bool) -> None:
        self._settings = settings
        self._asker = asker
        self._view = view
        self._yes = yes

    async def for_job(self, machine: Machine, job: Job) -> Job:
        """The job with what it may send; that stays with its run.

        Raises:
            PolicyError: the person said no, or nobody is there.
        """
        from edvac.machine import sharing
        from edvac.program import parse

        program = parse(job.program, machine.catalogue) if job.program else None
        wanted = sharing.shares(self._settings, program, job.roots)
        scope = sharing.of_program(job.name or job.task or job.program)

        def keep(share: Share, answer: str) -> None:
            if answer != "once":
                kept = sharing.ALWAYS if answer == "always" else scope
                given = sharing.grant(share, kept, machine.clock.wall())
                machine.ledger.call_now(lambda store: store.grant(given))

        if wanted and not self._yes:
            known = machine.ledger.call_now(lambda store: store.grants())
            await self._agree(sharing.missing(wanted, known, [scope]), keep)
        return replace(job, shared=tuple((one.host, one.directory) for one in wanted))

    async def for_run(self, info: RunInfo, history: History) -> None:
        """A run may go on with another host than the one that was agreed to.

        Raises:
            PolicyError: the person said no, or nobody is there.
        """
        from edvac.machine import sharing
        from edvac.program import parse

        opened = history.opened
        roots = {name: Path(path) for name, path in opened["roots"].items()}
        wanted = sharing.shares(self._settings, parse(history.program, ui.catalogue()), roots)
        wanted = [one for one in wanted if one.stored not in opened.get("shared", [])]
        if not wanted or self._yes:
            return
        scopes = {"program": sharing.of_program(opened["name"]), "always": sharing.ALWAYS}
        scopes["once"] = sharing.of_run(info.id)  # also for the process that goes on detached
        with open_store() as store:

            def keep(share: Share, answer: str) -> None:
                store.grant(sharing.grant(share, scopes[answer], SystemClock().wall()))

            await self._agree(sharing.missing(wanted, store.grants(), scopes.values()), keep)

    async def _agree(self, asked: list[Share], keep: Callable[[Share, str], None]) -> None:
        """Ask about each; `keep` is told the answer: once, program or always."""
        if asked and not ui.is_terminal():
            raise PolicyError(
                "sharing_not_agreed",
                f"{asked[0]}, and nobody is there to agree",
                "Standard input or error is not a terminal.",
                "Repeat with --yes, or agree to it in a terminal, for this program or always.",
            )
        self._view.pause()
        for share in asked:
            answer = await _choice(self._asker, share)
            if answer == "no":
                raise PolicyError(
                    "sharing_refused",
                    f"{share.name or '.'}/ may not be sent to {share.host}; no file of it was sent",
                    "",
                    "Use a model on this machine: see `edvac model ls`.",
                )
            keep(share, answer)
        self._view.resume()


async def _choice(asker: Asker, share: Share) -> str:
    while True:
        offer = "[o]nce, for this [p]rogram, [a]lways, [n]o"
        answer = await asker.line(ui.safe_line(f"{share}: {offer}"))
        if answer is None:
            return "no"
        word = answer.strip().lower()
        for key, choice in CHOICES.items():
            if word in (key, choice):
                return choice
        ui.err(f"Please answer one of: {', '.join(CHOICES)}.")


@click.group()
def grants() -> None:
    """List and revoke what was permitted for later runs: files that may be sent to other machines,
    and what apps may ask of each other."""


@grants.command()
@JSON
def ls(as_json: bool) -> None:
    """List what was agreed to, the oldest first."""
    from edvac.machine import apps, sharing

    with open_store() as store:
        given = store.grants(SystemClock().wall())
    found = [apps.described(one) or sharing.described(one) for one in given]
    if as_json:
        ui.out_json({"grants": found})
        return
    if not found:
        ui.out("nothing may be sent to other machines unasked, and apps may ask nothing of others")
    for one in found:
        what = (
            f"{one['host']}  {one['scope']}  {one['directory']}" if one["kind"] == "share" else ""
        )
        what = what or f"{one['asks']} asks {one['answers']}  {one['scope']}"
        ui.out(ui.safe_line(f"{one['id']}  {what}"))


@grants.command()
@click.argument("names", metavar="GRANT...", nargs=-1, required=True)
@JSON
def rm(names: tuple[str, ...], as_json: bool) -> None:
    """Revoke grants: the next run asks again."""
    with open_store() as store:
        for name in names:
            if not store.revoke(name):
                raise UsageError(
                    "grant_unknown", f"there is no grant {name!r}", "", "See `edvac grants ls`."
                )
    if as_json:
        ui.out_json({"revoked": list(names)})
    else:
        ui.out(f"revoked {', '.join(names)}")
