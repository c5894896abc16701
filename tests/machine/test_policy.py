"""The default policy's table, through whole runs: who may decide what."""

from __future__ import annotations

import pytest
from machine_kit import Bench

from edvac.core import event
from edvac.core.label import Label
from edvac.core.value import Failed, Sequence, Value
from edvac.machine.machine import Terminal
from edvac.sandbox import bubblewrap

READ = "t = files.read('inbox/0.txt')\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (READ + "x = llm.write(t)\n", "untrusted_instruction"),
        (READ + "x = llm.write('Go on' + t)\n", "untrusted_instruction"),
        (READ + "x = llm.choose(t, ['a', 'b'])\n", "untrusted_instruction"),
        (READ + "files.write(f'{t.strip()}.md', 'x')\n", "untrusted_address"),
        (READ + "files.write(f'{t.strip()}/a.md', 'x')\n", "untrusted_address"),
        (READ + "files.write(f'out{t.strip()}/a.md', 'x')\n", "untrusted_address"),
        (READ + "files.write(f'out/a/../{t.strip()}', 'x')\n", "untrusted_address"),
    ],
)
def test_denied(bench: Bench, text: str, code: str) -> None:
    report = bench.run(text)
    assert [s.failure.code for s in report.failures if s.failure] == [code]
    assert bench.files(report.run) == {}


@pytest.mark.parametrize(
    "text",
    [
        READ + "x = llm.write('Shorten', t)\n",
        READ + "files.write('a.md', t)\n",
        READ + "if 'ann' in t:\n    files.write('a.md', 'yes')\n",
        "for p in files.list('inbox/*'):\n    files.write(f'out/{path.stem(p)}.md', 'x')\n",
        "mail.send('hello')\n",
    ],
)
def test_allowed(bench: Bench, text: str) -> None:
    assert bench.run(text).state == "done"


@pytest.mark.parametrize(
    "name", ["../a", ".a", "a/b", "a/../../b", "..", "", " ", "a\nb", "/etc/passwd", "\x1b[2J", "/"]
)
@pytest.mark.parametrize("path", ["f'out/{t}'", "f'out/{t}/x'", "f'out/in/{t}'"])
def test_data_names_a_file_and_nothing_else(bench: Bench, name: str, path: str) -> None:
    bench.file("inbox/n.txt", name)
    text = f"t = files.read('inbox/n.txt')\nfiles.write({path}, 'x')\n"
    report = bench.run(text)
    (failure,) = [s.failure for s in report.failures if s.failure]
    assert failure.code in ("untrusted_address", "path_unforeseen")
    assert bench.files(report.run) == {}
    bench.file("inbox/n.txt", "Ann [1]*")
    report = bench.run(text)
    assert list(bench.files(report.run)) == [path[2:-1].replace("{t}", "Ann [1]*")]


KIND = "class Item:\n    word: Literal['ann', 'bob']\n\n"
CHOSEN = "llm.choose('Which?', ['ann', 'yes'], t)"


@pytest.mark.parametrize(
    ("name", "made"),
    [
        (CHOSEN, "yes"),
        (f"unique([{CHOSEN}])[0]", "yes"),
        ("llm.extract(t, Item).word", "ann"),
    ],
)
def test_what_is_chosen_among_the_programs_words_may_be_a_path(
    bench: Bench, name: str, made: str
) -> None:
    bench.file("inbox/w.txt", "word=ann ")
    text = KIND + f"t = files.read('inbox/w.txt')\nfiles.write(f'{{{name}}}.md', 'x')\n"
    report = bench.run(text.replace("f'{", 'f"{').replace("}.md'", '}.md"'))
    assert list(bench.files(report.run)) == [f"{made}.md"]


@pytest.mark.parametrize(
    "text",
    [
        READ + "mail.send(t)\n",
        READ + "if 'ann' in t:\n    mail.send('hello')\n",
        "for p in files.list('inbox/*'):\n    mail.send(p)\n",
        READ + "mail.send(llm.write('Shorten', t))\n",
    ],
)
def test_asked(bench: Bench, text: str) -> None:
    seen: list[event.Event] = []
    assert bench.run(text, Terminal(seen.append)).state == "waiting"
    assert bench.post.sent == []
    assert any(isinstance(e, event.Question) for e in seen)


# -- what fails tells who had it fail ------------------------------------------------------------

WRITTEN = "files.write('out/flag', 'x')\n"
UNLESS = "if not ok(files.read('out/flag')):\n    mail.send('hello')\n"


@pytest.mark.parametrize(
    "text",
    [
        READ + "if 'nobody' in t:\n    " + WRITTEN + UNLESS,
        WRITTEN + READ + "if 'ann' in t:\n    files.move('out/flag', 'else/flag')\n" + UNLESS,
        UNLESS.replace("out/", "inbox/"),
        "if not ok(doc.text('inbox/empty.txt')):\n    mail.send('hello')\n",
        "if ok(files.stat('out/flag')):\n    x = 1\nelse:\n    mail.send('hello')\n",
        "if ok(files.copy('inbox/0.txt', 'out/there')):\n    mail.send('hello')\n",
    ],
)
def test_what_is_not_there_decides_nothing_unasked(bench: Bench, text: str) -> None:
    bench.file("inbox/empty.txt", "")
    assert bench.run(text).state == "waiting"
    assert bench.post.sent == []


def test_a_failure_tells_who_removed_the_file(bench: Bench) -> None:
    moved = WRITTEN + READ + "if 'ann' in t:\n    files.move('out/flag', 'else/flag')\n"
    report = bench.run(moved + "y = attempt(files.read('out/flag'), 'none')\n")
    with bench.open() as machine:
        failed = [e.value for e in machine.history(report.run).entries if e.value is not None]
    (gone,) = [value for value in failed if isinstance(value, Failed)]
    assert "file:inbox/0.txt" in gone.label.steered and gone.label.readers == {"user"}


# -- files that the run itself wrote: their names tell who had them written ---------------------

BRANCH = READ + "if 'ann' in t:\n    "
FOUND = "found = files.list('out/*')\n"


def values(bench: Bench, text: str) -> dict[str, Value]:
    report = bench.run(text)
    assert report.state == "done", [s.failure for s in report.failures]
    with bench.open() as machine:
        entries = machine.history(report.run).entries
    return {entry.address: entry.value for entry in entries if entry.value is not None}


def listed(bench: Bench, text: str) -> tuple[Label, dict[str, Label]]:
    """The labels of a listing ``found`` and of each name in it."""
    value = values(bench, text)["found"]
    assert isinstance(value, Sequence)
    return value.label, {item.data: item.label for item in value.items}


def test_a_name_tells_under_which_branch_the_file_was_written(bench: Bench) -> None:
    shape, names = listed(bench, BRANCH + "files.write('out/yes', 'x')\n" + FOUND)
    assert "file:inbox/0.txt" in shape.integrity
    assert "file:inbox/0.txt" in names["out/yes"].steered
    assert "file:inbox/0.txt" not in names["out/yes"].sources, "chosen by the file, not made of it"
    assert names["out/yes"].readers == {"user"}


def test_a_name_tells_what_it_was_made_of(bench: Bench) -> None:
    text = "for p in files.list('inbox/*'):\n    files.write(f'out/{path.stem(p)}', 'x')\n"
    _, names = listed(bench, text + FOUND)
    assert set(names) == {"out/0", "out/1", "out/2"}
    for stem in "012":
        assert f"name:inbox/{stem}.txt" in names[f"out/{stem}"].sources


def test_a_listing_tells_who_had_a_file_removed(bench: Bench) -> None:
    moved = BRANCH + "files.move('out/a', 'else/a')\n"
    shape, names = listed(bench, "files.write('out/a', 'x')\n" + moved + FOUND)
    assert not names and "file:inbox/0.txt" in shape.integrity


def test_content_tells_who_chose_where_it_went(bench: Bench) -> None:
    found = values(bench, BRANCH + "files.write('out/a', 'x')\ny = files.read('out/a')\n")
    assert "file:inbox/0.txt" in found["y"].label.integrity


def test_a_file_does_not_launder_a_decision(bench: Bench) -> None:
    """The way around the policy: write under an untrusted branch, then read it back."""
    text = "files.write('out/a', 'Send all')\nx = llm.write(files.read('out/a'))\n"
    assert bench.run(text).state == "done"
    report = bench.run(BRANCH + text)
    assert [s.failure.code for s in report.failures if s.failure] == ["untrusted_instruction"]


@pytest.mark.sandbox
def test_what_a_process_leaves_tells_under_which_branch_it_ran(bench: Bench) -> None:
    if not bubblewrap.probe().available:
        pytest.skip("needs bubblewrap and user namespaces")
    run = "shell.run('echo x > out/a', writes=['out/a'])\n"
    shape, names = listed(bench, BRANCH + run + FOUND)
    assert "file:inbox/0.txt" in names["out/a"].steered and "file:inbox/0.txt" in shape.integrity


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("out/*", ["out/a"]),
        ("out/.*", ["out/.b"]),
        ("out/**", ["out/a", "out/c/d", "out/c/e/f/g"]),
        ("out/**/e/**/g", ["out/c/e/f/g"]),
        ("**/c/**/g", ["out/c/e/f/g"]),
        ("./out//a", ["out/a"]),
        ("out", []),
    ],
)
def test_what_the_run_wrote_is_listed_by_the_rules_of_the_input(
    bench: Bench, pattern: str, wanted: list[str]
) -> None:
    paths = ["out/a", "out/.b", "out/c/d", "out/c/e/f/g"]
    writes = "".join(f"files.write({p!r}, 'x')\n" for p in paths)
    _, names = listed(bench, writes + f"found = files.list({pattern!r})\n")
    for p in paths:
        bench.file(f"inbox/{p}", "x")
    _, given = listed(bench, f"found = files.list({'inbox/' + pattern!r})\n")
    assert sorted(names) == wanted
    assert sorted(path.removeprefix("inbox/") for path in given) == wanted
