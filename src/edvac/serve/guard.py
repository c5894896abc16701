"""Who is answered: only at the addresses that are served, only who knows a key, and no web page.

It stands before the routes, so that no new one can be forgotten, and before any body is read.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from edvac.core.errors import UsageError
from edvac.serve.refusal import refused

CLIENT = "edvac.client"  # where in a request's scope the name of who sent it stands


@dataclass(frozen=True, slots=True)
class Guard:
    """
    Args:
        hosts: values of the header ``Host`` that are answered, in lower case.
        keys: what clients have to know, with the name of who has it; none for no key.
    """

    application: ASGIApp
    hosts: frozenset[str]
    keys: Mapping[str, str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            scope[CLIENT] = self._client(Headers(scope=scope))
        except UsageError as error:
            await refused(error)(scope, receive, send)
            return
        await self.application(scope, receive, send)

    def _client(self, headers: Headers) -> str:
        """The name of the client.

        Raises:
            UsageError: it is not answered.
        """
        host = headers.get("host", "").lower()
        if host not in self.hosts:
            raise UsageError("host_unknown", "this is not the address that is served")
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] not in self.hosts:
            raise UsageError("origin_unknown", "web pages are not served")
        if not self.keys:
            return ""
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        own = headers.get("x-api-key", "").encode()
        found = [
            name
            for key, name in self.keys.items()
            if hmac.compare_digest(given, key.encode()) or hmac.compare_digest(own, key.encode())
        ]
        if not found:
            fix = "Send it as the API key."
            raise UsageError("key_wrong", "the key is missing or wrong", "", fix)
        return found[0]
