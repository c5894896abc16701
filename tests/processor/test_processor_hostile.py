"""Endpoints that lie, stall, stutter, break off or refuse: a typed error or the right retry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import Body, Fake, Handler, llamacpp, running, words

from edvac.core.errors import ConfigError, EdvacError, OperandError, ProcessorError
from edvac.processor import Answer, Message, Request, Segment, gate
from edvac.processor.openai import OpenAIProcessor, Timeouts

KEY = "sk-canary-0123456789"
FAST = Timeouts(first=0.4, idle=0.3)


def asking(text: str = "Read this") -> Request:
    return Request("run", "slot", (Message("user", (Segment(text),)),))


def talk(
    fake: Fake, *requests: Request, notes: list[str] | None = None, **more: Any
) -> list[Answer | EdvacError]:
    """Answers or errors of requests sent one after another."""
    found: list[Answer | EdvacError] = []

    async def go() -> None:
        said: Callable[[str], None] = (notes if notes is not None else []).append
        processor = OpenAIProcessor(fake.url, "m", on_note=said, **{"timeouts": FAST} | more)
        await processor.open()
        for request in requests:
            try:
                found.append(await processor.complete(request))
            except EdvacError as error:
                found.append(error)
        await processor.close()

    with running(fake):
        asyncio.run(go())
    return found


def refused(reply: Callable[[Handler, Body], None], **more: Any) -> EdvacError:
    (error,) = talk(Fake(reply=reply), asking(), **more)
    assert isinstance(error, EdvacError)
    return error


# -- tokens -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told", "context"),
    [
        ("word " * 3000, 2048, 0),  # ollama: the beginning is gone
        ("word " * 3000, 2600, 0),  # fewer tokens than words
        ("word " * 1800, 2048, 0),  # a power of two, and about as many words
        ("1 22 333 4444 " * 500, 1500, 0),  # numbers count too
        ("word " * 1500, 2048, 2048),  # the whole known context
        ("word " * 1500, 2046, 2048),  # prompt and answer exceed it
    ],
)
def test_a_prompt_that_was_cut_silently(text: str, told: int, context: int, tmp_path: Path) -> None:
    fake = llamacpp(prompt_tokens=lambda _: told) if context else Fake(prompt_tokens=lambda _: told)
    (error,) = talk(fake, asking(text), records=tmp_path if context else None)
    assert isinstance(error, OperandError), error
    assert error.code == "operand_too_large"
    assert "cut the prompt" in error.what


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("word " * 1500, 1600),
        ("snake_case_name camelCase don't 12.50 " * 100, 900),
        ("x" * 50_000, 7000),  # one long word
        ("    \n" * 20_000, 50),  # spaces, which tokenizers join
        ("漢字" * 3000, 5000),
        ("word " * 1500, 2048),  # by chance: too few words to fill it
    ],
)
def test_an_honest_count_is_believed(text: str, told: int) -> None:
    (answer,) = talk(Fake(prompt_tokens=lambda _: told), asking(text))
    assert isinstance(answer, Answer), answer
    assert answer.prompt_tokens == told


def test_counts_that_cannot_be_are_not_counted() -> None:
    """Else a lie could spend a budget, or never spend it."""
    notes: list[str] = []
    (answer,) = talk(Fake(prompt_tokens=lambda _: 10**12), asking(), notes=notes)
    assert isinstance(answer, Answer)
    assert answer.prompt_tokens < 100
    assert "that is not counted" in notes[0]
    (answer,) = talk(Fake(cached_tokens=10**12), asking())
    assert isinstance(answer, Answer)
    assert 0 < answer.cached_tokens <= answer.prompt_tokens

    def many(handler: Handler, body: Body) -> None:
        handler.begin()
        handler.text("x", "stop")
        handler.event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 10**9}})

    (answer,) = talk(Fake(reply=many), asking(), notes=notes)
    assert isinstance(answer, Answer)
    assert answer.completion_tokens == asking().max_tokens


# -- time ---------------------------------------------------------------------------------------


def test_keep_alives_for_ever_are_no_answer() -> None:
    def pings(handler: Handler, body: Body) -> None:
        handler.begin()
        while True:
            handler.line(": ping\n\n")
            handler.event({"choices": [{"delta": {"content": ""}}]})
            handler.wait(0.05)

    start = time.monotonic()
    error = refused(pings)
    assert isinstance(error, ProcessorError) and error.retryable
    assert "did not begin to answer in time" in error.what
    assert time.monotonic() - start < 5


def test_a_stream_that_stalls() -> None:
    def stalls(handler: Handler, body: Body) -> None:
        handler.begin()
        handler.text("Half an")
        while True:
            handler.line(": ping\n\n")
            handler.wait(0.05)

    error = refused(stalls)
    assert error.retryable and "did not go on with its answer in time" in error.what


def test_slow_is_not_stalled() -> None:
    """Longer in all than either limit, but never silent for so long."""

    def slow(handler: Handler, body: Body) -> None:
        handler.begin()
        for word in ("one ", "two ", "three ", "four ", "five ", "six "):
            handler.wait(0.15)
            handler.text(word)
        handler.text("", "stop")

    (answer,) = talk(Fake(reply=slow), asking())
    assert isinstance(answer, Answer)
    assert answer.text == "one two three four five six "


def test_an_answer_that_is_late() -> None:
    error = refused(lambda handler, body: handler.wait(2))
    assert error.retryable and "in time" in error.what


def test_an_end_that_never_comes_after_the_last_word() -> None:
    def hangs(handler: Handler, body: Body) -> None:
        handler.begin()
        handler.text("All of it", "stop")
        handler.wait(1.5)

    (answer,) = talk(Fake(reply=hangs), asking())
    assert isinstance(answer, Answer) and answer.text == "All of it"


# -- streams ------------------------------------------------------------------------------------


def test_a_stream_that_breaks_off() -> None:
    def drops(handler: Handler, body: Body) -> None:
        handler.begin()
        handler.text("Half an")
        handler.cut()

    error = refused(drops)
    assert isinstance(error, ProcessorError) and error.retryable


def test_pieces_that_come_twice_are_found_and_the_next_try_is_in_one_piece() -> None:
    def stutters(handler: Handler, body: Body) -> None:
        if not body.get("stream"):
            handler.answer(body, "one two three")
            return
        handler.begin()
        for word in ("one ", "one ", "two ", "three"):
            handler.text(word)
        handler.text("", "stop")
        handler.event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})

    error, answer = talk(Fake(reply=stutters), asking(), asking())
    assert isinstance(error, ProcessorError) and error.retryable
    assert "4 pieces and counted 3 tokens" in error.why
    assert isinstance(answer, Answer) and answer.text == "one two three"


def test_words_after_the_end_are_garbage() -> None:
    def goes_on(handler: Handler, body: Body) -> None:
        handler.begin()
        handler.text("All of it", "stop")
        handler.text("All of it", "stop")

    assert refused(goes_on).code == "endpoint_garbage"


def test_an_answer_that_repeats_itself_honestly_is_kept() -> None:
    def laughs(handler: Handler, body: Body) -> None:
        handler.begin()
        for _ in range(6):
            handler.text("ha")
        handler.text("", "stop")
        handler.event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 7}})

    (answer,) = talk(Fake(reply=laughs), asking())
    assert isinstance(answer, Answer) and answer.text == "ha" * 6


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "99999999999"}, gate.MAX_WAIT_S),
        ({"retry_after": "-3"}, gate.FIRST_WAIT_S),
        ({"retry_after": "soon"}, gate.FIRST_WAIT_S),
        ({}, gate.FIRST_WAIT_S),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_it_says_how_long_to_wait(status: int, headers: dict[str, str], wait: float) -> None:
    notes: list[str] = []
    error = refused(
        lambda handler, body: handler.send(status, {"error": "slow down"}, **headers), notes=notes
    )
    assert isinstance(error, ProcessorError)
    assert (error.code, error.wait_s) == ("endpoint_busy", wait)
    assert notes and "left alone" in notes[0]


def test_a_date_to_come_back_at_is_read_against_the_servers_own_clock() -> None:
    def dated(handler: Handler, body: Body) -> None:
        handler.send_response_only(429)
        for name, value in (
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"),
            ("content-length", "0"),
        ):
            handler.send_header(name, value)
        handler.end_headers()

    error = refused(dated)
    assert isinstance(error, ProcessorError) and error.wait_s == 30.0


def test_after_a_refusal_fewer_are_sent_and_none_before_it_is_time() -> None:
    """Twelve calls at once against a server that takes three; none is lost."""
    times: list[float] = []
    fake = Fake()

    def three(handler: Handler, body: Body) -> None:
        times.append(time.monotonic())
        if fake.at_once > 3:
            handler.send(429, {"error": "too many"}, retry_after="1")
        else:
            handler.wait(0.05)
            handler.answer(body, "done")

    fake.reply = three

    async def go() -> list[str]:
        processor = OpenAIProcessor(fake.url, "m", concurrency=12)

        async def insist() -> str:
            for _ in range(5):
                try:
                    return (await processor.complete(asking())).text
                except ProcessorError:
                    continue
            return "lost"

        try:
            return await asyncio.gather(*[insist() for _ in range(12)])
        finally:
            await processor.close()

    with running(fake):
        found = asyncio.run(go())
    assert found == ["done"] * 12
    first = [at for at in times if at - times[0] < 0.5]
    later = [at for at in times if at - times[0] >= 0.5]
    assert min(later) - times[0] >= 0.95, "nothing was sent while it had asked to be left alone"
    assert len(first) <= 12


def test_what_an_endpoint_computes_at_once_does_not_undo_a_refusal() -> None:
    async def go() -> list[int]:
        made = gate.Gate(8)
        made.allow(32)
        limits = [made.limit]
        async with made:
            made.refused(0.0)
        made.allow(16)
        return [*limits, made.limit]

    assert asyncio.run(go()) == [32, 1]


def test_the_gate_opens_slowly_again() -> None:
    async def go() -> list[int]:
        made = gate.Gate(8)
        limits = []
        async with made:
            made.refused(0.0)
            limits.append(made.limit)
        for _ in range(40):
            async with made:
                made.answered()
            limits.append(made.limit)
        return limits

    limits = asyncio.run(go())
    assert limits[0] == 1 and limits[-1] == 8
    assert limits == sorted(limits)


# -- the key ------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("TEST_KEY", raising=False)
    path = tmp_path / "edvac" / "keys.toml"
    path.parent.mkdir()
    return path


def test_a_key_from_a_file_that_only_its_owner_can_read(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(key=KEY)
    with running(fake):
        origin = fake.url.removesuffix("/v1")
    key_file.write_text(f'"{origin}" = "{KEY}"\n"https://other" = "not this"\n')
    key_file.chmod(0o600)

    async def go() -> Answer:
        processor = OpenAIProcessor(f"{origin}/v1", "m", key_env="TEST_KEY")
        try:
            return await processor.complete(asking())
        finally:
            await processor.close()

    with running(fake, port=fake.port):
        assert asyncio.run(go()).text == "Hello there!"
        monkeypatch.setenv("TEST_KEY", "another")
        assert asyncio.run(go()).text == "Hello there!", "the file comes first"
        key_file.chmod(0o640)
        with pytest.raises(ConfigError) as wrong:
            asyncio.run(go())
    assert wrong.value.code == "key_file" and "600" in wrong.value.fix
    assert fake.keys == [f"Bearer {KEY}"] * 2


@pytest.mark.parametrize(
    "content", [f"nonsense {KEY}", f'"ORIGIN" = ["{KEY}"]', f'"x" = "{KEY}\x00"', "x" * 100_000]
)
def test_a_key_file_that_is_none_is_not_shown(content: str, key_file: Path) -> None:
    fake = Fake()
    with running(fake):
        key_file.write_text(content.replace("ORIGIN", fake.url.removesuffix("/v1")))
        key_file.chmod(0o600)
    (error,) = talk_at(fake)
    assert isinstance(error, ConfigError) and error.code == "key_file"
    assert KEY not in f"{error} {error!r} {error.as_dict()}"


def talk_at(fake: Fake) -> list[EdvacError]:
    async def go() -> list[EdvacError]:
        processor = OpenAIProcessor(fake.url, "m")
        try:
            await processor.complete(asking())
        except EdvacError as error:
            return [error]
        finally:
            await processor.close()
        return []

    with running(fake, port=fake.port):
        return asyncio.run(go())


def test_words_are_counted_as_the_fake_does() -> None:
    assert words({"messages": [{"content": "a b"}, {"content": "c"}]}) == 4
