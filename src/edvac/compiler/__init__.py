"""The compiler: a task in words becomes a program.

The model writes it statement by statement under a grammar, the verifier looks at each, and what it
refuses is written again. The planner sees the task, the devices' signatures and example programs:
never a file's name or content. Knows
nothing of how programs are executed.
"""

from edvac.compiler.planner import PLANNER_VERSION, Planner

__all__ = ["PLANNER_VERSION", "Planner"]
