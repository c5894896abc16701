"""What a program means where Python has nothing to say: failures, fuel, regions, labels, names."""

from __future__ import annotations

import time
from typing import Any

import pytest
from program_kit import CATALOGUE, TODAY, UNTRUSTED, NaiveHost, run, scalar, shown

from edvac.core.label import PROGRAM, PUBLIC, USER
from edvac.core.schema import INT, Choice, ListOf, Record
from edvac.core.signature import WILD, Effect
from edvac.core.value import Failed, Scalar, Sequence, settle
from edvac.program import Evaluator, Fuel, StepCall, format_program, library, parse, stubs


def echo(call: StepCall, args: dict[str, Any]) -> Any:
    """Texts for everything; `bad` in an operand makes a step fail; lists three files."""
    if "bad" in str(args):
        return Failed(call.slot, "device_failed", "it was bad", PUBLIC)
    if call.op == "files.list":
        return ["a", "bad", "c"]
    return len(str(args)) if call.result == INT else f"<{' '.join(map(str, args.values()))}>"


def test_failures_are_data_and_block_only_what_reads_them() -> None:
    evaluator, host = run(
        "texts = [files.read(p) for p in files.list('*')]\n"
        "good = [t for t in texts if ok(t)]\n"
        "n = len(texts)\n"
        "all_of_them = ','.join(texts)\n"
        "safe = [attempt(t, 'none') for t in texts]\n"
        "note = llm.write('sum', good)\n"
        "if texts[1] == 'x':\n"
        "    files.write('never', 'x')\n"
        "after = 1\n",
        echo,
    )
    names = shown(evaluator)
    assert names["good"] == ["<a>", "<c>"] and names["n"] == 3 and names["after"] == 1
    assert names["safe"] == ["<a>", "none", "<c>"]
    assert names["all_of_them"] == "failed: device_failed"
    assert names["note"] == "<sum [['<a>', '<c>']]>"
    assert {failed.code for failed in host.accepted} == {"device_failed"}
    [unreached] = evaluator.unreached
    assert unreached.ops == ("files.write",) and unreached.line == 7
    assert not any(call.op == "files.write" for call in host.calls)


def test_why_something_failed_is_told_and_then_accepted() -> None:
    evaluator, host = run(
        "texts = [files.read(p) for p in files.list('*')]\n"
        "whys = [failure(t) for t in texts]\n"
        "within = failure([['x', texts[1]]])\n"
        "later = failure(texts[1] + '!')\n"
        "pure = failure([1][2])\n"
        "fine = failure(texts[0])\n",
        echo,
    )
    names = shown(evaluator)
    assert names["whys"] == [None, "device_failed: it was bad", None]
    assert names["within"] == names["later"] == "device_failed: it was bad"
    assert names["pure"].startswith("index_out_of_range: line 5: ") and names["fine"] is None
    assert {failed.code for failed in host.accepted} == {"device_failed", "index_out_of_range"}


def test_an_aggregate_over_failures_fails() -> None:
    names = shown(
        run(
            "xs = [files.read(p) for p in ['a', 'bad']]\nn = sum([1 for x in xs if x])\n"
            "k = [len(x) for x in xs]\nm = max(k)\nc = group([{'k': 1}], by=['z'])\n",
            echo,
        )[0]
    )
    assert names["n"] == names["m"] == "failed: device_failed"
    assert names["k"] == "holds failure: device_failed"
    assert names["c"] == "failed: field_missing"


def test_errors_of_pure_code_are_failures_with_a_line() -> None:
    evaluator, _ = run("x = 1\ny = [1][x]\nz = y + 1\nw = attempt(z, 7)\n", echo)
    failed = settle(evaluator.bindings()["z"])
    assert isinstance(failed, Failed) and failed.code == "index_out_of_range"
    assert failed.what.startswith("line 2: ")
    assert shown(evaluator)["w"] == 7


@pytest.mark.parametrize(
    "text",
    [
        "x = 2 ** 100000",
        "x = 7 ** 7 ** 7 ** 7",
        "x = 1 << 99999999",
        "x = 'a' * 10 ** 10",
        "x = [0] * 10 ** 10",
        "x = list(range(10 ** 12))",
        "x = f'{1:>999999999}'",
        "w = 10 ** 9\nx = f'{1:>{w}}'",
        "w = 9 ** 9\nx = 'a'.ljust(w)",
        "x = int(Decimal('1e999999'))",
        "x = f\"{Decimal('1e999999'):f}\"",
        "x = round(5, -10 ** 9)",
        "x = 'a' * 1000\ny = x.replace('', x)\nz = y.replace('', y)\nx = z.replace('', z)",
        "x = re.findall('(a+)' + '+$', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!')",
        "x = re.findall('(a|a)' + '*b', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!')",
        "x = re.findall('a*a*a*a*a*a*b', 'a' * 3000)",
        "x = json.loads('[' * 100000)",
        "x = [1]\nfor i in range(60):\n    x = x + x",
        "x = 'ab'\nfor i in range(60):\n    x = x + x",
        "x = 3\nfor i in range(60):\n    x = x * x",
        "x = [1]\nfor i in range(3000):\n    x = [x]\nx = str(x)",
        "x = 0\nfor i in range(10000):\n    for j in range(10000):\n        x += 1",
        "x = [a * b * c for a in range(1000) for b in range(1000) for c in range(1000)]",
        "def f(n):\n    return [0 for i in range(n)]\ndef g(n):\n"
        "    return [f(n) for i in range(n)]\nx = [g(3000) for i in range(3000)]",
    ],
)
def test_hostile_computations_fail_quickly(text: str) -> None:
    begun = time.process_time()
    fuel = Fuel(steps=300_000, memory=64 * 1024 * 1024)
    evaluator, _ = run(text + "\n", echo, fuel=fuel)
    assert str(shown(evaluator)["x"]).startswith("failed: "), shown(evaluator)["x"]
    assert time.process_time() - begun < 10


def test_fuel_names_the_line_and_carries_every_influence() -> None:
    text = "t = files.read('a')\nn = len(t)\nxs = list(range(n * 1000))\n"
    evaluator, _ = run(text + "y = 0\nfor x in xs:\n    y += x\n", echo, fuel=Fuel(steps=2000))
    failed = settle(evaluator.bindings()["y"])
    assert isinstance(failed, Failed) and failed.code == "fuel_exhausted"
    assert "line 5" in failed.what and UNTRUSTED in failed.label.integrity
    assert evaluator.fuel_used == 2000


def test_regions_are_open_while_a_branch_is_undecided() -> None:
    text = (
        "go = llm.extract('x', bool)\n"
        "def save(p):\n"
        "    files.write(f'out/{p}.md', 'x')\n"
        "    return 1\n"
        "if go:\n"
        "    n = save('a')\n"
        "files.write('after.md', 'y')\n"
    )
    host = NaiveHost(echo)
    evaluator = Evaluator(parse(text, CATALOGUE), host, {}, TODAY, Fuel())
    evaluator.start()
    [(order, access)] = host.regions.values()
    assert access.writes == ("out/*.md",) and [c.op for c in host.calls][-1] == "files.write"
    assert host.calls[-1].order > order and not evaluator.finished and evaluator.idle
    evaluator.resolve(host.calls[0].slot, scalar(True))
    assert not host.regions
    inner, outer = host.calls[-1], host.calls[-2]
    assert order < inner.order < outer.order and inner.address == "n.files.write@3"
    assert inner.static.writes == ("out/*.md",) and UNTRUSTED in inner.branch.integrity


def test_a_step_does_not_wait_for_an_accumulator_it_does_not_read() -> None:
    text = (
        "total = 0\nfound = []\n"
        "for p in ['a', 'b', 'c']:\n"
        "    n = llm.extract(files.read(p), int)\n"
        "    total += n\n"
        "    found.append(n)\n"
        "    llm.write('note', p)\n"
    )
    host = NaiveHost(echo)
    Evaluator(parse(text, CATALOGUE), host, {}, TODAY, Fuel()).start()
    assert [call.op for call in host.calls].count("llm.write") == 3


def test_comprehension_elements_unfold_on_their_own() -> None:
    text = (
        "ns = [llm.extract(p, int) for p in ['a', 'b', 'c']]\n"
        "notes = [llm.write('n', n) for n in ns if n > 1]\n"
    )
    host = NaiveHost(echo)
    evaluator = Evaluator(parse(text, CATALOGUE), host, {}, TODAY, Fuel())
    evaluator.start()
    evaluator.resolve(host.calls[1].slot, scalar(5))
    assert [call.address for call in host.calls] == ["ns[0]", "ns[1]", "ns[2]", "notes[1]"]


def test_thousands_of_waiters_in_a_chain() -> None:
    text = "x = llm.extract('a', int)\nfor i in range(20000):\n    x = x + 1\n"
    evaluator, _ = run(text, lambda call, args: 1)
    assert shown(evaluator)["x"] == 20001
    text = "xs = [llm.extract(i, int) for i in range(3000)]\nt = 0\nfor x in xs:\n    t += x\n"
    evaluator, _ = run(text, lambda call, args: 1, seed=None)
    assert shown(evaluator)["t"] == 3000


def test_labels() -> None:
    text = (
        "limit = param(3)\n"
        "n = llm.extract('a', int)\n"
        "flag = n > limit\n"
        "x = 1\n"
        "if flag:\n    y = 2\nelse:\n    x = 2\n"
        "xs = [v for v in [1, 2] if v < n]\n"
        "e = [n, 4][1]\n"
        "k = len([n])\n"
    )
    names = run(text, lambda c, a: 1, params={"limit": Scalar(3, USER)})[0].bindings()

    def label(name: str) -> Any:
        return names[name].label  # type: ignore[union-attr]

    assert label("limit") is USER and label("flag").bits == 1
    assert label("flag").sources == {"user", "program", UNTRUSTED}
    assert UNTRUSTED in label("x").steered and UNTRUSTED in label("x").integrity
    assert UNTRUSTED in label("xs").steered
    xs = settle(names["xs"])
    assert isinstance(xs, Sequence) and all(v.label is PROGRAM for v in xs.items)
    assert UNTRUSTED not in label("e").integrity and UNTRUSTED not in label("k").integrity


def test_untaken_branch_is_raised() -> None:
    text = "n = llm.extract('a', bool)\nx = 1\nif n:\n    if 1 < 2:\n        x = 2\n"
    for answer in (True, False):
        label = settle(run(text, lambda c, a, v=answer: v)[0].bindings()["x"]).label  # type: ignore
        assert UNTRUSTED in label.steered


def test_step_calls_carry_types_and_defaults() -> None:
    text = (
        "class Row:\n    name: str  # who\n    n: int\n"
        "r = llm.extract('t', list[Row])\n"
        "c = llm.choose('which', ['a', 'b'], r)\n"
        "w = llm.write('goal', 1, 2)\n"
    )
    _, host = run(text, lambda call, args: [] if call.op == "llm.extract" else "a")
    first, second, third = host.calls
    row = first.types["T"]
    assert isinstance(row, ListOf) and isinstance(row.item, Record) and first.result == row
    assert row.item.fields[0].description == "who"
    assert first.args["hint"].data == "" and second.result == Choice(("a", "b"))  # type: ignore
    assert isinstance(third.args["data"], Sequence) and len(third.args["data"].items) == 2
    assert third.branch is PUBLIC and [call.address for call in host.calls] == ["r", "c", "w"]


def test_outline_and_patterns() -> None:
    program = parse(
        'root = param("in/*")\nout = "out"\n'
        "for p in files.list(root):\n"
        "    files.write(f'{out}/{path.stem(p)}.md', doc.text(p))\n"
        "human.ask(files.read('a.txt'))\n",
        CATALOGUE,
    )
    found = {use.op: use.access for use in program.access}
    assert found["files.list"].reads == ("in/*",) and found["doc.text"].reads == ("in/*",)
    assert found["files.write"].writes == ("*/*.md",) or WILD not in found["files.write"].writes
    assert program.outline().effects[Effect.WRITE] == 1 and program.params["root"].line == 1
    assert program.digest == parse(program.text, CATALOGUE).digest


def test_library_stubs_and_formatter() -> None:
    docs = {one.name: one for one in library()}
    assert {"attempt", "failure", "ok", "param", "group", "csv.load", "str.upper"} <= docs.keys()
    assert all(one.doc.endswith((".", "?", ")")) and "\n" not in one.doc for one in docs.values())
    text = stubs(CATALOGUE)
    compile(text, "edvac.pyi", "exec")
    assert "class files:" in text and "def extract(data: Any, T: type[T]" in text
    messy = "x=[ 1,2]  #why\nif x :\n  y=-1\n# out\nz= {'a' :x[ -1:]}\n"
    tidy = "x = [1, 2]  #why\nif x:\n    y = -1\n# out\nz = {'a': x[-1:]}\n"
    assert format_program(messy) == tidy and format_program(tidy) == tidy


def test_run_date_is_given() -> None:
    assert shown(run("d = run.date\ny = d.year\n", echo)[0]) == {"d": TODAY, "y": 2026}


def test_grep_counts_lines_as_editors_do_and_charges_for_what_it_keeps() -> None:
    def nothing(call: StepCall, args: dict[str, Any]) -> Any:
        return None

    body = "a\\x0cx\\r\\nb\\u2028x\\n\\nx\\n"
    evaluator, _ = run(f"t = '{body}'\nxs = text.grep(t, 'x|^$', 7)", nothing)
    assert shown(evaluator)["xs"] == [(7, "a\x0cx"), (8, "b\u2028x"), (9, ""), (10, "x")]
    text = "t = 'plain line\\n' * 50000\nxs = [text.grep(t, 'fault') for i in range(300)]\n"
    evaluator, _ = run(text + "n = len(flatten(xs))", nothing)
    assert shown(evaluator)["n"] == 0, "300 parts of a log fit into the fuel of a program"


def test_a_dict_is_looked_into_by_its_keys_also_where_it_is_not_known_yet() -> None:
    """What its values hold is neither gone through nor passed on."""
    evaluator, _ = run(
        "d = {p: files.read(p) for p in files.list('*')}\n"
        "e = {k: d for k in d}\n"
        "there = [p for p in ['a', 'bad', 'x'] if p in d]\n"
        "gone = [p for p in ['a', 'bad', 'x'] if p not in e]\n",
        echo,
    )
    names = shown(evaluator)
    assert names["there"] == ["a", "bad"] and names["gone"] == ["x"]


def test_what_is_unique_may_be_told_by_a_field_several_or_a_function() -> None:
    evaluator, _ = run(
        "rows = [{'a': 1, 'b': 'x'}, {'a': 1, 'b': 'y'}, {'a': 2, 'b': 'x'}, {'a': 1, 'b': 'x'}]\n"
        "one = [r['b'] for r in unique(rows, key='a')]\n"
        "two = len(unique(rows, key=['a', 'b']))\n"
        "made = len(unique(rows, key=lambda r: r['b']))\n"
        "whole = len(unique(rows))\n",
        echo,
    )
    names = shown(evaluator)
    assert (names["one"], names["two"], names["made"], names["whole"]) == (["x", "x"], 3, 2, 3)


@pytest.mark.parametrize(
    ("column", "kept"),
    [
        ("2,45,6000", "Decimal"),
        ("2.50,-3,0", "Decimal"),
        ("2,,6000", "Decimal"),
        ("007,12,13", "str"),
        ("2026-01-02,2026-01-03,", "str"),
        (",,", "str"),
        ("2,x,3", "str"),
        ("1e5,2,3", "str"),
        ("1,234567890123456789012345,3", "str"),
    ],
)
def test_a_table_has_numbers_where_a_column_holds_nothing_else(column: str, kept: str) -> None:
    cells = column.split(",")
    data = "name,n\\n" + "".join(f"x,{cell}\\n" for cell in cells)
    evaluator, _ = run(
        f'rows = csv.table("{data}")\n'
        "cells = [row['n'] for row in rows]\n"
        "back = csv.dump(rows)\n"
        "same = csv.dump(csv.load(back))\n",
        echo,
    )
    names = shown(evaluator)
    assert [str(cell) for cell in names["cells"]] == cells
    assert {type(cell).__name__ for cell in names["cells"] if cell != ""} <= {kept}
    assert names["back"] == names["same"], "what is not changed is written as it was read"
