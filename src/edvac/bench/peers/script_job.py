"""The sample job as a short script, as somebody would write it: a pool of four, no journal.

Usage: python script_job.py INBOX OUTPUT URL MODEL
"""

from __future__ import annotations

import csv
import json
import sys
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

FIELDS = ["kind", "sender", "date", "number", "total", "currency"]
TEXT = {"type": ["string", "null"]}
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["invoice", "statement", "letter", "note", "log"]},
        **dict.fromkeys(FIELDS[1:], TEXT),
    },
    "required": FIELDS,
    "additionalProperties": False,
}
PROMPT = (
    "Fill in the facts of this document: kind; sender (who sent it); date (as 2026-01-31); and "
    "of an invoice its number, total (a number) and currency (a code such as EUR). null where "
    "it is not stated.\n\n"
)


def ask(url: str, model: str, prompt: str, schema: dict[str, Any] | None = None) -> str:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    body |= {"temperature": 0, "max_tokens": 400}
    if schema:
        shape = {"name": "document", "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    data = json.dumps(body).encode()
    head = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/chat/completions", data, head)  # noqa: S310
    with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310
        return str(json.load(answer)["choices"][0]["message"]["content"])


def extract(url: str, model: str, path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")[:12_000]
        return {"file": path.name} | json.loads(ask(url, model, PROMPT + text, SCHEMA))
    except (OSError, ValueError, KeyError):
        return None  # one bad document must not end the job


def finish(rows: list[dict[str, Any]], out: Path, url: str, model: str) -> None:
    with (out / "documents.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["file", *FIELDS])
        table.writeheader()
        table.writerows(rows)
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    large = []
    for row in rows:
        try:
            total = Decimal(str(row["total"]).replace(",", ""))
        except ArithmeticError:
            continue
        if row["kind"] == "invoice":
            sums[row["sender"] or "", row["currency"] or ""] += total
            large += [row] if total > 1000 else []
    with (out / "totals.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*key, total] for key, total in sums.items()])
    if large:
        note = ask(url, model, f"A short note on each of these invoices:\n{json.dumps(large)}")
        (out / "review.md").write_text(note, encoding="utf-8")


def main() -> None:
    inbox, out, url, model = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda path: extract(url, model, path), sorted(inbox.iterdir())))
    finish([row for row in found if row], out, url, model)


if __name__ == "__main__":
    main()
