"""The example of the guard on a LangGraph agent, run as a reader would."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("langgraph")
EXAMPLE = Path(__file__).parents[2] / "examples" / "guarded_langgraph.py"


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guarded_langgraph", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["guarded_langgraph"] = module
    spec.loader.exec_module(module)
    return module


def test_the_agent_does_its_task_and_nothing_for_who_wrote_to_it(example: ModuleType) -> None:
    log, guarded = example.run()
    assert example.sent == [("ann@example.com", "Here they are.")]
    assert log[:2] == ["r1 = mail.inbox", "r2 = mail.send"]
    assert log[3] == "mail.send refused: tool_denied", "what the mail told it to do"
    assert log[4] == "mail.send refused: tool_denied", "it has read a stranger's words"
    assert [one.verdict for one in guarded.log] == ["allowed", "allowed", "asked: no", "asked: no"]
