"""`serve`: a model of this machine for any OpenAI client."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import os
import secrets

import click

from edvac.cli import ui
from edvac.cli.names import complete_model
from edvac.core.errors import ConfigError, UsageError

PORT = 11435
EXAMPLES = """\b
Examples:
  edvac serve
  edvac serve --port 0 --key-env MY_KEY
  curl -H "Authorization: Bearer KEY" http://127.0.0.1:11435/v1/models
"""


@click.command(epilog=EXAMPLES)
@click.option("--model", help="The model: a name or a .gguf file.", shell_complete=complete_model)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535))
@click.option("--key-env", metavar="NAME", help="Variable with the key; otherwise it is random.")
@click.option("--no-key", is_flag=True, help="Answer everybody who reaches it.")
@click.option("--json", "as_json", is_flag=True, help="The address and key as JSON.")
def serve(**flags: object) -> None:
    """Serve a model over HTTP: /v1/models and /v1/chat/completions, as OpenAI clients ask.

    Answers come whole or as they are written, under a JSON schema where one is given. Only this
    machine is answered, and only with the key that is printed here, unless told otherwise.
    """
    for name in ("starlette", "uvicorn"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                "serve_missing", "the service is not installed", "", "pip install 'edvac[serve]'."
            )
    from pathlib import Path

    from edvac.machine import settings
    from edvac.serve.run import listen, name_of
    from edvac.serve.run import serve as start

    host, port = str(flags["host"]), int(str(flags["port"]))
    key = "" if flags["no_key"] else _key(str(flags["key_env"] or ""))
    if not key and not _is_here(host):
        raise UsageError(
            "serve_open",
            "without a key only this machine is served",
            f"{host} can be reached from others.",
            "Leave --no-key out, or listen at 127.0.0.1.",
        )
    chosen = {"model": str(flags["model"])} if flags["model"] else {}
    found, _ = settings.load(Path.cwd(), chosen)
    name = name_of(found)
    listener = listen(host, port)
    url = f"http://{host}:{listener.getsockname()[1]}/v1"

    def opened() -> None:
        if flags["as_json"]:
            ui.out_json({"url": url, "key": key, "model": name})
            return
        ui.out(f"Serving {name} at {url}")
        ui.out(f"Key: {key}" if key else "No key is needed.")
        ui.err("Ctrl-C ends it.")

    with listener:
        asyncio.run(start(found, listener, key, opened))


def _key(variable: str) -> str:
    if not variable:
        return secrets.token_urlsafe(24)
    key = os.environ.get(variable, "")
    if len(key) < 8:
        raise UsageError(
            "serve_key", f"${variable} holds no key", "", "Set it to 8 characters or more."
        )
    return key


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
