"""Guesses about conditions, from what went before in the program."""

from __future__ import annotations

import random

from edvac.control.predictor import Predictor


def guess_right(predictor: Predictor, site: str, order: tuple[int, ...], taken: bool) -> bool:
    predictor.met(site, order)
    made = predictor.guess(site, order, 0.5)
    predictor.expect(order, made.taken)
    predictor.decided(site, order, taken)
    return made.taken is taken


def test_the_text_counts_where_nothing_is_known() -> None:
    predictor = Predictor()
    assert predictor.guess("a", (1,), 0.6) == (guess := predictor.guess("a", (2,), 0.6))
    assert guess.taken and guess.confidence == 0.6
    assert not predictor.guess("a", (1,), 0.4).taken


def test_a_condition_that_mostly_goes_one_way_is_learnt() -> None:
    predictor = Predictor()
    for at in range(20):
        predictor.decided("a", (at,), False)
    made = predictor.guess("a", (20,), 0.6)
    assert not made.taken and made.confidence > 0.9


def test_a_condition_that_follows_another_is_learnt() -> None:
    """Of three conditions in each iteration the last goes as the first did."""
    chance = random.Random(1)
    predictor = Predictor()
    right = 0
    for at in range(200):
        first, noise = chance.random() < 0.5, chance.random() < 0.5
        predictor.decided("first", (at, 1), first)
        predictor.decided("noise", (at, 2), noise)
        right += guess_right(predictor, "last", (at, 3), first) if at >= 40 else 0
        predictor.decided("last", (at, 3), first)
    assert right == 160
    made = predictor.guess("last", (200, 3), 0.5)
    assert made.confidence > 0.9


def test_what_the_model_needs_and_is_not_known_is_not_guessed_over() -> None:
    predictor = _follower()
    predictor.met("first", (200, 1))
    assert predictor.guess("last", (200, 3), 0.5).confidence < 0.7
    predictor.decided("first", (200, 1), True)
    made = predictor.guess("last", (200, 3), 0.5)
    assert made.taken and made.confidence > 0.9


def _follower(past: list[tuple[str, bool]] | None = None) -> Predictor:
    chance = random.Random(2)
    predictor = Predictor(past or ())
    for at in range(200):
        first = chance.random() < 0.5
        predictor.decided("first", (at, 1), first)
        predictor.decided("last", (at, 3), first)
    return predictor


def test_order_is_the_programs_not_that_of_time() -> None:
    """Iterations end in any order; what counts is which condition stands before which."""
    chance = random.Random(3)
    firsts = [chance.random() < 0.5 for _ in range(120)]
    events = [(at, part) for at in range(119) for part in (1, 3)]
    chance.shuffle(events)
    predictor = Predictor()
    for at, part in events:
        predictor.decided("first" if part == 1 else "last", (at, part), firsts[at])
    predictor.decided("first", (119, 1), firsts[119])
    made = predictor.guess("last", (119, 3), 0.5)
    assert made.taken is firsts[119] and made.confidence > 0.9


def test_a_later_run_begins_with_what_earlier_ones_saw() -> None:
    later = Predictor(_follower().trail())
    later.decided("first", (1, 1), False)
    made = later.guess("last", (1, 3), 0.5)
    assert not made.taken and made.confidence > 0.9


def test_a_program_that_changes_its_ways_is_no_longer_trusted() -> None:
    predictor = _follower()
    before = predictor.guess("last", (200, 3), 0.5).confidence
    for at in range(200, 232):
        predictor.decided("first", (at, 1), True)
        guess_right(predictor, "last", (at, 3), False)
    predictor.decided("first", (232, 1), True)
    assert predictor.guess("last", (232, 3), 0.5).confidence < before - 0.2


def test_the_trail_is_bounded() -> None:
    predictor = Predictor([("a", True)] * 5000)
    predictor.decided("b", (1,), False)
    trail = predictor.trail()
    assert len(trail) == 4096 and trail[-1] == ("b", False)
