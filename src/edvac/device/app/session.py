"""One conversation with an app: the client's side of the Model Context Protocol over stdio.

One request is under way at a time; while its answer is awaited the app may ask something itself,
which `answer` decides. Whatever else comes is counted and passed over, up to a bound: an app that
only talks is ended. Knows nothing of types or of what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from edvac.core.errors import TransientError
from edvac.device.app.manifest import App
from edvac.device.app.process import Process, cannot_start
from edvac.device.app.wire import Frames, broken, encoded

PROTOCOL = "2025-06-18"
START_S = 30.0
NOISE = 1_000  # frames that answer nothing, for one request
PAGES = 20  # of a list of tools
REFUSED, UNKNOWN = -32001, -32601  # errors of JSON-RPC
# What an app asks of edvac: method and parameters to a result. A `Refusal` goes to the app.
Answer = Callable[[str, dict[str, Any]], Awaitable[Any]]


class Refusal(Exception):
    """The app is told no, in one of edvac's own words."""

    def __init__(self, word: str, code: int = REFUSED) -> None:
        super().__init__(word)
        self.word = word
        self.code = code


class Failed(Exception):
    """The app says that it could not do it; in its own words, which are for people alone."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self.said = said


def quoted(said: str, most: int = 300) -> str:
    """A stranger's words for a person: on one line, with what is hidden made visible."""
    return ascii(said if len(said) <= most else f"{said[:most]}...")


async def nothing(method: str, params: dict[str, Any]) -> Any:
    """Nothing may be asked."""
    del params
    raise Refusal(f"{method[:40]!r} is not offered here", UNKNOWN)


class Session:
    """Use `Session.begin`, then `call`, then `close`."""

    def __init__(self, app: App, process: Process) -> None:
        self._app = app
        self._process = process
        self._frames = Frames(process.stdout, app.name)
        self._number = 0
        self.listed: list[Any] = []

    @staticmethod
    async def begin(app: App, own: Path) -> Session:
        """A running app that has said what it offers: `listed`.

        Raises:
            DeviceError: it does not start, or does not keep to the protocol.
            SandboxError: there is no isolation here.
        """
        made = Session(app, await Process.begin(app, own))
        try:
            async with asyncio.timeout(START_S):
                await made._greet()
        except TimeoutError:
            await made.close()
            raise cannot_start(app, f"it said nothing for {START_S:g} s") from None
        except TransientError:
            why = f"it ended. It wrote: {made._process.said}" if made._process.said else ""
            await made.close()
            raise cannot_start(app, why) from None
        except Failed as no:
            await made.close()
            raise cannot_start(app, f"it says: {quoted(no.said)}") from None
        except BaseException:
            await made.close()
            raise
        return made

    async def _greet(self) -> None:
        client = {"name": "edvac", "version": "1"}
        asked = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client}
        await self._request("initialize", asked, nothing)
        await self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        params: dict[str, Any] = {}
        for _ in range(PAGES):
            found = await self._request("tools/list", params, nothing)
            tools = found.get("tools")
            if not isinstance(tools, list):
                raise broken(self._app.name, "its list of tools is none")
            self.listed += tools
            if not isinstance(found.get("nextCursor"), str):
                return
            params = {"cursor": found["nextCursor"]}
        raise broken(self._app.name, "its list of tools does not end")

    async def call(self, tool: str, arguments: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """What a tool answers.

        Raises:
            Failed: the app says that it could not.
            DeviceError: it does not keep to the protocol.
            TransientError: it ended before it answered.
            SandboxError: it went beyond a limit.
        """
        params = {"name": tool, "arguments": arguments}
        return await self._request("tools/call", params, answer)

    @property
    def over(self) -> bool:
        """Has the app ended by itself?"""
        return self._process.over

    def met(self) -> tuple[list[str], list[str]]:
        """Origins that the app has connected to, and those that it was refused since last asked."""
        way_out = self._process.way_out
        return (way_out.met, way_out.refused()) if way_out is not None else ([], [])

    async def close(self) -> None:
        await self._process.close()

    async def _request(self, method: str, params: dict[str, Any], answer: Answer) -> dict[str, Any]:
        self._number += 1
        number = self._number
        await self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        for _ in range(NOISE):
            frame = await self._frames.next()
            if frame is None:
                raise self._process.stopped_by or _ended(self._app)
            if isinstance(frame.get("method"), str):
                await self._asked(frame, answer)
            elif type(frame.get("id")) is int and frame["id"] == number:
                return self._result(frame)
        raise broken(self._app.name, f"{NOISE:,} lines came that answer nothing")

    def _result(self, frame: dict[str, Any]) -> dict[str, Any]:
        found, problem = frame.get("result"), frame.get("error")
        if isinstance(problem, dict) and found is None:
            raise Failed(str(problem.get("message", "")))
        if not isinstance(found, dict) or problem is not None:
            raise broken(self._app.name, "an answer has neither a result nor an error")
        return found

    async def _asked(self, frame: dict[str, Any], answer: Answer) -> None:
        """The app wants something; a notification, which has no number, gets no answer."""
        number, method, params = frame.get("id"), frame["method"], frame.get("params", {})
        if isinstance(number, bool) or not isinstance(number, int | str):
            return
        said: dict[str, Any] = {"jsonrpc": "2.0", "id": number}
        try:
            if method == "ping":
                said["result"] = {}
            elif not isinstance(params, dict):
                raise Refusal("its parameters are no object")
            else:
                said["result"] = await answer(method, params)
        except Refusal as no:
            said["error"] = {"code": no.code, "message": no.word}
        await self._send(said)

    async def _send(self, frame: dict[str, Any]) -> None:
        try:
            self._process.stdin.write(encoded(frame))
            await self._process.stdin.drain()
        except OSError as problem:
            raise self._process.stopped_by or _ended(self._app) from problem


def _ended(app: App) -> TransientError:
    return TransientError(
        "app_ended",
        f"the app {app.name} ended before it answered",
        "Nothing else is affected.",
        "It is started again; if that fails too, ask its publisher.",
    )
