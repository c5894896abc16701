"""What may leave this machine: who agreed that the files of a directory are sent to a host.

A grant is for one host and one directory, for one run, one program or always. Only a person at the
command line makes one; no model and no program is asked. Knows nothing of terminals.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edvac.machine.settings import Settings
from edvac.processor.address import parse_address
from edvac.program import Program
from edvac.store import Grant

KIND = "share"
ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Share:
    """Files of a directory, which a program knows as `name`, that would be sent to a host."""

    host: str
    directory: str
    name: str

    @property
    def stored(self) -> list[str]:
        """As a run's first record holds it."""
        return [self.host, self.directory]

    def __str__(self) -> str:
        return f"{self.name or '.'}/ ({self.directory}) would be sent to {self.host}"


def shares(settings: Settings, program: Program | None, roots: Mapping[str, Path]) -> list[Share]:
    """Every directory that the program reads, with every host outside this machine that executes
    its steps; None is a program that is not written yet. The model that plans is sent no file.

    Raises:
        ConfigError: a model's address is none.
    """
    if program is not None and not any(use.op.startswith("llm.") for use in program.access):
        return []
    named = [name for name in (settings.model, settings.escalate_model) if "://" in name]
    found = [parse_address(name.partition("#")[0]) for name in named]
    hosts = dict.fromkeys(address.host for address in found if not address.local)
    return [
        Share(host, str(path.resolve()), name) for host in hosts for name, path in roots.items()
    ]


def of_program(name: str) -> str:
    """The scope of a grant for one program; see `Job.name`."""
    return f"program:{name}"


def of_run(run: str) -> str:
    """The scope of a grant for one run."""
    return f"run:{run}"


def missing(wanted: Iterable[Share], grants: Iterable[Grant], scopes: Iterable[str]) -> list[Share]:
    """Those that nobody has agreed to, always or in one of the scopes."""
    given = {(found.scope, _read(found)) for found in grants}
    scopes = (ALWAYS, *scopes)
    return [
        share
        for share in wanted
        if not any((scope, (share.host, share.directory)) in given for scope in scopes)
    ]


def grant(share: Share, scope: str, now: float) -> Grant:
    """A grant to keep; the same again has the same name. `now` is UTC seconds."""
    shape = json.dumps({"kind": KIND, "host": share.host, "directory": share.directory})
    name = hashlib.blake2b(f"{scope}\n{shape}".encode(), digest_size=4).hexdigest()
    return Grant(name, shape, scope, None, now)


def described(found: Grant) -> dict[str, Any]:
    """A grant of this kind as a list shows it."""
    host, directory = _read(found) or ("", "")
    return {
        "id": found.id,
        "kind": KIND,
        "host": host,
        "directory": directory,
        "scope": found.scope,
        "created": found.created,
    }


def _read(found: Grant) -> tuple[str, str] | None:
    shape = json.loads(found.shape)
    if not isinstance(shape, dict) or shape.get("kind") != KIND:
        return None
    return str(shape.get("host", "")), str(shape.get("directory", ""))
