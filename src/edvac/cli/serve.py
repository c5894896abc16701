"""`serve`: models of this machine for any OpenAI client."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import os
import secrets
import stat
from pathlib import Path

import click

from edvac.cli import ui
from edvac.cli.names import complete_model
from edvac.core.errors import ConfigError, UsageError

PORT = 11435
SHORTEST_KEY = 8  # characters
EXAMPLES = """\b
Examples:
  edvac serve
  edvac serve --port 0 --key-env MY_KEY
  edvac serve --model qwen2.5-coder:1.5b --model smollm2:135m --idle-unload 600
  edvac serve --adapter invoices=adapters/invoices.gguf
  edvac serve --host 0.0.0.0 --allow-host box.example --key-file ~/.config/edvac/keys
  curl -H "Authorization: Bearer KEY" http://127.0.0.1:11435/v1/models
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="A model: a name or a .gguf file. Said several times, requests choose by name.",
    shell_complete=complete_model,
)
@click.option(
    "--models-loaded",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="How many models are in memory at a time.",
)
@click.option(
    "--idle-unload",
    metavar="SECONDS",
    default=0.0,
    type=click.FloatRange(0),
    help="Unload a model that was not used for so long; 0, the default, keeps it.",
)
@click.option(
    "--alias",
    "names",
    multiple=True,
    metavar="NAME[=MODEL]",
    help="Another name of the first model, or of that one.",
)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME[@MODEL]=PATH",
    help="A LoRA adapter of the first model, or of that one, that requests may name.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name or address that clients reach this machine by, beside --host.",
)
@click.option("--key-env", metavar="NAME", help="Variable with the key; otherwise it is random.")
@click.option(
    "--key-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="File with keys, each a line, as KEY or CLIENT:KEY.",
)
@click.option("--no-key", is_flag=True, help="Answer everybody who reaches it.")
@click.option("--json", "as_json", is_flag=True, help="The address and key as JSON.")
def serve(**flags: object) -> None:
    """Serve models over HTTP, as OpenAI clients ask: chats, completions, tools, structure.

    The first model is loaded at once, others when they are asked for. Answers come whole or as they
    are written, under a JSON schema where one is given. Only this machine is answered, and only
    with the key that is printed here, unless told otherwise.
    """
    for name in ("starlette", "uvicorn"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                "serve_missing", "the service is not installed", "", "pip install 'edvac[serve]'."
            )
    from edvac.machine import settings
    from edvac.serve.offer import Offer, name_of
    from edvac.serve.run import hosts_of, listen, url_of
    from edvac.serve.run import serve as start

    host, port = str(flags["host"]), int(str(flags["port"]))
    keys, shown = _keys(flags)
    if not keys and not _is_here(host):
        raise UsageError(
            "serve_open",
            "without a key only this machine is served",
            f"{host} can be reached from others.",
            "Leave --no-key out, or listen at 127.0.0.1.",
        )
    first, *others = _texts(flags["models"]) or ("",)
    found, _ = settings.load(Path.cwd(), {"model": first} if first else {})
    name = name_of(found.model)
    offer = Offer(
        found,
        _texts(flags["names"]),
        tuple(others),
        _texts(flags["adapters"]),
        int(str(flags["models_loaded"])),
        float(str(flags["idle_unload"])),
        _texts(flags["hosts"]),
        keys,
    )
    listener = listen(host, port)
    url = url_of(listener)

    def opened() -> None:
        if flags["as_json"]:
            names = [name, *(name_of(one) for one in others)]
            ui.out_json({"url": url, "key": shown, "model": name, "models": names})
            return
        more = f" and {len(others)} more" if others else ""
        ui.out(f"Serving {name}{more} at {url}")
        if shown:
            ui.out(f"Key: {shown}")
        else:
            ui.out("The keys are those that you gave." if keys else "No key is needed.")
        ui.err("Ctrl-C ends it.")

    with listener:
        hosts_of(listener, offer.hosts)  # before a model is looked for
        asyncio.run(start(offer, listener, opened))


def _texts(value: object) -> tuple[str, ...]:
    assert isinstance(value, tuple)
    return tuple(str(one) for one in value)


def _keys(flags: dict[str, object]) -> tuple[dict[str, str], str]:
    """Keys with the names of their clients, and the one to show: only a key that was made here."""
    ways = [name for name in ("key_env", "key_file", "no_key") if flags[name]]
    if len(ways) > 1:
        raise UsageError(
            "serve_keys",
            "the key is given in two ways",
            "",
            "Choose one of --key-env, --key-file and --no-key.",
        )
    if flags["no_key"]:
        return {}, ""
    if flags["key_file"]:
        return _from_file(Path(str(flags["key_file"])).expanduser()), ""
    if flags["key_env"]:
        variable = str(flags["key_env"])
        return {_checked(os.environ.get(variable, ""), f"${variable}"): ""}, ""
    made = secrets.token_urlsafe(24)
    return {made: ""}, made


def _from_file(path: Path) -> dict[str, str]:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UsageError(
                "serve_key_open",
                f"others can read the keys in {path}",
                "",
                f"chmod 600 {path}",
            )
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(
            "serve_key", f"{path} holds no key", str(problem), "Name a file with a key in it."
        ) from problem
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        client, _, key = line.strip().rpartition(":")
        if key:
            found[_checked(key, f"line {number} of {path}")] = client or str(number)
    return found or {_checked("", str(path)): ""}


def _checked(key: str, place: str) -> str:
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            "serve_key",
            f"{place} holds no key",
            "",
            f"A key has {SHORTEST_KEY} characters of ASCII or more, and no spaces.",
        )
    return key


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
