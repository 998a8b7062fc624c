"""Local rounds, decided: where training begins, shares, patience, and how nodes add up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.sharing.rounds import (
    WORTH_OTHER_SUMS,
    Exchanged,
    Joined,
    Pace,
    RoundTerms,
    StepTold,
    choose_start,
    first_shares,
    merge_curves,
    next_shares,
    outer_step,
    patience_s,
    weights_of,
)

TERMS = RoundTerms(
    training="a" * 64,
    steps=25,
    round_steps=10,
    rows=12,
    values=100,
    compression="int8",
    learning_rate=1.0,
    momentum=0.0,
)
SUMMED = replace(TERMS, round_steps=1, compression="none", exchanged=Exchanged.GRADIENTS)
NAMES = ("n1", "n2", "n3", "n4")
weights = st.floats(1e-3, 1e3)


def joined(step: int, sha256: str, **changed: object) -> Joined:
    values = {name: getattr(TERMS, name) for name in RoundTerms.__slots__} | changed
    return Joined(terms=RoundTerms(**values), step=step, sha256=sha256 * 64)


def test_rounds_lie_on_a_grid_over_the_whole_run() -> None:
    """A run that goes on in the middle ends its rounds where the others do."""
    assert TERMS.last_round == 3
    assert [TERMS.end_of(number) for number in (1, 2, 3)] == [10, 20, 25]
    assert [TERMS.round_after(step) for step in (0, 9, 10, 20, 24, 25)] == [1, 1, 2, 3, 3, 4]


def test_all_begin_with_the_newest_that_any_node_has() -> None:
    """Of nodes at that step the first decides; whoever differs from it gets its parameters."""
    start = choose_start(
        {"n1": joined(0, "0"), "n2": joined(7, "b"), "n3": joined(7, "c"), "n4": joined(7, "b")}
    )
    assert (start.step, start.source, start.needing) == (7, "n2", ("n1", "n3"))


def test_nodes_that_were_told_different_things_do_not_train_together() -> None:
    """Named with what differs."""
    with pytest.raises(ValueError, match="n1 and n2 have different settings or data"):
        choose_start({"n1": joined(0, "a"), "n2": joined(0, "a", training="b" * 64)})
    with pytest.raises(ValueError, match="round_steps"):
        choose_start({"n1": joined(0, "a"), "n2": joined(0, "a", round_steps=4)})
    with pytest.raises(ValueError, match="exchanged"):
        choose_start(
            {"n1": joined(0, "a"), "n2": joined(0, "a", exchanged=Exchanged.GRADIENTS)},
        )


@given(
    now=st.dictionaries(st.sampled_from(NAMES), weights, min_size=1),
    living=st.lists(st.sampled_from(NAMES), unique=True, min_size=1),
    paces=st.dictionaries(st.sampled_from(NAMES), weights),
    rows=st.integers(1, 1000),
    terms=st.sampled_from([TERMS, SUMMED]),
)
def test_shares_sum_up_and_nobody_is_left_without_a_row(
    now: dict[str, float], living: list[str], paces: dict[str, float], rows: int, terms: RoundTerms
) -> None:
    """Whatever was measured, and whoever died."""
    told = {node: Pace(rows=10, seconds=seconds) for node, seconds in paces.items()}
    shares = next_shares(now, living, told, replace(terms, rows=rows))
    assert set(shares) == set(living)
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= min(1 / rows, 1 / len(living)) * (1 - 1e-6)


def test_a_slow_node_gets_less_and_a_lost_nodes_share_goes_to_the_others() -> None:
    """In proportion to speed; small differences move nothing."""
    now = first_shares({"n1": 1, "n2": 1})
    terms = replace(TERMS, rows=120)
    slow = {"n1": Pace(rows=60, seconds=10), "n2": Pace(rows=60, seconds=27)}
    shares = next_shares(now, ["n1", "n2"], slow, terms)
    assert shares["n1"] / shares["n2"] == pytest.approx(2.7)
    even = {"n1": Pace(rows=60, seconds=10), "n2": Pace(rows=60, seconds=10.5)}
    assert next_shares(now, ["n1", "n2"], even, terms) == now
    assert next_shares(shares, ["n1"], slow, terms) == {"n1": 1.0}
    assert next_shares(now, ["n1", "n2"], {"n1": slow["n1"]}, terms) == now


def test_each_rank_has_as_much_to_do_as_the_others_at_first() -> None:
    """A node of eight GPUs begins with four times the rows of one with two."""
    assert first_shares({"n1": 8, "n2": 2}) == {"n1": 0.8, "n2": 0.2}


@given(
    seconds=st.dictionaries(st.sampled_from(NAMES), st.floats(0.1, 10), min_size=2),
    rows=st.integers(4, 64),
)
def test_nodes_that_wait_for_each_other_get_whole_rows_if_that_is_worth_it(
    seconds: dict[str, float], rows: int
) -> None:
    """Otherwise what they have stays, and with it the sums that a collective would make."""
    names = sorted(seconds)
    now = first_shares(dict.fromkeys(names, 1))
    paces = {name: Pace(rows=1, seconds=seconds[name]) for name in names}
    shares = next_shares(now, names, paces, replace(SUMMED, rows=rows))

    def step_s(of: dict[str, float]) -> float:
        return max(of[name] * rows * seconds[name] for name in names)

    if shares != now:
        assert all(share * rows == pytest.approx(round(share * rows)) for share in shares.values())
        assert step_s(shares) < (1 - WORTH_OTHER_SUMS) * step_s(now) * (1 + 1e-9)


def test_noise_moves_no_rows_between_nodes_that_sum_gradients_and_a_slow_node_does() -> None:
    """A third slower for a while is noise on a busy machine; 2.7 times slower is another GPU."""
    now = first_shares({"n1": 1, "n2": 1})
    noise = {"n1": Pace(rows=6, seconds=1), "n2": Pace(rows=6, seconds=1.4)}
    assert next_shares(now, ["n1", "n2"], noise, SUMMED) == now
    slow = {"n1": Pace(rows=6, seconds=1), "n2": Pace(rows=6, seconds=2.7)}
    assert next_shares(now, ["n1", "n2"], slow, SUMMED) == {"n1": 9 / 12, "n2": 3 / 12}


def test_changes_are_averaged_by_rows_and_gradients_are_summed() -> None:
    """An update is subtracted with the outer rate; a gradient arrives as it is."""
    assert weights_of(TERMS, {"n1": 30, "n2": 10}) == {"n1": 0.75, "n2": 0.25}
    assert weights_of(SUMMED, {"n1": 30, "n2": 10}) == {"n1": 1.0, "n2": 1.0}
    assert outer_step(replace(TERMS, learning_rate=0.7, momentum=0.9)) == (0.7, 0.9)
    assert outer_step(SUMMED) == (-1.0, 0.0)


def test_a_moment_of_noise_moves_shares_less_than_a_lasting_change() -> None:
    """The pace of the five steps before counts half; that of one step before more."""
    steady = Pace(rows=60, seconds=10).after(None, 5)
    hiccup = Pace(rows=60, seconds=40).after(steady, 5)
    assert hiccup == Pace(rows=90, seconds=45)
    for _ in range(10):
        hiccup = Pace(rows=60, seconds=40).after(hiccup, 5)
    assert hiccup.seconds / hiccup.rows == pytest.approx(40 / 60, rel=0.01)
    single = Pace(rows=12, seconds=8).after(Pace(rows=12, seconds=2), 1)
    assert single.rows == pytest.approx(12 * (1 + 0.5**0.2))


def test_patience_grows_with_the_time_that_others_took() -> None:
    """A node 2.7 times slower is waited for in the first round; short rounds have a floor."""
    assert patience_s([]) == 20
    assert patience_s([Pace(rows=1, seconds=100)]) > (2.7 - 1) * 100


def test_the_steps_of_all_nodes_add_up() -> None:
    """Losses weighted by target tokens; time is that of the node that took longest in all."""

    def told(step: int, loss: float, targets: int, seconds: float) -> StepTold:
        return StepTold(step=step, loss=loss, targets=targets, tokens=100, seconds=seconds)

    fast = [told(1, 1.0, 10, 0.1), told(2, 1.0, 10, 0.3)]
    slow = [told(1, 4.0, 20, 0.9), told(2, 1.0, 20, 0.2)]
    merged = merge_curves([fast, slow])
    assert [(m.step, m.loss, m.targets, m.tokens, m.seconds) for m in merged] == [
        (1, 3.0, 30, 200, 0.9),
        (2, 1.0, 30, 200, 0.2),
    ]
