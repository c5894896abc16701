"""A database connection belongs to one thread of one process until it is closed."""

from __future__ import annotations

import os
import threading

from edvac.core.errors import InternalError


class Bound:
    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._process = os.getpid()
        self._closed = False

    def guard(self, *, any_thread: bool = False) -> None:
        """Refuse use after close, from another thread, or in a forked child (whose copy of the
        connection would corrupt what the parent does with its own)."""
        foreign = not any_thread and not self._is_mine()
        if foreign or self._process != os.getpid():
            raise InternalError(
                "store_wrong_thread", "a store was used outside the thread that opened it"
            )
        if self._closed:
            raise InternalError("store_closed", "a store was used after it was closed")

    def _is_mine(self) -> bool:
        return self._thread == threading.get_ident()
