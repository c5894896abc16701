"""The main job on the sample inbox: run it, then compare what it found with the truth.

Used by ``make run``. Everything is done by the `edvac` command; this file only holds the task and
the comparison. Arguments are passed on to `edvac run`; a program (.edv) as the first of them runs
instead of the task.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import unicodedata
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path

HERE = Path(__file__).parent
OUTPUT = HERE.parent / "out"
FIELDS = ("kind", "sender", "date", "number", "total", "currency")

TASK = (
    "Read the documents in inbox/. Write one row per document to documents.csv with the columns "
    "file, kind, sender, date, number, total and currency. The kind is invoice (also receipts, "
    "premium and credit notes), statement, letter (also e-mail), note or log; number, total and "
    "currency belong to invoices only. Sum the invoice totals per sender and currency into "
    "totals.csv, and flag invoices above 1000 in review.md."
)


@dataclass
class Score:
    """Fields by how they compare with the truth; `remarks` name every field that is not right."""

    right: int = 0
    wrong: int = 0
    missing: int = 0
    invented: int = 0
    remarks: list[str] = field(default_factory=list)

    def take(self, name: str, column: str, found: str, true: str) -> None:
        if not true and not found:
            return
        if not true:
            self.invented += 1
            self.remarks.append(f"{name}: {column} {found!r} is not stated there")
        elif not found:
            self.missing += 1
            self.remarks.append(f"{name}: {column} {true!r} is missing")
        elif same(column, found, true):
            self.right += 1
        else:
            self.wrong += 1
            self.remarks.append(f"{name}: {column} {found!r} should be {true!r}")


def same(column: str, found: str, true: str) -> bool:
    """Equal up to spelling: amounts by value, names by their letters."""
    if column == "total":
        try:
            return Decimal(found) == Decimal(true)
        except InvalidOperation:
            return False
    left, right = letters(found), letters(true)
    if column == "sender":
        return bool(left) and (left in right or right in left) and 2 * len(left) >= len(right)
    return left == right


def letters(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.casefold())
    return re.sub(r"[^a-z0-9-]|(?<![0-9])-|-(?![0-9])", "", plain)


def score(rows: list[dict[str, str]], truth: dict[str, dict[str, str]]) -> Score:
    """Compare the rows of documents.csv with the truth, document by document."""
    found = Score()
    by_name = {Path(row.get("file", "")).name: row for row in rows}
    for name, true in truth.items():
        row = by_name.pop(name, {})
        for column in FIELDS:
            found.take(name, column, (row.get(column) or "").strip(), true.get(column, ""))
    for name in by_name:
        found.invented += 1
        found.remarks.append(f"{name}: a row for a document that cannot be read")
    return found


def truth() -> dict[str, dict[str, str]]:
    """The fields of each document, as a careful person would note them."""
    found = json.loads((HERE / "truth.json").read_text(encoding="utf-8"))
    return dict(found["documents"])


def main() -> int:
    given = sys.argv[1:]
    what = given.pop(0) if given and given[0].endswith(".edv") else TASK
    command = [sys.executable, "-m", "edvac.cli.main", "run", what, "--yes"]
    command += ["--input", str(HERE / "inbox"), "--output", str(OUTPUT), *given]
    status = subprocess.run(command, check=False).returncode
    table = OUTPUT / "documents.csv"
    if not table.exists():
        print(f"there is no {table}", file=sys.stderr)
        return status or 1
    with table.open(encoding="utf-8", newline="") as file:
        found = score(list(csv.DictReader(file)), truth())
    for remark in found.remarks:
        print(f"  {remark}")
    print(
        f"compared with {HERE / 'truth.json'}: {found.right} fields right, {found.wrong} wrong, "
        f"{found.missing} missing, {found.invented} invented"
    )
    print(f"the result is in {OUTPUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
