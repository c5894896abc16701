"""Two lives of one program on a whole machine that differ only in what outsiders wrote: a generator
of programs, policies and worlds, and what somebody who is not to be influenced sees of a life.

What a policy opens to outsiders, or a person says yes to, is an *exception*: it is listed, and the
view leaves out that much and nothing else. Knows nothing of how labels are computed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from machine_sim import Died, Lives, Model, _Entropy

sys.path.insert(0, str(Path(__file__).parents[1] / "program"))

from program_gen import Generator

from edvac.core import event
from edvac.core.errors import LeaseError, StoreError
from edvac.core.label import PROGRAM, UNBOUNDED, Label
from edvac.core.schema import ANY, BOOL, INT, STR, Choice, Field, ListOf, Record
from edvac.core.signature import Effect, Param, Signature
from edvac.core.value import (
    Cell,
    Failed,
    Instance,
    Operand,
    Scalar,
    Sequence,
    children,
    digest,
    settle,
)
from edvac.device import Call, Reply
from edvac.machine import Job, Machine
from edvac.machine.driver import Driver
from edvac.machine.entry import Entry, decoder_of
from edvac.machine.machine import Terminal
from edvac.store import FileVersion

OWN = frozenset({"user", "program"})
HEAD = "trusted = ['model:*']\n"
MAIL = HEAD + "[rule.mail]\ncalls = 'mail.send'\notherwise = 'deny'\n"
POLICIES = {
    "shipped": "",
    "strict": MAIL,
    "bits": MAIL + "needs.text = { bits = 2 }\nneeds.number = { bits = 1 }\n",
    "any text": MAIL + "needs.text = 'any'\n",
    "any branch": MAIL + "branch = 'any'\n",
    "bits, any branch": MAIL + "branch = 'any'\nneeds.text = { bits = 2 }\n",
    "few": MAIL + "most = 2\n",
    "asks": MAIL.replace("deny", "ask"),
}
# What each policy accepts of outsiders, said once more: by parameter the bits of one call.
OPEN: dict[str, dict[str, float]] = {name: {} for name in POLICIES}
OPEN |= {"bits": {"text": 2, "number": 1}, "any text": {"text": UNBOUNDED}}
OPEN |= {"any branch": {"branch": 1}, "bits, any branch": {"branch": 1, "text": 2}}
ROW = Record("Row", (Field("own", STR), Field("theirs", STR)))
KIND = Choice(("red", "green", "blue"))


@dataclass
class Stranger:
    """What an outsider wrote in one life."""

    texts: dict[str, str]
    pages: int  # decides what `site.*` returns

    def page(self, key: str) -> random.Random:
        return random.Random(f"{self.pages} {key}")


def strangers(chance: random.Random) -> tuple[Stranger, Stranger]:
    """A pair. Sometimes there is a file more, and sometimes they say the same."""

    def one() -> Stranger:
        words = ["", "a", "1", "7", "ab ba", "3 x", "yes", "-2", "ann"]
        texts = {f"in/{n}.txt": chance.choice(words) for n in range(chance.choice([2, 2, 3]))}
        return Stranger(texts, chance.randrange(1000))

    return one(), one()


class Outside:
    """Devices: ``mail`` cannot undo, ``site`` returns what outsiders wrote, ``desk`` what nobody
    but the user did."""

    version = "1"

    def __init__(self, name: str, stranger: Stranger, sent: list[Sent]) -> None:
        self._stranger = stranger
        self._sent = sent
        text, number, key = Param("text", STR), Param("number", INT, 0), Param("key", STR)
        rows, read = Param("rows", ANY, None), Effect.READ
        self.signatures = {
            "mail": (Signature("mail.send", (text, number, rows), STR, Effect.EXTERNAL, ""),),
            "site": (
                Signature("site.text", (key,), STR, read, ""),
                Signature("site.flag", (key,), BOOL, read, ""),
                Signature("site.kind", (key,), KIND, read, ""),
                Signature("site.rows", (key,), ListOf(ROW), read, ""),
                Signature("site.words", (key,), ListOf(STR), read, ""),
            ),
            "desk": (Signature("desk.note", (key,), STR, read, ""),),
        }[name]

    async def call(self, call: Call) -> Reply:
        if call.signature.op == "mail.send":
            rows = str(call.data("rows"))
            self._sent.append(Sent(call.slot, call.text("text"), call.data("number"), rows))
            return Reply(Scalar("sent", PROGRAM))
        if call.signature.op == "desk.note":
            return Reply(Scalar(f"note {call.text('key')}"[:7], PROGRAM))
        chance = self._stranger.page(call.text("key"))
        theirs = Label.of(["site:x"], bits=UNBOUNDED)
        text = Scalar(chance.choice(["", "b", "12"]), theirs)
        if call.signature.op == "site.words":
            return Reply(Sequence((text, text), PROGRAM))
        if call.signature.op == "site.rows":
            row = Instance("Row", {"own": Scalar("own", PROGRAM), "theirs": text}, PROGRAM)
            return Reply(Sequence((row, replace(row, fields=dict(row.fields))), PROGRAM))
        made: dict[str, tuple[Any, float]] = {
            "text": (chance.choice(["", "b", "12", "a b", "no"]), UNBOUNDED),
            "flag": (chance.random() < 0.5, 1),
            "kind": (chance.choice(KIND.options), 2),
        }
        data, bits = made[call.signature.function]
        return Reply(Scalar(data, Label.of(["site:x"], bits=bits)))

    async def read_version(self, call: Call) -> str | None:
        return None


@dataclass(frozen=True)
class Sent:
    slot: str
    text: str
    number: int
    rows: str


class Programs(Generator):
    """The generator of `edvac.program`, whose steps are those of a machine. Some names stay free of
    outsiders, so that there is something to protect; control may reach them all the same."""

    def step(self, kind: str) -> str:
        data = self.expression(self.pick("int", "str", "list"), 0)
        site = f'site.{self.pick("flag", "kind", "text")}("{self.pick("k", "l")}")'
        path = f"in/{self.chance.randrange(3)}.txt"
        read = f'attempt(files.read("{path}"), "none")'
        if kind == "str":
            return self.pick(
                read,
                f'site.text("{self.pick("k", "l")}")',
                f"str({site})",
                f'desk.note("{self.pick("a", "b")}")',
                f'attempt(files.read("out/{self.pick("a", "b")}.txt"), "not yet")',
                f'llm.write("goal", {data})',
                f'llm.choose("which", ["a", "ab"], {data})',
                f'attempt(llm.write(str({self.name("str")}), {data}), "denied")',
                f'llm.do("find it", ["files.read"], 0, str, {data})',
            )
        if kind == "int":
            return self.pick(
                f"len({read})",
                f"llm.extract({data}, int)",
                "len(files.list('in/*'))",
                f"(3 if {site} == 'red' else 4)",
                f"attempt(int({read}), 5)",
                f"(1 if ok(int({read})) else 2)",
                f"len(failure(int({read})) or 'none')",
            )
        if kind == "bool":
            return self.pick(f'site.flag("{self.pick("k", "l")}")', f"llm.extract({data}, bool)",
                             f"('a' in {read})", f"ok(int({read}))")  # fmt: skip
        return self.pick(f"llm.extract({data}, list[int])", f"[len(v) for v in {read}.split()]")

    def effect(self, depth: int) -> None:
        text, number = self.expression("str", 1), self.expression("int", 0)
        own = f'desk.note("{self.pick("a", "b", "c")}")'
        target = self.pick('"out/a.txt"', '"out/b.txt"', f"f'out/{{{self.word('int')}}}.txt'")
        mails = ['mail.send("hello")', f"mail.send({own})", f"mail.send({text})",
                 f'mail.send("n", number={number})', f"mail.send({text}, {number})"]  # fmt: skip
        call = self.pick(*mails, f"files.write({target}, {text})", f"files.write({target}, {own})")
        name = self.chance.choice(self.names["str"]) if self.names["str"] else "s0"
        safe = self.chance.random() < 0.85
        self.put(depth, f'{name} = attempt({call}, "refused")' if safe else call)

    def trap(self, depth: int) -> None:
        """Shapes that guards have fallen into: what decides is an outsider's, what is assigned and
        sent looks like the program's own."""
        name, site = self.fresh("str"), f'site.flag("{self.pick("k", "l")}")'
        chosen = self.pick(f"str({site})", 'site.kind("k")', f'llm.choose("q", ["y", "n"], {site})')
        self.put(depth, f'{name} = "kept"')
        self.put(depth, 'files.write("out/a.txt", "kept")')
        inner = self.pick(
            f'{name} = "changed"',
            f'{name} = desk.note("a")',
            f"{name} = str(1 // 0)",
            f'if 1 // 0:\n    {name} = "never"',
            f'for _ in range(1 // 0):\n    {name} = "never"',
            f'{name} = attempt(files.read("nowhere.txt"), "none")',
            f'{name} = files.write("out/b.txt", "changed")',
            'files.write("out/a.txt", "changed")',
            'attempt(files.write("out/a.txt", str(1 // len(site.text("k")))), "no")',
            'files.write("out/a.txt", site.text("k"))',
            'files.write(f"out/{site.kind(\'k\')}.txt", "x")',
            'attempt(mail.send("decided"), "refused")',
            f'attempt(mail.send({chosen}), "refused")',
        )
        decided = self.pick(f"if {site}", f"for _ in [v for v in [1] if {site}]", "if True")
        self.put(depth, f"{decided}:")
        for line in inner.split("\n"):
            self.put(depth + 1, line)
        read = f'files.read("out/{self.pick("a", "red")}.txt")'
        sent = self.pick(f'{name}, "failed"', f'str(ok({name})), "failed"')
        if "files.write" in inner:
            sent = f'{read}, "none"'
        self.put(depth, f'attempt(mail.send(attempt({sent})), "refused")')
        self.mixed(depth)

    def mixed(self, depth: int) -> None:
        """Something of which only a part is an outsider's."""
        row = f'site.rows("{self.pick("k", "l")}")[{self.chance.randrange(2)}]'
        own, theirs = f"{row}.own", self.pick(f"{row}.theirs", 'site.words("k")[1]')
        many = ", ".join([*map(str, range(self.chance.choice([0, 6]))), theirs])
        told = self.pick(
            f"str({own})",
            theirs,
            f"','.join([str(v) for v in [{many}]])",
            f'"n", rows=[{many}]',
            f'"n", rows={{"a": {{"b": {theirs}}}}}',
            f'"n", rows=[{own}]',
            "+".join([*['"x"'] * 6, theirs]),
            f"str([{many}])",
        )
        self.put(depth, f'attempt(mail.send({told}), "refused")')

    def statement(self, depth: int) -> None:
        roll = self.chance.random()
        if roll < 0.2 and depth == 0:
            self.trap(depth)
        elif roll < 0.45:
            self.effect(depth)
        else:
            super().statement(depth)


def program(seed: int) -> str:
    chance = random.Random(f"program {seed}")
    made = Programs(chance, steps=True, failing=chance.random() < 0.15)
    return made.program(chance.randint(12, 20))


# -- one life


@dataclass
class Case:
    """What both lives have in common."""

    seed: int
    text: str
    policy: str
    says: bool | None  # what a person answers; None where there is nobody
    ahead: bool = True
    trouble: int = 0


class Life(Lives):
    """One program with one stranger."""

    def __init__(self, case: Case, stranger: Stranger, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        for path, text in stranger.texts.items():
            target = place / path
            target.parent.mkdir(exist_ok=True)
            target.write_text(text)
        (place / "policy.toml").write_text(POLICIES[case.policy])
        super().__init__(case.text, case.seed, place, case.trouble)
        self.case = case
        self.stranger = stranger
        self.sent: list[Sent] = []
        self.drivers: list[Driver] = []

    async def _drive(self) -> str:
        world = self.world
        names = ("mail", "site", "desk")
        devices = {name: Outside(name, self.stranger, self.sent) for name in names}
        with Machine(
            world.place,
            Model(world),
            store=world,  # type: ignore[arg-type]
            clock=world.clock,
            entropy=_Entropy(world),
            devices=devices,  # type: ignore[arg-type]
            ahead=self.case.ahead,
        ) as machine:
            if not world.run:
                job = Job(self.case.text, roots={"in": world.place / "in"}, seed=1)
                world.run = await machine.create(job)
            report = await machine.resume(world.run, self._person())
            return report.state

    def _person(self) -> Terminal:
        async def answer(_: event.Question) -> bool:
            return bool(self.case.says)

        return Terminal(
            answer=None if self.case.says is None else answer, on_driver=self.drivers.append
        )

    def live(self) -> str:
        """To the end, or to where a person is missing; the state of the run."""
        while True:
            try:
                state = self._one()
            except (Died, StoreError, LeaseError):
                state = self._left()
            if state not in ("interrupted", "cancelled"):
                return state


# -- what is seen of it


@dataclass(frozen=True)
class Shown:
    """A mail as it is seen."""

    text: Any
    number: Any
    rows: str
    endorsed: bool


@dataclass
class Seen:
    """What whoever is not to be influenced sees of a life, and what is left out of that.

    Attributes:
        mails: what was sent, in order, with the open parts masked; `endorsed` ones are marked, for
            where outsiders have chosen more bits the same mail is refused.
        files: by path the versions that nobody untrusted had a part in.
        names: of the program, with what outsiders had a part in hidden.
        stopped: some step failed and nothing handled that, or a person is waited for.
        exceptions: what the policy or a person let through.
    """

    mails: list[Shown] = field(default_factory=list)
    files: list[tuple[str, bytes | None]] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False
    exceptions: list[str] = field(default_factory=list)


def seen(life: Life, state: str) -> Seen:
    world = life.world
    decoder = decoder_of(world.store)
    entries = [Entry.stored(one, decoder) for one in world.store.records(world.run)]
    evaluator = life.drivers[-1]._unit._evaluator
    found = Seen(stopped=state != "done")
    if not found.stopped:
        found.names = {name: visible(one) for name, one in evaluator.bindings().items()}
    found.mails = list(_mails(life, entries, found.exceptions))
    for version in sorted(world.store.file_versions(world.run), key=_version):
        label = world.store.label(version.label)
        if trusted(label):
            content = None if version.deleted else world.store.read_file(
                world.run, version.path, version.version)  # fmt: skip
            found.files.append((version.path, content))
    return found


def _version(one: FileVersion) -> tuple[str, int]:
    return one.path, one.version


def _mails(life: Life, entries: list[Entry], exceptions: list[str]) -> Iterator[Shown]:
    asked = {one.slot for one in entries if one.body.get("verdict") == "asked"
             and not one.body.get("doubt")}  # fmt: skip
    yes = asked & {one.slot for one in entries if one.body.get("verdict") == "yes"}
    said: dict[str, Mapping[str, Any]] = {
        one.slot: one.body.get("policy") or {} for one in entries if one.kind == "intent"
    }
    open_to = OPEN[life.case.policy]
    for sent in dict.fromkeys(life.sent):  # what a kill made doubtful is done again
        if sent.slot in yes:
            exceptions.append("a person said yes")
            continue
        accepted = {param: bits for param, bits, _ in said[sent.slot].get("accepted", ())}
        assert all(bits <= open_to.get(param, -1) for param, bits in accepted.items()), accepted
        if "branch" in accepted:
            assert len(accepted) == 1, "endorsed, though outsiders decided that it is done"
            exceptions.append("a branch that the policy accepts")
            continue
        exceptions += [f"{bits:g} bits of {name}" for name, bits in accepted.items()]
        free = {name for name, bits in open_to.items() if bits == UNBOUNDED}
        exceptions += [f"{name} that anybody may write" for name in free]
        masked = {*accepted, *free}
        text = "open" if "text" in masked else sent.text
        number = "open" if "number" in masked else sent.number
        yield Shown(text, number, sent.rows, bool(accepted))


def trusted(label: Label) -> bool:
    """Nobody but the user, the program and the model, which follows from what it is given."""
    return all(one in OWN or one.startswith("model:") for one in label.integrity)


def visible(operand: Operand) -> Any:
    here = settle(operand)
    if isinstance(here, Cell):
        return "pending"
    if not trusted(here.label):
        return "hidden"
    if isinstance(here, Failed):
        return "failed", here.code
    keys = list(getattr(here, "entries", None) or getattr(here, "fields", None) or [])
    parts = [visible(child) for child in children(here)]
    return [type(here).__name__, keys, parts] if not isinstance(here, Scalar) else digest(here)
