"""Ways out of the sandbox. Each probe succeeds outside first: one that cannot, proves nothing."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox_kit import inside, outside

from edvac.core.errors import SandboxError
from edvac.sandbox import Grant, Isolation, Spec, bubblewrap, interpreter, probe, run
from edvac.sandbox.bubblewrap import end
from edvac.sandbox.watch import descendants

pytestmark = pytest.mark.sandbox


def python(code: str, **more: Any) -> Any:
    """Python code in the sandbox."""
    argv = (sys.executable, "-I", "-c", code)
    return asyncio.run(run(Spec(argv, interpreter(), **{"timeout_s": 20.0} | more)))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Things on the host that a call could reach for."""
    (tmp_path / "secret").write_text("canary")
    (tmp_path / "directory").mkdir()
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "unix"))
    unix.listen()
    abstract = socket.socket(socket.AF_UNIX)
    name = f"edvac-test-{os.getpid()}"
    abstract.bind(f"\0{name}")
    abstract.listen()
    yield {
        "DIR": str(tmp_path),
        "PORT": str(tcp.getsockname()[1]),
        "ABSTRACT": name,
        "PID": str(os.getpid()),
        "PY": sys.executable,
        "HOST": socket.gethostname(),
    }
    for one in (tcp, unix, abstract):
        one.close()


PY = "PY -I -c"
PROBES = {
    # what: a script that ends with status 0 and prints `out` where it gets out
    "host file": "cat DIR/secret >/dev/null && echo out",
    "home": "ls ~root >/dev/null && echo out",
    "through another process": "test -e /proc/PID/rootDIR/secret && echo out",
    "through its own root": "cat /proc/self/rootDIR/secret >/dev/null && echo out",
    "up from the root": "cat ../../../../../../DIR/secret >/dev/null && echo out",
    "password file": "cat /etc/passwd >/dev/null && echo out",
    "write a host file": "echo x >DIR/directory/x && echo out",
    "write to /usr": "touch /usr/edvac-probe && rm /usr/edvac-probe && echo out",
    "write to the root": "touch /edvac-probe && rm /edvac-probe && echo out",
    "write to /dev": "touch /dev/edvac-probe && rm /dev/edvac-probe && echo out",
    "tcp": f"{PY} 'import socket; socket.create_connection((\"127.0.0.1\", PORT))' && echo out",
    "unix socket": f"{PY} 'import socket; socket.socket(1).connect(\"DIR/unix\")' && echo out",
    "abstract socket": f"{PY} 'import socket; socket.socket(1).connect(\"\\0ABSTRACT\")' "
    "&& echo out",
    "signal a host process": "kill -0 PID && echo out",
    "see a host process": "test -e /proc/PID/environ && echo out",
    "environment": 'test -n "$CANARY" && echo out',
    "host name": 'test "$(uname -n)" = HOST && echo out',
    "network interfaces": 'test -n "$(ls /sys/class/net)" && echo out',
    "system files": "ls /sys/kernel >/dev/null && echo out",
    "run directory": "ls /run >/dev/null && echo out",
    "other temporary files": "ls DIR >/dev/null && echo out",
}


@pytest.mark.parametrize("what", PROBES)
def test_no_way_out(what: str, host: dict[str, str]) -> None:
    script = PROBES[what]
    for name, text in host.items():
        script = script.replace(name, text)
    free = outside(script, env=os.environ | {"CANARY": "x"})
    assert b"out" in free.stdout, f"the probe does not work outside either: {free.stderr!r}"
    bin_ = (*interpreter(),) if PY in PROBES[what] else ()
    held = inside(script, grants=bin_)
    assert b"out" not in held.stdout


ROOT_PROBES = {
    "mount": "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m && umount /tmp/m && echo out",
    "new user namespace": "unshare -U true && echo out",
    "new network namespace": "unshare -n true && echo out",
    "change of root": "chroot / true && echo out",
    "device node": "mknod /tmp/edvac-null c 1 3 && rm /tmp/edvac-null && echo out",
    "set the clock": "date -s \"$(date '+%F %T')\" >/dev/null && echo out",
    "nice": "nice -n -5 sh -c 'test $(nice) -lt 0' && echo out",
    "raise a limit": "ulimit -n 512 && echo out",
}


@pytest.mark.parametrize("what", ROOT_PROBES)
def test_no_privilege(what: str) -> None:
    script = ROOT_PROBES[what]
    if b"out" not in outside(script).stdout:
        pytest.skip("this needs the superuser outside as well")
    assert b"out" not in inside(script).stdout


def test_no_capability_and_no_new_privileges() -> None:
    status = inside("cat /proc/self/status").stdout.decode()
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found[name], 16) == 0, name
    assert found["NoNewPrivs"].strip() == "1"


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    said = inside("env; tr '\\0' '\\n' </proc/1/environ", env={"NAME": "value"}).stdout.decode()
    names = {line.partition("=")[0] for line in said.split()}
    assert names == {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "NAME", "PWD"}
    assert "canary" not in said


def test_no_descriptor_is_inherited(tmp_path: Path) -> None:
    held = (tmp_path / "open").open("w")
    os.set_inheritable(held.fileno(), True)
    code = "import os; print(sorted(os.listdir('/proc/self/fd')))"
    try:
        assert python(code).stdout.strip() == b"['0', '1', '2', '3']"  # 3 is the listing itself
        free = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=False, close_fds=False
        )
        assert str(held.fileno()).encode() in free.stdout
    finally:
        held.close()


def test_grants_are_all_there_is(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "w").mkdir()
    (tmp_path / "r" / "f").write_text("read me")
    grants = (Grant(tmp_path / "r", "/r"), Grant(tmp_path / "w", "/w", write=True))
    done = inside("cat /r/f; echo no >/r/g; echo yes >/w/f; rm -f /r/f; ls /", grants=grants)
    assert done.stdout.startswith(b"read me")
    assert (tmp_path / "w" / "f").read_text() == "yes\n"
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["f"]


def test_the_interpreters_grants_spare_what_lies_beside_it() -> None:
    inside_ = [grant.inside for grant in interpreter()]
    for prefix in (sys.prefix, sys.base_prefix):
        assert prefix not in inside_
    assert python("import json, ssl, msgspec; print('ok')").stdout.strip() == b"ok"


# -- limits -------------------------------------------------------------------------------------


def test_memory_of_one_process_is_limited() -> None:
    code = "x = b'x' * (300 << 20); print('out')"
    assert b"out" in python(code).stdout
    assert b"MemoryError" in python(code, memory_mb=200).stderr


def test_memory_of_all_together_is_limited() -> None:
    code = (
        "import os, time\n"
        "for _ in range(6):\n"
        "    if os.fork() == 0:\n"
        "        x = b'x' * (60 << 20)\n"
        "        time.sleep(10)\n"
        "        os._exit(0)\n"
        "time.sleep(10)\n"
    )
    with pytest.raises(SandboxError) as stopped:
        python(code, memory_mb=200)
    assert stopped.value.code == "sandbox_memory"


def test_shared_memory_counts_once() -> None:
    code = (
        "import os, time\n"
        "x = b'x' * (60 << 20)\n"
        "for _ in range(6):\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(0.3)\n"
        "        os._exit(0)\n"
        "for _ in range(6): os.wait()\n"
        "print('ok')\n"
    )
    assert python(code, memory_mb=220).stdout.strip() == b"ok"


def test_many_processes_end_the_call() -> None:
    script = "i=0; while [ $i -lt 200 ]; do sleep 9 & i=$((i+1)); done; echo out; wait"
    with pytest.raises(SandboxError) as stopped:
        inside(script, processes=40)
    assert stopped.value.code == "sandbox_processes"


@pytest.mark.skipif(os.geteuid() == 0, reason="for root only the watcher limits them")
def test_a_fork_bomb_goes_off_harmlessly() -> None:
    before = len(descendants(os.getpid()))
    with pytest.raises(SandboxError) as stopped:
        inside("b(){ b|b& };b; sleep 9", processes=60, timeout_s=5)
    assert stopped.value.code == "sandbox_processes"
    assert len(descendants(os.getpid())) == before


def test_scratch_space_is_limited() -> None:
    for place in ("/tmp", "/dev/shm"):
        script = f"head -c 30000000 /dev/zero >{place}/f && echo out"
        assert b"out" in outside(script.replace("/f &&", f"/f{os.getpid()} &&")).stdout
        Path(f"{place}/f{os.getpid()}").unlink()
        assert b"out" not in inside(script, scratch_mb=16).stdout
        assert b"out" in inside(script, scratch_mb=64).stdout


def test_a_file_is_limited(tmp_path: Path) -> None:
    grants = (Grant(tmp_path, "/w", write=True),)
    done = inside("head -c 3000000 /dev/zero >/w/f && echo out", grants=grants, files_mb=1)
    assert b"out" not in done.stdout
    assert (tmp_path / "f").stat().st_size <= 1 << 20


def test_computing_is_limited() -> None:
    assert inside("while :; do :; done", cpu_s=1).status in (-9, 137, -24, 152)


def test_time_is_limited_and_nobody_survives() -> None:
    marker = f"3600.{os.getpid()}"
    with pytest.raises(SandboxError) as stopped:
        inside(f"setsid sleep {marker} & (trap '' TERM HUP; sleep {marker}) & wait", timeout_s=0.4)
    assert stopped.value.code == "sandbox_timeout"
    assert marker not in outside("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout.decode()


def test_a_background_process_does_not_outlive_the_call() -> None:
    done = inside("setsid sleep 3601 >/dev/null 2>&1 </dev/null & echo done")
    assert done.stdout == b"done\n"
    while b"3601" in outside("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout:
        pass  # the kernel may still be ending them; that it does not, the time limit shows


def test_output_is_limited_on_both_streams() -> None:
    for script in ("yes", "yes >&2"):
        with pytest.raises(SandboxError) as stopped:
            inside(script, output_mb=1)
        assert stopped.value.code == "sandbox_output"


def test_cancelling_a_call_ends_it() -> None:
    async def go() -> None:
        task = asyncio.create_task(run(Spec(("sleep", "3602"))))
        while b"3602" not in outside("cat /proc/[0-9]*/cmdline").stdout:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert b"3602" not in outside("cat /proc/[0-9]*/cmdline").stdout


def test_a_call_that_is_cancelled_while_it_begins_leaves_nothing_behind() -> None:
    async def one(delay_s: float) -> None:
        task = asyncio.create_task(run(Spec(("sleep", "3603"))))
        await asyncio.sleep(delay_s)
        task.cancel()
        ended, _ = await asyncio.wait([task], timeout=30)
        assert ended and task.cancelled()

    async def go() -> None:
        chance = random.Random(1)
        for _ in range(12):
            await asyncio.gather(*(one(chance.uniform(0.0, 0.06)) for _ in range(8)))

    asyncio.run(go())
    assert b"3603" not in outside("cat /proc/[0-9]*/cmdline").stdout


def test_what_has_left_the_group_is_ended_too() -> None:
    """As a process of a call that has not yet tied its life to its parent's."""

    async def go() -> None:
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            "setsid sleep 3604 & echo ready; wait",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        await process.stdout.readline()
        while not any(os.getsid(pid) != process.pid for pid in descendants(process.pid)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.wait_for(end(process), 30)

    asyncio.run(go())
    assert b"3604" not in outside("cat /proc/[0-9]*/cmdline").stdout


def test_input_is_fed_and_need_not_be_read() -> None:
    assert inside("cat", stdin=b"x" * 1_000_000).stdout == b"x" * 1_000_000
    assert inside("exec <&-; echo ok", stdin=b"x" * 1_000_000).stdout == b"ok\n"


def test_calls_at_once_keep_apart() -> None:
    async def go() -> list[bytes]:
        specs = [Spec(("sh", "-c", f"echo {n} >/tmp/f; ls /tmp; cat /tmp/f")) for n in range(8)]
        return [done.stdout for done in await asyncio.gather(*map(run, specs))]

    assert asyncio.run(go()) == [f"f\n{n}\n".encode() for n in range(8)]


# -- where there is none ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (None, "not installed"),
        ("#!/bin/sh\necho 'bwrap: setting up uid map: denied' >&2; exit 1\n", "uid map: denied"),
        ("not a program", "could not be run"),
    ],
)
def test_a_missing_isolation_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, why: str
) -> None:
    if script is not None:
        (tmp_path / "bwrap").write_text(script)
        (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    bubblewrap._probed.cache_clear()
    try:
        found = bubblewrap.probe()
    finally:
        bubblewrap._probed.cache_clear()
    assert not found.available
    assert why in found.why
    assert found.fix


def test_what_kept_it_from_being_tried_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    bubblewrap._probed.cache_clear()

    def refused(*args: Any, **words: Any) -> None:
        raise OSError("too many open files")

    with monkeypatch.context() as fewer:
        fewer.setattr(subprocess, "run", refused)
        assert "too many open files" in bubblewrap.probe().why
    assert bubblewrap.probe().available


def test_nothing_runs_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "probe", lambda: Isolation(False, "why", "fix"))
    with pytest.raises(SandboxError) as refused:
        asyncio.run(run(Spec(("true",))))
    assert (refused.value.code, refused.value.why) == ("no_isolation", "why")


def test_it_works_here() -> None:
    before = threading.active_count()
    assert probe() == Isolation(True)
    assert threading.active_count() <= before
