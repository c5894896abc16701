"""A shop's program of two hundred modules in Python and TypeScript, and its handbook."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from kit import asked, check_delivery, data_of, rows

from edvac.bench.jobs import Scene, Size, Truth, Turn
from edvac.processor import Request

TITLE = "a code base of 200 modules to summaries, a glossary and a handbook with checked links"
SPOILED = [
    ("for one in ours], names", "for one in modules], names"),
    ("    if wrong:", "    if False:"),
    ('if one["name"] in other["uses"]', 'if other["name"] in one["uses"]'),
]
PACKAGES = {  # what each is about, and what that is
    "shop.billing": {
        "invoice": "A request for payment with a number that is used once.",
        "credit note": "A paper that takes back an invoice, in whole or in part.",
        "dunning letter": "A reminder of an unpaid invoice, in three levels.",
        "payment term": "How many days a customer has to pay.",
        "tax key": "The code that says which rate of tax applies.",
    },
    "shop.stock": {
        "bin": "The smallest place in the warehouse that goods are counted in.",
        "batch": "Goods made together, which are called back together.",
        "reorder point": "The stock at which more is ordered.",
        "stocktake": "The yearly count of everything that lies in the warehouse.",
        "reservation": "Stock that is promised to an order and not yet picked.",
    },
    "shop.shipping": {
        "pick list": "What is to be fetched from which bin for one round.",
        "parcel label": "The paper by which the carrier knows a parcel.",
        "drop shipment": "Goods that go from the supplier to the customer directly.",
        "customs form": "What a parcel holds and is worth, for another country.",
        "delivery window": "The hours in which the customer is at home.",
    },
    "shop.customers": {
        "credit limit": "What a customer may owe at most.",
        "household": "Customers at one address who are treated as one.",
        "consent": "What a customer has allowed us to do with his data.",
        "dormant account": "An account without an order for two years.",
        "segment": "Customers who get the same offers.",
    },
    "shop.pricing": {
        "price list": "Prices for a group of customers, with a first day.",
        "rebate": "Money back at the end of a year, by turnover.",
        "scale price": "A lower price from a certain quantity on.",
        "floor price": "The price below which nobody may sell.",
        "surcharge": "What is added for small orders and express.",
    },
    "shop.returns": {
        "return slip": "The paper that comes back with the goods.",
        "grading": "Whether returned goods can be sold again.",
        "refund": "Money that goes back to the customer.",
        "warranty claim": "A return after the time for changing one's mind.",
        "scrap": "Returned goods that nobody can sell.",
    },
    "shop.orders": {
        "back order": "An order for what is not there yet.",
        "split order": "An order that leaves in more than one parcel.",
        "blanket order": "A year's quantity, called off in parts.",
        "cut-off time": "Until when an order leaves on the same day.",
        "hold": "Why an order may not leave.",
    },
    "shop.reports": {
        "fill rate": "The share of order lines delivered in full.",
        "contribution margin": "What a sale leaves after its own costs.",
        "ageing": "Unpaid invoices by how long they are due.",
        "churn": "The share of customers who left in a quarter.",
        "slow mover": "An article that lies longer than half a year.",
    },
    "web.cart": {
        "basket": "What somebody means to buy, before it is an order.",
        "voucher": "A code that lowers the price once.",
        "guest checkout": "Buying without an account.",
        "abandoned cart": "A basket that nobody touched for a day.",
        "upsell": "A dearer article offered beside the chosen one.",
    },
    "web.search": {
        "synonym": "A word that finds what another word means.",
        "facet": "A property by which a list of results is narrowed.",
        "boost": "Why an article stands higher in a list.",
        "zero hit": "A search that finds nothing.",
        "landing page": "A page that is made for one search.",
    },
}  # fmt: skip
ROLES = {
    "model": "Describes a {noun} and checks that it is complete",
    "store": "Keeps every {noun} in the database and finds it again",
    "rules": "Decides what may be done with a {noun} and when",
    "service": "Carries out what users and other systems ask of a {noun}",
}
SMALL = ("shop.billing", "web.cart")


@dataclass(frozen=True, slots=True)
class Made:
    """A module: what it is for, and what it imports."""

    name: str
    noun: str
    role: str
    meaning: str
    purpose: str
    uses: tuple[str, ...]

    @property
    def place(self) -> str:
        suffix = "ts" if self.name.startswith("web.") else "py"
        return f"project/{self.name.replace('.', '/')}.{suffix}"


def _camel(noun: str) -> str:
    return "".join(word.capitalize() for word in re.split(r"[ -]", noun))


def _snake(noun: str) -> str:
    return re.sub(r"[ -]", "_", noun)


def _modules(dice: random.Random, size: Size) -> list[Made]:
    """Every module, with imports of what was made before it."""
    made: list[Made] = []
    for package, nouns in PACKAGES.items():
        if size == "small" and package not in SMALL:
            continue
        for noun, meaning in list(nouns.items())[: 1 if size == "small" else None]:
            for role, sentence in ROLES.items():
                name = f"{package}.{_snake(noun)}_{role}"
                own = [one.name for one in made if one.noun == noun]
                same = [one.name for one in made if one.name.split(".")[0] == package.split(".")[0]]
                others = dice.sample(same, min(len(same), dice.randrange(3)))
                uses = tuple(dict.fromkeys([*own[-2:], *others]))
                made.append(Made(name, noun, role, meaning, sentence.format(noun=noun), uses))
    return made


# -- the text of a module --------------------------------------------------------------------------


def _python(one: Made, dice: random.Random) -> str:
    home = one.name.rpartition(".")[0]
    lines = ["import logging", "from decimal import Decimal"]
    for used in one.uses:
        package, _, name = used.rpartition(".")
        ways = [f"from {package} import {name}", f"import {used}"]
        if package == home:
            ways += [f"from . import {name}", f"from .{name} import {_camel(name)}"]
        elif package.rpartition(".")[0] == home.rpartition(".")[0]:
            ways.append(f"from ..{package.rpartition('.')[2]}.{name} import {_camel(name)}")
        lines.append(dice.choice(ways))
    body = _python_body(one, dice)
    doc = f'"""{one.purpose}.\n\n{one.noun.capitalize()}: {one.meaning}\n"""\n\n'
    if one.role == "store":  # some have the comment in place of the docstring
        doc = f"# {one.purpose}.\n# {one.noun.capitalize()}: {one.meaning}\n\n"
    return doc + "\n".join(lines) + "\n\nlog = logging.getLogger(__name__)\n" + body


def _python_body(one: Made, dice: random.Random) -> str:
    kind, noun = _camel(one.noun), _snake(one.noun)
    number = dice.randrange(3, 90)
    match one.role:
        case "model":
            return (
                f"\n\nclass {kind}:\n    number: str\n    amount: Decimal\n    opened: str\n\n"
                f"    def complete(self) -> bool:\n        return bool(self.number) and "
                f"self.amount >= 0\n\n\nMAX_LENGTH = {number}\n"
            )
        case "store":
            return (
                f"\n\ndef find_{noun}(connection, number):\n"
                f'    """The {one.noun} of that number, or None."""\n'
                f'    row = connection.execute("SELECT * FROM {noun} WHERE number = ?", number)\n'
                f"    return row.fetchone()\n\n\ndef save_{noun}(connection, {noun}):\n"
                f"    connection.execute('INSERT INTO {noun} VALUES (?, ?)', {noun})\n"
            )
        case "rules":
            table = "\n".join(f'    "{n:03}": Decimal("{n}.50"),' for n in range(number * 8))
            check = f"def allowed({noun}):\n    return {noun} in LIMITS\n"
            return f"\n\nLIMITS = {{\n{table}\n}}\n\n\n{check}"
    return (
        f"\n\nclass {kind}Service:\n    def __init__(self, store):\n        self.store = store\n\n"
        f"    async def change(self, number, by):\n        {noun} = self.store.find(number)\n"
        f"        if {noun} is None:\n            raise LookupError(number)\n"
        f"        log.info('changed %s', number)\n        return {noun}\n"
    )


def _script(one: Made, dice: random.Random) -> str:
    home = one.name.rpartition(".")[0]
    lines = ['import { log } from "loglevel";']
    for used in one.uses:
        package, _, name = used.rpartition(".")
        way = f"./{name}" if package == home else f"../{package.rpartition('.')[2]}/{name}"
        lines.append(f'import {{ {_camel(name)} }} from "{way}";')
    kind = _camel(one.noun)
    return (
        f"/**\n * {one.purpose}.\n *\n * {one.noun.capitalize()}: {one.meaning}\n */\n"
        + "\n".join(lines)
        + f"\n\nexport interface {kind} {{\n  id: string;\n  amount: number;\n}}\n\n"
        f"export async function load{kind}(id: string): Promise<{kind}> {{\n"
        f"  const answer = await fetch(`/api/{_snake(one.noun)}/${{id}}`);\n"
        f"  if (!answer.ok) throw new Error(`status ${{answer.status}}`);\n"
        f"  return answer.json();\n}}\n// {dice.randrange(10**6)}\n"
    )


def _write(place: Path, one: Made, dice: random.Random) -> None:
    path = place / one.place
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _script(one, dice) if one.place.endswith(".ts") else _python(one, dice)
    path.write_text(text, encoding="utf-8")


def make(place: Path, size: Size) -> Truth:
    dice = random.Random(7)
    modules = _modules(dice, size)
    for one in modules:
        _write(place, one, dice)
    billing = place / "project/shop/billing"
    (billing / "__init__.py").write_bytes(b"")
    (billing / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    (place / "project/README.md").write_text("# The shop\n", encoding="utf-8")
    (billing / "old.py").write_bytes(
        "# Größen von früher, nicht mehr benutzt\nx = (\n".encode("cp1252")
    )
    known = {one.noun: one for one in modules}
    return Truth(lambda request: _oracle(request, modules, known), modules)


def _oracle(request: Request, modules: list[Made], known: dict[str, Made]) -> str:
    data, task = data_of(request), asked(request)
    if request.schema is not None:
        one = next((m for m in modules if f"{m.purpose}." in data[0]), None)
        if one is None:
            return json.dumps({"purpose": "Holds what is no longer used.", "terms": []})
        changed = " Since May also by fax." if "by fax" in data[0] else ""
        more = " It may be blocked." if one.role == "rules" else ""
        term = {"name": one.noun, "meaning": one.meaning + more}
        return json.dumps({"purpose": f"{one.purpose}.{changed}", "terms": [term]})
    if "introduction" in task:
        names = re.findall(r"^([\w.]+):", data[1], re.MULTILINE)
        invented = " and `shop.nowhere.at_all`" if data[0] == "shop.billing" else ""
        listed = ", ".join(f"`{name}`" for name in names[:3])
        fax = " It goes by fax." if "by fax" in data[1] else ""
        return f"This package has {listed}{invented}.{fax}\n\nThey work together."
    if "Write this text again" in task:
        return data[0].replace(f" and `{data[2]}`", "")
    if "this term means" in task:
        return known[data[0]].meaning
    return "The program runs a shop. It has these parts. Begin with orders."


# -- the checks ------------------------------------------------------------------------------------


async def play(scene: Scene, truth: Truth) -> None:
    modules: list[Made] = truth.facts
    first = await scene.run()
    scene.check("the run is done", first.report.state == "done")
    pages = {path for path in first.files if path.endswith(".md")}
    packages = {one.name.rpartition(".")[0] for one in modules}
    wanted = {f"handbook/{package}.md" for package in packages}
    wanted |= {"handbook/README.md", "handbook/glossary.md"}
    scene.check("there is a chapter for each package", pages == wanted)
    _check_links(scene, first, pages)
    _check_modules(scene, first, modules)
    for row in rows(first.text("handbook/doubtful.csv")):
        scene.score(f"{row['chapter']}: {row['what']}", "doubtful", "in order")
    _score(scene, first, modules)
    await check_delivery(scene, first.report.run, {*wanted, "handbook/doubtful.csv"})
    await _edit(scene, first, modules)


def _check_links(scene: Scene, turn: Turn, pages: set[str]) -> None:
    """Every link leads to a page that is there, and to a section in it."""
    broken = []
    for page in pages:
        for name, target in re.findall(r"\[([^\]]*)\]\(([^)]+)\)", turn.text(page)):
            file, _, anchor = target.partition("#")
            there = turn.text(f"handbook/{file}" if file else page)
            if not there or (anchor and f'<a id="{anchor}"></a>' not in there):
                broken.append(f"{page}: {name}")
    scene.check("every link leads somewhere", not broken)


def _check_modules(scene: Scene, turn: Turn, modules: list[Made]) -> None:
    """Every module has one section, in its chapter, with its links; and is in the contents."""
    contents = turn.text("handbook/README.md")
    missing, wrong = [], []
    for one in modules:
        home = one.name.rpartition(".")[0]
        chapter = turn.text(f"handbook/{home}.md")
        section = chapter.partition(f'<a id="{one.name}"></a>')[2].partition("\n## ")[0]
        if f"Source: `{one.place}`" not in section or f"[{one.name}]({home}.md#" not in contents:
            missing.append(one.name)
        users = {other.name for other in modules if one.name in other.uses}
        for mark, true in (("\n\nUses ", set(one.uses)), ("\n\nUsed by ", users)):
            said = section.partition(mark)[2].partition("\n")[0]
            if set(re.findall(r"\[([\w.]+)\]", said)) != true:
                wrong.append(one.name)
    scene.check("every module has its section and is in the contents", not missing)
    scene.check("what a module uses, and is used by, is what is imported", not wrong)
    empty = turn.text("handbook/shop.billing.md").partition('id="shop.billing.__init__"')[2]
    scene.check("an empty module is said to be empty", "\n\nEmpty.\n" in empty[:120])


def _score(scene: Scene, turn: Turn, modules: list[Made]) -> None:
    glossary = turn.text("handbook/glossary.md").lower()
    for one in modules:
        chapter = turn.text(f"handbook/{one.name.rpartition('.')[0]}.md")
        section = chapter.partition(f'<a id="{one.name}"></a>')[2].partition("\n## ")[0]
        said = section.partition("Source: ")[0].partition("\n\n")[2].lower()
        scene.score(f"{one.name} speaks of it", one.noun in said.replace("_", " "), True)
    for noun in {one.noun for one in modules}:
        scene.score(f"{noun} is in the glossary", f"**{noun}" in glossary, True)


async def _edit(scene: Scene, first: Turn, modules: list[Made]) -> None:
    """A comment is added, then a module does more: only what rests on it is done again."""
    path = scene.place / modules[1].place
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\n# reviewed\n", encoding="utf-8")
    second = await scene.run()
    failed = sum("no answer" in first.text(page) for page in first.files)
    terms = _mentions(first, modules[1])
    # its summary, the chapter (twice at most), the overview, its terms; what failed is tried again
    scene.check("a comment costs what rests on it", 1 <= second.calls <= 4 + terms + 2 * failed)
    path.write_text(text.replace(".\n", ". Since May also by fax.\n", 1), encoding="utf-8")
    third = await scene.run()
    terms += _mentions(third, modules[1])
    scene.check("a change costs what rests on it", 1 <= third.calls <= 4 + terms + 2 * failed)
    home = f"handbook/{modules[1].name.rpartition('.')[0]}.md"
    shared = {home, "handbook/README.md", "handbook/glossary.md", "handbook/doubtful.csv"}
    other = [page for page in first.files if page not in shared]
    same = [page for page in other if third.files[page] == first.files[page]]
    scene.check("the other chapters are byte for byte what they were", other == same and other)


def _mentions(turn: Turn, one: Made) -> int:
    """How many terms of the glossary rest on the module."""
    return turn.text("handbook/glossary.md").count(f"#{one.name})")
