"""What a person approved of an app: a file in the workspace, pinned by digest, and a folder.

``.edvac/apps/NAME.json`` holds how the app is started, what it may see, and each signature that it
was approved with; ``.edvac/apps/NAME/`` is the app's own folder. One process at a time changes a
file, and it is there whole or as it was. Knows nothing of processes or protocols.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from edvac.core.errors import ConfigError, UsageError
from edvac.core.label import UNBOUNDED, Label
from edvac.core.schema import Type
from edvac.core.signature import Effect, Signature
from edvac.device.app.offer import Offer, Offered
from edvac.device.app.types import restored, shown, stored

PLACE, LOCK = "apps", ".lock"
READS, ACTS = "read", "external"
TURN = "app"  # the calls of an app are done one by one, in the program's order: it may remember


class Approved(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tool as a person approved it. `returns` is their word for its result, where the server
    promises only a text; kept as `types` says."""

    offer: Offer
    effect: str = ACTS
    returns: Any = None

    @property
    def result(self) -> Type:
        return self.offer.kind if self.returns is None else restored(self.returns)

    def __str__(self) -> str:
        taken = ", ".join(map(str, self.offer.operands))
        return f"{self.offer.name}({taken}) -> {shown(self.result)}"


class App(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One app. What is left at its default is not stored: a later field breaks no seal.

    Attributes:
        command: as it is started; empty for a module of Python functions.
        module: that module.
        code: files and directories that it may read, beside the system's own.
        hosts: origins that it may connect to; those of `private` may lie at an address of this
            machine or its networks.
        tools: what programs may call, by name.
        words: the publisher's descriptions: a stranger's text, for people alone.
        seal: digest of all before it, so that nothing is approved by an edited file.
    """

    name: str
    command: tuple[str, ...] = ()
    module: str = ""
    code: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    memory_mb: int = 2048
    timeout_s: float = 60.0
    tools: dict[str, Approved] = {}
    words: dict[str, str] = {}
    seal: str = ""

    @property
    def publisher(self) -> str:
        """The principal of whatever the app says."""
        return f"app:{self.name}"

    @property
    def label(self) -> Label:
        """Of whatever the app says. It keeps what it has been told, by whomever, so that its words
        may hold any of that: they are for you and for the app itself."""
        return Label.of(self.sources, (), ("user", self.publisher), UNBOUNDED)

    @property
    def sources(self) -> tuple[str, str]:
        return (self.publisher, f"kept:{self.name}")

    def signature(self, tool: str) -> Signature:
        approved = self.tools[tool]
        return Signature(
            f"{self.name}.{tool}",
            tuple(one.param() for one in approved.offer.operands),
            approved.result,
            Effect(approved.effect),
            "",  # the publisher's words are for people alone
            timeout_s=self.timeout_s,
            turn=TURN,
            yields=True,  # a program from before the app was added may use its name
            told=(self.publisher,),
            sources=self.sources,
        )

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return tuple(map(self.signature, self.tools))

    def sealed(self) -> App:
        return msgspec.structs.replace(self, seal=_digest(self))


def _digest(app: App) -> str:
    whole = msgspec.structs.replace(app, seal="")
    return hashlib.sha256(msgspec.json.encode(whole, order="sorted")).hexdigest()


class Installed:
    """The apps of a workspace.

    Args:
        kept: its ``.edvac`` directory.
    """

    def __init__(self, kept: Path) -> None:
        self._place = kept / PLACE

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._place.glob("*.json"))

    def all(self) -> list[App]:
        """Every app, approved or not; raises what `get` does."""
        return [self.get(name) for name in self.names()]

    def get(self, name: str) -> App:
        """
        Raises:
            UsageError: there is none of this name.
            ConfigError: its file is damaged, or was changed by other means than approval.
        """
        if name not in self.names():
            near = f"There are: {', '.join(self.names())}." if self.names() else ""
            raise UsageError(
                "app_unknown", f"there is no app {name!r}", near, "See `edvac app list`."
            )
        path = self._place / f"{name}.json"
        try:
            app = msgspec.json.decode(path.read_bytes(), type=App)
            sound = app.seal == _digest(app) and app.name == name
        except (OSError, ValueError, RecursionError) as problem:
            raise _damaged(name, str(problem)) from problem
        if not sound:
            raise _damaged(name, "It was changed by other means than approval.")
        return app

    def folder(self, name: str) -> Path:
        """The app's own folder, made where there is none."""
        made = self._place / name
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
        return made

    def apart(self, paths: Iterable[str]) -> None:
        """Refuse code that would show an app what edvac or another app keeps.

        Raises:
            UsageError: one of the paths holds that, or lies in it.
        """
        kept = self._place.parent.resolve()
        for path in map(Path, paths):
            if path.is_relative_to(kept) or kept.is_relative_to(path):
                raise UsageError(
                    "app_code",
                    f"an app may not read {str(path)!r}",
                    f"{kept} is where runs, and what other apps keep, are stored.",
                    "Name the directory of its code alone.",
                )

    def keep(self, app: App) -> None:
        """Store it, durably, in place of what is there."""
        with self._alone():
            new = self._place / f"{app.name}.json.new"
            with new.open("wb") as file:
                new.chmod(0o600)
                file.write(msgspec.json.format(msgspec.json.encode(app.sealed()), indent=1))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._place / f"{app.name}.json")
            place = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(place)
            finally:
                os.close(place)

    def remove(self, name: str) -> None:
        """The app with all that it has kept; raises `UsageError` where there is none."""
        if name not in self.names():
            self.get(name)
        with self._alone():
            (self._place / f"{name}.json").unlink(missing_ok=True)
            shutil.rmtree(self._place / name, ignore_errors=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(self._place / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)


def _damaged(name: str, why: str) -> ConfigError:
    return ConfigError(
        "app_damaged",
        f"what was approved of the app {name!r} cannot be read",
        why,
        f"Remove it with `edvac app remove {name}` and add it again.",
    )


def approve(
    app: App,
    offered: Offered,
    *,
    only: Collection[str] = (),
    reads: Collection[str] = (),
    returns: Mapping[str, Type] | None = None,
) -> App:
    """The app with the signatures that it offers now, as a person says yes to them.

    Args:
        only: these tools; all of them where it is empty.
        reads: tools that change nothing anywhere, by the person's word. Whatever is not said to
            read is taken for an act, but for a tool that is offered just as it was approved before.
        returns: types of results, where the server promises only a text.

    Raises:
        UsageError: one of the names is no tool of the app.
    """
    promised = dict(returns or {})
    for name in (*only, *reads, *promised):
        if name not in offered.tools:
            there = f"It has {', '.join(offered.tools)}." if offered.tools else "It has none."
            raise UsageError("app_tool_unknown", f"{app.name} has no tool {name!r}", there)
    tools: dict[str, Approved] = {}
    for name, offer in offered.tools.items():
        if only and name not in only:
            continue
        before = app.tools.get(name)
        same = before if before is not None and before.offer == offer else Approved(offer)
        effect = READS if name in reads else same.effect
        kind = stored(promised[name]) if name in promised else same.returns
        tools[name] = Approved(offer, effect, kind)
    return msgspec.structs.replace(app, tools=tools, words=offered.words)
