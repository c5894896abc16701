"""Small questions to a server that may be anything: bounded in time and size, never redirected.

Knows nothing of models.
"""

from __future__ import annotations

import json
from typing import Any

import httpx2

from edvac.core.seams import Contacts

MAX_REPLY = 4 * 1024 * 1024  # bytes of a listing


def client(
    timeout_s: float, connect_s: float = 10.0, contacts: Contacts | None = None
) -> httpx2.AsyncClient:
    """An HTTP client that follows no redirect and takes no proxy from the environment, so that the
    host of a request is the one connected to; `contacts` is told of each."""
    timeout = httpx2.Timeout(timeout_s, connect=connect_s)
    seen = contacts or Contacts()

    async def watch(request: httpx2.Request) -> None:
        async def trace(name: str, _: object) -> None:
            # Connected, or a kept connection used again.
            if name.endswith(("connect_tcp.complete", "send_request_headers.complete")):
                seen.note(f"{request.url.scheme}://{request.url.netloc.decode()}")

        request.extensions = {**request.extensions, "trace": trace}

    return httpx2.AsyncClient(
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
        event_hooks={"request": [watch]},
    )


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


async def ask_json(
    http: httpx2.AsyncClient,
    url: str,
    *,
    key: str = "",
    body: dict[str, Any] | None = None,
    timeout_s: float = 5.0,
    undecided: frozenset[int] = frozenset(),
) -> Any | None:
    """The JSON at an address (GET, or POST with a body); None where there is none.

    Args:
        timeout_s: for the connection, and for each part of the reply.
        undecided: statuses that say neither yes nor no.

    Raises:
        httpx2.HTTPError: nobody is there, or not in time, or the status is an undecided one.
    """
    method = "GET" if body is None else "POST"
    timeout = httpx2.Timeout(timeout_s)
    async with http.stream(method, url, json=body, headers=bearer(key), timeout=timeout) as reply:
        if reply.status_code in undecided:
            raise httpx2.HTTPError(f"status {reply.status_code}")
        if reply.status_code != 200:
            return None
        found = bytearray()
        async for part in reply.aiter_bytes():
            found += part
            if len(found) > MAX_REPLY:
                return None
    try:
        return json.loads(found)
    except (ValueError, RecursionError):
        return None


def get(data: Any, *path: str | int) -> Any:
    """What lies at a path of keys and places in foreign JSON; None where it does not."""
    for step in path:
        if isinstance(step, str) and isinstance(data, dict):
            data = data.get(step)
        elif isinstance(step, int) and isinstance(data, list) and step < len(data):
            data = data[step]
        else:
            return None
    return data


def text(data: Any, *path: str | int) -> str:
    found = get(data, *path)
    return found if isinstance(found, str) else ""


def number(data: Any, *path: str | int) -> int:
    """A whole number above zero; 0 for anything else."""
    found = get(data, *path)
    whole = isinstance(found, int) and not isinstance(found, bool)
    return found if whole and 0 < found < 2**53 else 0


def rows(data: Any, *path: str | int) -> list[dict[str, Any]]:
    """The objects of a list, at most a thousand of them."""
    found = get(data, *path)
    return [one for one in found[:1000] if isinstance(one, dict)] if isinstance(found, list) else []
