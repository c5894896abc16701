"""Runs inside the sandbox of an app that may connect to somebody: takes connections on loopback,
hands them through a socket to edvac's proxy outside, and starts the app with that as its proxy.

``relay.py SOCKET COMMAND ARGS``. Needs nothing but Python.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def pour(source: socket.socket, sink: socket.socket) -> None:
    """One direction, until there is no more."""
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side has gone, and sees that itself


def hand_on(inner: socket.socket, path: str) -> None:
    with inner, socket.socket(socket.AF_UNIX) as outer:
        try:
            outer.connect(path)
        except OSError:
            return
        up = threading.Thread(target=pour, args=(inner, outer), daemon=True)
        up.start()
        pour(outer, inner)
        up.join()


def serve(listening: socket.socket, path: str) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for pipe in (0, 1):
        os.dup2(nowhere, pipe)  # they are the app's: who holds them keeps it from ending
    while True:
        inner, _ = listening.accept()
        threading.Thread(target=hand_on, args=(inner, path), daemon=True).start()


def main() -> None:
    path, *command = sys.argv[1:]
    listening = socket.create_server(("127.0.0.1", 0))
    if os.fork() == 0:
        serve(listening, path)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    environment = os.environ | dict.fromkeys(PROXIES, url)
    os.execvpe(command[0], command, environment)  # noqa: S606 (there is no shell, on purpose)


if __name__ == "__main__":
    main()
