"""Where a line of a result file comes from.

Two kinds of links, which are never mixed up. *Recorded*: which step wrote the file, which lines of
the program lead there, which step made a value, what it was sent, which files are in the value's
label. *Found*: that a text of the line occurs in a step's value, or in what a step read; that is a
comparison of texts, made now.

Knows nothing of terminals.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edvac.core.codec import Decoder
from edvac.core.errors import DamageError, UsageError
from edvac.core.label import PUBLIC
from edvac.core.value import (
    Cell,
    Failed,
    Instance,
    LazyText,
    Operand,
    Scalar,
    children,
    settle,
)
from edvac.device.roots import fingerprint
from edvac.machine.cells import Needle, holds, row_of, same
from edvac.machine.entry import Entry, decoder_of, read_entry
from edvac.machine.target import look
from edvac.program.slicing import lines_behind
from edvac.store import FileVersion, Store

MAX_RUNS = 100  # looked through for the one that wrote the file
MAX_TEXTS = 200  # read for one value
MAX_STEPS = 5  # named for one cell
READERS = ("files.read", "doc.text")  # steps whose value is the text of a file
SHORTEST = 3  # characters of a cell that is looked for inside texts: a digit is in any of them
QUOTE = 160  # characters of a source's line that are shown


@dataclass(frozen=True, slots=True)
class Place:
    """A line of what a step read: `path` as the program names it, `mark` the page or sheet."""

    path: str
    line: int
    text: str
    step: str
    mark: str = ""
    whole: bool = True  # the line number is the file's own


@dataclass(frozen=True, slots=True)
class Part:
    """A value of a step in which a cell of the line was found.

    Attributes:
        name: of the field; empty for the step's whole value.
        sources: files in its label.
        places: where its text, or its quote, occurs in them; empty where it does not.
        quoted: the text looked for was the quote that the model gave with the value.
    """

    cell: str
    name: str
    value: str
    sources: tuple[str, ...]
    places: tuple[Place, ...]
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """A step in whose value something of the line was found."""

    step: str
    op: str
    line: int
    model: str
    prompt: bool
    parts: tuple[Part, ...]


@dataclass(slots=True)
class Trace:
    """What is known of a file, or of one line of it.

    Attributes:
        delivered: what is to be said of the file outside the run; empty where it is the same.
        text: of the line.
        steps: how many steps of each operation may have gone into the file.
        sources: files in the label of the file.
        elsewhere: cells that no step's value holds, with the lines of the program that do.
        more: how many further steps hold a cell as well, by cell.
    """

    run: str
    path: str
    version: int
    writer: str
    writer_op: str
    writer_line: int
    delivered: str = ""
    line: int = 0
    text: str = ""
    origins: list[Origin] = field(default_factory=list)
    elsewhere: dict[str, list[int]] = field(default_factory=dict)
    more: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)


def trace(store: Store, run: str | None, file: Path, line: int = 0) -> Trace:
    """What the journal and the texts say of `file`, or of its line `line` (from 1).

    Raises:
        UsageError: no run wrote the file, it is no text, or it has no such line.
    """
    found, version, target = _written(store, run, file)
    journal = _Journal(store, found, version)
    writer = journal.writer
    made = Trace(
        found,
        version.path,
        version.version,
        writer.address if writer else "",
        str(writer.body.get("op", "")) if writer else "",
        journal.line,
    )
    content = store.read_file(found, version.path, version.version)
    made.delivered = _delivered(target, version)
    made.sources = _files(store.label(version.label).sources)
    for entry in journal.behind:
        op = str(entry.body.get("op", ""))
        made.steps[op] = made.steps.get(op, 0) + 1
    if line:
        text, row = _line(version.path, content, line)
        made.line, made.text = line, text
        cells = journal.said_in(text) if row is None else row
        _explain(made, journal, list(dict.fromkeys(filter(str.strip, cells))))
    return made


# -- which run, which version ------------------------------------------------------------------


def _written(store: Store, run: str | None, file: Path) -> tuple[str, FileVersion, Path | None]:
    """The run that wrote the file last, its version, and where it was delivered, if it was."""
    ids = [store.find_run(run).id] if run else [info.id for info in store.runs(limit=MAX_RUNS)]
    for one in ids:
        plan = store.applied(one)
        roots = [Path(plan.root)] if plan else []
        for path in _names(file, [*roots, store.workspace]):
            version = store.file_latest(one, path)
            if version is not None and not version.deleted:
                return one, version, roots[0] if roots else None
    where = f"run {ids[0]}" if run else "no run here"
    raise UsageError(
        "trace_unknown_file",
        f"{where} has not written {str(file)!r}" if run else f"{where} has written {str(file)!r}",
        "",
        "`edvac diff` lists what the latest run wrote; name an older one with --run.",
    )


def _names(file: Path, roots: list[Path]) -> Iterator[str]:
    """What a run may have called the file: as given, or relative to where it was delivered."""
    yield file.as_posix()
    for root in roots:
        try:
            yield (Path.cwd() / file).resolve().relative_to(root.resolve()).as_posix()
        except ValueError:
            continue


def _delivered(root: Path | None, version: FileVersion) -> str:
    if root is None:
        return ""
    there = look(root, version.path) if root.is_dir() else None
    if there is None:
        return "the delivered file is gone; this is about what the run wrote"
    if fingerprint(there.content) != version.digest:
        return "the delivered file differs from what the run wrote; this is about what it wrote"
    return ""


def _line(path: str, content: bytes, line: int) -> tuple[str, list[str] | None]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise UsageError("trace_no_text", f"{path!r} is no text", "", "Leave out the line.") from (
            problem
        )
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if line > len(lines):
        raise UsageError("trace_no_line", f"{path!r} has {len(lines)} lines, no line {line}")
    return lines[line - 1].rstrip("\r"), row_of(path, text, line)


# -- the journal ---------------------------------------------------------------------------------


class _Journal:
    """What a run's journal says of one version of a file; values are decoded when looked at, and
    their labels, half the work, only of the steps that are named."""

    def __init__(self, store: Store, run: str, version: FileVersion) -> None:
        self._store, self._run = store, run
        self.program = ""
        decoder = Decoder(store.get_blob, lambda _: PUBLIC)
        outcomes: dict[str, Entry] = {}
        self.writer: Entry | None = None
        for record in store.records(run, kinds=("program", "extended", "outcome")):
            entry = read_entry(decoder, record)
            if entry.kind != "outcome":
                self.program += entry.body["text"]
            elif entry.slot == version.slot:
                # The outcome is in the batch of the version; an older one failed.
                self.writer = entry
            else:
                outcomes[entry.slot] = entry
        self.line = int(self.writer.body.get("line", 0)) if self.writer else 0
        wanted = lines_behind(self.program, self.line)
        self.behind = [
            entry
            for entry in outcomes.values()
            if entry.body.get("line") in wanted and not entry.failed
        ]
        self._readers: dict[str, list[Entry]] | None = None

    @functools.cached_property
    def atoms(self) -> list[list[_Atom]]:
        """The texts and numbers in the value of each step in `behind`."""
        values = (entry.value for entry in self.behind)
        return [list(_atoms(value)) if value is not None else [] for value in values]

    def labelled(self, entry: Entry) -> list[_Atom]:
        """The same of one step, with labels."""
        record = next(self._store.records(self._run, after=entry.seq - 1))
        value = read_entry(decoder_of(self._store), record).value
        return list(_atoms(value)) if value is not None else []

    def said_in(self, line: str) -> list[str]:
        """The line itself where a step's text has it, else the values that occur in it; of one
        inside another the longer."""
        line = line.strip()
        found: set[str] = set()
        for atom in (atom for atoms in self.atoms for atom in atoms):
            if line in atom.text and line in map(str.strip, atom.text.split("\n")):
                return [line]
            text = atom.text.strip()
            if 1 < len(text) <= 2 * len(line) and text not in found and holds(line, Needle(text)):
                found.add(text)
        longest = sorted(found, key=lambda text: (-len(text), text))
        kept: list[str] = []
        for text in longest:
            if not any(holds(longer, Needle(text)) for longer in kept):
                kept.append(text)
        return sorted(kept, key=line.find) or [line]

    def prompt(self, entry: Entry) -> str:
        return "".join(self._store.segment(name) for name in entry.prompt)

    def readers(self, path: str) -> list[Entry]:
        """The steps that read a file as text."""
        if self._readers is None:
            self._readers = {}
            for entry in self.behind:
                if entry.body.get("op") in READERS:
                    for read in entry.body.get("read") or ():
                        self._readers.setdefault(read, []).append(entry)
        return self._readers.get(path, [])


def _files(sources: frozenset[str]) -> list[str]:
    return sorted(name[5:] for name in sources if name.startswith("file:"))


# -- one line --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Atom:
    """One text or number of a step's value; `quote` is the span that a model gave with it."""

    name: str
    scalar: Scalar
    text: str
    quote: str = ""


def _atoms(value: Operand, name: str = "", quote: str = "") -> Iterator[_Atom]:
    match value:
        case Scalar(raw=LazyText()) | Failed() | Cell():
            return
        case Scalar():
            text = "" if value.data is None else str(value.data)
            if text:
                yield _Atom(name, value, text, quote)
            return
        case Instance(record="Quoted", fields=fields):
            span = settle(fields["quote"])
            said = str(span.data) if isinstance(span, Scalar) else ""
            yield from _atoms(settle(fields["value"]), name, said)
            return
        case Instance(fields=fields):
            parts = [(f"{name}.{key}" if name else key, part) for key, part in fields.items()]
        case _:
            parts = [(f"{name}[{n}]", part) for n, part in enumerate(children(value))]
    for below, part in parts:
        yield from _atoms(settle(part), below)


def _explain(made: Trace, journal: _Journal, cells: list[str]) -> None:
    """Cells are given to the steps that hold most of them, and to as few as it takes."""
    held = {cell: steps for cell in cells if (steps := _holders(journal, cell))}
    for cell in (cell for cell in cells if cell not in held):
        lines = enumerate(journal.program.split("\n"), 1)
        found = [number for number, line in lines if holds(line, Needle(cell))]
        made.elsewhere[cell] = found[:MAX_STEPS]
    left = dict.fromkeys(held)
    while left:
        count = Counter(number for cell in left for number in held[cell])
        # Of equals one that made the text, not one that merely read it.
        made_it = {n: journal.behind[n].body.get("op") not in READERS for n in count}
        best = max(count, key=lambda number: (count[number], made_it[number], -number))
        taken = [cell for cell in left if best in held[cell]]
        made.origins.append(_origin(journal, best, taken))
        for cell in taken:
            del left[cell]
            if len(held[cell]) > 1:
                made.more[cell] = len(held[cell]) - 1


def _holders(journal: _Journal, cell: str) -> set[int]:
    """The steps in whose values the cell was found, by number: those that have it for a value,
    else those that have a text with it inside."""
    exact = {
        number
        for number, atoms in enumerate(journal.atoms)
        if any(_shows(atom.text, cell) for atom in atoms)
    }
    if exact or len(cell) < SHORTEST:
        return exact
    needle = Needle(cell)
    return {
        number
        for number, atoms in enumerate(journal.atoms)
        if any(len(atom.text) > len(cell) and holds(atom.text, needle) for atom in atoms)
    }


def _shows(value: str, cell: str) -> bool:
    """Is the cell the value, or a whole line of it?"""
    if same(value, cell):
        return True
    return cell in value and cell in map(str.strip, value.split("\n"))


def _origin(journal: _Journal, number: int, cells: list[str]) -> Origin:
    entry = journal.behind[number]
    prompt = journal.prompt(entry)
    atoms = journal.labelled(entry)
    parts = []
    for cell in cells:
        atom = _holder(atoms, cell)
        sources = _files(atom.scalar.label.sources)
        needle = Needle(atom.quote or (atom.text if same(atom.text, cell) else cell))
        only = entry if entry.body.get("op") in READERS else None
        places = _places(journal, sources, needle, prompt, only)
        value = " ".join(atom.text.split())
        shown = value if len(value) <= QUOTE else value[:QUOTE] + "…"
        part = Part(cell, atom.name, shown, tuple(sources), tuple(places), bool(atom.quote))
        parts.append(part)
    return Origin(
        entry.address,
        str(entry.body.get("op", "")),
        int(entry.body.get("line", 0)),
        str(entry.body.get("model", "")),
        bool(entry.prompt),
        tuple(parts),
    )


def _holder(atoms: list[_Atom], cell: str) -> _Atom:
    for test in (same, _shows, lambda value, text: holds(value, Needle(text))):
        for atom in atoms:
            if test(atom.text, cell):
                return atom
    raise AssertionError("no atom of the step holds the cell")


def _places(
    journal: _Journal, sources: list[str], needle: Needle, prompt: str, only: Entry | None
) -> list[Place]:
    """Lines of the sources that hold the text: of the texts that were in the prompt, if any was."""
    readers = [(path, entry) for path in sources for entry in journal.readers(path)]
    if only is not None:
        readers = [(path, entry) for path, entry in readers if entry is only]
    texts = []
    for path, entry in readers[:MAX_TEXTS]:
        text = _text(entry)
        if text:
            texts.append((path, entry, text))
    sent = [one for one in texts if one[2].strip() and one[2].strip() in prompt]
    found = []
    for path, entry, text in sent or texts:
        mark = ""
        for number, line in enumerate(text.split("\n"), 1):
            if line.startswith("[") and line.endswith("]"):
                mark = line[1:-1]
            if holds(line, needle):
                whole = entry.body.get("op") == "files.read"
                shown = line.strip()[:QUOTE]
                found.append(Place(path, number, shown, entry.address, mark, whole))
                break
        else:
            if "\n" in needle.text and needle.text in text:
                number = text[: text.index(needle.text)].count("\n") + 1
                shown = text.split("\n")[number - 1].strip()[:QUOTE]
                whole = entry.body.get("op") == "files.read"
                found.append(Place(path, number, shown, entry.address, "", whole))
        if len(found) >= MAX_STEPS:
            break
    return found


def _text(entry: Entry) -> str:
    value = entry.value
    if not isinstance(value, Scalar):
        return ""
    try:
        return str(value.data)
    except DamageError:
        return ""
