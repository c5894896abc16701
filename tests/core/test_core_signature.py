"""Hazards: two steps that can touch one path are never taken to be independent."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edvac.core.schema import INT, STR
from edvac.core.signature import (
    NO_ACCESS,
    WILD,
    Access,
    Catalogue,
    Effect,
    Param,
    Signature,
    address_param,
    overlap,
)
from edvac.device.glob import Glob

names = st.sampled_from(["a", "b", "ab", "a.md", "b.md"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
pieces = names | st.sampled_from(["*", "**", "?", "a*", "*.md", "[ab]", "*b"])
globs = st.lists(pieces, min_size=1, max_size=3).map("/".join)

# A bracket opens a class in a pattern and is itself in a name.
odd_names = st.lists(names | st.sampled_from(["[a]", "[ab]", "[a", "]", "?", "*"]), min_size=1,
                     max_size=3).map("/".join)  # fmt: skip
signs = st.sampled_from(["[", "]", "a", "b", "!", "*", "?", "/", ".md"])
odd_globs = st.lists(signs, min_size=1, max_size=7).map(
    lambda parts: posixpath.normpath("".join(parts)).lstrip("/")
)


def touches(glob: str, path: str) -> bool:
    return glob == WILD or Glob.of(glob).matches(path)


@given(globs, globs, paths)
@example("**/b.md", "b.md", "b.md")
@example("a/**/b.md", "a/*", "a/b.md")
def test_globs_that_match_one_path_overlap(left: str, right: str, path: str) -> None:
    if touches(left, path) and touches(right, path):
        assert overlap(left, right)


@settings(max_examples=2000)
@given(odd_names | odd_globs, odd_names | globs, odd_names)
@example("[a]/b", "a/b", "a/b")
@example("[a]/b", "[a]/*", "[a]/b")
@example("a[b/*]b", "a[b/a]b", "a[b/a]b")
def test_brackets_hide_no_overlap(left: str, right: str, path: str) -> None:
    if touches(left, path) and touches(right, path):
        assert overlap(left, right)


@given(globs, globs)
def test_overlap_has_no_direction(left: str, right: str) -> None:
    assert overlap(left, right) is overlap(right, left)
    assert overlap(left, left) and overlap(left, WILD)


@given(paths, paths)
def test_paths_overlap_only_as_one_directory_in_the_other(left: str, right: str) -> None:
    a, b = left.split("/"), right.split("/")
    assert overlap(left, right) is (a[: len(b)] == b or b[: len(a)] == a)


@given(paths, globs)
def test_a_directory_covers_what_is_below_it(directory: str, below: str) -> None:
    assert overlap(directory, f"{directory}/{below}") and overlap(f"{directory}/**", directory)


def test_what_lies_apart_is_independent() -> None:
    for left, right in [
        ("in/*", "out/*"),
        ("in/a.md", "in/b.md"),
        ("a", "ab"),
        ("a/*.md", "ab/x.md"),
        ("out/*.md", "out/x.txt"),
    ]:
        assert not overlap(left, right), (left, right)


@given(globs, globs)
def test_each_hazard_alone_makes_a_step_wait(left: str, right: str) -> None:
    read, write = Access(reads=(left,)), Access(writes=(left,))
    later_read, later_write = Access(reads=(right,)), Access(writes=(right,))
    for first, later in ((write, later_read), (read, later_write), (write, later_write)):
        assert first.conflicts(later) is overlap(left, right)


some = st.lists(globs, max_size=2).map(tuple)
accesses = st.builds(Access, some, some, st.booleans())


@given(accesses, accesses, paths)
def test_a_step_waits_where_one_of_the_two_writes_what_the_other_touches(
    first: Access, later: Access, path: str
) -> None:
    def claims(patterns: tuple[str, ...]) -> bool:
        return any(touches(glob, path) for glob in patterns)

    raw = claims(first.writes) and claims(later.reads)
    war = claims(first.reads) and claims(later.writes)
    waw = claims(first.writes) and claims(later.writes)
    if raw or war or waw or (first.external and later.external):
        assert first.conflicts(later)


@given(some, some)
def test_readers_never_wait_for_each_other(left: tuple[str, ...], right: tuple[str, ...]) -> None:
    assert not Access(reads=left).conflicts(Access(reads=right))
    assert not Access(left, left).conflicts(NO_ACCESS) and NO_ACCESS.empty


@given(accesses, accesses, accesses)
def test_a_union_conflicts_with_what_either_part_conflicts_with(
    left: Access, right: Access, later: Access
) -> None:
    both = left.union(right)
    wanted = left.conflicts(later) or right.conflicts(later)
    assert both.conflicts(later) is wanted
    assert both.empty is (left.empty and right.empty)
    assert left.union(NO_ACCESS) == Access(
        tuple(dict.fromkeys(left.reads)), tuple(dict.fromkeys(left.writes)), left.external
    )


def signature(op: str) -> Signature:
    params = (address_param(), Param("n", INT))
    return Signature(op, params, STR, Effect.READ, "What it does.", reads=("path",))


def test_a_catalogue_knows_devices_and_their_functions() -> None:
    made = [signature(op) for op in ("files.read", "doc.text", "files.list")]
    catalogue = Catalogue.of(made)
    assert catalogue.devices == ("files", "doc")
    assert catalogue.functions("files") == (made[0], made[2]) and not catalogue.functions("mail")
    assert made[0].param("n") is made[0].params[1] and made[0].param("m") is None
    find: Callable[[str], tuple[str, str]] = lambda op: (  # noqa: E731
        catalogue.signatures[op].device,
        catalogue.signatures[op].function,
    )
    assert find("doc.text") == ("doc", "text")
