"""An app as a device: what programs call, with results held to the approved types and labelled.

Its process begins with the first call of a run and ends with the run. Before anything is asked of
it, what it offers is compared with what was approved: other signatures are other tools, whatever
they are called. Knows nothing of how apps are approved or permissions kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from edvac.core.errors import (
    DeviceError,
    EdvacError,
    ModelOutputError,
    SandboxError,
    TransientError,
)
from edvac.core.label import combine
from edvac.core.result import influenced
from edvac.core.schema import STR, decode
from edvac.core.signature import Effect, Signature
from edvac.core.value import Scalar, Value, plain
from edvac.device.app.hub import Asking, Hub
from edvac.device.app.manifest import App, Approved
from edvac.device.app.offer import RESULT, Offered, changes, read_offers
from edvac.device.app.session import Failed, Session, quoted
from edvac.device.app.types import filled, shown
from edvac.device.port import Call, Reply

MAX_TEXT = 1_000_000  # characters of an answer that is one text


class AppDevice:
    """One app in one run.

    Args:
        own: the app's own folder.
    """

    def __init__(self, app: App, own: Path, hub: Hub) -> None:
        self.app = app
        self.version = app.seal
        self._own = own
        self._hub = hub
        self._session: Session | None = None
        self.met: set[str] = set()  # origins that it has connected to
        self._one = asyncio.Lock()  # another app may ask while a step of the program's own is done

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return self.app.signatures

    async def call(self, call: Call) -> Reply:
        tool = call.signature.function
        asking = self._asking(tool, call.address)
        value = await self._done(tool, call.operands, asking, call.timeout_s)
        return Reply(value, notes=tuple(asking.notes))

    async def asked(self, tool: str, values: dict[str, Value], address: str) -> Value:
        """The same for another app, by way of the hub."""
        return await self._done(tool, values, self._asking(tool, address), self.app.timeout_s)

    async def read_version(self, call: Call) -> str | None:
        return None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._met(session)
            await session.close()

    def _met(self, session: Session) -> list[str]:
        """Take note of whom it has connected to; those that it was refused."""
        met, refused = session.met()
        self.met |= set(met)
        return refused

    def _asking(self, tool: str, address: str) -> Asking:
        return Asking(self.app, address, Effect(self.app.tools[tool].effect))

    async def _done(
        self, tool: str, operands: Mapping[str, Value], asking: Asking, timeout_s: float
    ) -> Value:
        """
        Raises:
            TimeoutError: the app itself took longer; its process is ended.
        """
        approved = self.app.tools[tool]
        async with self._one:
            session = await self._ready()
            async with asyncio.timeout(timeout_s) as asking.timer:
                arguments = _arguments(approved, operands)
                found = await self._answer(session, approved, arguments, asking)
        value = _value(self.app, approved, found)
        return influenced(value, approved.result, combine(asking.heard))

    async def _ready(self) -> Session:
        """The running app; another process where there is none any more."""
        if self._session is not None and self._session.over:
            await self.close()
        self._session = self._session or await self._begun()
        return self._session

    async def _answer(
        self, session: Session, approved: Approved, arguments: dict[str, Any], asking: Asking
    ) -> dict[str, Any]:
        """What the app says; of a process that is in the middle of something else nothing is used
        again."""
        op = f"{self.app.name}.{approved.offer.name}"
        try:
            answer = self._hub.answering(asking)
            found = await session.call(approved.offer.wire, arguments, answer)
            asking.notes += [f"{self.app.name} may not connect to {x}" for x in self._met(session)]
            return found
        except Failed as no:
            raise _failed(op, no.said) from None
        except (TransientError, DeviceError, SandboxError) as problem:
            await self.close()
            if asking.effect is Effect.EXTERNAL:
                raise _in_doubt(op, problem) from problem
            raise
        except BaseException:
            await self.close()
            raise

    async def _begun(self) -> Session:
        session = await Session.begin(self.app, self._own)
        approved = {name: one.offer for name, one in self.app.tools.items()}
        changed = changes(approved, read_offers(session.listed).tools)
        if changed:
            await session.close()
            raise _changed(self.app.name, changed)
        return session


async def offered_by(app: App, own: Path) -> Offered:
    """Start an app to see what it offers; raises what `Session.begin` does."""
    session = await Session.begin(app, own)
    try:
        return read_offers(session.listed)
    finally:
        await session.close()


def _arguments(approved: Approved, operands: Mapping[str, Value]) -> dict[str, Any]:
    """The operands by the names that the server gave them; what is left out is left to it."""
    made: dict[str, Any] = {}
    for one in approved.offer.operands:
        if one.name in operands:
            data = plain(operands[one.name])
            if one.required or data is not None:
                made[one.wire] = data
    return made


def _value(app: App, approved: Approved, found: Mapping[str, Any]) -> Value:
    """An answer as a value of the approved type, labelled in every part.

    Raises:
        DeviceError: it says that it failed, or is of another type.
    """
    op, kind = f"{app.name}.{approved.offer.name}", approved.result
    if found.get("isError") is True:
        raise _failed(op, _text(found.get("content")) or "")
    if approved.offer.data:
        data = found.get("structuredContent")
        if approved.offer.wrapped and isinstance(data, dict):
            data = data.get(RESULT) if data.keys() == {RESULT} else None
    else:
        data = _text(found.get("content"))
        if data is None:
            raise _misfit(op, approved, "it is no text")
        if kind == STR:
            if len(data) > MAX_TEXT:
                raise _misfit(op, approved, f"it has {len(data):,} characters")
            return Scalar(data, app.label)
        data = _parsed(data)
    try:
        return decode(filled(data, kind), kind, app.label)
    except ModelOutputError as problem:
        raise _misfit(op, approved, quoted(problem.what)) from None


def _text(content: object) -> str | None:
    """The texts of an answer, if it is nothing else."""
    if not isinstance(content, list):
        return None
    parts = [one.get("text") if isinstance(one, dict) else None for one in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts) if len(texts) == len(parts) else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        return text


def _failed(op: str, said: str) -> DeviceError:
    return DeviceError(
        "app_failed",
        f"{op} could not do it",
        f"The app says: {quoted(said)}." if said else "The app does not say why.",
        "What it says is its publisher's word, and no model has seen it.",
    )


def _misfit(op: str, approved: Approved, why: str) -> DeviceError:
    return DeviceError(
        "app_result_misfit",
        f"{op} answered with something that is not of the type {shown(approved.result)}",
        f"{why[0].upper()}{why[1:]}.",
        "That type was approved. Where it has an effect, that may have happened.",
    )


def _in_doubt(op: str, problem: EdvacError) -> DeviceError:
    return DeviceError(
        "app_in_doubt",
        f"{op} gave no answer that can be read",
        f"Nobody knows whether it took effect: {problem.what}.",
        "Look where it acts; `edvac resume --retry` does it again.",
    )


def _changed(name: str, changed: Iterable[str]) -> DeviceError:
    return DeviceError(
        "app_changed",
        f"the app {name} offers other tools than you approved",
        f"{'; '.join(changed)}.",
        f"Nothing was asked of it. `edvac app approve {name}` shows what it offers now.",
    )
