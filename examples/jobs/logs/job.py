"""A server log of four programs in one file: two megabytes, or two hundred."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kit import check_delivery, data_of, peak, reset_peak, rows

from edvac.bench.jobs import Scene, Size, Truth
from edvac.processor import Request

TITLE = "a server log of 200 MB to a digest of incidents, with links to its lines"
SPOILED = [
    ("text.grep(body, FAULT, part.first)", "text.grep(body, FAULT)"),
    ('events=sum_of("events")', "events=count()"),
    ('made = re.sub(r"\\d{1,40}", "#", made)', "made = made.strip()"),
]
LOG = "logs/server.log"
BYTES = {"small": 2_000_000, "full": 200_000_000}
BLOCK = {"small": 2_000_000, "full": 4_000_000}  # of different lines, repeated for each day
FLAT = 250_000_000  # bytes that the run may add to what the process holds

# How four programs write a line. <n> is some number, <h> some id, <ip> an address, <a|b> one of
# them; @I@, @G@ and @Y@ are the day as they write it.
APP = "@I@T{at}.<3>Z {text}"
WEB = "@G@ {at} {text}"
SYSTEM = "@Y@ {at} node<1> {text}"
GATE = '{{"ts":"@I@T{at}Z",{text}}}'


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault: where it lies, words that only it has, and how the log reports it."""

    area: str
    mark: str
    weight: int
    layout: str
    text: str


FAULTS = (
    Fault("database", "could not connect to postgres", 30, APP,
          "ERROR [billing.worker-<1>] could not connect to postgres at <ip>:5432: Connection "
          "refused (attempt <1>)"),
    Fault("database", "deadlock detected", 12, APP,
          'ERROR [orders.api] deadlock detected on table "<orders|stock>": process <4> waits for '
          "transaction <7>\n    DETAIL: process <4> was blocked by process <4>\n"
          "    HINT: see the log of the database for the queries"),
    Fault("memory", "OutOfMemoryError", 4, APP,
          "FATAL [report.worker-<1>] java.lang.OutOfMemoryError: Java heap space while rendering "
          "report <h>-<4>-4<3>-a<3>-<h><4>\n\tat org.example.report.Table.grow(Table.java:<3>)\n"
          "\tat org.example.report.Renderer.page(Renderer.java:88)"),
    Fault("access", "certificate has expired", 9, APP,
          "ERROR [auth] login of <a.lindt|m.oduya|ł.żak>@example.org refused: client certificate "
          "has expired <2> days ago"),
    Fault("code", "unsupported operand", 7, APP,
          "ERROR [cart.api] TypeError: unsupported operand type(s) for +: '<NoneType|str>' and "
          "'int'\nTraceback (most recent call last):\n  File \"/srv/cart/total.py\", line <2>, in "
          "add_up\n    total = total + item.price"),
    Fault("network", "could not resolve host", 10, APP,
          "ERROR [mailer] could not resolve host mail-<2>.example.net: Temporary failure in name "
          "resolution (sender Łukasz Żak)"),
    Fault("network", "connect() failed", 25, WEB,
          "[error] <3>#0: *<7> connect() failed (111: Connection refused) while connecting to "
          'upstream, client: <ip>, request: "GET /cart/<6> HTTP/1.1"'),
    Fault("disk", "No space left on device", 6, WEB,
          '[crit] <3>#0: *<7> open() "/var/cache/web/<h>" failed (28: No space left on device)'),
    Fault("disk", "I/O error on", 5, SYSTEM,
          "smartd[<3>]: error: I/O error on /dev/sd<a|b|c|d>, sector <9>"),
    Fault("memory", "Out of memory: killed", 3, SYSTEM,
          "kernel[1]: error: Out of memory: killed process <5> (python3), total-vm:<7>kB"),
    Fault("network", "upstream timed out", 20, GATE,
          '"level":"error","svc":"gateway","msg":"upstream timed out after <5> ms",'
          '"upstream":"<ip>:8080","trace":"<h><h>"'),
    Fault("access", "permission denied", 8, GATE,
          '"level":"error","svc":"files","msg":"permission denied",'
          '"path":"/srv/uploads/<4>/<h>.pdf"'),
)  # fmt: skip
NEW = Fault(
    "database", "too many clients", 1, APP, "FATAL [orders.api] too many clients already: <h>9"
)
NOISE = (  # reports no fault, though some have the words
    (APP, "INFO [orders.api] order <6> stored in <3> ms"),
    (APP, "INFO [batch] finished: <6> rows, 0 errors, error_rate=0.00"),
    (APP, "DEBUG [cart.api] cache miss for key cart:<h> user=<6>"),
    (APP, "WARN [billing.worker-3] slow query <5> ms, state ERROR cleared by retry"),
    (WEB, "[notice] <6>#0: signal process started, GET /help/ERROR-404 answered 200"),
    (SYSTEM, "cron[<4>]: (root) CMD (rotate)"),
    (GATE, '"level":"info","svc":"gateway","msg":"GET /item/<6>","status":200,"trace":"<h><h>"'),
)


def _written(dice: random.Random, at: str, layout: str, text: str) -> str:
    def filled(found: re.Match[str]) -> str:
        what = found[1]
        if what == "h":
            return f"{dice.getrandbits(32):08x}"
        if what == "ip":
            return f"10.{dice.randrange(9)}.{dice.randrange(256)}.{dice.randrange(256)}"
        if what.isdigit():
            return str(dice.randrange(10 ** (int(what) - 1), 10 ** int(what)))
        return dice.choice(what.split("|"))

    return re.sub(r"<([^<>]+)>", filled, layout.format(at=at, text=text)) + "\n"


ODD = (  # what logs have in them and should not
    b"@I@T00:00:01.000Z INFO [boot] page\x0cbreak and a separator \xe2\x80\xa8 in a text\n",
    b"copying 10%\rcopying 40%\rcopying 90%\rcopying done\n",
    b"@I@T00:00:02.000Z INFO [boot] a name that was cut: \xc5\n",
    b"@I@T00:00:03.000Z INFO [boot] written on Windows\r\n\r\n",
    b"@I@T00:00:04.000Z DEBUG [boot] next\xc2\x85line " + b"INSERT " * 5000 + b"\n",
)


def _block(dice: random.Random, size: int) -> tuple[bytes, Counter[str]]:
    """A day of the log, and how often each fault is in it."""
    parts, counts, length = list(ODD), Counter[str](), sum(map(len, ODD))
    weights = [fault.weight for fault in FAULTS]
    while length < size:
        seconds = int(86_000 * length / size) + 5
        at = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        if dice.random() < 0.02:
            fault = dice.choices(FAULTS, weights)[0]
            counts[fault.mark] += 1
            line = _written(dice, at, fault.layout, fault.text)
        else:
            line = _written(dice, at, *dice.choice(NOISE))
        data = line.encode()
        parts.append(data)
        length += len(data)
    return b"".join(parts), counts


def _dated(block: bytes, day: int) -> bytes:
    month, date = ("Mar", day + 1) if day < 31 else ("Apr", day - 30)
    number = 3 if month == "Mar" else 4
    block = block.replace(b"@I@", f"2026-{number:02}-{date:02}".encode())
    block = block.replace(b"@G@", f"2026/{number:02}/{date:02}".encode())
    return block.replace(b"@Y@", f"{month} {date:2}".encode())


@dataclass(frozen=True, slots=True)
class Facts:
    faults: dict[str, Fault]
    events: dict[str, int]


def make(place: Path, size: Size) -> Truth:
    block, counts = _block(random.Random(5), BLOCK[size])
    days = BYTES[size] // BLOCK[size]
    (place / "logs").mkdir()
    with (place / LOG).open("wb") as file:
        for day in range(days):
            file.write(_dated(block, day))
    events = {mark: days * count for mark, count in counts.items()}
    known = {fault.mark: fault for fault in [*FAULTS, NEW]}
    return Truth(lambda request: _oracle(request, known), Facts(known, events))


def _oracle(request: Request, known: dict[str, Fault]) -> str:
    if request.schema is None:
        return "The database refused connections most often. Look there first. The rest followed."
    line = data_of(request)[0].split("\n")[0]
    fault = next(fault for mark, fault in known.items() if mark in line)
    return json.dumps({"area": fault.area, "cause": f"It says: {fault.mark}.", "check": "the host"})


async def play(scene: Scene, truth: Truth) -> None:
    facts: Facts = truth.facts
    reset_peak()
    before = peak()
    first = await scene.run()
    grown = peak() - before
    scene.check("the run is done", first.report.state == "done")
    scene.check(f"memory stays flat: {grown / 1e6:.0f} MB more", grown < FLAT)
    table = rows(first.text("faults.csv"))
    scene.check("each kind is explained once", first.calls == len(facts.events) + 1)
    scene.check("each kind is one row", len(table) == len(facts.events))
    _check_events(scene, table, facts)
    _check_links(scene, first.text("digest.md"), facts)
    for row in table:
        mark = next((mark for mark in facts.faults if mark in row["kind"]), "")
        if mark:
            scene.score(f"{mark}: area", row["area"], facts.faults[mark].area)
    await check_delivery(scene, first.report.run, {"digest.md", "faults.csv"})
    await _grow(scene, facts)


def _check_events(scene: Scene, table: list[dict[str, str]], facts: Facts) -> None:
    found = Counter[str]()
    for row in table:
        for mark in facts.faults:
            if mark in row["kind"]:
                found[mark] += int(row["events"])
    scene.check("every event is counted, and nothing else", found == facts.events)
    total = sum(int(row["events"]) for row in table)
    scene.check("no line is taken for a fault that is none", total == sum(facts.events.values()))


def _check_links(scene: Scene, digest: str, facts: Facts) -> None:
    """The line of the file that each link names holds the fault that it is a link for."""
    wanted: dict[int, str] = {}
    chapters = digest.split("\n## ")[1:]
    for chapter in chapters:
        said = re.search(r"\n\n    (.*)", chapter)
        mark = next((m for m in facts.faults if said and m in said[1]), "?")
        links = re.findall(rf"\* \[{LOG}:(\d+)\]\({LOG}#L\1\)", chapter)
        scene.check(f"{mark} has links", 1 <= len(links) <= 5)
        wanted |= {int(number): mark for number in links}
    with (scene.place / LOG).open("rb") as file:
        lines = {n: line for n, line in enumerate(file, 1) if n in wanted}
    astray = [n for n, mark in wanted.items() if mark.encode() not in lines.get(n, b"")]
    scene.check("every link leads to its fault", bool(wanted) and not astray)


async def _grow(scene: Scene, facts: Facts) -> None:
    """The log has grown by known faults and one new kind: only that is asked, and the overview."""
    dice, known = random.Random(6), FAULTS[0]
    more = [_written(dice, "23:59:59", one.layout, one.text) for one in (known, NEW)]
    data = _dated("".join(more).encode(), 50)
    with (scene.place / LOG).open("ab") as file:
        file.write(data)
    second = await scene.run()
    scene.check("only the new kind and the overview are asked", second.calls == 2)
    table = rows(second.text("faults.csv"))
    events = {row["kind"]: int(row["events"]) for row in table}
    grown = [count for kind, count in events.items() if known.mark in kind]
    scene.check("the old kind has one event more", grown == [facts.events[known.mark] + 1])
