"""Time and memory of reading documents: ``python tests/device/measure_documents.py``.

Makes the documents in a temporary directory, reads them through the isolated parser as a run
does, and prints the table of docs/benchmarks/documents.md. Memory is the most that the parser's
processes held together, shared pages counted once, looked at every 10 ms.
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from device_kit import World
from doc_maker import Canvas, book, image, mail, mbox, pdf, picture, word

from edvac.sandbox.watch import _proportional, descendants


def make(root: Path) -> None:
    random_ = random.Random(7)
    lines = 0
    with (root / "large.log").open("w") as file:
        while file.tell() < 200_000_000:
            lines += 1
            level = "ERROR" if random_.random() < 0.0005 else "INFO"
            request = f"{random_.getrandbits(48):x}"
            clock = f"09:{lines // 60 % 60:02}:{lines % 60:02}"
            file.write(f"2026-03-05 {clock} {level} request {request} took {lines % 997} ms\n")
    mails = [
        bytes(mail(f"please answer question {n}\n" + "more of the mail\n" * (n % 60)))
        for n in range(5000)
    ]
    (root / "large.mbox").write_bytes(mbox(mails))
    canvas = Canvas(str(root / "300.pdf"))
    for page in range(300):
        for line in range(48):
            text = f"page {page} line {line}: the party of the first part shall pay {line * 7} EUR"
            canvas.drawString(50, 790 - 15 * line, text)
        canvas.showPage()
    canvas.save()
    (root / "1.pdf").write_bytes(pdf(["an invoice of one page\nTotal 99.50 EUR"]))
    (root / "scan.pdf").write_bytes(pdf([picture("a scanned invoice\nTotal 99.50 EUR")]))
    (root / "scan.png").write_bytes(image("a scanned invoice\nTotal 99.50 EUR"))
    (root / "1.docx").write_bytes(word(["a paragraph of a letter"] * 40))
    (root / "1.xlsx").write_bytes(book({"S": [[n, n * 1.5, "text"] for n in range(1000)]}))
    (root / "1.eml").write_bytes(bytes(mail("body", {"a.pdf": pdf(["words of an attachment"])})))
    (root / "1.html").write_bytes(b"<html><body>" + b"<p>words of a page</p>" * 500)
    (root / "1.csv").write_bytes("name;total\nä;1,5\n".encode("cp1252") * 1000)


class Memory:
    """The most that the processes below this one hold."""

    def __init__(self) -> None:
        self.peak = 0

    async def watch(self) -> None:
        while True:
            below = [pid for pid in descendants(os.getpid()) if pid != os.getpid()]
            held = [await asyncio.to_thread(_proportional, pid) for pid in below]
            self.peak = max(self.peak, sum(held))
            await asyncio.sleep(0.01)


async def measured(name: str, work: Any) -> Any:
    memory = Memory()
    watcher = asyncio.create_task(memory.watch())
    start = time.perf_counter()
    found = await work
    seconds = time.perf_counter() - start
    await asyncio.sleep(0.05)
    watcher.cancel()
    shown = f"{seconds * 1000:,.0f} ms" if seconds < 10 else f"{seconds:,.0f} s"
    print(f"| {name} | {shown} | {memory.peak / 2**20:,.0f} MiB |", flush=True)
    return found


async def main(root: Path) -> None:
    world = World({"": root})
    await world.call("doc.text", path="1.csv")  # the parser is started, the files are cached
    print("| read | time | parser's memory |\n|---|---:|---:|")
    small = ["1.csv", "1.html", "1.eml", "1.docx", "1.xlsx", "1.pdf", "scan.pdf", "scan.png"]
    for name in small:
        await measured(f"`doc.text` of {name}", world.call("doc.text", path=name))
    await measured("`doc.text` of a PDF of 300 pages", world.call("doc.text", path="300.pdf"))
    for name, size in (("large.log", 1_000_000), ("large.mbox", 200_000), ("300.pdf", 200_000)):
        listing = world.call("doc.parts", path=name, size=size)
        reply = await measured(f"`doc.parts` of {name}", listing)
        items = reply.value.items
        reads = [world.call("doc.text", path=name, part=one) for one in items]
        await measured(f"{len(items):,} parts of {name}, four at once", asyncio.gather(*reads))
    await world.documents.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        make(Path(made))
        print(platform.machine(), os.cpu_count(), "cores, load", os.getloadavg()[0])
        asyncio.run(main(Path(made)))
