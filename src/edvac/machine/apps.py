"""The apps of a workspace: what programs may call of them, and what they may ask of each other.

A permission is for one app, one tool of another, and both as they were approved: an app that is
approved anew is another one. It is kept with the grants of the store, for one run or for good; only
a person gives one. Knows nothing of terminals.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edvac.core.errors import ConfigError, PolicyError
from edvac.core.seams import Clock
from edvac.core.signature import Catalogue
from edvac.device import CATALOGUE, AskPerson, Device
from edvac.device.app.device import AppDevice
from edvac.device.app.hub import Hub, Pair, Permission, Request
from edvac.device.app.manifest import App, Installed
from edvac.guard import Rules
from edvac.machine.ledger import Ledger
from edvac.machine.sharing import ALWAYS, of_run
from edvac.program import Program
from edvac.store import Grant
from edvac.store.store import DIRECTORY

KIND = "app"


def installed(workspace: Path) -> Installed:
    return Installed(workspace / DIRECTORY)


def approved(workspace: Path) -> tuple[App, ...]:
    """The apps of which something was approved; raises what `Installed.get` does."""
    return tuple(app for app in installed(workspace).all() if app.tools)


def catalogue(apps: Iterable[App], devices: Mapping[str, Device] | None = None) -> Catalogue:
    """Everything that a program may call: what comes with edvac, apps, and further devices.

    Raises:
        ConfigError: two of them have one name.
    """
    further = {app.name: app.signatures for app in apps}
    for name, device in (devices or {}).items():
        if name in further:
            raise _taken(name)
        further[name] = device.signatures
    for name in further:
        if name in CATALOGUE.devices:
            raise _taken(name)
    own = CATALOGUE.signatures.values()
    return Catalogue.of([*own, *(one for group in further.values() for one in group)])


def _taken(name: str) -> ConfigError:
    return ConfigError("device_taken", f"there is a device {name!r} already")


class Kept:
    """Permissions in the store, and the person at the terminal, who may be asked for more.

    Args:
        ask: None where nobody is there.
    """

    def __init__(
        self, run: str, apps: Iterable[App], ledger: Ledger, clock: Clock, ask: AskPerson | None
    ) -> None:
        self._run = run
        self._apps = {app.name: app for app in apps}
        self._ledger = ledger
        self._clock = clock
        self._ask = ask

    async def given(self, pair: Pair, *, acts: bool) -> bool:
        now = self._clock.wall()
        grants = await self._ledger.call(lambda store: store.grants(now))
        scopes = (of_run(self._run),) if acts else (of_run(self._run), ALWAYS)
        shape = shape_of(pair, self._apps)
        return any(one.shape == shape and one.scope in scopes for one in grants)

    async def ask(self, request: Request) -> Permission:
        if self._ask is None:
            raise _needed(request)
        answer = await self._ask(request.address, str(request), list(request.choices))
        found = next((one for one in request.choices if one == answer), None)
        if found in ("run", "always"):
            scope = of_run(self._run) if found == "run" else ALWAYS
            kept = grant(request.pair, self._apps, scope, self._clock.wall())
            await self._ledger.call(lambda store: store.grant(kept))
        return found or "no"


class RunApps:
    """The apps of one run: none of their processes begins before its first call."""

    def __init__(
        self, apps: Iterable[App], workspace: Path, rules: Rules, program: Program, kept: Kept
    ) -> None:
        apps = tuple(apps)
        uses = program.access if apps else ()  # looking for them takes its time in a long program
        called = frozenset(use.op.partition(".")[0] for use in uses)
        hub, place = Hub(rules, called, kept), installed(workspace)
        self.devices = {app.name: AppDevice(app, place.folder(app.name), hub) for app in apps}
        hub.peers = self.devices

    def contacted(self) -> list[str]:
        """Origins that the apps have connected to."""
        return sorted({met for device in self.devices.values() for met in device.met})

    async def close(self) -> None:
        for device in self.devices.values():
            await device.close()


def shape_of(pair: Pair, apps: Mapping[str, App]) -> str:
    """What a permission is for, as the store keeps it."""
    seals = [apps[name].seal[:16] if name in apps else "" for name in (pair.asks, pair.answers)]
    said = {"kind": KIND, "asks": pair.asks, "answers": pair.answers, "tool": pair.tool}
    return json.dumps(said | {"as": seals})


def grant(pair: Pair, apps: Mapping[str, App], scope: str, now: float) -> Grant:
    """A permission to keep; the same again has the same name. `now` is UTC seconds."""
    shape = shape_of(pair, apps)
    name = hashlib.blake2b(f"{scope}\n{shape}".encode(), digest_size=4).hexdigest()
    return Grant(name, shape, scope, None, now)


def permit(pair: Pair, apps: Mapping[str, App], now: float) -> Grant:
    """A permission for good.

    Raises:
        PolicyError: what it is for cannot be undone.
    """
    app = apps[pair.answers]
    if app.tools[pair.tool].effect != "read":
        raise PolicyError(
            "app_always_refused",
            f"{pair.op} cannot be undone, so that nobody permits it for good",
            "",
            "Whoever is at the terminal is asked in each run.",
        )
    return grant(pair, apps, ALWAYS, now)


def described(found: Grant) -> dict[str, Any] | None:
    """A permission as a list shows it; None for a grant of another kind."""
    said = json.loads(found.shape)
    if not isinstance(said, dict) or said.get("kind") != KIND:
        return None
    return {
        "id": found.id,
        "kind": KIND,
        "asks": str(said.get("asks", "")),
        "answers": f"{said.get('answers', '')}.{said.get('tool', '')}",
        "scope": found.scope,
        "created": found.created,
    }


def _needed(request: Request) -> PolicyError:
    pair = request.pair
    fix = f"Permit it with `edvac app permit {pair.asks} {pair.op}`, then `edvac resume --retry`."
    return PolicyError(
        "app_permission_needed",
        f"{pair}, and nobody is there to permit it",
        "Apps talk to each other only where a person permits it.",
        "Resume the run in a terminal with --retry." if request.acts else fix,
    )
