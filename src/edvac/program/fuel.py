"""Fuel: what pure code may use, in steps and in bytes made.

Charged before the work is done. Knows nothing of what is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

from edvac.core.errors import FuelError

STEPS = 20_000_000
MEMORY = 1024 * 1024 * 1024


@dataclass(slots=True)
class Fuel:
    """A budget and what is used of it. Bytes are counted as they are made, not as they live: the
    same program uses the same fuel whatever the garbage collector does."""

    steps: int = STEPS
    memory: int = MEMORY
    used_steps: int = 0
    used_memory: int = 0

    def spend(self, steps: int, line: int) -> None:
        """Charge for work that is about to be done.

        Raises:
            FuelError: not that much is left.
        """
        if self.used_steps + steps > self.steps:
            self.used_steps = self.steps  # what follows fails at once instead of trickling on
            raise _spent("steps", self.steps, line)
        self.used_steps += steps

    def make(self, size: int, line: int) -> None:
        """Charge for `size` bytes that are about to be made, and one step a kilobyte.

        Raises:
            FuelError: not that much is left.
        """
        if self.used_memory + size > self.memory:
            raise _spent("bytes", self.memory, line)
        self.used_memory += size
        self.spend(1 + (size >> 10), line)


def _spent(unit: str, limit: int, line: int) -> FuelError:
    return FuelError(
        "fuel_exhausted",
        f"pure code used more than {limit:,} {unit}",
        "A program may compute only so much between its steps.",
        "Make the loop or the value smaller.",
        line=line,
    )
