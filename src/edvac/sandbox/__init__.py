"""Process isolation: runs one command with nothing but what it was granted.

Namespaces by bubblewrap (user, mount, pid, net, ipc, uts, cgroup), a read-only root, no network, no
capabilities, a clean environment, resource limits. Knows nothing of programs, devices or models.
Where the kernel offers no isolation it refuses: nothing here falls back to running a command
unprotected.
"""

from edvac.sandbox.bubblewrap import Completed, Grant, Isolation, Spec, end, kill, probe, run, start
from edvac.sandbox.interpreter import interpreter

__all__ = [
    "Completed",
    "Grant",
    "Isolation",
    "Spec",
    "end",
    "interpreter",
    "kill",
    "probe",
    "run",
    "start",
]
