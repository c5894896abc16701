"""The engine as a process: started once, shared, private, and mortal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edvac.core.errors import ConfigError, ModelFileError, OperandError, ProcessorError
from edvac.engine._native import kernels
from edvac.engine.client import EngineClient, EngineSpec, connect_or_start
from edvac.engine.forget import forget
from edvac.engine.kv.codecs import KV_TYPES, kv_type_named
from edvac.engine.kv.disk import DISK_TYPES
from edvac.engine.kv.pages import token_bytes
from edvac.engine.protocol import (
    FromEngine,
    Generate,
    Hello,
    Hint,
    Progress,
    Ready,
    Segment,
    encode,
)
from edvac.engine.server import Server, private_socket
from edvac.engine.weights import open_weights

BASE = Generate(id="a", segments=[Segment("tell me ")], max_tokens=10)


def ask(name: str, **more: object) -> Generate:
    return msgspec.structs.replace(BASE, id=name, **more)


@pytest.fixture
def spec(tiny: Path, tmp_path: Path) -> EngineSpec:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    return EngineSpec(
        tiny,
        setting="reference",
        threads=1,
        kv_mb=64,
        idle_seconds=1.0,
        start_seconds=25,
        runtime=runtime,
        cache=tmp_path / "cache",
    )


@contextlib.asynccontextmanager
async def engine(spec: EngineSpec) -> AsyncIterator[EngineClient]:
    client = await connect_or_start(spec)
    try:
        yield client
    finally:
        await client.close()
        await gone(client.ready.pid)


async def gone(pid: int) -> None:
    for _ in range(200):
        try:
            if await asyncio.to_thread(os.waitpid, pid, os.WNOHANG) != (0, 0):
                return
        except ChildProcessError:
            return
        await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the engine did not end")


def test_life_of_an_engine(spec: EngineSpec) -> None:
    async def scene() -> None:
        loading: list[Progress] = []
        client = await connect_or_start(spec, loading.append)
        assert client.ready.setting == "reference"
        assert client.ready.context_length == 512
        assert client.ready.chat_template == "{{ messages }}"
        assert client.ready.special_tokens["eos_token"] == "<|end|>"
        assert all(progress.stage == "load" for progress in loading)
        mode = stat.S_IMODE(spec.socket().stat().st_mode)
        assert mode == 0o600

        other = await connect_or_start(spec)
        assert other.ready.pid == client.ready.pid
        pieces: list[tuple[str, int]] = []
        one, two = await asyncio.gather(
            client.generate(ask("same"), lambda *piece: pieces.append(piece)),
            other.generate(ask("same")),
        )
        assert one.text == two.text == "".join(piece for piece, _ in pieces)
        assert sum(tokens for _, tokens in pieces) == one.completion_tokens
        client.hint(Hint(kind="open", program="p"))
        stats = await client.stats()
        assert stats.running == 0 and stats.steps > 0 and stats.resident_bytes > 0

        with pytest.raises(OperandError):
            await client.generate(ask("big", segments=[Segment("x" * 2000)]))
        with pytest.raises(ConfigError):
            await client.generate(ask("bad", schema='{"type":"nonsense"}'))
        await other.close()

        task = asyncio.create_task(client.generate(ask("long", max_tokens=450)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(100):
            if (await client.stats()).running == 0:
                break
        else:
            raise AssertionError("the cancelled request goes on")
        await client.close()
        await gone(client.ready.pid)
        assert not spec.socket().exists()

    asyncio.run(scene())


def test_each_type_of_keys_and_values_has_its_process(spec: EngineSpec) -> None:
    fast = [replace(spec, setting="fast", kv_type=name) for name in KV_TYPES]
    assert len({one.socket() for one in fast}) == len(KV_TYPES)
    disk = [replace(fast[0], kv_disk_type=name) for name in DISK_TYPES]
    assert len({one.socket() for one in disk}) == len(DISK_TYPES)
    wrong = (
        (replace(spec, kv_type="int3"), "kv_type_unknown"),
        (replace(fast[1], extra=("--kernels", "none")), "kv_type_unsupported"),
        (replace(spec, kv_disk_type="int3"), "kv_disk_type_unknown"),
        (replace(spec, kv_disk_type="int8"), "kv_disk_type_unsupported"),
        (replace(fast[1], kv_disk_type="int4"), "kv_disk_type_unsupported"),
    )

    config = open_weights(spec.model).config

    async def scene() -> None:
        for one, code in wrong:
            with pytest.raises(ConfigError) as caught:
                await connect_or_start(one)
            assert caught.value.code == code
            assert caught.value.fix
        if kernels() is None:
            return
        async with engine(fast[3]) as small, engine(fast[0]) as large:
            assert small.ready.pid != large.ready.pid
            for client in (small, large):
                done = await client.generate(
                    ask("a", segments=[Segment("tell me " * 9, keep=True)])
                )
                assert (done.completion_tokens, done.cached_tokens) == (10, 0)
            few, many = [(await client.stats()).kv_capacity_bytes for client in (large, small)]
            sizes = [token_bytes(config, kv_type_named(name, 16)) for name in ("f16", "int4")]
            assert many // sizes[1] > 2.6 * (few // sizes[0]), "tokens, in the same memory"
            assert abs(many - few) < few // 50
        assert spec.cache is not None
        assert len(list(spec.cache.glob("*.prefix.safetensors"))) == 2, "each keeps its own"

    asyncio.run(scene())


def test_death_is_a_typed_error_and_the_next_one_starts(spec: EngineSpec) -> None:
    async def scene() -> None:
        client = await connect_or_start(spec)
        writing = asyncio.Event()
        tasks = [
            asyncio.create_task(
                client.generate(ask(str(n), max_tokens=450), lambda *_: writing.set())
            )
            for n in range(3)
        ]
        await writing.wait()
        os.kill(client.ready.pid, signal.SIGKILL)
        for task in tasks:
            with pytest.raises(ProcessorError) as caught:
                await task
            assert caught.value.code == "engine_died"
            assert caught.value.retryable
        with pytest.raises(ProcessorError):
            await client.generate(ask("late"))
        await client.close()
        async with engine(spec) as again:
            assert (await again.generate(ask("a"))).completion_tokens > 0

    asyncio.run(scene())


def test_a_client_that_leaves_cancels_its_requests_and_sigterm_drains(spec: EngineSpec) -> None:
    async def scene() -> None:
        async with engine(spec) as client:
            leaver = await connect_or_start(spec)
            lost = asyncio.create_task(leaver.generate(ask("x", max_tokens=450)))
            await asyncio.sleep(0.1)
            lost.cancel()
            await leaver.close()
            running = asyncio.create_task(client.generate(ask("y", max_tokens=60)))
            await asyncio.sleep(0.05)
            os.kill(client.ready.pid, signal.SIGTERM)
            assert (await running).finish_reason in ("stop", "length")

    asyncio.run(scene())


def is_alive(pid: int) -> bool:
    """One that ended counts as dead, whoever has to collect it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("started", [True, False])
def test_an_engine_that_is_released_ends_at_once_unless_others_use_it(
    spec: EngineSpec, started: bool
) -> None:
    """Who releases it may have started it, or found it there."""

    async def scene() -> None:
        slow = replace(spec, idle_seconds=600)
        first = await connect_or_start(slow)
        other = await connect_or_start(slow)
        last, guest = (first, other) if started else (other, first)
        pid = first.ready.pid
        running = asyncio.create_task(last.generate(ask("a", max_tokens=60)))
        await guest.release()
        assert is_alive(pid)
        assert (await running).completion_tokens == 60
        assert (await last.generate(ask("b"))).completion_tokens == 10
        before = asyncio.get_running_loop().time()
        await last.release()
        assert asyncio.get_running_loop().time() - before < 15
        await asyncio.sleep(0.2)  # its memory is free, but the system may still clear up
        assert not is_alive(pid)
        async with engine(spec) as again:  # its place is free at once
            assert again.ready.pid != pid

    asyncio.run(scene())


def test_malformed_frames_end_the_connection_only(spec: EngineSpec) -> None:
    async def scene() -> None:
        async with engine(spec) as client:
            hello = encode(Hello())
            for noise in (
                b"\xff\xff\xff\xff",
                b"\x00\x00\x00\x04abcd",
                encode(ask("a")),  # before Hello
                encode(Hello(99)),
                hello + b"\x00\x00\x00\x00",
            ):
                reader, writer = await asyncio.open_unix_connection(str(spec.socket()))
                writer.write(noise)
                answer = await asyncio.wait_for(reader.read(), 5)
                assert b"protocol_error" in answer
                writer.close()
                await writer.wait_closed()
            assert (await client.generate(ask("a"))).text

    asyncio.run(scene())


def test_a_broken_model_says_so(spec: EngineSpec, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + bytes(40))
    broken = EngineSpec(path, runtime=spec.runtime, cache=spec.cache, start_seconds=25)

    async def scene() -> None:
        with pytest.raises(ModelFileError) as caught:
            await connect_or_start(broken)
        assert "version" in caught.value.why

    asyncio.run(scene())


def test_an_engine_that_cannot_start_shows_its_log(spec: EngineSpec) -> None:
    wrong = EngineSpec(spec.model, runtime=spec.runtime, cache=spec.cache, extra=("--nonsense",))

    async def scene() -> None:
        with pytest.raises(ProcessorError) as caught:
            await connect_or_start(wrong)
        assert "--nonsense" in caught.value.why

    asyncio.run(scene())


def test_an_open_directory_is_refused(spec: EngineSpec) -> None:
    assert spec.runtime is not None
    spec.runtime.chmod(0o755)

    async def scene() -> None:
        with pytest.raises(ProcessorError) as caught:
            await connect_or_start(spec)
        assert "not private" in caught.value.why

    asyncio.run(scene())


def test_a_served_socket_is_not_taken_over(spec: EngineSpec) -> None:
    from edvac.engine.server import private_socket

    path = spec.socket()
    with private_socket(path):
        with pytest.raises(ProcessorError, match="serves"), private_socket(path):
            pass
        probe = socket.socket(socket.AF_UNIX)
        probe.connect(str(path))
        probe.close()


class Faulty:
    """An engine with a fault of a kind that no part of it raises on purpose."""

    busy = paused = False

    def submit(self, request: Generate) -> None:
        self.busy = True

    def step(self) -> list[FromEngine]:
        if self.busy:
            raise AttributeError("a fault")
        return []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_any_kind_ends_the_process(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    ready = Ready(
        version=1, model="m", sha256="0", architecture="qwen2", context_length=10,
        chat_template=None, special_tokens={}, setting="fast", pid=1, threads=1,
    )  # fmt: skip

    async def play(served: socket.socket) -> int:
        server = Server(lambda _: (Faulty(), ready), 60.0)  # type: ignore[arg-type, return-value]
        running = asyncio.create_task(server.run(served))
        streams = await asyncio.open_unix_connection(str(tmp_path / "s"))
        client = EngineClient(*streams, log=tmp_path / "log")
        await client.greet()
        with pytest.raises(ProcessorError, match="the engine failed"):
            await client.generate(Generate(id="a", segments=[Segment("x")]))
        await client.close()
        await asyncio.wait_for(running, 5)
        return server.exit_code

    with private_socket(tmp_path / "s") as served:
        assert asyncio.run(play(served)) == 1


@pytest.mark.parametrize("kv_disk", ["keep", "session"])
def test_what_was_read_outlives_the_engine_unless_it_is_forgotten(
    spec: EngineSpec, kv_disk: str
) -> None:
    if kernels() is None:
        pytest.skip("the compiled kernels are not installed (`make setup`)")
    fast = replace(spec, setting="fast", extra=("--kv-disk", kv_disk))
    assert spec.cache is not None and spec.runtime is not None
    cache, runtime = spec.cache, spec.runtime
    asked = ask("a", segments=[Segment("tell me about the hell " * 10)])

    async def once(forgotten: bool = False) -> tuple[str, int]:
        async with engine(fast) as client:
            if forgotten:
                await client.generate(asked)
                await asyncio.to_thread(forget, runtime, cache)
            done = await client.generate(asked)
            return done.text, done.cached_tokens

    def named() -> list[str]:
        return sorted(path.suffix for path in cache.iterdir() if ".spill" in path.name)

    first, cold = asyncio.run(once())
    again, warm = asyncio.run(once())
    assert (first, cold) == (again, 0)
    assert warm == (128 if kv_disk == "keep" else 0)
    assert named() == ([".index", ".spill"] if kv_disk == "keep" else [])
    assert asyncio.run(once(forgotten=True)) == (first, 0)
    assert named() == []
    assert asyncio.run(once()) == (first, 0)
    forget(runtime, cache)
    assert named() == []
