"""A work of many files whose author makes mistakes and whose contexts run full, to be killed.

The model is a script and the verdict on a file is read off its text, so that a check costs a
millisecond; what stands between them (staging, hazards, journal) is the real thing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from edvac.core.errors import OperandError
from edvac.core.label import Label
from edvac.core.value import Value
from edvac.device import checking
from edvac.sandbox import Spec

PARTS = 200
CHAIN = 5  # parts in a row of which each is seen by the next


def program(parts: int = PARTS) -> str:
    """The text of the program."""
    lines = ["parts = ["]
    for n in range(parts):
        before = [f'View("lib/p{n - 1:03}.py", "")'] if n % CHAIN else []
        first = [f'View("lib/p{n - n % CHAIN:03}.py", "f")'] if n % CHAIN > 1 else []
        reads = f"[{', '.join(before + first)}]"
        lines.append(f'    FilePart("lib/p{n:03}.py", "part {n:03}", {reads}),')
    lines += ["]", 'made = build("the whole work", parts, repairs=3)']
    lines += ['files.write("made.csv", csv.dump(made))']
    return "\n".join(lines) + "\n"


def faults_of(n: int) -> int:
    """How often the author of a part gets it wrong first."""
    return 4 if n % 67 == 66 else 2 if n % 11 == 10 else 1 if n % 7 == 6 else 0


def crowded(n: int) -> bool:
    """Does what the author of a part has to see not fit its context?"""
    return n % 13 == 12 and n % CHAIN > 0


def answer(request: Any) -> str:
    text = request.messages[-1].text
    number = int(re.findall(r"part (\d{3})", text)[0])
    seen = sorted(set(re.findall(r"value = (\d+)", text)))
    tries = 1 + max(map(int, re.findall(rf"try {number}\.(\d+)", text)), default=-1)
    if "Earlier versions" not in text:
        tries = 0
        if crowded(number) and seen:
            raise OperandError("operand_too_large", "what it sees does not fit")
    wrong = "BUG\n" if tries < faults_of(number) else ""
    note = f"# try {number}.{tries} saw {seen}"
    return f"```python\ndef f():\n    value = {number}\n    {note}\n{wrong}```"


async def verdict(spec: Spec, label: Label) -> Value:
    """As the sandbox would say it, from the staged files."""
    inside = {grant.inside: grant.host for grant in spec.grants}
    question = json.loads((inside["/.edvac"] / "question.json").read_text())
    files = inside[question["files"]]
    said = [_wrong(files / path) for path in question["paths"]]
    return checking.value_of(not any(said), 0, 0, "\n".join(filter(None, said)), label)


def _wrong(path: Path) -> str:
    if not path.is_file():
        return f"{path.name} is not there"
    return f"{path.name}: {path.read_text()}" if "BUG" in path.read_text() else ""


def put_in_place() -> None:
    """Checks of this process are made by the script."""
    checking.verdict = verdict  # type: ignore[assignment]
