"""Servers that lie, flood, hang and die, each a real process in its sandbox: the call fails with a
typed error, what edvac holds stays small, and the next call is answered by another process."""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

from app_kit import Apps

from edvac.core.errors import EdvacError
from edvac.core.label import PROGRAM
from edvac.core.value import Scalar, plain
from edvac.device import Call
from edvac.device.app.device import AppDevice
from edvac.device.app.hub import Hub, Pair, Permission, Request
from edvac.guard.load import shipped

pytestmark = pytest.mark.sandbox

# A server whose tool `go` does what its operand says; everything else is as it should be.
SERVER = """\
import json, os, signal, sys, time
TOOLS = [{"name": "go", "inputSchema": {"type": "object", "properties": {"how": {"type": "string"}},
          "required": ["how"]}}]
def say(frame):
    print(json.dumps({"jsonrpc": "2.0", **frame}), flush=True)
def raw(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
def answer(number, text="fine"):
    say({"id": number, "result": {"content": [{"type": "text", "text": text}]}})
for line in sys.stdin:
    frame = json.loads(line)
    number, method = frame.get("id"), frame.get("method")
    if method == "initialize":
        say({"id": number, "result": {"protocolVersion": "1", "capabilities": {}}})
    elif method == "tools/list":
        say({"id": number, "result": {"tools": TOOLS}})
    elif method == "tools/call":
        exec(frame["params"]["arguments"]["how"])
"""
HOW: dict[str, tuple[str, str]] = {
    "a line without end": ("while True: raw(b'x' * 65536)", "app_broken"),
    "a long line": ("raw(b'x' * 5_000_000 + b'\\n')", "app_broken"),
    "no JSON": ("raw(b'hello\\n')", "app_broken"),
    "deep JSON": ("raw(b'[' * 200_000 + b']' * 200_000 + b'\\n')", "app_broken"),
    "a number for ever": ("raw(b'{\"id\": ' + b'9' * 100_000 + b'}\\n')", "app_broken"),
    "no object": ("say([]) if 0 else raw(b'[]\\n')", "app_broken"),
    "many wrong ids": ("[answer(n) for n in range(10**6, 2 * 10**6)]", "app_broken"),
    "notifications for ever": (
        "while True: say({'method': 'notifications/message', 'params': {}})", "app_broken",
    ),
    "requests for ever": ("while True: say({'id': 1, 'method': 'ping'})", "app_broken"),
    "an id that is nearly one": (
        "wrong = {'content': [{'type': 'text', 'text': 'wrong'}]}\n"
        "for x in (True, float(number), str(number), None, [number], number - 1, -number):\n"
        "    say({'id': x, 'result': wrong})\n"
        "answer(number)",
        "",
    ),
    "an answer and another": ("answer(number)\nanswer(number, 'other')", ""),
    "no answer": ("say({'id': number})", "app_broken"),
    "result and error": (
        "say({'id': number, 'result': {}, 'error': {'message': 'x'}})", "app_broken",
    ),
    "a result that is none": ("say({'id': number, 'result': [1]})", "app_broken"),
    "an error": ("say({'id': number, 'error': {'code': 1, 'message': 'x' * 10**6}})", "app_failed"),
    "an error that is odd": ("say({'id': number, 'error': {'message': {'a': 1}}})", "app_failed"),
    "content that is odd": (
        "say({'id': number, 'result': {'content': [7, {'type': 'image'}]}})", "app_result_misfit",
    ),
    "no content": ("say({'id': number, 'result': {}})", "app_result_misfit"),
    "half a character": ("raw(b'{\"id\": %d, \"result\": {\"content\": [{\"text\": '\n"
                         "b'\"\\\\ud800\"}]}}\\n' % number)", "app_broken"),
    "too long a text": ("answer(number, 'x' * 2_000_000)", "app_result_misfit"),
    "dying": ("os._exit(1)", "app_ended"),
    "dying in the middle": ("raw(b'{\"id\": 3, \"resu'); os._exit(0)", "app_ended"),
    "killing itself": ("os.kill(os.getpid(), signal.SIGKILL)", "app_ended"),
    "closing its output": ("os.close(1); time.sleep(60)", "timeout"),
    "not reading": ("time.sleep(60)", "timeout"),
    "words to standard error": (
        "sys.stderr.write('x' * 10**7); sys.stderr.flush(); answer(number)", "",
    ),
    "too much memory": ("x = [bytearray(10**7) for _ in range(10**4)]", "app_ended"),
    "asking what is not offered": (
        "say({'id': 'q', 'method': 'sampling/createMessage', 'params': {'a': 1}})\n"
        "said = json.loads(sys.stdin.readline())\n"
        "answer(number, str(said['error']['code']))", "said: -32601",
    ),
    "asking with odd parameters": (
        "say({'id': 'q', 'method': 'edvac/call', 'params': [1]})\n"
        "said = json.loads(sys.stdin.readline())\n"
        "answer(number, said['error']['message'])",
        "said: its parameters are no object",
    ),
}  # fmt: skip


class Nobody:
    async def given(self, pair: Pair, *, acts: bool) -> bool:
        return False

    async def ask(self, request: Request) -> Permission:
        return "no"


@pytest.fixture
def apps(tmp_path: Path) -> Apps:
    return Apps(tmp_path)


def device(apps: Apps) -> AppDevice:
    app = apps.server("server", SERVER, reads=["go"])
    small = msgspec.structs.replace(app, memory_mb=400)
    return AppDevice(small, apps.place.folder("server"), Hub(shipped(), frozenset(), Nobody()))


async def go(made: AppDevice, how: str, timeout_s: float = 20.0) -> Any:
    signature = made.signatures[0]
    call = Call(signature, {"how": Scalar(how, PROGRAM)}, "", "go", timeout_s)
    async with asyncio.timeout(timeout_s):
        return plain((await made.call(call)).value)


async def outcome(made: AppDevice, how: str, timeout_s: float) -> str:
    try:
        found = await go(made, how, timeout_s)
    except EdvacError as error:
        assert error.why.isascii() and len(error.why) < 700, "a stranger's words are kept short"
        return error.code
    except TimeoutError:
        return "timeout"
    return "" if found == "fine" else f"said: {found}"


def test_hostile_servers(apps: Apps) -> None:
    made = device(apps)

    async def all_of_them() -> dict[str, str]:
        found = {}
        try:
            for name, (how, wanted) in HOW.items():
                found[name] = await outcome(made, how, 1.0 if wanted == "timeout" else 20.0)
                assert await go(made, "answer(number)") == "fine", name
        finally:
            await made.close()
        return found

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = asyncio.run(all_of_them())
    assert found == {name: wanted for name, (_, wanted) in HOW.items()}
    held = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert held < 200, f"{held:.0f} MiB more"


def test_an_app_that_ends_after_each_answer_is_begun_again(apps: Apps) -> None:
    app = apps.server("server", SERVER)  # it acts: a call that is lost would be in doubt
    made = AppDevice(app, apps.place.folder("server"), Hub(shipped(), frozenset(), Nobody()))

    async def thrice() -> list[str]:
        found = []
        for _ in range(3):
            found.append(await outcome(made, "answer(number); os._exit(0)", 20.0))
            assert made._session is not None
            async with asyncio.timeout(20):
                await made._session._process._running.wait()
            assert made._session.over
        await made.close()
        return found

    assert asyncio.run(thrice()) == ["", "", ""]


LISTS = {
    "no list": ("{'tools': 7}", "app_broken"),
    "no tools": ("{}", "app_broken"),
    "a list without end": ("{'tools': [], 'nextCursor': 'x'}", "app_broken"),
    "an error": (None, "app_start"),
    "odd tools": ("{'tools': [7, None, {}, {'name': 'a b'}, {'name': 'x', 'inputSchema': 5}]}", ""),
    "ten thousand tools": ("{'tools': [{'name': f't{n}'} for n in range(10**4)]}", ""),
    "a deep schema": (
        "{'tools': [{'name': 'x', 'outputSchema': eval('[' * 60 + ']' * 60)}]}", "app_broken",
    ),
    "a wide schema": (
        "{'tools': [{'name': 'x', 'inputSchema':"
        " {'properties': {f'p{n}': {} for n in range(999)}}}]}",
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_hostile_lists_of_tools(apps: Apps, name: str) -> None:
    said, wanted = LISTS[name]
    reply = f'"result": {said}' if said else '"error": {"message": "no"}'
    text = SERVER.replace('"result": {"tools": TOOLS}', reply)
    assert text != SERVER
    try:
        app = apps.server("server", text)
    except EdvacError as error:
        assert error.code == wanted
        return
    assert wanted == "" and len(app.tools) <= 200


@pytest.mark.parametrize(
    "text", ["", "import time\ntime.sleep(60)", "print('hello')", "raise SystemExit(3)", "1 +"]
)
def test_what_is_no_server(apps: Apps, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from edvac.device.app import session

    monkeypatch.setattr(session, "START_S", 1.0)
    with pytest.raises(EdvacError) as no:
        apps.server("server", text)
    assert no.value.code in ("app_start", "app_broken")


def run_once(made: AppDevice, how: str) -> str:
    async def both() -> str:
        try:
            return await outcome(made, how, 20.0)
        finally:
            await made.close()

    return asyncio.run(both())


def test_limits_of_files_and_processes(apps: Apps) -> None:
    made = device(apps)
    big = "try: open('/app/x', 'wb').truncate(100 * 2**20)\nexcept OSError: answer(number)"
    assert run_once(made, big) == ""
    fill = "[open(f'/app/{n}', 'wb').truncate(60 * 2**20) for n in range(5)]; answer(number)"
    assert run_once(made, fill) == ""
    assert run_once(made, "answer(number)") == "app_folder_full"
    for path in apps.place.folder("server").iterdir():
        path.unlink()
    many = "[os.fork() or time.sleep(60) for _ in range(100)]; time.sleep(60)"
    assert run_once(made, many) == "sandbox_processes"
    assert run_once(made, "answer(number)") == ""
