"""Where a store on PostgreSQL is: what a ``postgresql://`` URL says. Its password is never shown.

The URL is libpq's, with three keys of edvac's own in its query: ``schema`` (the name of the store
within the database), ``blobs`` (a shared folder for values that are too large for a row) and
``unsafe=1`` (take a server that may lose what it has confirmed). Knows nothing of connections.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from edvac.core.errors import UsageError

SCHEMES = ("postgresql", "postgres")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_KEYS = ("schema", "blobs", "unsafe")
_HIDDEN = "***"
# What libpq does unless the URL says otherwise: notice within a minute that the other side is gone.
_DEFAULTS = {
    "application_name": "edvac",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


def is_url(where: str) -> bool:
    return "://" in where


def driver() -> Any:
    """The module psycopg.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise UsageError(
            "scale_missing",
            "a store on PostgreSQL needs psycopg, which is not installed",
            str(error),
            "pip install 'edvac[scale]'.",
        ) from error


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL. `shown` is what may be printed of it."""

    parameters: Mapping[str, str] = field(repr=False)
    schema: str
    folder: Path | None
    unsafe: bool
    shown: str
    _secrets: tuple[str, ...] = field(repr=False)

    def scrub(self, text: str) -> str:
        """A text of the driver's without the password, in whatever spelling."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return " ".join(text.split())


def parse(url: str) -> Address:
    """
    Raises:
        UsageError: it is no such URL, or the driver is missing. What it says names no part of the
            URL, since a password may stand anywhere in what cannot be read.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise _malformed("It does not begin with postgresql://.")
    head, _, query = rest.partition("?")
    try:
        asked = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise _malformed("Its query is no list of key=value.") from None
    own = {key: value for key, value in asked if key in _KEYS}
    left = urlencode([pair for pair in asked if pair[0] not in _KEYS], quote_via=quote)
    psycopg = driver()
    try:
        found = psycopg.conninfo.conninfo_to_dict(f"{scheme}://{head}?{left}")
    except psycopg.Error:
        raise _malformed("libpq does not understand it.") from None  # its text quotes the URL
    parameters = {**_DEFAULTS, **{key: str(value) for key, value in found.items()}}
    if not re.fullmatch(r"[0-9,]*", parameters.get("port", "")):  # libpq finds out on connecting
        raise _malformed("A port is a number.")
    schema = own.get("schema", "edvac")
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise _malformed("schema= takes lower-case letters, digits and _, and not pg_ in front.")
    if own.get("unsafe", "0") not in ("0", "1"):
        raise _malformed("unsafe= takes 0 or 1.")
    folder = own.get("blobs")
    if folder is not None and not Path(folder).is_absolute():
        raise _malformed("blobs= takes the absolute path of a directory.")
    return Address(
        parameters,
        schema,
        Path(folder) if folder is not None else None,
        own.get("unsafe") == "1",
        _shown(parameters, schema),
        _secrets(parameters, head.partition("/")[0]),
    )


def _secrets(parameters: Mapping[str, str], netloc: str) -> tuple[str, ...]:
    plain = [parameters[key] for key in ("password", "sslpassword") if parameters.get(key)]
    written = netloc.rpartition("@")[0].partition(":")[2]
    every = {*plain, *map(quote, plain), written, unquote(written)}
    return tuple(sorted(filter(None, every), key=len, reverse=True))


def _shown(parameters: Mapping[str, str], schema: str) -> str:
    host = parameters.get("host") or parameters.get("hostaddr") or "local"
    port = f":{parameters['port']}" if parameters.get("port") else ""
    return f"postgresql://{host}{port}/{parameters.get('dbname', '')}?schema={schema}"


def _malformed(why: str) -> UsageError:
    return UsageError(
        "store_url_malformed",
        "the store's URL cannot be used",
        why,
        "Such as postgresql://user@host/database?schema=edvac; see docs/how-to/scale-out.md.",
    )
