"""Runs inside the sandbox of an app: a module's typed functions as tools of the protocol.

``host.py MODULE DIRECTORY``. Needs nothing but Python: nothing of edvac's is here. A function is a
tool if it is public, written in that module, and all its parameters have hints. With
``from edvac_app import ask`` a function may ask edvac for what another app offers.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib
import inspect
import json
import os
import sys
import types
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

PLAIN = {bool: "boolean", int: "integer", float: "number", Decimal: "number", str: "string"}


def schema_of(hint: Any) -> dict[str, Any]:
    """The JSON schema of a hint; an empty one for what has none."""
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    if hint is dt.date:
        return {"type": "string", "format": "date"}
    if hint is type(None):
        return {"type": "null"}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        fields = {one.name: schema_of(hints[one.name]) for one in dataclasses.fields(hint)}
        return {"type": "object", "properties": fields, "required": list(fields)}
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(one) for one in args]}
    if origin is list:
        return {"type": "array", "items": schema_of(args[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(args[1])}
    return {}


def given(data: Any, hint: Any) -> Any:
    """JSON data as a function expects it."""
    if hint is Decimal and isinstance(data, int | float):
        return Decimal(str(data))
    if hint is dt.date and isinstance(data, str):
        return dt.date.fromisoformat(data)
    if get_origin(hint) in (Union, types.UnionType) and data is not None:
        rest = [one for one in get_args(hint) if one is not type(None)]
        return given(data, rest[0]) if len(rest) == 1 else data
    if get_origin(hint) is list and isinstance(data, list):
        return [given(one, get_args(hint)[0]) for one in data]
    return data


def plain(data: Any) -> Any:
    """What a function returned, as JSON data."""
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {one.name: plain(getattr(data, one.name)) for one in dataclasses.fields(data)}
    if isinstance(data, list | tuple):
        return [plain(one) for one in data]
    if isinstance(data, dict):
        return {str(key): plain(one) for key, one in data.items()}
    return float(data) if isinstance(data, Decimal) else data


class Host:
    def __init__(self, module: Any, lines: Any, out: Any) -> None:
        self._lines, self._out = lines, out
        self._asked = 0
        self._tools: dict[str, Callable[..., Any]] = {
            name: found
            for name, found in vars(module).items()
            if inspect.isfunction(found)
            and found.__module__ == module.__name__
            and not name.startswith("_")
            and set(inspect.signature(found).parameters) <= set(get_type_hints(found))
        }

    def serve(self) -> None:
        for line in self._lines:
            frame = json.loads(line)
            if "id" not in frame or "method" not in frame:
                continue
            try:
                said = {"result": self._answer(frame["method"], frame.get("params", {}))}
            except Exception as problem:  # whatever the module raises is its answer
                said = {
                    "error": {"code": -32000, "message": f"{type(problem).__name__}: {problem}"}
                }
            self._send({"id": frame["id"], **said})

    def ask(self, tool: str, /, **operands: Any) -> Any:
        """What another app offers: ``ask("metro.fare", origin="A", destination="B")``.

        Raises:
            PermissionError: edvac, or the person, says no.
        """
        self._asked += 1
        number = f"ask-{self._asked}"
        params = {"tool": tool, "arguments": plain(operands)}
        self._send({"id": number, "method": "edvac/call", "params": params})
        for line in self._lines:
            frame = json.loads(line)
            if frame.get("id") != number:
                continue
            if "error" in frame:
                raise PermissionError(frame["error"]["message"])
            return frame["result"]["value"]
        raise EOFError

    def _send(self, frame: dict[str, Any]) -> None:
        text = json.dumps({"jsonrpc": "2.0", **frame}, default=str)
        self._out.write(text.encode() + b"\n")
        self._out.flush()

    def _answer(self, method: str, params: dict[str, Any]) -> Any:
        if method == "initialize":
            return {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "edvac-host", "version": "1"},
            }
        if method == "tools/list":
            return {"tools": [self._described(*pair) for pair in self._tools.items()]}
        if method == "tools/call":
            return self._called(self._tools[params["name"]], params.get("arguments", {}))
        raise ValueError(method)

    @staticmethod
    def _described(name: str, run: Callable[..., Any]) -> dict[str, Any]:
        hints = get_type_hints(run)
        fields, needed = {}, []
        for param in inspect.signature(run).parameters.values():
            fields[param.name] = schema_of(hints[param.name])
            if param.default is param.empty:
                needed.append(param.name)
            else:
                fields[param.name]["default"] = param.default
        made: dict[str, Any] = {"name": name, "description": inspect.getdoc(run) or ""}
        made["inputSchema"] = {"type": "object", "properties": fields, "required": needed}
        if result := schema_of(hints.get("return", str)):
            made["outputSchema"] = {"type": "object", "properties": {"result": result}}
        return made

    @staticmethod
    def _called(run: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
        hints = get_type_hints(run)
        found = plain(run(**{key: given(one, hints[key]) for key, one in arguments.items()}))
        text = found if isinstance(found, str) else json.dumps(found, default=str)
        content = [{"type": "text", "text": text}]
        return {"content": content, "structuredContent": {"result": found}}


def main() -> None:
    name, directory = sys.argv[1:]
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the module prints must not look like a frame
    sys.path.insert(0, directory)
    asking = types.ModuleType("edvac_app")
    sys.modules["edvac_app"] = asking
    host: Host | None = None

    def ask(tool: str, /, **operands: Any) -> Any:
        assert host is not None, "nothing can be asked while the module is imported"
        return host.ask(tool, **operands)

    asking.ask = ask  # type: ignore[attr-defined]
    host = Host(importlib.import_module(name), sys.stdin.buffer, out)
    host.serve()


if __name__ == "__main__":
    main()
