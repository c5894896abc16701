"""Origins: which ones a program names in its own words, and at which addresses one may lie.

Knows nothing of connections.
"""

from __future__ import annotations

import ast
import functools
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from edvac.core.errors import ConfigError
from edvac.program.tree import calls, children, dotted, names, walk

_OPEN = "browser.open"
_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> str:
    """Scheme, host and port in one form; empty where the text is no URL of the web, or one with a
    name and password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    host = (parts.hostname or "").rstrip(".").lower()
    odd = parts.username is not None or parts.password is not None or "\\" in url
    if parts.scheme not in _PORTS or not host or odd or any(sign <= " " for sign in url):
        return ""
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port or _PORTS[parts.scheme]}"


def host_and_port(origin: str) -> tuple[str, int]:
    parts = urlsplit(origin)
    return parts.hostname or "", parts.port or 0


def shown(origin: str) -> str:
    """As people write it: without the port that is its scheme's own."""
    host, port = host_and_port(origin)
    scheme = origin.partition(":")[0]
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" if _PORTS.get(scheme) == port else f"{scheme}://{host}:{port}"


@dataclass(frozen=True, slots=True)
class Grants:
    """What the settings allow, beyond what programs name; each an origin.

    Attributes:
        further: pages may also connect to these, and a program may open them.
        private: these may lie at an address of this machine or its networks.
        sandbox: acting there changes nothing that matters, so that nobody is asked; implies
            `private`.
        steering: do answers of `browser.sees` decide about acts without a person?
    """

    further: frozenset[str] = frozenset()
    private: frozenset[str] = frozenset()
    sandbox: frozenset[str] = frozenset()
    steering: bool = False

    def lies_well(self, origin: str, address: str) -> bool:
        """May the origin be at that address?"""
        if origin in self.private or origin in self.sandbox:
            return True
        return is_public(address)


def is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if inner:
            return is_public(str(inner))
        if found in _TRANSLATED:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
    return found.is_global and not found.is_multicast


_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # stands for the IPv4 address in its end


def read_origins(setting: str, texts: tuple[str, ...]) -> frozenset[str]:
    """Origins of a setting.

    Raises:
        ConfigError: one is none.
    """
    for text in texts:
        if not origin_of(text) or urlsplit(text).path not in ("", "/"):
            raise ConfigError(
                "origin_unfit",
                f"{text!r} in {setting} is no origin",
                "An origin is a scheme and a host, and a port where it has one of its own.",
                "Write it as https://shop.example or http://127.0.0.1:8000.",
            )
    return frozenset(map(origin_of, texts))


@functools.lru_cache(maxsize=8)
def spelled_origins(text: str) -> frozenset[str]:
    """Origins of the URLs that a program opens, as far as they stand in its text: in the operand
    of `browser.open`, or in what the names there are set to."""
    if _OPEN.partition(".")[0] not in text:
        return frozenset()
    tree = ast.parse(text)
    waiting = [one for call in calls(tree) if _calls(call, _OPEN) for one in children(call)]
    found: set[str] = set()
    seen: set[str] = set()
    while waiting:
        for node in walk(waiting.pop()):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(origin_of(node.value))
            elif isinstance(node, ast.Name) and node.id not in seen:
                seen.add(node.id)
                waiting += _given(tree, node.id)
    return frozenset(found - {""})


def _given(tree: ast.Module, name: str) -> Iterator[ast.AST]:
    """What a name is set to, and the parameters' operands where it is one."""
    for node in walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                if any(name in names(target) for target in targets):
                    yield value
            case ast.For(target=target, iter=over) | ast.comprehension(target=target, iter=over):
                if name in names(target):
                    yield over
            case ast.FunctionDef(name=function, args=args):
                if any(arg.arg == name for arg in args.args):
                    yield from (one for one in calls(tree) if _calls(one, function))


def _calls(call: ast.Call, function: str) -> bool:
    return dotted(call.func) == function
