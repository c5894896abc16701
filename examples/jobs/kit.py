"""What several jobs need to make their inputs and to look at their results."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edvac.bench.jobs import Scene
from edvac.processor import Request

_DATA = re.compile(r"<data \d+[^>\n]*>\n(.*?)\n</data \d+>", re.DOTALL)
_WORD = re.compile(r"\w{2,}")


def asked(request: Request) -> str:
    """What a model step is told to do, without the data."""
    return request.messages[-1].text.partition("\n\n<data ")[0]


def data_of(request: Request) -> list[str]:
    """The data of a model step, one text for each operand."""
    return _DATA.findall(request.messages[-1].text)


def rows(text: str) -> list[dict[str, str]]:
    """The rows of a CSV file that a program wrote."""
    return list(csv.DictReader(io.StringIO(text)))


def snapshot(place: Path) -> dict[str, bytes]:
    """Every file below a directory, byte for byte."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


async def check_delivery(scene: Scene, run: str, expected: set[str]) -> None:
    """Nothing was changed by the run; apply makes the expected files; undo restores all."""
    before = snapshot(scene.place)
    scene.check("the run itself changed no file", not expected & before.keys())
    await scene.apply(run)
    after = snapshot(scene.place)
    scene.check("apply made what was expected", expected <= after.keys() - before.keys())
    scene.check("apply left the inputs alone", before.items() <= after.items())
    await scene.undo(run)
    scene.check("undo restored every byte", snapshot(scene.place) == before)


def reset_peak() -> None:
    """Forget how much memory this process has held; see `peak`."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak() -> int:
    """Bytes of memory that this process has held at most, since `reset_peak`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


class Finder:
    """Finds what a text is about, though a scanner has misread some of it: the one with which it
    shares most words, rare ones above all.

    Args:
        known: anything, by the text that it is known by.
    """

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._values = list(known.values())
        self._places: dict[str, list[int]] = {}
        for place, text in enumerate(known):
            for word in set(_WORD.findall(text.casefold())):
                self._places.setdefault(word, []).append(place)

    def __call__(self, text: str) -> Any:
        shared: dict[int, float] = {}
        for word in set(_WORD.findall(text.casefold())):
            places = self._places.get(word, [])
            for place in places:
                shared[place] = shared.get(place, 0.0) + 1 / len(places) ** 2
        return self._values[max(shared, key=lambda place: shared[place])] if shared else None


def letters(text: str) -> str:
    """A name for comparing: its letters and digits, without the form of a company."""
    bare = re.sub(r"\b(gmbh|ag|ltd|inc|kg|sarl|llc)\b", "", text.casefold())
    return "".join(sign for sign in bare if sign.isalnum())
