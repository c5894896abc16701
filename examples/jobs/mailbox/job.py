"""The mailbox of a support desk: threads, answers that name nothing, newsletters, absence notes."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

import kit

from edvac.bench.jobs import Scene, Size, Truth
from edvac.processor import Request

TITLE = "A mailbox to unanswered customer mails and draft replies; grown, only what is new is asked"
SPOILED = [
    ("if not m.automatic:", "if m.number:"),
    ('m.replies_to + [f"{other} {bare(m.subject)}"]', "m.replies_to"),
    ("latest[thread] = one", "latest[m.id] = one"),
    ('sort_by(mails, lambda one: one["mail"].sent)', "mails"),
]
US = "halden-tools.example"
STAFF = (("Jana Petersen", "jana"), ("Support", "support"), ("Ole Brandt", "o.brandt"))
NAMES = ("Ada Ibsen", "Bo Marten", "Clara Doyle", "Dmitri Havel", "Esra Tunç", "Finn Okafor",
    "Greta Löw", "Hugo Barros", "Ines Kováč", "Jun Arai", "Kaja Lund", "Luca Moretti",
    "Mira Sandoval", "Nils Östberg", "Olga Reyes", "Pim de Wit")  # fmt: skip
HOSTS = ("post.example", "mail.example", "werk-nord.example", "atelier.example", "studio.example")
ASKS = (  # subject, text, is it urgent?
    ("Drill does not start", "the drill of order {ref} does not start. What shall I do?", False),
    ("Where is my parcel", "order {ref} was to come last week. Where is it?", False),
    ("Falsche Rechnung", "auf der Rechnung zu Auftrag {ref} steht der falsche Betrag. "
     "Bitte schicken Sie mir eine neue.", False),
    ("Line stands still", "since the new blade of order {ref} our line stands still. We need help "
     "today, every hour costs us money!", True),
    ("Return", "I would like to send the saw of order {ref} back. How do I do that?", False),
    ("Ersatzteil", "haben Sie für die Fräse aus Auftrag {ref} noch einen Riemen?", False),
    ("Cable is hot", "the cable of the sander (order {ref}) gets so hot that it smells of smoke. "
     "Is that dangerous?", True),
    ("Offer for 20 lamps", "please make us an offer for 20 lamps as in order {ref}.", False),
    ("Password", "I cannot log in to see order {ref}: the new password never comes.", False),
)  # fmt: skip
MORE = ("I tried what you wrote, and it did not help with order {ref}. What now?",
    "One more question about order {ref}: is there a manual in German?",
    "Auftrag {ref} ist immer noch nicht da. Wann kommt er?")  # fmt: skip
THANKS = ("Thank you, that solved it! (order {ref})", "Danke, hat alles geklappt mit {ref}.",
    "Great, order {ref} came today. Have a good week.")  # fmt: skip
ANSWERS = ("thank you for your mail. Please hold the button for five seconds.",
    "it is on its way and comes on Friday.", "we have sent you a new one today.")  # fmt: skip
PASTED = """

Here is what your shop sent me:

From shop@{us} Mon Mar  2 09:30:00 2026
From: shop@{us}
Subject: your order

It is on its way.
"""


@dataclass
class Mail:
    """One mail. `truth` is (does it wait for us, is it urgent), where nobody has answered it."""

    name: str
    sender: str
    to: str
    subject: str
    text: str
    when: dt.datetime
    extra: dict[str, str] = field(default_factory=dict)
    truth: tuple[bool, bool] = (False, False)
    answers: Mail | None = None
    naming: str = "all"  # how it names what it answers: all, last or nothing
    id: str = ""
    box: str = ""
    number: int = 0

    @property
    def key(self) -> str:
        return f"{self.box}-{self.number}"


class Desk:
    """Makes the traffic of the desk, with one stream of random numbers."""

    def __init__(self, seed: int, begin: dt.datetime) -> None:
        self.rng = random.Random(seed)
        self.begin = begin
        self.count = 0
        self.host = f"{seed}.host.example"
        self.mails: list[Mail] = []
        self.open: list[Mail] = []  # nobody has answered these

    def put(self, mail: Mail) -> Mail:
        self.count += 1
        mail.id = f"{mail.when:%Y%m%d}.{self.count}.{self.rng.randint(10**5, 10**6)}@{self.host}"
        self.mails.append(mail)
        return mail

    def moment(self, days: int) -> dt.datetime:
        return self.begin + dt.timedelta(seconds=self.rng.randrange(days * 86_400))

    def later(self, mail: Mail) -> dt.datetime:
        return mail.when + dt.timedelta(minutes=self.rng.randint(20, 3000))

    def ask(self, days: int) -> Mail:
        """A customer's first mail."""
        name = self.rng.choice(NAMES)
        sender = f"{name.split()[0].lower()}{self.rng.randint(1, 9999)}@{self.rng.choice(HOSTS)}"
        sender = sender.encode("ascii", "ignore").decode()
        subject, text, urgent = self.rng.choice(ASKS)
        text = f"Hello,\n\n{text.format(ref=self.rng.randint(10**5, 10**6))}\n\n{name}"
        if self.rng.random() < 0.1:
            text += PASTED.format(us=US)
        if self.rng.random() < 0.1:
            text += "\n\nFrom Monday on I am on a journey.\n"
        to = f"support@{US}"
        return self.put(
            Mail(name, sender, to, subject, text, self.moment(days), truth=(True, urgent))
        )

    def answer(self, mail: Mail, *, naming: str = "all") -> Mail:
        """One of us writes back."""
        name, user = self.rng.choice(STAFF)
        text = f"Dear {mail.name},\n\n{self.rng.choice(ANSWERS)}\n\n{name}"
        subject = self.rng.choice(["Re: ", "AW: ", "RE: Re: "]) + mail.subject
        return self.put(Mail(name, f"{user}@{US}", mail.sender, subject, text, self.later(mail),
            answers=mail, naming=naming))  # fmt: skip

    def back(self, mail: Mail, first: Mail, texts: tuple[str, ...], *, waits: bool) -> Mail:
        """The customer again."""
        ref = re.findall(r"\d{6}", first.text)[0]
        text = self.rng.choice(texts).format(ref=ref) + f"\n\n{first.name}"
        subject = f"Re: {first.subject}"
        return self.put(Mail(first.name, first.sender, f"support@{US}", subject, text,
            self.later(mail), truth=(waits, False), answers=mail))  # fmt: skip

    def thread(self, days: int, share: float) -> None:
        """A customer's thread; `share` of them end with nobody having answered."""
        first = self.ask(days)
        if self.rng.random() >= share:
            reply = self.answer(first, naming=self.rng.choice(["all", "all", "last", "nothing"]))
            if self.rng.random() < 0.3:
                self.answer(self.back(reply, first, MORE, waits=True))
            return
        match self.rng.randrange(5):
            case 0:
                self.open.append(first)
            case 1:  # an absence note is no answer
                note = self.answer(first)
                note.text, note.extra = "I am away.", {"Auto-Submitted": "auto-replied"}
                self.open.append(first)
            case 2:
                self.open.append(self.back(self.answer(first), first, MORE, waits=True))
            case 3:
                self.open.append(self.back(self.answer(first), first, THANKS, waits=False))
            case 4:  # wrote twice: one thread, one draft
                self.open.append(self.back(first, first, MORE, waits=True))

    def noise(self, days: int) -> None:
        """What waits for no answer: lists, notices, ourselves, and who pretends to be us."""
        when, here = self.moment(days), f"support@{US}"
        match self.rng.randrange(8):
            case 0 | 1 | 2:
                extra = {"List-Id": "<news.trade.example>", "Precedence": "bulk"}
                text = "This week: new prices. What do you think? Answer now!"
                self.put(Mail("Trade News", "news@trade.example", here, "News", text, when, extra))
            case 3 | 4:
                extra = {"Auto-Submitted": "auto-generated"}
                text = f"Parcel {self.rng.randint(10**8, 10**9)} was delivered."
                self.put(
                    Mail("Parcels", "no-reply@parcel.example", here, "Sent", text, when, extra)
                )
            case 5 | 6:
                text = "Can you take the desk on Thursday? Thanks."
                self.put(Mail("Jana", f"jana@{US}", f"o.brandt@{US}", "Desk", text, when))
            case 7 if self.rng.random() < 0.1:
                text = "Dear friend, your mailbox is full. Click to enlarge it."
                address = f"x{self.rng.randint(1, 9**6)}@evil.example"
                self.open.append(self.put(Mail(here, address, here, "Mailbox full", text, when)))

    def arrived(self) -> list[Mail]:
        self.mails.sort(key=lambda mail: mail.when)
        return self.mails


def raw(mail: Mail, rng: random.Random) -> bytes:
    """The mail as a program stores it, in one of the ways in which programs write."""
    made = EmailMessage()
    made["From"] = f'"{mail.name}" <{mail.sender}>'
    made["To"], made["Subject"], made["Date"] = mail.to, mail.subject, format_datetime(mail.when)
    made["Message-ID"] = f"<{mail.id}>"
    if mail.answers is not None and mail.naming != "nothing":
        made["In-Reply-To"] = f"<{mail.answers.id}>"
        if mail.naming == "all":
            made["References"] = " ".join(f"<{one.id}>" for one in reversed(list(_above(mail))))
    for name, value in mail.extra.items():
        made[name] = value
    text = mail.text + "\n"
    if mail.answers is not None and rng.random() < 0.8:
        quoted = "".join(f"> {line}\n" for line in mail.answers.text.split("\n"))
        text += f"\nOn {mail.answers.when:%d %B %Y} {mail.answers.name} wrote:\n{quoted}"
    way = rng.randrange(5)
    if way == 0:
        made.set_content(text.encode("cp1252", "replace").decode("cp1252"), charset="iso-8859-15")
    elif way == 1:
        html = "<br>".join(text.replace("&", "&amp;").replace(">", "&gt;").split("\n"))
        made.set_content(f"<html><body><p>{html}</p></body></html>", subtype="html")
    else:
        made.set_content(text, cte=rng.choice(["base64", "quoted-printable", "8bit"]))
    if way == 2 and rng.random() < 0.3:
        made.add_attachment(
            rng.randbytes(300), "application", "octet-stream", filename="photo.heic"
        )
    data = re.sub(rb"^(>*From )", rb">\1", made.as_bytes(), flags=re.M)
    return f"From {mail.sender} {mail.when:%a %b %d %H:%M:%S %Y}\n".encode() + data + b"\n"


def _above(mail: Mail) -> Iterator[Mail]:
    while mail.answers is not None:
        mail = mail.answers
        yield mail


def traffic(desk: Desk, count: int, days: int, share: float) -> list[Mail]:
    while len(desk.mails) < count:
        if desk.rng.random() < 0.32:
            desk.thread(days, share)
        else:
            desk.noise(days)
    return desk.arrived()


@dataclass
class Facts:
    """Attributes:
    more: what comes later.
    open, later: mails that nobody has answered, by name, before and after that.
    """

    more: list[Mail]
    open: dict[str, Mail]
    later: dict[str, Mail]


def make(place: Path, size: Size) -> Truth:
    count, days, share, new = (70, 20, 0.4, 10) if size == "small" else (5000, 300, 0.14, 60)
    desk = Desk(31, dt.datetime(2026, 1, 5, 8, 0, tzinfo=dt.UTC))
    mails = traffic(desk, count, days, share)
    after = Desk(32, mails[-1].when + dt.timedelta(hours=1))
    for mail in desk.open[:2]:  # two are answered in the meantime
        after.answer(mail).when = after.begin
    fresh = traffic(after, new, 3, 0.6)
    for box in ("inbox", "sent"):
        own = [mail for mail in [*mails, *fresh] if mail.sender.endswith(US) == (box == "sent")]
        for number, mail in enumerate(own, 1):
            mail.box, mail.number = box, number
    store(place, mails, 33)
    later = [*desk.open[2:], *after.open]
    known = {format_datetime(mail.when): mail for mail in [*mails, *fresh]}

    def oracle(request: Request) -> str:
        [body] = kit.data_of(request)
        mail = known[re.findall(r"^Date: (.*)$", body, re.M)[0]]
        if request.schema is None:
            return f"Dear {mail.name},\n\nthank you for your mail. [...]\n\nYour support"
        waits, urgent = mail.truth
        return json.dumps({"waits": waits, "about": mail.subject, "urgent": urgent})

    opened = {mail.key: mail for mail in desk.open}
    return Truth(oracle, Facts(fresh, opened, {mail.key: mail for mail in later}))


def store(place: Path, mails: list[Mail], seed: int) -> None:
    """What came in and what went out are mailboxes of their own."""
    rng = random.Random(seed)
    (place / "mail").mkdir(exist_ok=True)
    for mail in mails:
        with (place / "mail" / f"{mail.box}.mbox").open("ab") as box:
            box.write(raw(mail, rng))


# -- what must come out -------------------------------------------------------------------------


async def play(scene: Scene, truth: Truth) -> None:
    facts: Facts = truth.facts
    first = await scene.run()
    listed = _look(scene, first.files, facts.open)
    judged = first.calls - len(_drafts(first.files))
    scene.check("the model judges only what nobody has answered",
        len(facts.open) <= judged <= 2 * len(facts.open))  # fmt: skip
    await kit.check_delivery(scene, first.report.run, {"waiting.csv", *_drafts(first.files)})
    again = await scene.run()
    unjudged = "not judged" in first.text("waiting.csv")
    scene.check("a second run asks nothing", unjudged or not again.calls)
    store(scene.place, facts.more, 34)
    grown = await scene.run()
    now = _look(scene, grown.files, facts.later)
    new = facts.later.keys() - facts.open.keys()
    scene.check("when it has grown only what is new is asked",
        unjudged or len(new) <= grown.calls <= 3 * len(new))  # fmt: skip
    scene.check(
        "what was answered since is gone", not (facts.open.keys() - facts.later.keys()) & now
    )
    kept = listed & now
    same = all(first.files[_draft(one)] == grown.files[_draft(one)] for one in kept)
    scene.check("and the drafts of before are the same", same)


def _draft(key: str) -> str:
    return f"drafts/{key}.txt"


def _drafts(files: dict[str, bytes]) -> set[str]:
    return {path for path in files if path.startswith("drafts/")}


def _look(scene: Scene, files: dict[str, bytes], known: dict[str, Mail]) -> set[str]:
    """The list of who waits, and a draft for each."""
    rows = {row["mail"]: row for row in kit.rows(files["waiting.csv"].decode())}
    scene.check("only threads that nobody has answered are listed", rows.keys() <= known.keys())
    sure = {key for key, row in rows.items() if not row["about"].startswith("not judged")}
    scene.check("each has a draft, and nothing else has one",
        _drafts(files) == {_draft(key) for key in sure})  # fmt: skip
    right = all(
        files[_draft(key)].decode().startswith(f"To: {known[key].sender}\n")
        for key in sure & known.keys()
    )
    scene.check("each draft goes to who wrote", right)
    for key, mail in known.items():
        scene.score(f"{key} waits ({mail.text[:60]!r})", key in rows, mail.truth[0])
        if key in sure and mail.truth[0]:
            urgent = rows[key]["urgent"] == "True"
            scene.score(f"{key} urgent ({mail.text[:60]!r})", urgent, mail.truth[1])
    return sure
