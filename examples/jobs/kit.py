"""What several jobs need to make their inputs and to look at their results."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from edvac.bench.jobs import Scene
from edvac.processor import Request

_DATA = re.compile(r"<data \d+[^>\n]*>\n(.*?)\n</data \d+>", re.DOTALL)


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
