"""The process that gets killed while it puts checkpoints: each is told of once it is acknowledged.

Usage: python thread_child.py WORKSPACE
"""

from __future__ import annotations

import sys
from pathlib import Path

from edvac.store import NewChannel, NewCheckpoint, NewWrites, Store, TaskWrite, Typed


def element(number: int) -> bytes:
    size = (700, 30, 70_000)[number % 3] if number % 30 == 2 else 300
    return b"\xc6" + size.to_bytes(4, "big") + bytes([number % 256]) * size


def state(number: int) -> Typed:
    """What the checkpoint of this number holds."""
    items = b"".join(element(n) for n in range(number))
    return Typed("msgpack", b"\xdd" + number.to_bytes(4, "big") + items)


def write(number: int) -> TaskWrite:
    return TaskWrite("task", 0, "items", Typed("msgpack", b"\x91" + element(number)))


def work(store: Store) -> None:
    latest = store.checkpoint("t")
    number = int(latest.info.id) if latest is not None else 0
    while True:
        parent = f"{number:06}" if number else None
        number += 1
        value = state(number)
        channels = {"items": NewChannel(number, lambda value=value: value)}
        store.put_checkpoint(NewCheckpoint("t", "", f"{number:06}", b"state", channels, parent))
        store.put_writes(NewWrites("t", "", f"{number:06}", [write(number)]))
        if number % 10 == 0:
            store.prune_threads(["t"], keep=5)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    with Store(Path(sys.argv[1])) as opened:
        work(opened)
