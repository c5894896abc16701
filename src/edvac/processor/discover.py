"""Servers of models on this machine, at the ports where they usually listen.

Only loopback is asked, and only for lists; a port where something else listens is passed over.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import httpx2

from edvac.core.errors import ConfigError
from edvac.processor import product
from edvac.processor.address import Address, parse_address
from edvac.processor.product import Server
from edvac.processor.web import client

PORTS = (11434, 8080, 8000, 1234)  # ollama, llama.cpp's server, vLLM, LM Studio; ours wants a key
TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """A server and where it is."""

    address: Address
    server: Server

    @property
    def models(self) -> list[str]:
        """``URL#MODEL`` of each model that answers messages."""
        return [f"{self.address.base}#{one.name}" for one in self.server.models if one.chat]


async def find_servers() -> list[Found]:
    """Every server found, in the order of the ports."""
    addresses = [parse_address(f"http://127.0.0.1:{port}/v1") for port in PORTS]
    chosen = _ollama_host()
    if chosen is not None and chosen not in addresses:
        addresses.append(chosen)
    async with client(TIMEOUT_S, TIMEOUT_S) as http:
        found = await asyncio.gather(*[_look(http, address) for address in addresses])
    return [one for one in found if one is not None]


async def _look(http: httpx2.AsyncClient, address: Address) -> Found | None:
    try:
        async with asyncio.timeout(5 * TIMEOUT_S):
            server = await product.look(http, address, timeout_s=TIMEOUT_S)
    except (httpx2.HTTPError, TimeoutError):
        return None
    return Found(address, server) if server is not None else None


def _ollama_host() -> Address | None:
    """Where OLLAMA_HOST says that ollama listens, if that is on this machine."""
    host = os.environ.get("OLLAMA_HOST", "").removeprefix("http://").rstrip("/")
    try:
        address = parse_address(f"http://{host if ':' in host else f'{host}:11434'}/v1")
    except ConfigError:
        return None
    return address if address.local else None
