"""What programs say, and what follows from it: order, claims, how long contexts are kept."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvac.core.errors import ConfigError
from edvac.core.seams import ManualClock
from edvac.engine.cluster import Asked, Group, grouped
from edvac.engine.job import Job
from edvac.engine.pace import Pace
from edvac.engine.programs import Programs
from edvac.engine.protocol import Hint
from edvac.engine.retention import Durations, Gap, History, Keep, policy
from edvac.engine.sequences import Prefix, common_prefix


class Noted:
    """Claims as they stand, by owner."""

    def __init__(self) -> None:
        self.claims: dict[str, tuple[Prefix, Keep]] = {}
        self.fetched: list[str] = []
        self.dropped: list[Prefix] = []

    def keep(self, owner: str, prefix: Prefix, keep: Keep) -> None:
        self.claims[owner] = (prefix, keep)

    def renew(self, owner: str, keep: Keep) -> None:
        if owner in self.claims:
            self.claims[owner] = (self.claims[owner][0], keep)

    def unclaim(self, owner: str) -> None:
        self.claims.pop(owner, None)

    def expire(self, now: float) -> None:
        self.claims = {one: kept for one, kept in self.claims.items() if kept[1].until > now}

    def is_claimed(self, owner: str) -> bool:
        return owner in self.claims

    def prefetch(self, owner: str) -> None:
        self.fetched.append(owner)

    def give_up(self, prefix: Prefix) -> None:
        self.dropped.append(prefix)


class World:
    """Programs on a clock of the test's; having a token again takes a tenth of a second."""

    def __init__(self, retention: str = "told") -> None:
        self.clock, self.noted = ManualClock(), Noted()
        self.programs = Programs(self.clock, self.noted, lambda tokens: tokens / 10, retention)
        self.count = 0

    def ask(self, program: str, tokens: list[int], answer: tuple[int, ...] = (1,)) -> Job:
        """A whole request, answered at once."""
        job = self.begin(program, tokens)
        job.tokens = [*tokens, *answer]
        job.computed = len(job.tokens)
        self.programs.left(job, kept=True)
        return job

    def begin(self, program: str, tokens: list[int]) -> Job:
        self.count += 1
        job = Job(str(self.count), program, "online", "user", list(tokens), 4)
        job.order, job.prompt, job.arrived = self.count, len(tokens), self.clock.now()
        self.programs.arrived(job)
        job.admitted = self.clock.now()
        self.programs.admitted(job)
        return job

    def say(self, kind: str, program: str, **more: object) -> None:
        self.programs.hint(Hint(kind=kind, program=program, **more))  # type: ignore[arg-type]

    def kept(self, owner: str) -> Keep | None:
        found = self.noted.claims.get(owner)
        return found and found[1]


LONG = list(range(100))


def test_a_program_keeps_its_place_while_it_uses_a_tool() -> None:
    world = World()
    world.ask("a", [1])
    world.say("tool_started", "a", detail="shell")
    world.clock.advance(5)
    world.programs.tend()
    later, again = world.begin("b", [2]), world.begin("a", [1, 1, 3])
    order = world.programs.order
    assert order(again) < order(later)
    world.clock.advance(1000)
    for job in (later, again):
        world.programs.left(job, kept=False)
    world.clock.advance(61)
    world.programs.tend()
    newer, forgotten = world.begin("c", [2]), world.begin("a", [1, 1, 3])
    assert order(newer) < order(forgotten), "who is not heard of begins anew"


def test_the_next_turn_replaces_the_claim_of_the_last() -> None:
    world = World()
    world.ask("a", LONG)
    world.say("tool_started", "a", detail="shell")
    assert world.noted.claims["a"][0] == ("user", [*LONG, 1])
    world.ask("a", [*LONG, 1, 7])
    assert list(world.noted.claims) == ["a"]
    assert world.noted.claims["a"][0] == ("user", [*LONG, 1, 7, 1])


@pytest.mark.parametrize("retention", ["told", "oracle"])
def test_a_place_is_held_until_a_program_can_have_said_what_it_does(retention: str) -> None:
    world = World(retention)
    world.say("open", "a")
    world.ask("a", LONG)  # its word that a tool runs comes a moment later
    kept = world.kept("a")
    assert kept is not None
    assert kept.holds
    assert kept.waits
    world.clock.advance(0.3)
    world.programs.tend()
    kept = world.kept("a")
    assert kept is None or not kept.holds, "it said nothing"
    world.ask("b", LONG)  # and never does
    kept = world.kept("b")
    assert kept is None or not kept.holds


def test_what_ends_claims_nothing() -> None:
    world = World()
    world.ask("a", LONG)
    world.say("close", "a")
    assert not world.noted.claims
    world.say("close", "nobody")
    world.ask("b", LONG)
    world.say("drop", "b")
    assert not world.noted.claims
    assert world.noted.dropped == [("user", [*LONG, 1])]


def test_requests_without_a_name_go_on_from_one_another() -> None:
    world = World()
    first = world.ask("", LONG)
    second = world.ask("", [*LONG, 1, 5, 5])
    other = world.ask("", [*LONG[:50], 7])
    assert first.program == second.program != other.program
    reader = World()
    one = reader.ask("", LONG)
    two = reader.begin("", [*LONG, 1, 5])
    two.reader_class = "other"
    assert one.program == two.program, "of the same reader class"


def test_steps_keep_what_they_share_and_nothing_else() -> None:
    world = World()
    world.say("open", "run", detail="steps", lease=30.0)
    job = world.begin("run", LONG)
    job.shared, job.computed = {"d1": 40, "d0": 10}, 100
    world.programs.left(job, kept=True)
    assert [prefix for prefix, _ in world.noted.claims.values()] == [("user", LONG[:40])]
    world.say("next_use", "run", detail="d0", after=5.0)
    assert len(world.noted.claims) == 2
    due = [keep.due for _, keep in world.noted.claims.values()]
    assert sorted(due) == [0.0, 5.0]
    world.say("next_use", "run", detail="unknown", after=5.0)
    world.say("drop", "run", detail="d0")
    assert world.noted.dropped == [("user", LONG[:10])]
    world.say("close", "run")
    assert not world.noted.claims


def test_the_end_of_a_tool_brings_the_context_back() -> None:
    world = World()
    world.ask("a", LONG)
    world.say("tool_started", "a", detail="shell", after=50.0)
    kept = world.kept("a")
    assert kept is not None and kept.due == 50.0 and kept.holds and not kept.waits
    world.clock.advance(20)
    world.say("tool_ended", "a")
    kept = world.kept("a")
    assert kept is not None and kept.due == 20.0 and kept.waits
    assert world.noted.fetched == ["a"]


def test_hints_are_bounded() -> None:
    world = World()
    world.ask("a", LONG)
    for number in range(5000):
        world.say("open", f"p{number}", lease=1e12)
    assert len(world.programs._programs) <= 512
    for number in range(600):
        world.ask("a", LONG)
        world.say("tool_started", "a", detail=f"{number}" + "x" * 10_000, after=-1.0)
        world.clock.advance(0.01)
    tools = world.programs.history.durations._tools
    assert len(tools) <= 256
    assert max(map(len, tools)) <= 128
    kept = world.kept("a")
    assert kept is not None and kept.until <= world.clock.now() + 600
    world.clock.advance(2000)
    world.programs.tend()
    assert not world.programs._programs
    assert not world.noted.claims


def test_running_programs_are_not_forgotten() -> None:
    world = World()
    job = world.begin("busy", [1])
    for number in range(600):
        world.begin(f"p{number}", [2])
    world.clock.advance(1e4)
    world.programs.tend()
    world.programs.left(job, kept=False)


@pytest.mark.parametrize(("name", "until"), [("ttl=2", 2.0), ("ttl=cost", 10.1), ("ttl=0", None)])
def test_fixed_times(name: str, until: float | None) -> None:
    world = World(name)
    world.ask("a", LONG)
    kept = world.kept("a")
    assert (kept and kept.until) == until
    assert kept is None or kept.holds


def test_without_retention_requests_go_as_they_come() -> None:
    world = World("lru")
    world.ask("b", LONG)
    world.say("tool_started", "b", detail="shell")
    world.say("open", "s", detail="steps")
    assert not world.noted.claims
    first, second = world.begin("a", [1]), world.begin("b", [2])
    assert world.programs.order(first) < world.programs.order(second)


def test_continuum_takes_the_time_that_is_worth_most() -> None:
    history, gap = History.empty(), Gap("shell", 100, started=0.0)
    rule = policy("continuum")
    kept = rule.keep(gap, 0.0, 20.0, history)
    assert kept is not None and kept.until == pytest.approx(math.log(20.0))
    assert rule.keep(gap, 0.0, 0.5, history) is None
    # Nine calls of ten take a second, one takes a minute: a second is worth it, a minute is not.
    for number in range(200):
        history.durations.add("shell", 60.0 if number % 10 == 0 else 1.0)
    kept = rule.keep(gap, 0.0, 20.0, history)
    assert kept is not None and kept.until == 1.0
    kept = rule.keep(gap, 0.0, 700.0, history)
    assert kept is not None and kept.until == 60.0
    assert rule.keep(gap, 0.0, 1.0, history) is None, "0.9 x 1 - 1 is a loss"
    rare = rule.keep(Gap("other", 100, started=0.0), 0.0, 20.0, history)
    assert rare is not None and rare.until == 1.0, "as all tools, of which enough is known"
    history.waits.append(30.0)
    kept = rule.keep(gap, 0.0, 1.0, history)
    assert kept is not None and kept.until == 1.0, "who comes back without it has to queue"


@given(st.lists(st.integers(1, 12), min_size=2, max_size=12))
def test_memoryfulness_is_a_correlation(turns: list[int]) -> None:
    history = History.empty()
    history.turns.extend(turns)
    done, left = [], []
    for total in turns:
        for at in range(1, total + 1):
            done.append(float(at))
            left.append(float(total - at))
    if len(done) < 3 or len(set(done)) == 1 or len(set(left)) == 1:
        return
    import statistics

    assert history.memoryfulness() == pytest.approx(-statistics.correlation(done, left))


def test_durations_are_of_a_tool_and_of_its_arguments() -> None:
    durations = Durations()
    for _ in range(60):
        durations.add("shell:pytest", 40.0)
        durations.add("shell:ls", 0.1)
    assert durations.remaining("shell:pytest", 0.0) > 30
    assert durations.remaining("shell:ls", 0.0) < 3
    assert 10 < durations.remaining("shell:make", 0.0) < 30, "what other shells took"
    assert durations.remaining("shell:pytest", 39.0) < 5
    assert durations.remaining("shell:pytest", 400.0) > 300, "longer than all: as long again"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=600))
def test_only_the_last_durations_count(seconds: list[float]) -> None:
    durations = Durations()
    for one in seconds:
        durations.add("t", one)
    assert durations.of("t").sorted == sorted(seconds[-256:])


def test_the_oracle_and_the_told_know_what_is_said() -> None:
    gap = Gap("t", 100, started=10.0, known=8.0, sure=True)
    for name in ("told", "oracle"):
        kept = policy(name).keep(gap, 12.0, 7.0, History.empty())
        assert kept is not None and (kept.due, kept.holds, kept.waits) == (18.0, True, True)
        kept = policy(name).keep(gap, 12.0, 5.0, History.empty())
        assert kept is not None and kept.holds
        assert not kept.waits, "having it again is quicker than waiting"
        kept = policy(name).keep(gap, 12.0, 0.3, History.empty())
        assert kept is not None and not kept.holds, "it comes back from a disk"


@pytest.mark.parametrize("name", ["", "ttl", "ttl=-1", "ttl=x", "best", "ttl=nan"])
def test_unknown_policies_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="retention"):
        policy(name)


# --- groups -----------------------------------------------------------------------------------


def read(order: list[int], prompts: list[list[int]]) -> int:
    """Tokens that are computed where only the prompt before is remembered."""
    total, before = 0, list[int]()
    for one in order:
        total += len(prompts[one]) - common_prefix(before, prompts[one])
        before = prompts[one]
    return total


def distinct(prompts: list[list[int]]) -> int:
    """Tokens of the tree of all prompts."""
    return len({tuple(one[: at + 1]) for one in prompts for at in range(len(one))})


parts = st.lists(st.integers(0, 2), max_size=4)


@given(st.lists(parts, max_size=24))
def test_every_beginning_is_read_once(chosen: list[list[int]]) -> None:
    prompts = [[part * 100 + at for part in one for at in range(20)] for one in chosen]
    groups = grouped([Asked(one, 5) for one in prompts])
    order = [member for group in groups for member in group.members]
    assert sorted(order) == list(range(len(prompts)))
    for group in groups:
        first = prompts[group.members[0]]
        for member in group.members:
            assert common_prefix(first, prompts[member]) >= min(
                group.prefix, len(first), len(prompts[member])
            )
        inner = list(group.members)
        assert read(inner, [*prompts]) == distinct([prompts[one] for one in inner])


def test_a_longer_prefix_becomes_a_group_where_it_saves_more() -> None:
    head, long, short = list(range(20)), list(range(100, 160)), list(range(200, 220))

    def prompts(first: int, second: int) -> list[Asked]:
        return [Asked([*head, *long, 900 + at], 1) for at in range(first)] + [
            Asked([*head, *short, 950 + at], 1) for at in range(second)
        ]

    assert {(group.prefix, len(group.members)) for group in grouped(prompts(3, 2))} == {
        (80, 3),
        (20, 2),
    }
    # Twice as long a head costs more than one repeated tail of 20 saves, and less than two.
    heavy = [Asked([*range(500, 520), *one.tokens], 1) for one in prompts(0, 2)]
    assert grouped([*heavy, Asked([*range(500, 520), *head, 7], 1)]) == [Group(40, (2, 0, 1))]


def test_who_writes_more_goes_first() -> None:
    reads = [Asked([*range(100), 900 + at], 1) for at in range(2)]
    writes = [Asked([*range(200, 300), 900 + at], 50) for at in range(2)]
    assert [group.members for group in grouped([*reads, *writes])] == [(2, 3), (0, 1)]


def test_a_chain_of_thousands_is_grouped() -> None:
    chain = [Asked(list(range(16 + at)), 1) for at in range(3000)]
    found = grouped(chain)
    assert sorted(member for group in found for member in group.members) == list(range(3000))


# --- pace -------------------------------------------------------------------------------------


def test_answers_and_prompts_are_timed_apart() -> None:
    pace = Pace()
    assert (pace.answering(3), pace.reading(10), pace.rows_within(1.0)) == (0.0, 0.0, None)
    for _ in range(50):
        pace.note(1, 0, 0.02)
        pace.note(8, 0, 0.04)
        pace.note(1, 100, 0.52)
    assert pace.answering(1) == pytest.approx(0.02)
    assert pace.answering(7) == pytest.approx(0.04)
    assert pace.answering(30) == pytest.approx(0.04), "the nearest that is known"
    assert pace.reading(200) == pytest.approx(1.0)
    assert pace.rows_within(0.1) == 20
    assert pace.rows_within(-1) == 0
