"""Without LangGraph."""

from __future__ import annotations

import subprocess
import sys


def test_without_langgraph_the_error_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['langgraph'] = None\n"
        "from edvac.core.errors import ConfigError\n"
        "try:\n    import edvac.apps.langgraph\n"
        "except ConfigError as error:\n    print(error.code, error.fix)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == "langgraph_missing" and "edvac[langgraph]" in done.stdout
