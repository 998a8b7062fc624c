"""Divisible work: every sample once whatever happens, and unequal workers that end together."""

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.sharing.ledger import Acceptance, Ledger
from tests.core.dividing import NOWHERE, Busy, Work, digest, makespan, worker

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "join",
                "work",
                "work",
                "work",
                "half",
                "die",
                "late",
                "wait",
                "long",
                "again",
                "other",
            ]
        ),
        st.integers(0, 4),
    ),
    max_size=80,
)


def perform(work: Work, what: str, number: int) -> None:
    """One thing that may happen, to worker or sample ``number``."""
    who = worker(number)
    if what == "join":
        work.join(who)
    elif what in ("again", "other") and work.counted:
        samples = sorted(sample for sample, count in work.counted.items() if count)
        if samples:
            work.answer(None, samples[number % len(samples)], "right" if what == "again" else what)
    elif what == "wait":
        work.now += 0.3
    elif what == "long":
        work.now += 1000.0
        work.expire()
    elif who in work.workers:
        if what == "work":
            work.now += 0.1 * (number + 1)
            work.work(who, 0.1 * (number + 1))
        elif what == "half":
            work.work(who, 0.0, most=1)
        elif what == "die":
            work.die(who)
        elif what == "late" and work.workers[who].queue:
            work.workers[who].queue.rotate(1)  # it does them in another order
    work.hand_out()


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), STEPS)
def test_every_sample_is_counted_once_whatever_happens(
    total: int, group: int, steps: list[tuple[str, int]]
) -> None:
    """Deaths, late and repeated answers, workers that stand still: in the end every sample has one
    output or was given up, and no group was lost.
    """
    work = Work(total, group)
    for what, number in steps:
        perform(work, what, number)
        ledger = work.ledger
        assert 0 <= work.leases.unassigned <= ledger.groups
        assert all(count <= 1 for count in work.counted.values())
        assert ledger.done == sum(work.counted.values())
        assert ledger.done + ledger.failed <= total
    last = worker(9)
    work.join(last)
    for who in [who for who in work.workers if who != last]:
        work.die(who)
    for _ in range(4 * work.ledger.groups + 4):
        work.hand_out()
        work.now += 0.1
        work.work(last, 0.1)

    assert work.ledger.settled
    assert work.ledger.done + work.ledger.failed == total
    assert work.ledger.failed == 0 or len(steps) >= 5  # given up only after many returns


@settings(max_examples=100, deadline=None)
@given(
    st.integers(20, 200),
    st.integers(1, 4),
    st.lists(st.floats(0.02, 0.5), min_size=1, max_size=5),
    st.floats(0.0, 5.0),
)
def test_a_death_costs_no_sample(total: int, group: int, paces: list[float], at: float) -> None:
    """All but one worker may die: the others do everything."""
    workers = {worker(number): pace for number, pace in enumerate(paces)}
    kill = (worker(0), at) if len(paces) > 1 else None
    _, work = makespan(total, group, workers, kill=kill)

    assert work.ledger.complete
    assert work.ledger.conflicts == 0


@pytest.mark.parametrize("total,group", [(240, 1), (300, 2), (600, 4)])
def test_unequal_workers_end_together(total: int, group: int) -> None:
    """One of two takes 2.7 times as long: within 3 % of the ideal, an even split at about 54 %."""
    pace, slow = 0.1, 0.27
    ideal = total / (1 / pace + 1 / slow)
    took, work = makespan(total, group, {worker(0): pace, worker(1): slow})

    assert work.ledger.complete
    assert work.ledger.duplicates == 0
    assert took <= ideal / 0.97
    even = total / 2 * slow
    assert ideal / even == pytest.approx(0.54, abs=0.005)


@pytest.mark.parametrize("paces", [(0.1, 0.1, 0.1), (0.05, 0.1, 0.27, 0.5), (0.2,)])
def test_any_mix_of_paces_is_used_fully(paces: tuple[float, ...]) -> None:
    """Several workers, fast and slow: within 3 % of the ideal, nothing done twice."""
    total = 400
    ideal = total / sum(1 / pace for pace in paces)
    took, work = makespan(total, 1, {worker(n): pace for n, pace in enumerate(paces)})

    assert work.ledger.duplicates == 0
    assert took <= ideal / 0.97 + 0.1


def test_the_survivors_keep_their_rate() -> None:
    """One of three dies half-way: what is left is done at the rate of the two."""
    total, pace = 300, 0.1
    took, work = makespan(
        total, 1, {worker(n): pace for n in range(3)}, kill=(worker(1), total * pace / 6)
    )

    done_by_then = total / 2
    ideal = total * pace / 6 + (total - done_by_then) * pace / 2
    assert work.ledger.complete
    assert took <= ideal / 0.95


def test_one_that_stands_still_holds_nobody_up() -> None:
    """Its groups are done by the other one; what it says later is a duplicate."""
    work = Work(8, 1)
    fast, slow = worker(0), worker(1)
    for who in (fast, slow):
        work.join(who)
    work.hand_out()
    frozen = list(work.workers[slow].queue)
    assert frozen
    for _ in range(100):
        work.now += 0.1
        work.work(fast, 0.1)
        work.hand_out()

    assert work.ledger.complete
    assert work.answer(slow, frozen[0]) is Acceptance.DUPLICATE
    assert work.answer(slow, frozen[0], "wrong") is Acceptance.CONFLICT


def test_a_group_that_ends_all_its_workers_is_given_up() -> None:
    """Otherwise it would end one after the other, and the rest would never be done."""
    work = Work(3, 1)
    for number in itertools.count():
        who = worker(number)
        work.join(who)
        work.hand_out()
        while work.workers[who].queue and work.workers[who].queue[0] != 1:
            work.work(who, 0.1)
            work.hand_out()
        if work.ledger.settled:
            break
        work.die(who)
        assert number < 10

    assert (work.ledger.done, work.ledger.failed) == (2, 1)


def test_a_late_output_counts_after_all() -> None:
    """A sample that was given up is done when its output comes."""
    ledger = Ledger(2, 1)
    assert ledger.fail_groups(0)
    assert not ledger.fail_groups(0)
    assert ledger.settled is False
    assert ledger.accept(0, digest("a"), NOWHERE, 1.0) is Acceptance.ACCEPTED
    assert (ledger.done, ledger.failed) == (1, 0)
    assert not ledger.fail_groups(0)


def test_duplicates_and_conflicts_are_samples() -> None:
    """However often a sample is answered, it is one duplicate, and the first output stays."""
    ledger = Ledger(2, 2)
    answers = [ledger.accept(1, digest(text), NOWHERE, 1.0) for text in "aabba"]

    assert answers == ["accepted", "duplicate", "conflict", "conflict", "duplicate"]
    assert (ledger.done, ledger.duplicates, ledger.conflicts) == (1, 1, 1)
    assert ledger.digest(1) == digest("a")
    assert not ledger.complete


def calls_of_some_work(total: int) -> int:
    """How often anything is called while 500 groups are leased and done."""
    work = Work(total, 8)
    who = worker(0)
    work.join(who)
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        for _ in range(500):
            work.hand_out()
            work.now += 0.001
            work.work(who, 0.001)
    finally:
        sys.setprofile(None)
    assert work.ledger.done == 4_000
    return calls


def test_an_answer_costs_the_same_among_a_million() -> None:
    """Leases and ledger do not look through what is there for each event."""
    assert calls_of_some_work(1_000_000) < 1.2 * calls_of_some_work(20_000)


@pytest.mark.parametrize("pause_s,ahead", [(0.1, 16), (1.0, 21)])
def test_a_coordinator_that_looks_seldom_gives_more_ahead(pause_s: float, ahead: int) -> None:
    """Of 29 groups of 0.1 s half, and more if a worker would wait for the next look."""
    work = Work(31, 1)
    work.join(worker(0))
    work.hand_out()
    work.now += pause_s
    work.work(worker(0), 0.1)

    work.hand_out()

    assert len(work.workers[worker(0)].queue) == ahead


def test_a_first_lease_is_as_long_as_the_warm_up_says() -> None:
    work = Work(1000, 4)
    for number, per_s in enumerate((40.0, 4.0, 0.0)):
        work.workers[worker(number)] = Busy()
        work.leases.join(worker(number), 0.0, per_s)

    work.hand_out()

    assert [len(work.workers[worker(number)].queue) for number in range(3)] == [5, 2, 2]


@pytest.mark.parametrize("exclusive,seconds", [(False, 20.0), (True, 1.0)])
def test_what_is_never_taken_back_is_leased_for_a_second(exclusive: bool, seconds: float) -> None:
    work = Work(100_000, 1, exclusive=exclusive)
    work.join(worker(0))
    for _ in range(3):
        work.hand_out()
        work.now += 0.1
        work.work(worker(0), 0.1)

    assert len(work.workers[worker(0)].queue) == pytest.approx(10 * seconds, abs=3)
