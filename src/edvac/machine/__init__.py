"""The mainboard: wires store, program, control, devices and processor into runs.

Only this package makes tasks, threads or processes of a run. Knows nothing of terminals or HTTP: it
takes functions to call with events, and to ask a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edvac.machine.job import Job
    from edvac.machine.machine import Machine
    from edvac.machine.report import Report
    from edvac.machine.settings import Settings

__all__ = ["Job", "Machine", "Report", "Settings"]

_HOMES = {"Job": "job", "Machine": "machine", "Report": "report", "Settings": "settings"}


def __getattr__(name: str) -> Any:
    """Imported when they are used: whoever only looks at a run needs no machine."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"edvac.machine.{_HOMES[name]}"), name)
