"""The program of the design, from text to files, in every order of completion."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from program_kit import NaiveHost, run, shown

from edvac.core.label import PUBLIC
from edvac.core.value import Failed
from edvac.program import StepCall
from edvac.program.data import RecordView

INVOICES = """
class Invoice:
    vendor: str          # company that sent the invoice
    total: Decimal
    currency: Literal["EUR", "USD", "GBP"]

limit = param(1000)
invoices = [llm.extract(doc.text(p), Invoice) for p in files.list("inbox/*")]
rows = group(invoices, by=["vendor", "currency"], total=sum_of("total"))
files.write("totals.csv", csv.dump(rows))
large = [i for i in invoices if i.total > limit]
if large:
    files.write("review.md", llm.write("A short note on each of these invoices", large))
"""

FILES = {"inbox/a": ("Ada", "1200.50"), "inbox/b": ("Bob", "7"), "inbox/c": ("Ada", "1.25")}


class World:
    def __init__(self) -> None:
        self.written: dict[str, str] = {}

    def __call__(self, call: StepCall, args: dict[str, Any]) -> Any:
        match call.op:
            case "files.list":
                return list(FILES)
            case "doc.text":
                return args["path"]
            case "llm.extract":
                vendor, total = FILES[args["data"]]
                fields = {"vendor": vendor, "total": Decimal(total), "currency": "EUR"}
                return RecordView("Invoice", fields)
            case "files.write":
                self.written[args["path"]] = args["text"]
                return args["path"]
            case "llm.write":
                return f"note on {len(args['data'][0])}"
        return Failed("", "unknown", call.op, PUBLIC)


@pytest.mark.parametrize("seed", [None, *range(20)])
def test_example(seed: int | None) -> None:
    world = World()
    evaluator, host = run(INVOICES, world, seed=seed)
    assert world.written == {
        "totals.csv": "vendor,currency,total\nAda,EUR,1201.75\nBob,EUR,7\n",
        "review.md": "note on 1",
    }
    assert shown(evaluator)["limit"] == 1000
    addresses = sorted(call.address for call in host.calls)
    assert addresses == [
        "files.write@10",
        "files.write@13",
        "invoices.files.list",
        "invoices[0]",
        "invoices[0].doc.text",
        "invoices[1]",
        "invoices[1].doc.text",
        "invoices[2]",
        "invoices[2].doc.text",
        "llm.write@13",
    ]


def test_steps_of_one_item_do_not_wait_for_another() -> None:
    host = NaiveHost(World())
    run(INVOICES, World(), seed=3, host=host)
    assert host.opened >= 2
