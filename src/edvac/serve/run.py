"""Opens a model and serves it until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uvicorn

from edvac.core.errors import ConfigError
from edvac.machine import Settings
from edvac.machine.processors import choose_processor
from edvac.serve.app import Service

GRACE_S = 5  # seconds that calls have to end in when the service is stopped


def listen(host: str, port: int) -> socket.socket:
    """
    Raises:
        ConfigError: the address is taken or none of this machine.
    """
    try:
        return socket.create_server((host, port))
    except OSError as problem:
        raise ConfigError(
            "address_unusable",
            f"{host}:{port} cannot be listened at",
            str(problem),
            "Choose another --port; 0 takes a free one.",
        ) from problem


def name_of(settings: Settings) -> str:
    """The name by which clients ask for the model.

    Raises:
        ConfigError: it is another server's.
    """
    if "://" in settings.model:
        raise ConfigError(
            "serve_endpoint",
            f"{settings.model} is served already",
            "What is served is a model that edvac itself runs.",
            "Choose one with --model; `edvac model ls` lists them.",
        )
    return Path(settings.model).stem if settings.model.endswith(".gguf") else settings.model


async def serve(
    settings: Settings, listener: socket.socket, key: str, on_open: Callable[[], None]
) -> None:
    """Serve ``settings.model`` at the listener's address.

    Args:
        key: what clients have to know; empty for none.
        on_open: called when the model is there and calls are taken.

    Raises:
        ConfigError, ModelFileError: the model cannot be opened.
    """
    host, port = listener.getsockname()[:2]
    processor = choose_processor(replace(settings, plan_model="", escalate_model=""))
    await processor.open()
    try:
        hosts = {f"{host}:{port}", *([f"localhost:{port}"] if host == "127.0.0.1" else [])}
        service = Service(processor, name_of(settings), frozenset(hosts), key)
        config = uvicorn.Config(
            service.application(),
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        server = uvicorn.Server(config)
        on_open()
        await server.serve(sockets=[listener])
    finally:
        await processor.close()
