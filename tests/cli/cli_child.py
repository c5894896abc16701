"""`edvac` as a process of its own with a scripted model, for tests with a terminal and signals.

Usage: cli_child.py DELAY ARGUMENT..."""

from __future__ import annotations

import sys

from edvac.machine import detach, every, processors
from edvac.processor.scripted import ScriptedProcessor

DELAY = float(sys.argv[1])


def choose(settings: object, emit: object = None) -> ScriptedProcessor:
    return ScriptedProcessor(lambda request: "hello", delay_s=DELAY)


processors.choose_processor = choose  # type: ignore[assignment]
detach.COMMAND = every.COMMAND = (sys.executable, __file__, sys.argv[1])

if __name__ == "__main__":
    from edvac.cli.main import main

    main(sys.argv[2:])
