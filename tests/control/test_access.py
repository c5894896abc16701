"""What a step is announced to touch covers what it then touches, whatever its paths are made of."""

from __future__ import annotations

import ast
import posixpath
import random

import pytest
import sim
from sim import parsed

from edvac.control import ControlUnit, Limits, Replay, Result
from edvac.control.access import claimed_access, unforeseen, with_contents
from edvac.core.label import PROGRAM
from edvac.core.signature import Access, overlap
from edvac.core.value import lift
from edvac.device import CATALOGUE
from edvac.device.glob import Glob
from edvac.program import Evaluator, Fuel
from edvac.program.facts import Facts

PARTS = ["f", "[", "]", "0-9", "!", "/", "g", "[0-9]", "[!f]", "[!", "*", "?"]
NAMES = ["f0", "0", "f/0", "f[0]", "g", "f5/g", "[f]", "5", "f0g", "]", "f[", "fg/f"]


def unit_of(text: str) -> ControlUnit:
    program = parsed(text)
    return ControlUnit(
        lambda host: Evaluator(program, host, {}, sim.TODAY, Fuel()), Replay(), Limits()
    )


def claim_of(op: str, pieces: list[tuple[str, bool]]) -> Access:
    """The claim of a call with a path written as an f-string; of the pieces some are known in the
    text."""
    values: list[ast.expr] = [
        ast.Constant(piece)
        if known
        else ast.FormattedValue(ast.Name("x", ast.Load()), conversion=-1)
        for piece, known in pieces
    ]
    call = ast.Call(ast.parse(op, mode="eval").body, [ast.JoinedStr(values)], [])
    return claimed_access(Facts(CATALOGUE, {}, {}).call_access(call, CATALOGUE.signatures[op]))


@pytest.mark.parametrize("seed", range(4))
def test_whoever_reads_a_directory_waits_for_all_that_may_come_into_it(seed: int) -> None:
    chance = random.Random(seed)
    shell = CATALOGUE.signatures["shell.run"]
    met = 0
    for _ in range(2_000):
        pieces = [
            (chance.choice(["out/", "a", ".md", "sub/b", "x"]), chance.random() < 0.6)
            for _ in range(chance.randint(2, 4))
        ]
        text = "".join(piece for piece, _ in pieces)
        directory = posixpath.dirname(text)
        if not directory or posixpath.normpath(text) != text:
            continue
        claim = claim_of("files.write", pieces)
        assert unforeseen(claim, Access(writes=(text,))) is None
        read = with_contents(shell, Access(reads=(directory,)))
        assert any(overlap(new, old) for new in claim.writes for old in read.reads), (claim, text)
        met += not overlap(claim.writes[0], directory)
    assert met > 10, "cases that the directory's own name does not tell"


@pytest.mark.parametrize("seed", range(8))
def test_a_claim_covers_every_path_and_every_match_of_a_pattern(seed: int) -> None:
    chance = random.Random(seed)
    met = 0
    for _ in range(3_000):
        pieces = [
            (chance.choice(PARTS), chance.random() < 0.6) for _ in range(chance.randint(1, 5))
        ]
        text = "".join(piece for piece, _ in pieces)
        if text.startswith("/") or posixpath.normpath(text) != text:
            continue  # no path of a run, or one of another shape than the text says
        exact = claimed_access(Access(reads=(text,)))
        for op in ("files.list", "files.read"):
            claim = claim_of(op, pieces)
            assert unforeseen(claim, exact) is None, (pieces, claim)
            assert claim.conflicts(Access(writes=exact.reads)), (pieces, claim)
            for name in filter(Glob.of(text).matches if op == "files.list" else text.__eq__, NAMES):
                met += 1
                assert overlap(claim.reads[0], name), (pieces, claim, name)
                assert overlap(exact.reads[0], name), (pieces, exact, name)
    assert met > 200


def test_a_listing_of_a_class_that_is_not_known_yet_holds_up_later_writes() -> None:
    unit = unit_of('x = llm.write("x")\nys = files.list(f"f[{x}]")\nz = files.write("f0", "new")\n')
    work = unit.start(0)
    assert [i.call.op for i in work.intents] == ["llm.write"], "the listing has not looked yet"
    work = unit.finished([(work.intents[0].slot, Result(lift("0-9", PROGRAM)))], 1)
    assert [i.call.op for i in work.intents] == ["files.list"]
    work = unit.finished([(work.intents[0].slot, Result(lift(["f0"], PROGRAM)))], 2)
    assert [i.call.op for i in work.intents] == ["files.write"]


def test_files_found_by_a_class_may_be_read() -> None:
    unit = unit_of('ys = [files.read(p) for p in files.list("f[0-9]")]\n')
    work = unit.start(0)
    work = unit.finished([(work.intents[0].slot, Result(lift(["f0", "f1"], PROGRAM)))], 1)
    assert [i.call.op for i in work.intents] == ["files.read"] * 2


def test_a_bracket_in_a_name_is_itself() -> None:
    unit = unit_of(
        'x = llm.write("x")\nfiles.write(f"f[{x}].txt", "a")\ny = files.read("f[1].txt")\n'
    )
    work = unit.start(0)
    assert [i.call.op for i in work.intents] == ["llm.write"]
    work = unit.finished([(work.intents[0].slot, Result(lift("1", PROGRAM)))], 1)
    assert [i.call.op for i in work.intents] == ["files.write"]


def test_files_of_a_directory_with_brackets_in_its_name_may_be_read() -> None:
    unit = unit_of('ys = [files.read(p) for p in files.list("mail [old]/*")]\n')
    work = unit.start(0)
    found = lift(["mail [old]/a", "mail o/b"], PROGRAM)
    work = unit.finished([(work.intents[0].slot, Result(found))], 1)
    assert [i.call.op for i in work.intents] == ["files.read"] * 2
