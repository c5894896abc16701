"""The scheduler keeps its promises on any mix of requests."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvac.core.errors import OperandError, ProcessorError
from edvac.core.seams import ManualClock
from edvac.engine.job import Job
from edvac.engine.pace import Pace
from edvac.engine.programs import Programs
from edvac.engine.retention import Keep
from edvac.engine.scheduler import Limits, Scheduler
from edvac.engine.sequences import Prefix, common_prefix


class NoPrefixes:
    """Remembers nothing; what claims hold is said by the test."""

    def __init__(self) -> None:
        self.holding: dict[str, int] = {}

    def match(self, reader_class: str, tokens: list[int], *, exact: bool) -> int:
        return 0

    def exact(self, reader_class: str, tokens: list[int]) -> int:
        return 0

    def coming(self, reader_class: str, tokens: list[int], *, exact: bool) -> int:
        return 0

    def use(self, reader_class: str, tokens: list[int], *, exact: bool) -> None:
        pass

    def fetch(self, reader_class: str, tokens: list[int], *, exact: bool) -> bool:
        return False

    def held(self, owner: str) -> int:
        return sum(tokens for other, tokens in self.holding.items() if other != owner)

    def yield_claim(self) -> bool:
        if self.holding:
            self.holding.popitem()
            return True
        return False

    def is_claimed(self, owner: str) -> bool:
        return owner in self.holding

    def keep(self, owner: str, prefix: Prefix, keep: Keep) -> None:
        pass

    def renew(self, owner: str, keep: Keep) -> None:
        pass

    def unclaim(self, owner: str) -> None:
        pass

    def expire(self, now: float) -> None:
        pass

    def prefetch(self, owner: str) -> None:
        pass

    def give_up(self, prefix: Prefix) -> None:
        pass


def make(
    limits: Limits, clock: ManualClock | None = None, prefixes: NoPrefixes | None = None
) -> Scheduler:
    clock, prefixes = clock or ManualClock(), prefixes or NoPrefixes()
    programs = Programs(clock, prefixes, lambda tokens: tokens / 100)
    return Scheduler(limits, clock, prefixes, programs, Pace())


def job(name: str, tokens: list[int], answer: int = 4, **more: str) -> Job:
    return Job(
        id=name,
        program=more.get("program", "p"),
        cls=more.get("cls", "online"),
        reader_class=more.get("reader_class", ""),
        tokens=list(tokens),
        max_tokens=answer,
    )


def run(scheduler: Scheduler, most: int = 10_000) -> list[str]:
    """Answer everything with made-up tokens; the result is the order of admission."""
    order: list[str] = []
    for _ in range(most):
        plan = scheduler.plan()
        if not plan.chunks:
            assert not scheduler.running and not scheduler.waiting
            return order
        order += [admission.job.id for admission in plan.admissions]
        assert 0 < plan.rows <= scheduler.limits.step_tokens
        slots = [one.slot for one in scheduler.running]
        assert len(set(slots)) == len(slots) <= scheduler.limits.slots
        assert sum(one.reserved for one in scheduler.running) <= scheduler.limits.kv_tokens
        answering = [one for one in scheduler.running if not one.prefilling]
        assert {c.job.id for c in plan.chunks} >= {one.id for one in answering}
        scheduler.commit(plan)
        for chunk in plan.chunks:
            one = chunk.job
            assert one.computed <= len(one.tokens)
            if chunk.samples:
                one.tokens.append(1)
                if len(one.tokens) - one.prompt >= one.max_tokens:
                    scheduler.finish(one)
    raise AssertionError("the scheduler did not come to an end")


requests = st.lists(
    st.tuples(
        st.integers(1, 60),
        st.integers(1, 6),
        st.sampled_from("ab"),
        st.sampled_from(["online", "offline", "speculative"]),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(requests, st.integers(1, 6), st.integers(0, 40))
def test_everything_ends_within_the_limits(asked: list, slots: int, extra: int) -> None:  # type: ignore[type-arg]
    limits = Limits(slots, context=80, step_tokens=slots + extra, kv_tokens=150)
    scheduler = make(limits)
    for index, (length, answer, program, cls, shared) in enumerate(asked):
        start = 0 if shared else 1000 * index
        tokens = list(range(start, start + length))
        scheduler.add(job(str(index), tokens, answer, program=program, cls=cls))
    assert set(run(scheduler)) == {str(index) for index in range(len(asked))}


def test_programs_go_in_order_of_their_first_arrival() -> None:
    scheduler = make(Limits(1, step_tokens=64))
    for name, program, cls in (
        ("a1", "a", "online"),
        ("b1", "b", "online"),
        ("o1", "o", "offline"),
        ("a2", "a", "online"),
    ):
        scheduler.add(job(name, [ord(name[0]) * 100 + int(name[1])], program=program, cls=cls))
    assert run(scheduler) == ["a1", "a2", "b1", "o1"]


def test_low_classes_are_not_starved() -> None:
    clock = ManualClock()
    scheduler = make(Limits(1, step_tokens=64), clock)
    scheduler.add(job("o", [1], program="o", cls="offline"))
    clock.advance(61)
    scheduler.add(job("a", [2], program="a"))
    assert run(scheduler) == ["o", "a"]


def test_a_program_that_never_ends_does_not_keep_others_out() -> None:
    """A client that sends its next request as soon as one is answered is first in program order
    for ever."""
    clock = ManualClock()
    scheduler = make(Limits(slots=2, context=64, step_tokens=64), clock)
    sent = 0

    def send() -> None:
        nonlocal sent
        sent += 1
        scheduler.add(job(f"old{sent}", [sent, 5, 6], 2, program="old"))

    for _ in range(4):
        send()
    scheduler.add(job("new", [9, 9], 2, program="new"))
    for second in range(60):
        clock.advance(1.0)
        plan = scheduler.plan()
        if any(one.job.id == "new" for one in plan.admissions):
            assert second < 40
            return
        scheduler.commit(plan)
        for chunk in plan.chunks:
            chunk.job.tokens.append(1)
            if len(chunk.job.tokens) - chunk.job.prompt >= chunk.job.max_tokens:
                scheduler.finish(chunk.job)
                send()
    raise AssertionError("the later program was never served")


def test_a_shared_prefix_is_computed_once() -> None:
    scheduler = make(Limits(4, step_tokens=64))
    shared = list(range(40))
    for index in range(3):
        scheduler.add(job(str(index), [*shared, 1000 + index] * 1))
    first = scheduler.plan()
    assert [admission.job.id for admission in first.admissions] == ["0"]
    scheduler.commit(first)
    second = scheduler.plan()
    assert [(a.job.id, a.cached, a.source_slot) for a in second.admissions] == [
        ("1", 40, 0),
        ("2", 40, 0),
    ]


def test_a_program_that_comes_back_gets_the_row_that_it_had() -> None:
    scheduler = make(Limits(slots=3, step_tokens=64, context=256, kv_tokens=1024))
    talks = {name: [number] * 40 for number, name in enumerate("abc")}
    rows = {}
    for name in "abcab":  # a and b later than c
        one = job(name, talks[name])
        scheduler.add(one)
        scheduler.plan()
        rows.setdefault(name, one.slot)
        assert one.slot == rows[name]
        talks[name] += [7, 8, 9]
        scheduler.finish(one, kept=True)
    assert sorted(rows.values()) == [0, 1, 2], "who is new takes a row that nobody had"
    new = job("d", [99] * 40)
    scheduler.add(new)
    scheduler.plan()
    assert new.slot == rows["c"], "or the one that was used least lately"
    scheduler.finish(new, kept=True)
    scheduler.forget()
    back = job("b2", talks["b"])
    scheduler.add(back)
    scheduler.plan()
    assert back.slot == 0, "nothing is known of what rows held"


def test_reader_classes_share_nothing() -> None:
    scheduler = make(Limits(4, step_tokens=128))
    shared = list(range(40))
    scheduler.add(job("0", [*shared, 1], reader_class="a"))
    scheduler.add(job("1", [*shared, 2], reader_class="b"))
    plan = scheduler.plan()
    assert [admission.cached for admission in plan.admissions] == [0, 0]


def test_a_prompt_seen_before_still_computes_its_last_token() -> None:
    scheduler = make(Limits(2, step_tokens=64))
    scheduler.add(job("0", list(range(40))))
    scheduler.commit(scheduler.plan())
    scheduler.add(job("1", list(range(40))))
    assert [admission.cached for admission in scheduler.plan().admissions] == [39]


def test_what_cannot_run_is_refused() -> None:
    scheduler = make(Limits(1, context=8, step_tokens=8, queue=1))
    with pytest.raises(OperandError, match="8 are there") as large:
        scheduler.add(job("big", list(range(9))))
    assert "kv_mb" not in large.value.fix
    narrow = make(Limits(1, 80, 8, kv_tokens=8))
    with pytest.raises(OperandError, match="8 are there") as small:
        narrow.add(job("big", list(range(9))))
    assert "kv_mb" in small.value.fix, "memory is what lacks, not the model's context"
    scheduler.add(job("a", [1]))
    with pytest.raises(ProcessorError, match="full"):
        scheduler.add(job("b", [1]))


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_common_prefix(one: list[int], other: list[int]) -> None:
    size = 0
    while size < min(len(one), len(other)) and one[size] == other[size]:
        size += 1
    assert common_prefix(one, other) == size


class LossyPrefixes(NoPrefixes):
    """64 tokens of every prompt, the first 32 of them exact."""

    def match(self, reader_class: str, tokens: list[int], *, exact: bool) -> int:
        return 32 if exact else 64

    def exact(self, reader_class: str, tokens: list[int]) -> int:
        return 32


def test_a_row_knows_from_where_it_is_lossy() -> None:
    prompt = list(range(100))
    scheduler = make(Limits(slots=6, step_tokens=200), prefixes=LossyPrefixes())
    lossy, short = job("lossy", prompt), job("short", prompt[:33])
    for one in (lossy, short):
        scheduler.add(one)
    scheduler.commit(scheduler.plan())
    assert (lossy.cached, lossy.lossy_from) == (64, 32)
    assert (short.cached, short.lossy_from) == (32, None)
    copied, exact = job("copied", [*prompt, 7]), job("exact", [*prompt, 7])
    exact.exact = True
    for one in (exact, copied):
        scheduler.add(one)
    scheduler.commit(scheduler.plan())
    scheduler.commit(scheduler.plan())
    assert (copied.cached, copied.lossy_from) == (100, 32), "a copy is as lossy"
    assert (exact.cached, exact.lossy_from) == (33, None), "the short one is exact to its end"


def test_a_row_that_makes_room_says_from_where_it_is_lossy() -> None:
    scheduler = make(Limits(slots=1, step_tokens=200), prefixes=LossyPrefixes())
    scheduler.add(job("offline", list(range(100)), cls="offline"))
    scheduler.commit(scheduler.plan())
    scheduler.add(job("online", [9] * 100))
    assert [one.lossy_from for one in scheduler.plan().evictions] == [32]


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_fetched_and_waited_for_is_what_the_request_may_have(exact: bool) -> None:
    asked = []

    class Asked(LossyPrefixes):
        def coming(self, reader_class: str, tokens: list[int], *, exact: bool) -> int:
            asked.append(("coming", exact))
            return 0

        def use(self, reader_class: str, tokens: list[int], *, exact: bool) -> None:
            asked.append(("use", exact))

        def fetch(self, reader_class: str, tokens: list[int], *, exact: bool) -> bool:
            asked.append(("fetch", exact))
            return False

    scheduler = make(Limits(slots=1, step_tokens=200), prefixes=Asked())
    one = job("one", list(range(100)))
    one.exact = exact
    scheduler.add(one)
    scheduler.plan()
    assert {name for name, _ in asked} == {"fetch", "coming", "use"}
    assert {given for _, given in asked} == {exact}


class Arriving(NoPrefixes):
    """What is on its way from the disk: tokens by their first."""

    def __init__(self) -> None:
        super().__init__()
        self.on_its_way: set[int] = set()
        self.spilled: set[int] = set()
        self.resident: set[int] = set()
        self.used: list[int] = []

    def match(self, reader_class: str, tokens: list[int], *, exact: bool) -> int:
        return 64 if tokens[0] in self.resident else 0

    def coming(self, reader_class: str, tokens: list[int], *, exact: bool) -> int:
        return 64 if tokens[0] in self.on_its_way | self.resident else 0

    def use(self, reader_class: str, tokens: list[int], *, exact: bool) -> None:
        self.used.append(tokens[0])

    def fetch(self, reader_class: str, tokens: list[int], *, exact: bool) -> bool:
        found = tokens[0] in self.spilled
        if found:
            self.spilled.discard(tokens[0])
            self.on_its_way.add(tokens[0])
        return found

    def arrive(self, first: int) -> None:
        self.on_its_way.discard(first)
        self.resident.add(first)

    def leave(self, first: int) -> None:
        self.resident.discard(first)
        self.spilled.add(first)


def one_away(room: int) -> tuple[Scheduler, Arriving]:
    """A prompt whose beginning lies on the disk, and room for so many tokens."""
    prefixes = Arriving()
    prefixes.spilled = {1}
    limits = Limits(slots=4, step_tokens=200, context=150, kv_tokens=room)
    scheduler = make(limits, prefixes=prefixes)
    scheduler.add(job("back", [1] * 100))
    return scheduler, prefixes


def test_nobody_takes_the_room_of_one_who_waits_for_the_disk() -> None:
    """Two that fit only one after the other: the second has to wait, though it could begin."""
    scheduler, prefixes = one_away(200)
    scheduler.add(job("new", [2] * 100))
    plan = scheduler.plan()
    assert not plan.admissions and not plan.pauses
    assert prefixes.used == [1], "what has come already stays"
    prefixes.arrive(1)
    admitted = scheduler.plan().admissions
    assert [(one.job.id, one.cached) for one in admitted] == [("back", 64)]


def test_one_who_comes_after_and_fits_too_does_not_wait() -> None:
    scheduler, _ = one_away(400)
    scheduler.add(job("new", [2] * 100))
    assert [one.job.id for one in scheduler.plan().admissions] == ["new"]


def test_what_left_again_while_it_was_waited_for_is_sent_for_again() -> None:
    scheduler, prefixes = one_away(200)
    scheduler.plan()
    prefixes.arrive(1)
    prefixes.leave(1)
    assert not scheduler.plan().admissions and prefixes.on_its_way == {1}
    prefixes.arrive(1)
    assert [one.cached for one in scheduler.plan().admissions] == [64]


def test_a_prompt_is_not_sent_for_endlessly() -> None:
    scheduler, prefixes = one_away(200)
    for _ in range(3):
        assert not scheduler.plan().admissions
        prefixes.arrive(1)
        prefixes.leave(1)
    assert [one.cached for one in scheduler.plan().admissions] == [0]


def test_claims_are_not_given_up_for_one_who_can_wait_for_the_disk() -> None:
    prefixes = Arriving()
    prefixes.spilled, prefixes.holding = {1}, {"other": 60}
    scheduler = make(
        Limits(slots=4, step_tokens=200, context=150, kv_tokens=200), prefixes=prefixes
    )
    scheduler.add(job("back", [1] * 100))
    scheduler.add(job("new", [2] * 100))
    plan = scheduler.plan()
    assert prefixes.holding == {"other": 60} and not plan.pauses
