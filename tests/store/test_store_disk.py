"""The real store and its surroundings: opening, formats, permissions, size, other processes."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import apsw
import pytest
from crash_harness import OneOwner, labels

import edvac.store
from edvac.core.errors import DamageError, InternalError, LeaseError, StoreError
from edvac.core.label import USER, Label
from edvac.core.seams import ManualClock
from edvac.store import DURABILITY_POINTS, ApplyEntry, NewRecord, RunInfo, Schedule, Store, schema
from edvac.store.files import SystemFiles

NOW = 1_000_000_000.0


def code(error: Any) -> str:
    return str(error.value.code)


def filled(root: Path, steps: int = 3, size: int = 100) -> None:
    with Store(root, owners=OneOwner()) as store:
        store.create_run(RunInfo("r", NOW))
        lease = store.acquire("r", "me", 60, NOW)
        for number in range(steps):
            intent = NewRecord(f"step[{number}]", "intent", b"i" * 60, labels(USER))
            store.append(lease, [intent])
            label = Label.of(sources=[f"file:inbox/{number}.txt"])
            outcome = NewRecord(
                f"step[{number}]", "outcome", os.urandom(size), labels(label), reuse_key=f"{number}"
            )
            store.append(lease, [outcome])
        store.append(lease, [NewRecord("", "closed")])
        store.set_state(lease, "done", closed=NOW)


def on_disk(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def test_a_closed_run_of_300_steps_stays_under_a_megabyte(tmp_path: Path) -> None:
    filled(tmp_path, steps=300, size=1024)
    assert on_disk(tmp_path) < 1_000_000


def test_so_it_does_while_the_store_stays_open(tmp_path: Path) -> None:
    with Store(tmp_path, owners=OneOwner()) as store:
        store.create_run(RunInfo("r", NOW))
        lease = store.acquire("r", "me", 60, NOW)
        for number in range(300):
            store.append(lease, [NewRecord(f"{number}", "outcome", os.urandom(1024))])
        store.append(lease, [NewRecord("", "closed")])
        shared = (tmp_path / ".edvac/store.db-shm").stat().st_size
        assert on_disk(tmp_path) - shared < 1_000_000


def test_everything_is_private(tmp_path: Path) -> None:
    os.umask(0o022)
    with Store(tmp_path) as store:
        store.put_blob(b"secret")
        for path in [tmp_path / ".edvac", *(tmp_path / ".edvac").rglob("*")]:
            assert path.stat().st_mode & 0o077 == 0, path
    (tmp_path / ".edvac").chmod(0o755)
    Store(tmp_path).close()
    assert (tmp_path / ".edvac").stat().st_mode & 0o777 == 0o700


def test_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as error:
        Store(tmp_path / "none")
    assert code(error) == "workspace_missing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_workspace(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError) as error:
        Store(tmp_path)
    tmp_path.chmod(0o700)
    assert code(error) == "store_unwritable"


def test_a_read_only_file_system_is_said_to_be_so(tmp_path: Path) -> None:
    class ReadOnly(SystemFiles):
        def make_dir(self, path: Path) -> bool:
            raise OSError(30, "Read-only file system")

    with pytest.raises(StoreError) as error:
        Store(tmp_path, files=ReadOnly())
    assert code(error) == "store_unwritable"


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".edvac").mkdir()
    path = tmp_path / ".edvac/store.db"
    made = apsw.Connection(str(path))
    made.execute("CREATE TABLE other (x); PRAGMA application_id = 7")
    made.close()
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        Store(tmp_path)
    assert code(error) == "store_foreign" and path.read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / ".edvac").mkdir()
    (tmp_path / ".edvac/store.db").write_bytes(b"hello world, " * 1000)
    with pytest.raises(DamageError) as error:
        Store(tmp_path)
    assert code(error) == "store_not_a_database" and error.value.exit_code == 6


@pytest.mark.parametrize("keep", [0, 100, 4096, 0.5, 0.9])
def test_a_store_cut_short_is_never_taken_for_a_store(tmp_path: Path, keep: float) -> None:
    filled(tmp_path, steps=30, size=1000)
    path = tmp_path / ".edvac/store.db"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep > 1 or not keep else keep * len(data))])
    with pytest.raises(DamageError), Store(tmp_path) as store:
        list(store.records("r"))


def test_a_store_that_vanished_is_not_made_anew(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / ".edvac/store.db").unlink()
    with pytest.raises(DamageError) as error:
        Store(tmp_path)
    assert code(error) == "store_missing"


@pytest.mark.parametrize(
    ("version", "refusal"), [(schema.FORMAT + 1, "store_newer"), (1, "store_older")]
)
def test_a_format_that_it_does_not_know_is_refused_and_left_alone(
    tmp_path: Path, version: int, refusal: str
) -> None:
    filled(tmp_path)
    path = tmp_path / ".edvac/store.db"
    made = apsw.Connection(str(path))
    made.execute(f"PRAGMA user_version = {version}")
    made.close()
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        Store(tmp_path)
    assert code(error) == refusal and path.read_bytes() == before


def test_a_store_of_the_first_release_gets_its_schedules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as first:
        first.setattr(schema, "MIGRATIONS", {0: schema.MIGRATIONS[0]})
        first.setattr(schema, "FORMAT", 2)
        filled(tmp_path)
    with Store(tmp_path) as store:
        assert store.schedules() == [] == store.verify()
        store.keep_schedule(Schedule("a", "{}", 1.0, ""))
        assert len(store.schedules()) == 1 and len(list(store.records("r"))) == 7


def test_what_is_left_of_a_removed_run_is_sealed(tmp_path: Path) -> None:
    filled(tmp_path)
    with Store(tmp_path, owners=OneOwner()) as store:
        store.begin_apply("r", "/work", [ApplyEntry("a", None, "d")])
        store.remove_run("r")
        assert store.was_applied("/work", "a", "d") and store.verify() == []
    made = apsw.Connection(str(tmp_path / ".edvac/store.db"))
    made.execute("UPDATE placed SET key = zeroblob(20)")
    made.close()
    with Store(tmp_path) as store:
        assert [problem.code for problem in store.verify()] == ["row_damaged"]
        assert not store.was_applied("/work", "a", "d")


def test_an_older_format_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    steps = {**schema.MIGRATIONS, schema.FORMAT: lambda run: run("CREATE TABLE extra (x)")}
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    monkeypatch.setattr(schema, "FORMAT", schema.FORMAT + 1)
    with Store(tmp_path) as store:
        assert store._db.rows("PRAGMA user_version") == [(schema.FORMAT,)]
        assert store._db.rows("SELECT count(*) FROM extra") == [(0,)]
        assert len(list(store.records("r"))) == 7


def test_a_full_disk_is_an_error_and_not_damage(tmp_path: Path) -> None:
    with Store(tmp_path, owners=OneOwner()) as store:
        store.create_run(RunInfo("r", NOW))
        lease = store.acquire("r", "me", 60, NOW)
        store.append(lease, [NewRecord("a", "intent")])
        pages = store._db.rows("PRAGMA page_count")[0][0]
        store._db.rows(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError) as error:
            store.append(lease, [NewRecord(str(n), "intent", b"x" * 60_000) for n in range(9)])
        assert code(error) == "disk_full" and not isinstance(error.value, DamageError)
        store._db.rows("PRAGMA max_page_count = 100000")
        assert store.append(lease, [NewRecord("b", "intent")]) == 2
        assert store.verify() == []


def test_a_full_disk_under_a_blob(tmp_path: Path) -> None:
    class Full(SystemFiles):
        def write_new(self, path: Path, chunks: Any) -> int:
            if "blob" not in path.parent.name and "marker" not in path.name:
                raise OSError(28, "No space left on device")
            return super().write_new(path, chunks)

    with Store(tmp_path, files=Full()) as store:
        with pytest.raises(StoreError) as error:
            store.put_blob(b"x")
        assert code(error) == "disk_full"
        store.create_run(RunInfo("r", NOW))


def test_a_store_belongs_to_one_thread_and_one_process(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        caught: list[BaseException] = []

        def use() -> None:
            try:
                store.runs()
            except InternalError as error:
                caught.append(error)

        other = threading.Thread(target=use)
        other.start()
        other.join()
        assert len(caught) == 1
    with pytest.raises(InternalError, match="closed"):
        store.runs()


def test_leftovers_of_dead_writers_are_removed_at_opening(tmp_path: Path) -> None:
    class Owners(OneOwner):
        def alive(self, process: Any) -> bool | None:
            return process.pid == 1

    Store(tmp_path).close()
    for pid in (1, 2):
        (tmp_path / f".edvac/tmp/space-{pid}-1-abc").write_bytes(b"half")
    (tmp_path / ".edvac/tmp/elsewhere-2-1-abc").write_bytes(b"of another container")
    (tmp_path / ".edvac/tmp/elsewhere-3-1-abc").write_bytes(b"old")
    os.utime(tmp_path / ".edvac/tmp/elsewhere-3-1-abc", (1, 1))
    Store(tmp_path, owners=Owners()).close()
    left = sorted(path.name for path in (tmp_path / ".edvac/tmp").iterdir())
    assert left == ["elsewhere-2-1-abc", "space-1-1-abc"]


def test_a_blob_damaged_on_disk_is_written_anew(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        ref = store.put_blob(b"whole")
    (tmp_path / ".edvac/blobs" / ref[:2] / ref[2:]).write_bytes(b"wrong")
    with Store(tmp_path) as store:
        with pytest.raises(DamageError):
            store.get_blob(ref)
        with pytest.raises(DamageError):
            store.open_blob(ref)
        assert [p.code for p in store.verify()] == ["blob_damaged"]
        assert store.put_blob(b"whole") == ref and store.get_blob(ref) == b"whole"


def test_segments_are_kept_once_and_written_early_when_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edvac.store.segments.PENDING_BYTES", 1000)
    with Store(tmp_path, clock=ManualClock(), owners=OneOwner()) as store:
        store.create_run(RunInfo("r", NOW))
        lease = store.acquire("r", "me", 60, NOW)
        refs = [store.put_segment(f"{n} " * 100) for n in range(20)]
        store.append(lease, [NewRecord("a", "outcome", segments=tuple(refs * 2))])
        assert [store.segment(ref)[0] for ref in refs[:3]] == ["0", "1", "2"]
        assert store._db.rows("SELECT count(*) FROM segment") == [(20,)]
        loose = store.put_segment("loose " * 300)
        store.release(lease)
        assert store.gc(grace_s=-1.0).segments == 1
        with pytest.raises(DamageError):
            store.segment(loose)
        assert store._db.rows("SELECT count(*) FROM segment") == [(20,)]


WRITER = """
import sys, time
from pathlib import Path
from edvac.store import NewRecord, RunInfo, Store
root, run, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with Store(root) as store:
    store.create_run(RunInfo(run, time.time()))
    lease = store.acquire(run, run, 60, time.time())
    for number in range(count):
        ref = store.put_blob(b"shared %d" % (number % 7))
        store.append(lease, [NewRecord(str(number), "outcome", run.encode(), blobs=(ref,))])
        if number % 20 == 0:
            store.gc(grace_s=0.0)
"""


def test_two_processes_write_side_by_side(tmp_path: Path) -> None:
    Store(tmp_path).close()
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), run, "60"])
        for run in ("one", "two", "three")
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    with Store(tmp_path) as store:
        assert store.verify() == []
        for run in ("one", "two", "three"):
            assert [r.slot for r in store.records(run)] == [str(n) for n in range(60)]
            store.acquire(run, "next", 60, NOW)  # their owners are dead: no need to wait


def test_a_run_is_not_taken_from_a_living_process(tmp_path: Path) -> None:
    holder = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from edvac.store import RunInfo, Store
        store = Store(Path(sys.argv[1]))
        store.create_run(RunInfo("r", time.time()))
        store.acquire("r", "holder", 3600, time.time())
        print("held", flush=True)
        sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with Store(tmp_path) as store:
            with pytest.raises(LeaseError, match=f"by process {process.pid}"):
                store.acquire("r", "me", 60, time.time())
            process.kill()
            process.wait()
            assert store.acquire("r", "me", 60, time.time()).epoch == 2


def test_the_list_of_durability_points_is_complete() -> None:
    folder = Path(edvac.store.__file__).parent
    found: set[str] = set()
    for path in folder.glob("*.py"):
        text = path.read_text()
        calls = text.count("durability_point(")
        names = re.findall(r'durability_point\("(store\.[a-z_.]+)"\)', text)
        assert len(names) == calls, f"{path.name} names a point in another way"
        found.update(names)
    assert sorted(found) == list(DURABILITY_POINTS)
    assert {"store.append.before_commit", "store.blob.after_rename", "store.lease.after"} <= found


@pytest.mark.slow
@pytest.mark.parametrize("point", [p for p in DURABILITY_POINTS if "recover" not in p])
def test_a_kill_at_each_point_leaves_a_sound_store(tmp_path: Path, point: str) -> None:
    work = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        import crash_harness as harness
        work = harness.Workload(lambda: harness.open_store(Path(sys.argv[1])))
        for number, step in enumerate(harness.steps(), start=1):
            step(work)
            print(number, flush=True)
        work.open()
        work.store.gc(grace_s=0.0)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", work, str(tmp_path), str(Path(__file__).parent)],
        env={**os.environ, "EDVAC_KILL_AT": f"{point}:1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    import crash_harness as harness

    acked = int((done.stdout.split() or [b"0"])[-1])
    states = harness.oracle()
    with harness.open_store(tmp_path) as store:
        assert harness.dump(store) in states[acked : acked + 2]
        assert store.verify() == []


def test_a_store_that_cannot_be_opened_holds_no_file(tmp_path: Path) -> None:
    """An open connection would keep its locks until the collector comes by."""

    class NoMarker(SystemFiles):
        def rename(self, source: Path, target: Path) -> None:
            raise OSError(errno.EIO, "injected")

    with pytest.raises(StoreError) as kept:  # whose traceback keeps what it passed alive
        Store(tmp_path, files=NoMarker())
    assert code(kept) == "store_io_failed"
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    held = [os.readlink(link) for link in links if os.path.lexists(link)]
    assert held and not [name for name in held if name.startswith(str(tmp_path))]
