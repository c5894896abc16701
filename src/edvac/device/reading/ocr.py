"""Reading pictures of text, by the program ``tesseract`` of the system."""

from __future__ import annotations

import functools
import math
import shutil
import subprocess
from typing import TYPE_CHECKING

from edvac.device.reading.refusal import NO_OCR, Unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

PATH = "/usr/local/bin:/usr/bin:/bin"
MAX_PIXELS = 25_000_000  # of what is handed to tesseract
MAX_PAGES = 300  # pictures of one call
MAX_LANGUAGES = 4
_SECONDS = 60  # for one picture, by the clock
ENV = {"PATH": PATH, "OMP_THREAD_LIMIT": "1", "LC_ALL": "C.UTF-8"}
_read = [0]  # pictures so far; the process reads one document


def program() -> str | None:
    return shutil.which("tesseract", path=PATH)


@functools.cache
def languages() -> str:
    """The installed languages, English first, as tesseract wants them."""
    found = program()
    if found is None:
        return ""
    try:
        done = subprocess.run(
            [found, "--list-langs"], capture_output=True, timeout=10, check=False, env=ENV
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    names = done.stdout.decode(errors="replace").split("\n")[1:]
    usable = sorted(n for n in names if n and n != "osd" and "/" not in n)
    usable.sort(key=lambda name: name != "eng")
    return "+".join(usable[:MAX_LANGUAGES])


def read(image: Image, dpi: int) -> str:
    """The text in a picture; empty where none is seen.

    Raises:
        Unreadable: no tesseract, or it gave up.
    """
    found = program()
    if found is None:
        raise Unreadable(NO_OCR, "ocr_missing")
    if not languages():
        raise Unreadable("tesseract has no language installed", "ocr_missing")
    _read[0] += 1
    if _read[0] > MAX_PAGES:
        raise Unreadable(f"more than {MAX_PAGES} pictures of text in one call", "too_large")
    small = _fitted(image.convert("L"))
    data = b"P5 %d %d 255\n" % small.size + small.tobytes()
    command = [found, "stdin", "stdout", "-l", languages(), "--dpi", str(dpi)]
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=_SECONDS, check=False, env=ENV
        )
    except subprocess.TimeoutExpired as problem:
        raise Unreadable(f"tesseract did not end within {_SECONDS} s") from problem
    except OSError as problem:
        raise Unreadable(f"tesseract could not be started ({problem.strerror})") from problem
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[-200:]
        raise Unreadable(f"tesseract gave up ({said or done.returncode})")
    return done.stdout.decode("utf-8", "replace").replace("\f", "").strip()


def _fitted(image: Image) -> Image:
    width, height = image.size
    if width * height <= MAX_PIXELS:
        return image
    scale = math.sqrt(MAX_PIXELS / (width * height))
    return image.resize((max(1, int(width * scale)), max(1, int(height * scale))))
