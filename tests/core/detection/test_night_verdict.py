"""All figures of a night: states, segments, suspects, acknowledgements, and the error budget."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.detection.night_series import (
    Acknowledgement,
    FigureFinding,
    FigureState,
    NightFigure,
    NightSeries,
    Suspect,
)
from orchestrator.core.detection.night_verdict import (
    holm_rejections,
    judge_night,
    known_changes,
)
from orchestrator.core.model.workload import Direction

FIRST = date(2026, 1, 1)


def night(number: int) -> str:
    return (FIRST + timedelta(days=number)).isoformat()


def steady(seed: int, count: int, level: float = 100.0) -> list[float]:
    source = random.Random(seed)
    return [level + source.gauss(0, 1) for _ in range(count)]


def series_of(
    values: list[float], *, name: str = "tokens_per_s", direction: Direction = Direction.HIGHER
) -> NightSeries:
    nights = tuple(
        NightFigure(night=night(n), value=value, key={"gpu": "H100"}, code=f"c{n}")
        for n, value in enumerate(values)
    )
    return NightSeries(name=name, unit="tok/s", direction=direction, nights=nights)


def judge_last(series: NightSeries, **options: object) -> FigureFinding:
    (finding,) = judge_night([series], series.nights[-1].night, **options)  # type: ignore[arg-type]
    return finding


@pytest.mark.parametrize(
    "direction, shift, state",
    [
        (Direction.HIGHER, -5, FigureState.REGRESSION),
        (Direction.HIGHER, 5, FigureState.IMPROVEMENT),
        (Direction.LOWER, 5, FigureState.REGRESSION),
        (Direction.LOWER, -5, FigureState.IMPROVEMENT),
        (Direction.INFO, 5, FigureState.SUSPICIOUS),
    ],
)
def test_direction_decides_what_a_change_is(
    direction: Direction, shift: float, state: FigureState
) -> None:
    values = [*steady(1, 100), *steady(2, 5, 100 + shift)]

    finding = judge_last(series_of(values, direction=direction))

    assert finding.state is state
    assert finding.change == pytest.approx(shift / 100, abs=0.02)


def test_a_regression_names_the_nights_and_the_code_between() -> None:
    values = [*steady(1, 100), *steady(2, 4, 94)]

    finding = judge_last(series_of(values))

    assert (finding.last_good, finding.first_bad) == (night(99), night(100))
    assert finding.suspects == (Suspect(what="code", good="c99", bad="c100"),)
    assert finding.new
    assert finding.alarms


def test_the_same_code_is_no_suspect() -> None:
    series = series_of([*steady(1, 100), *steady(2, 4, 94)])
    same = tuple(replace(each, code="c") for each in series.nights)

    assert judge_last(replace(series, nights=same)).suspects == ()


def test_a_changed_key_begins_a_segment_and_says_so() -> None:
    """A new driver is not a regression of the code: nights before it do not count."""
    series = series_of([*steady(1, 60), *steady(2, 4, 90)])
    other = tuple(
        replace(each, key={"gpu": "H100", "driver": "600"}) if each.night >= night(60) else each
        for each in series.nights
    )

    finding = judge_last(replace(series, nights=other))

    assert finding.state is FigureState.INSUFFICIENT_DATA
    assert finding.segment == night(60)
    assert finding.segment_why == f"another key since {night(60)}: driver absent -> 600"


def test_a_spike_is_an_event_that_asks_for_another_measurement() -> None:
    values = [*steady(1, 100), 60.0]

    tonight = judge_last(series_of(values))
    tomorrow = judge_last(series_of([*values, *steady(3, 1)]))

    assert tonight.state is FigureState.SUSPICIOUS
    assert tonight.spike
    assert not tonight.alarms
    assert tomorrow.state is FigureState.NO_CHANGE
    assert not tomorrow.spike


@pytest.mark.parametrize(
    "figure, state",
    [
        (NightFigure(night=night(60), value=None), FigureState.MISSING),
        (NightFigure(night=night(60), value=float("nan")), FigureState.INVALID),
        (NightFigure(night=night(60), value=100, invalid="degraded"), FigureState.INVALID),
        (None, FigureState.MISSING),
    ],
)
def test_a_figure_that_does_not_count_alarms(
    figure: NightFigure | None, state: FigureState
) -> None:
    """Never a pass, and never a silent skip."""
    series = series_of(steady(1, 60))
    nights = (*series.nights, figure) if figure else series.nights

    (finding,) = judge_night([replace(series, nights=nights)], night(60))

    assert finding.state is state
    assert finding.alarms


def test_nights_that_do_not_count_are_not_compared_with() -> None:
    series = series_of([*steady(1, 100), *steady(2, 4, 94)])
    broken = tuple(
        replace(each, value=0.0, invalid="failed") if 40 <= n < 60 else each
        for n, each in enumerate(series.nights)
    )

    finding = judge_last(replace(series, nights=broken))

    assert finding.state is FigureState.REGRESSION
    assert finding.before == pytest.approx(100, abs=1)


def test_a_known_regression_lasts_and_is_reported_once() -> None:
    series = series_of([*steady(1, 100), *steady(2, 4, 94)])
    first = judge_last(series)
    known = known_changes([first])
    later = series_of([*steady(1, 100), *steady(2, 6, 94)])

    again = judge_last(later, known=known)

    assert first.new
    assert again.state is FigureState.REGRESSION
    assert not again.new
    assert again.reason == f"lasts since {first.first_bad}"


def test_a_regression_that_was_mended_is_over_after_three_nights() -> None:
    values = [*steady(1, 100), *steady(2, 6, 94)]
    known = known_changes([judge_last(series_of(values))])

    two = judge_last(series_of([*values, *steady(4, 2)]), known=known)
    three = judge_last(series_of([*values, *steady(4, 3)]), known=known)
    after = judge_last(series_of([*values, *steady(4, 4)]), known=[*known, *known_changes([three])])

    assert two.state is FigureState.REGRESSION
    assert three.state is FigureState.IMPROVEMENT
    assert three.new
    assert three.first_bad == night(106)
    assert after.state is FigureState.INSUFFICIENT_DATA


@pytest.mark.parametrize(
    "name, expires, alarms",
    [
        ("tokens_per_s", night(200), False),
        ("tokens*", night(200), False),
        ("tokens", night(200), True),
        ("tokens_per_s", night(103), True),
        ("tokens_per_s", night(104), False),
    ],
)
def test_an_acknowledgement_silences_until_it_expires(
    name: str, expires: str, alarms: bool
) -> None:
    accepted = Acknowledgement(series=name, expires=expires, reason="new tokenizer")

    finding = judge_last(series_of([*steady(1, 100), *steady(2, 4, 94)]), acknowledged=[accepted])

    assert finding.state is FigureState.REGRESSION
    assert finding.alarms is alarms


def test_more_series_need_more_evidence() -> None:
    """A shift that one series alone would prove is suspicious among thousands."""
    values = [*steady(11, 100), *steady(12, 5, 98.7)]
    odd = series_of(values, name="odd")
    plain = series_of(steady(5, 105))
    quiet = [replace(plain, name=f"quiet {n}") for n in range(1500)]

    alone = judge_last(odd)
    among = judge_night([odd, *quiet], night(104))[0]

    assert alone.state is FigureState.REGRESSION
    assert among.state is FigureState.SUSPICIOUS
    assert "not enough among all" in among.reason


def test_a_change_that_does_not_matter_is_none() -> None:
    exact = [100 + value / 1000 for value in steady(1, 100)]
    values = [*exact, *(value - 0.02 for value in exact[:6])]

    assert judge_last(series_of(values)).state is FigureState.NO_CHANGE


@given(st.dictionaries(st.text(), st.floats(0, 1), max_size=30), st.floats(0, 0.2))
def test_holm_lies_between_bonferroni_and_each_alone(
    p_values: dict[str, float], budget: float
) -> None:
    rejected = holm_rejections(p_values, budget)

    sure = {name for name, p in p_values.items() if p <= budget / len(p_values)}
    assert sure <= rejected <= {name for name, p in p_values.items() if p <= budget}
    assert all(
        name in rejected
        for name, p in p_values.items()
        for other in rejected
        if p < p_values[other]
    )


@given(st.lists(st.one_of(st.none(), st.floats()), min_size=1, max_size=40))
def test_every_series_has_a_verdict(values: list[float | None]) -> None:
    """Whatever was reported: NaN, infinities, nothing."""
    nights = tuple(NightFigure(night=night(n), value=value) for n, value in enumerate(values))
    finding = judge_last(NightSeries(name="x", nights=nights))

    assert finding.series == "x"
    assert finding.state in FigureState
