"""What is refused, with which code and which suggestion; what is accepted although it looks odd."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from program_kit import CATALOGUE, run, shown

from edvac.core.errors import ProgramError
from edvac.core.schema import DECIMAL, ListOf, Record
from edvac.program import check, parse, verify_prefix

INVOICE = "class Invoice:\n    vendor: str\n    total: Decimal\n"

REFUSED = [
    ("import csv", "syntax_unsupported", "already"),
    ("from os import path", "syntax_unsupported", "already"),
    ("while True:\n    x = 1", "syntax_unsupported", "range"),
    ("try:\n    x = 1\nexcept ValueError:\n    x = 2", "syntax_unsupported", "attempt"),
    ("with open('x') as f:\n    x = 1", "syntax_unsupported", "files.read"),
    ("for x in [1]:\n    break", "syntax_unsupported", "Choose"),
    ("x = open('f')", "function_unknown", "files.read"),
    ("print('x')", "function_unknown", "files.write"),
    ("x = {1, 2}", "syntax_unsupported", "unique"),
    ("x = set([1])", "function_unknown", "unique"),
    ("if (x := 1):\n    y = 1", "syntax_unsupported", "line of its own"),
    ("x = [*[1]]", "syntax_unsupported", "+"),
    ("del x", "syntax_unsupported", "pop"),
    ("@f\ndef g():\n    return 1", "function_unfit", "Call"),
    ("class A:\n    def f(self):\n        return 1", "definition_nested", "function"),
    ("class A(B):\n    x: int", "function_unfit", "class Name"),
    ("def f():\n    global x\n    return 1", "syntax_unsupported", "Return"),
    ("def f():\n    return f()", "function_unknown", ""),
    ("def f():\n    return g()\ndef g():\n    return 1", "function_unknown", "f"),
    ("def f(x=[]):\n    return x", "default_unfit", "None"),
    ("x = re.findall('(a+)+$', 'aa')", "pattern_unfit", "simpler"),
    ("x = re.sub('(a', '', 'aa')", "pattern_unfit", "simpler"),
    ("x = text.grep('a', pattern='a{2,5000}')", "pattern_unfit", "simpler"),
    ("files = files.list('*')", "name_taken", "my_files"),
    ("len = 3", "name_taken", "len_1"),
    ("text = 'x'", "name_taken", "text_1"),
    ("x = ''.__class__", "name_private", "letter"),
    ("_x = 1", "name_private", "letter"),
    ("x = y", "name_unknown", ""),
    ("total_sum = 1\nx = total_sun", "name_unknown", "total_sum"),
    ("x = file.read('a')", "name_unknown", "files"),
    ("x = web.get('http://a')", "name_unknown", "files, doc, llm"),
    ("x = files.reed('a')", "function_unknown", "files.read"),
    ("x = csv.lod('a')", "function_unknown", "csv.load"),
    ("x = files.read()", "operand_missing", "files.read(path)"),
    ("x = files.read('a', 'b')", "operand_count", "files.read(path)"),
    ("x = files.read(pth='a')", "operand_unknown", "path"),
    ("x = files.read('a', path='b')", "operand_twice", ""),
    ("files.write('a', ['x'])", "operand_unfit", "join"),
    ("x = files.list(['a'])", "operand_unfit", ""),
    ("x = llm.extract('t', str)", "operand_unfit", "llm.write"),
    ("x = llm.extract('t', Invoce)", "type_unknown", ""),
    (INVOICE + "x = llm.extract('t', Invoce)", "type_unknown", "Invoice"),
    (INVOICE + "x = llm.extract('t', Invoice).totl", "field_unknown", "total"),
    (INVOICE + "x = Invoice(vendor='a')", "operand_missing", "total"),
    (INVOICE + "x = Invoice(vendor='a', total=Decimal(1), tax=1)", "field_unknown", ""),
    (INVOICE + "x = Invoice('a', Decimal(1))\nx.total = 3", "target_unfit", "new record"),
    ("x = Decimal('1') * 0.19", "operand_unfit", "Decimal"),
    ("x = 'a' + 1", "operand_unfit", "f-string"),
    ("x = 'a %s' % 1", "operator_unfit", "f-string"),
    ("x = 1\nif x is 1:\n    y = 1", "operator_unfit", "=="),
    ("x = 'a'\nx == 'b'", "statement_idle", "Assign"),
    ("x = 'a'.uper()", "method_unknown", "upper"),
    ("x = '{}'.format(1)", "method_unknown", "f-string"),
    ("x = lambda y: y", "lambda_kept", "def"),
    ("x = sorted([1], key=lambda v: llm.write('x', v))", "step_in_lambda", "comprehension"),
    ("def f(v):\n    return llm.write('x', v)\nx = list(map(f, [1]))", "step_in_lambda", "f(x)"),
    ("x = zip([1], [2])", "iterator_kept", "list("),
    ("x = (v for v in [1])", "iterator_kept", "list("),
    ("d = {}\nx = d.items()", "iterator_kept", "list("),
    ("x = 1\nfor y in x:\n    z = 1", "operand_unfit", "range"),
    ("if 1 < 2:\n    x = 1\ny = x", "name_uncertain", "before"),
    ("for x in [1]:\n    z = 1\ny = x", "name_uncertain", "before"),
    ("def f(a):\n    for x in a:\n        return x\n    return 1", "return_in_loop", "after"),
    ("return 1", "return_outside", "if"),
    ("def f(a):\n    return 1\n    x = 2", "statement_unreachable", "Delete"),
    ("def f():\n    x = param(1)\n    return x", "param_place", "top level"),
    ("class A:\n    x: Quoted\n", "type_unknown", "Quoted[str]"),
    ("class A:\n    x: Literal\n", "type_unknown", 'Literal["one", "other"]'),
    ("class A:\n    x: list[Quoted]\n", "type_unknown", "Quoted[str]"),
    ("x = [param(1)]", "param_place", "top level"),
    ("x = param('x', 500)", "param_operands", "name = param(1000)"),
    ("x = param(1, default=2)", "param_operands", ""),
    ("x = param(1, doc=2)", "param_operands", ""),
    ("x = param(1, 'a', doc='b')", "param_operands", ""),
    ("x = param(len('a'))", "param_default", "param(1000)"),
    ("xs = [1]\nys = xs\nys.append(2)", "container_shared", "copy"),
    ("xs = [1]\nys = xs\nxs.append(2)", "container_shared", "copy"),
    ("xs = [1]\nys = [xs]\nxs.append(2)", "container_shared", "copy"),
    ("xs = [[1]]\ny = xs[0]\nxs[0].append(2)", "container_shared", "copy"),
    ("xs = [[1]]\ny = xs[0]\ny.append(2)", "container_shared", "copy"),
    ("xs = [[1]]\nfor y in xs:\n    y.append(2)", "container_shared", "copy"),
    ("xs = [1]\nfor y in xs:\n    xs.append(2)", "container_shared", "list(xs)"),
    ("d = {}\nfor k in d:\n    d.pop(k)", "container_shared", "list(d)"),
    ("def f(xs):\n    xs.append(1)\n    return xs", "container_shared", "copy"),
    (
        "r = []\nrs = []\nfor i in range(2):\n    r.append(i)\n    rs.append(r)",
        "container_shared",
        "copy",
    ),
    ("def f(xs):\n    return xs\na = [1]\nb = f(a)\nb.append(2)", "container_shared", "copy"),
    ("xs = [1]\nd = {'a': xs}\nd['a'].append(2)", "container_shared", "copy"),
    ("xs = [1]\nx = xs.pop() + 1", "change_inside", "line of its own"),
    ("xs = [1, 2]\nxs[0:1] = [3]", "target_unfit", "xs[:a]"),
    ("x = [1", "syntax", "brackets"),
    ("x = b'a'", "literal_unfit", "texts"),
    ("x = 1j", "literal_unfit", "numbers"),
    ("class A:\n    pass", "record_malformed", "name: type"),
    ("class A:\n    x = 1", "record_malformed", "name: type"),
    ("async def f():\n    return 1", "syntax_unsupported", ""),
    ("def f(*a):\n    return 1", "function_unfit", "list"),
    ("x = max(1, **{})", "function_unfit", "Name"),
    ("match 1:\n    case 1:\n        x = 1", "syntax_unsupported", "elif"),
    ("x = run.time", "name_unknown", "run.date"),
    ("x = {(1, 2): 3}", "key_unfit", "one text"),
    ("def f(a):\n    x = files_seen\n    return x\nfiles_seen = 1", "name_unknown", ""),
    ("n = 1\nn = 2\ndef f(a):\n    return n", "name_unknown", "once"),
]

ACCEPTED = [
    "xs = []\nxs.append(1)\nys = xs\nxs = [2]\nxs.append(3)",
    "xs = [1]\nys = list(xs)\nys.append(2)",
    "rows = []\nfor i in range(3):\n    row = []\n    row.append(i)\n    rows.append(row)",
    "d = {}\nfor w in ['a', 'b', 'a']:\n    d.setdefault(w, []).append(1)\n    d[w] += [2]",
    "def f(n):\n    n += 1\n    return n\nx = f(1)",
    "def make():\n    xs = []\n    xs.append(1)\n    return xs\nys = make()\nys.append(2)",
    "d = {}\nfor k in list(d):\n    d.pop(k)",
    "x = 0\nfor i in range(3):\n    if i == 1:\n        continue\n    x += i",
    "def f(a):\n    if a > 1:\n        return 'x'\n    elif a > 0:\n        return 2\n    return 1",
    "total = 0\ncount = 1\nfirst = 2\nfor i in [1]:\n    total += i",
    "a, b = 1, 2\n(c, d), e = (1, 2), 3",
    "x: int = 1\nfor _ in range(2):\n    x += 1",
    '"""What this does."""\nx = 1',
    "x = [1, 2][-1]\ny = 'a' if x else None\nz = y.upper()",
    "xs = [3, 1]\nxs.sort(key=lambda v: -v)\nv = xs.pop()",
    "for p in files.list('in/*'):\n    files.write(f'out/{path.stem(p)}.md', files.read(p))",
    "d = {'a': 1}\nfor k, v in d.items():\n    x = f'{k:>10}{v:.2f}'",
    "x = run.date.year\ny = date.add(run.date, days=3).isoformat()",
    "k = llm.choose('which?', ['a', 'b'], 'x')\nif k == 'a':\n    y = 1",
    "rs = [{'n': 1}]\nrs[0]['n'] = 2\nrs[0]['n'] += 2",
]


@pytest.mark.parametrize(("text", "code", "hint"), REFUSED)
def test_refused(text: str, code: str, hint: str) -> None:
    with pytest.raises(ProgramError) as caught:
        parse(text, CATALOGUE)
    error = caught.value
    assert error.code == code, str(error)
    assert hint in f"{error.what} {error.why} {error.fix}", str(error)
    assert error.line is not None and error.column is not None


@pytest.mark.parametrize("text", ACCEPTED)
def test_accepted(text: str) -> None:
    parse(text, CATALOGUE)


HOSTILE = {
    "brackets": "x = " + "[" * 5_000 + "]" * 5_000,
    "parentheses": "x = " + "(" * 100_000,
    "signs": "x = " + "-" * 20_000 + "1",
    "nots": "x = " + "not " * 4_000 + "1",
    "sum": "x = " + " + ".join(["1"] * 5_000),
    "attributes": "x = a" + ".b" * 9_000,
    "calls": "x = f" + "(1)" * 5_000,
    "lambdas": "x = " + "lambda: " * 2_000 + "1",
    "blocks": "".join("    " * n + "if 1:\n" for n in range(150)) + "    " * 150 + "x = 1",
    "elifs": "if 1:\n    x = 1\n" + "elif 2:\n    x = 2\n" * 5_000,
    "size": "x = 1\n" * 120_000,
    "line": "x = '" + "a" * 100_000 + "'",
    "digits": "x = " + "9" * 10_000,
    "surrogate": "x = '\ud800'",
    "nul": "x = '\0'",
    "powers": "x = " + "2 ** " * 3_000 + "2",
    "f-strings": "x = f'{" + "{" * 3_000,
    "conditionals": "x = " + "1 if 1 else " * 3_000 + "1",
    "unclosed text": "x = '''" + "a\n" * 50_000,
    "functions": "def f0(x):\n    return x\n"
    + "".join(f"def f{n}(x):\n    return f{n - 1}(x)\n" for n in range(1, 500)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_are_refused_quickly(name: str) -> None:
    tracemalloc.start()
    begun = time.perf_counter()
    with pytest.raises(ProgramError):
        parse(HOSTILE[name], CATALOGUE)
    taken, (_, peak) = time.perf_counter() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 5 and peak < 200 * 1024 * 1024


def test_check_finds_every_error_and_warns_of_wide_patterns() -> None:
    assert [one.line for one in check("import os\nx = [*y]\n", CATALOGUE)] == [1, 2]
    found = check("x = y\nz = 1\nq = files.reed('a')\n", CATALOGUE)
    assert [(one.severity, one.line) for one in found] == [("error", 1), ("error", 3)]
    wide = check("name = files.read('n')\nfiles.write(name, 'x')\n", CATALOGUE)
    assert [(one.code, one.line) for one in wide] == [("pattern_wide", 2)]
    assert check("files.write(f'out/{1}.md', 'x')\n", CATALOGUE) == []


LISTED = "paths = files.list('in/*')\n"


@pytest.mark.parametrize(
    ("text", "wide"),
    [
        (LISTED + "a = [files.read(p) for p in paths]\nb = [p for p in paths if 'x' in p]\n", 0),
        (LISTED + "b = [p for p in paths if 'x' in p]\nc = [p for p in b]\n"
         "d = [files.read(p) for p in c]\n", 0),
        (LISTED + "for p, n in zip(paths, [1, 2]):\n    files.write(f'o/{n}', files.read(p))\n", 0),
        (LISTED + "for n, p in enumerate(paths):\n    files.write(f'out/{n}', files.read(p))\n", 0),
        (LISTED + "for n, p in zip([1, 2], paths):\n    files.write(f'out/{n}', files.read(p))\n"
         "for p in files.list('in/*'):\n    files.write(f'out/{p}.x', '')\n", 0),
        (LISTED + "for p in paths:\n    files.read(p)\nfor p in files.list('b/*'):\n"
         "    files.write(p, 'x')\n", 2),
        (LISTED + "for n, p in zip(paths, [files.read('x')]):\n    files.write(p, 'x')\n", 1),
        (LISTED + "for p in paths:\n    files.write('o', files.read(p))\n"
         "def f(p):\n    return files.read(p)\nx = f('y')\n", 1),
        (LISTED + "paths.append(files.read('n'))\nfor p in paths:\n    files.write(p, 'x')\n", 1),
    ],
)  # fmt: skip
def test_a_path_is_known_where_all_that_bind_its_name_agree(text: str, wide: int) -> None:
    found = [one for one in check(text, CATALOGUE) if one.code == "pattern_wide"]
    assert len(found) == wide and check(text, CATALOGUE) == found


def test_prefix_gives_names_and_types() -> None:
    scope = verify_prefix(
        INVOICE + "xs = [llm.extract('t', Invoice)]\nt = xs[0].total\n", CATALOGUE
    )
    assert isinstance(scope.names["xs"], ListOf) and isinstance(scope.names["xs"].item, Record)
    assert scope.names["t"] == DECIMAL


@pytest.mark.parametrize(("levels", "width"), [(1, 85), (2, 40), (3, 30), (4, 20)])
def test_what_is_accepted_fits_the_stack(levels: int, width: int) -> None:
    """About the deepest nesting that is accepted evaluates without a recursion error."""
    deep = "v" + " + 1" * width
    bodies = [deep, *[f"f{n}({deep})" for n in range(levels - 1)]]
    text = "".join(
        f"def f{n}(v):\n    if v > 0:\n        return {body}\n    return 0\n"
        for n, body in enumerate(bodies)
    )
    text += f"x = llm.extract('n', int)\ny = f{levels - 1}(x)\n"
    assert shown(run(text, lambda call, args: 1)[0])["y"] == 1 + levels * width
