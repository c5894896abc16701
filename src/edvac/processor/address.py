"""Addresses of endpoints, and the keys that belong to them.

A key comes from the environment or from a file that only its owner can read, is read at the moment
of a call, and is sent to the one host that it is for.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path

import httpx2
import platformdirs

from edvac.core.errors import ConfigError

MAX_KEY_FILE = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Address:
    """Where an endpoint is.

    Attributes:
        base: without a slash at its end, such as ``http://127.0.0.1:11434/v1``.
        origin: scheme, host and port.
        host: host and port.
    """

    base: str
    origin: str
    host: str
    local: bool  # on this machine

    @property
    def root(self) -> str:
        """Where a product's own paths begin: the base without ``/v1``."""
        return self.base.removesuffix("/v1")


def parse_address(url: str) -> Address:
    """
    Raises:
        ConfigError: it is none, or it holds what would be stored and shown with every run.
    """
    try:
        base = httpx2.URL(url)
        port = base.port
    except (httpx2.InvalidURL, ValueError):
        base, port = httpx2.URL(""), None
    if base.scheme not in ("http", "https") or not base.host or not 0 < (port or 80) < 65536:
        raise ConfigError(
            "endpoint_url",
            f"{url!r} is not the address of an endpoint",
            "",
            "Use URL#MODEL, such as http://127.0.0.1:11434/v1#llama3.2.",
        )
    if base.userinfo or base.query:
        raise ConfigError(
            "endpoint_url",
            f"the address of {base.host} holds a name, a key or a query",
            "It would be stored and shown with every run.",
            "Put the key into an environment variable and name that with key_env.",
        )
    host = base.netloc.decode()
    return Address(url.rstrip("/"), f"{base.scheme}://{host}", host, _is_local(base.host))


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the key of one endpoint is read from: the key file under its origin, else a variable.

    Attributes:
        variable: name of the environment variable; empty is none.
    """

    origin: str
    variable: str = ""

    def read(self) -> str:
        """The key, or an empty text.

        Raises:
            ConfigError: the file can be read by others or is none, or the key has characters that
                no key has.
        """
        key = _from_file(key_file(), self.origin)
        place = "the key file"
        if key is None:
            key = os.environ.get(self.variable, "").strip() if self.variable else ""
            place = f"${self.variable}"
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise ConfigError(
                "endpoint_key",
                f"the key in {place} has characters that no key has",
                "",
                "Set it again, without quotes, spaces or line ends.",
            )
        return key


def key_file() -> Path:
    """``keys.toml`` beside the user's settings: keys by origin."""
    return Path(platformdirs.user_config_dir("edvac")) / "keys.toml"


def _from_file(path: Path, origin: str) -> str | None:
    """The key of an origin. The file's content appears in no error."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise _bad_file(path, problem.strerror or "It cannot be opened.") from problem
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_KEY_FILE:
            raise _bad_file(path, "It is no file of keys.")
        if found.st_mode & 0o077 or found.st_uid != os.getuid():
            raise _bad_file(path, "Others can read it.")
        data = file.read(MAX_KEY_FILE)
    try:
        keys = tomllib.loads(data.decode())
    except ValueError:
        raise _bad_file(path, "It is not TOML.") from None  # the problem would show a line of it
    key = keys.get(origin)
    if key is not None and not isinstance(key, str):
        raise _bad_file(path, f"What it holds for {origin} is no text.")
    return key


def _bad_file(path: Path, why: str) -> ConfigError:
    return ConfigError(
        "key_file",
        f"the key file {str(path)!r} cannot be used",
        why,
        'Write lines like "https://api.example.com" = "KEY" into it, and chmod it to 600.',
    )
