"""A server that forks an `edvac` for each order, a JSON line: a real process that costs little.

Which step is executed is noted in a file that lies on another disk."""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

from edvac.machine import processors
from edvac.machine.executor import Executor
from edvac.processor import Request
from edvac.processor.scripted import ScriptedProcessor

LARGE = 100_000


def answer(request: Request) -> str:
    text = request.messages[-1].text
    return f"[{text}]" + ("x" * LARGE if "large" in text else "")


def choose(settings: object, emit: object = None) -> ScriptedProcessor:
    return ScriptedProcessor(answer)


def watch(path: Path) -> None:
    execute = Executor.execute
    file = path.open("a", buffering=1)

    async def executed(self: Executor, intent: Any) -> Any:
        file.write(intent.slot + "\n")
        return await execute(self, intent)

    Executor.execute = executed  # type: ignore[method-assign]


def child(order: dict[str, Any]) -> None:
    os.chdir(order["cwd"])
    for stream, name in ((1, "out"), (2, "err")):
        target = os.open(Path(order["notes"]) / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(target, stream)
    watch(Path(order["notes"]) / "executed")
    processors.choose_processor = choose  # type: ignore[assignment]
    from edvac.cli.main import main

    for name, most in order.get("limits", {}).items():
        kind = getattr(resource, name)
        resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))
    main(order["args"])


def carry_out(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            child(order)
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    import edvac.cli.deliver  # imported once, for all
    import edvac.cli.plan
    import edvac.cli.run
    import edvac.cli.summary
    import edvac.cli.view
    import edvac.machine.machine  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line))), flush=True)
