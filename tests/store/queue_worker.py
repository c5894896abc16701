"""A worker process of the queue's tests: takes steps, says so, and finishes them one by one.

``python queue_worker.py URL NAME``; on its standard output one line for each thing it did. It ends
when its standard input does.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from edvac.core.errors import LeaseError
from edvac.store.postgresql import PostgresqlStore
from edvac.store.queue_postgresql import PostgresqlQueue

TTL_S = 1.0


def main(url: str, name: str) -> None:
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    with PostgresqlStore(url, Path.cwd()) as store:
        queue = PostgresqlQueue(store)
        while not over.is_set():
            taken = queue.take(name, 4, ["python"], TTL_S)
            for one in taken:
                print("took", one.id, one.fence, flush=True)
            for one in taken:
                queue.renew([one], TTL_S)
                threading.Event().wait(0.02)  # the work
                try:
                    queue.finish(one, f"{one.slot} by {name}".encode())
                except LeaseError:
                    print("late", one.id, one.fence, flush=True)
                else:
                    print("finished", one.id, one.fence, flush=True)
            if not taken:
                queue.wait(0.2)
        queue.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
