"""LangGraph's checkpoints in an edvac workspace.

`EdvacSaver` is a checkpointer for graphs, synchronous and asynchronous: what it was given is
durable when the call returns. A channel's value is stored once for each version, a list that grows
by what it grows by, and threads can be pruned. Knows nothing of graphs, and needs the extra
``langgraph``.

The contract is the one of ``langgraph.checkpoint.base``, and of the package
``langgraph-checkpoint-conformance`` that tests it.
"""

from edvac.core.errors import ConfigError

try:
    from edvac.apps.langgraph.saver import EdvacSaver
except ModuleNotFoundError as problem:
    raise ConfigError(
        "langgraph_missing",
        "the checkpoint package of LangGraph is not installed",
        f"There is no module {problem.name}.",
        "Run `pip install 'edvac[langgraph]'`.",
    ) from problem

__all__ = ["EdvacSaver"]
