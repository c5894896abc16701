"""Install both wheels as a user does, in a clean environment and without a compiler, and use them.

Usage: python .ci/try_wheel.py dist/edvac-*.whl dist/edvac_native-*.whl
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path


# One row of ones times blocks of the type Q8_0, whose scale is 1 and whose numbers are all 2.
PRODUCT = """
import numpy as np, edvac_native as native
block = np.concatenate([np.float16([1]).view(np.uint8), np.full(32, 2, np.uint8)])
matrix = native.pack("Q8_0", np.tile(block, 16 * 2), 16, 64, [])
out = np.zeros((1, 16), np.float32)
native.multiply(native.rows(np.ones((1, 64), np.float32), None, 0, False), [matrix], out, None)
assert (abs(out - 128) < 0.001).all(), out
print("a product with", native.level())
"""


def main(wheel: Path, native: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="edvac-wheel-") as root:
        place = Path(root)
        start = time.monotonic()
        venv.create(place / "venv", with_pip=True)
        run = place / "venv" / "bin"
        # Whatever would need a compiler fails here, as it would for somebody who has none.
        bare = {"CC": "/bin/false", "CXX": "/bin/false", "PATH": f"{run}:/usr/bin:/bin"}
        env = {k: v for k, v in os.environ.items() if k[:6] != "EDVAC_"} | bare
        env |= {"HOME": root, "XDG_DATA_HOME": f"{root}/data", "XDG_CACHE_HOME": f"{root}/cache"}
        python = str(run / "python")
        before = size(place / "venv")
        # pip's own settings come from the machine, so it keeps its own home.
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        install = [*pip, "--only-binary=:all:", str(wheel.resolve())]
        subprocess.run(install, env=env | {"HOME": os.environ.get("HOME", root)}, check=True)
        grown = size(place / "venv") - before
        print(f"installed {wheel.name} ({wheel.stat().st_size:,} bytes) and what it needs: "
              f"{grown / 1e6:.0f} MB on disk, {time.monotonic() - start:.0f} s")  # fmt: skip
        edvac = str(run / "edvac")
        subprocess.run([edvac, "--version"], cwd=root, env=env, check=True)
        torch = [python, "-c", "import importlib.util as u; exit(u.find_spec('torch') is not None)"]
        subprocess.run(torch, env=env, check=True)
        start = time.monotonic()
        told = subprocess.run([edvac, "demo", "tour", "--json"], cwd=root, env=env, check=True,
                              stdout=subprocess.PIPE, text=True).stdout  # fmt: skip
        commands = json.loads(told)["commands"]
        assert [one["status"] for one in commands if one["killed"]] == [-9]
        print(f"the tour: {len(commands)} commands in {time.monotonic() - start:.0f} s")
        install = [*pip, "--only-binary=:all:", str(native.resolve()), "numpy>=2.0"]
        subprocess.run(install, env=env | {"HOME": os.environ.get("HOME", root)}, check=True)
        told = subprocess.run([python, "-c", PRODUCT], env=env, check=True,
                              stdout=subprocess.PIPE, text=True).stdout  # fmt: skip
        print(f"installed {native.name} ({native.stat().st_size:,} bytes): {told.strip()}")
        (place / "p.edv").write_text('files.write("a.txt", "a")\n', encoding="utf-8")
        subprocess.run([edvac, "check", "p.edv"], cwd=root, env=env, check=True)
    return 0


def size(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
