"""The mainboard: wires store, program, control, devices and processor into runs.

Only this package makes tasks, threads or processes of a run. Knows nothing of terminals or HTTP: it
takes functions to call with events, and to ask a person.
"""

from edvac.machine.job import Job
from edvac.machine.machine import Machine, Report
from edvac.machine.settings import Settings

__all__ = ["Job", "Machine", "Report", "Settings"]
