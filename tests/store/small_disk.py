"""A real file system of a chosen size that can be filled to the last page and given room again."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = 4096


class SmallDisk:
    """A mounted tmpfs. A ballast file takes up what is to be gone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ballast = root / ".ballast"

    @property
    def free(self) -> int:
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize

    def leave(self, size: int) -> None:
        """Take up all but `size` bytes, in whole pages."""
        self.make_room()
        take = self.free - size // PAGE * PAGE
        assert take > 0, "the small disk is too small for this"
        descriptor = os.open(self._ballast, os.O_CREAT | os.O_WRONLY)
        os.posix_fallocate(descriptor, 0, take)
        os.close(descriptor)
        assert self.free == size // PAGE * PAGE

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def clear(self) -> None:
        """Make it as it was when it was new."""
        for path in self.root.iterdir():
            if path.is_dir():
                subprocess.run(["rm", "-rf", str(path)], check=True)
            else:
                path.unlink()


@contextmanager
def mounted(size: int) -> Iterator[SmallDisk]:
    """Skips where no file system may be mounted."""
    with tempfile.TemporaryDirectory(prefix="edvac-disk-") as place:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", place]
        try:
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("a small file system cannot be mounted here: there is no mount command")
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        try:
            yield SmallDisk(Path(place))
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)
