"""A small server of the Model Context Protocol: what a ride with MetroHail costs.

It reads one JSON message a line from standard input and writes one a line to standard output.
"""

from __future__ import annotations

import json
import sys
from typing import Any

FARE = {
    "name": "fare",
    "description": "The fare of a ride with MetroHail between two places.",
    "inputSchema": {
        "type": "object",
        "properties": {"origin": {"type": "string"}, "destination": {"type": "string"}},
        "required": ["origin", "destination"],
    },
    "outputSchema": {
        "type": "object",
        "properties": {"result": {"type": "number"}},
        "required": ["result"],
    },
}


def fare(origin: str, destination: str) -> float:
    return round(14 + 1.8 * len(origin + destination), 2)


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "metro_hail", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": [FARE]}
    if method == "tools/call" and params["name"] == "fare":
        found = fare(**params["arguments"])
        content = [{"type": "text", "text": str(found)}]
        return {"content": content, "structuredContent": {"result": found}}
    raise ValueError(f"there is no {method}")


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue  # a notification
        said: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            said["result"] = answer(message["method"], message.get("params", {}))
        except (KeyError, TypeError, ValueError) as problem:
            said["error"] = {"code": -32602, "message": str(problem)}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
