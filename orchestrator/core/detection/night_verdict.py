"""All figures of a night judged together, against one error budget. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.detection.maximum_null import MIN_NIGHTS
from orchestrator.core.detection.night_series import (
    Acknowledgement,
    FigureFinding,
    FigureState,
    KnownChange,
    NightFigure,
    NightSeries,
    Suspect,
)
from orchestrator.core.detection.split_scan import Split, find_split, robust_sigma
from orchestrator.core.detection.whitening import median_of
from orchestrator.core.history.statistics import holm_adjust
from orchestrator.core.model.workload import Direction

# On so many quiet nights a change may seem proven, over all series together. Each lasts for some
# nights and is reported on the first of them: one night in 30 is promised, and was counted
# (docs/benchmarks.md).
NIGHT_BUDGET = 1 / 20
WORSE_SHARE = 0.9  # of it for regressions, the rest for improvements
SUSPICIOUS_P = 0.002  # of one series: measure again
SPIKE_SIGMAS = 4.0
MIN_CHANGE = 0.005  # a smaller one is real at times and matters to no one
RECOVERED_NIGHTS = 3
KEY_GONE = "absent"


@dataclass(frozen=True, slots=True)
class _Segment:
    """The nights that tonight is compared with, and why none before them is."""

    nights: tuple[NightFigure, ...]
    why: str

    @property
    def values(self) -> list[float]:
        return [night.value for night in self.nights if night.value is not None]


def judge_night(
    series: Sequence[NightSeries],
    night: str,
    *,
    known: Iterable[KnownChange] = (),
    acknowledged: Iterable[Acknowledgement] = (),
    budget: float = NIGHT_BUDGET,
) -> tuple[FigureFinding, ...]:
    """One finding for each of ``series``, for ``night`` (a local date).

    Changes are decided by Holm's step-down procedure over all series that have enough nights: the
    probability that a night without any change raises an alarm is at most ``budget`` where nights
    do not depend on each other, and little more where they do (docs/benchmarks.md). ``known``: what
    earlier nights found, so that each change is reported once as new.
    """
    changes, accepted = list(known), list(acknowledged)
    segments = {each.name: _segment(each, night, changes) for each in series}
    splits = {
        each.name: split
        for each in series
        if _tonight(each, night) is not None
        and (split := find_split(segments[each.name].values, _falls(each.direction))) is not None
    }
    proven = holm_rejections({name: split.p_value for name, split in splits.items()}, budget)
    findings = (
        _finding(each, night, segments[each.name], splits.get(each.name), each.name in proven)
        for each in series
    )
    return tuple(
        _with_history(
            finding,
            _latest_change(finding.series, changes, night),
            segments[finding.series],
            next((a for a in accepted if a.covers(finding.series, night)), None),
        )
        for finding in findings
    )


def _falls(direction: Direction) -> float:
    """Which share of the error budget is spent on falls: most of it on the worse side."""
    worse = {Direction.HIGHER: WORSE_SHARE, Direction.LOWER: 1 - WORSE_SHARE}
    return worse.get(direction, 0.5)


def _latest_change(series: str, changes: Sequence[KnownChange], night: str) -> KnownChange | None:
    return max(
        (c for c in changes if c.series == series and c.first_night <= night),
        key=lambda change: change.first_night,
        default=None,
    )


def holm_rejections(p_values: Mapping[str, float], budget: float) -> frozenset[str]:
    """The names whose p-values are small enough for all of them together (Holm 1979)."""
    adjusted = zip(p_values, holm_adjust(list(p_values.values())), strict=True)
    return frozenset(name for name, p_value in adjusted if p_value <= budget)


def known_changes(findings: Iterable[FigureFinding]) -> tuple[KnownChange, ...]:
    """What later nights must be given of ``findings``."""
    return tuple(
        KnownChange(
            series=each.series,
            first_night=each.first_bad,
            state=each.state,
            before=each.before,
            since=each.since,
        )
        for each in findings
        if each.new
    )


def _tonight(series: NightSeries, night: str) -> NightFigure | None:
    """Tonight's figure if it counts."""
    last = _figure_of(series, night)
    return last if last is not None and last.counts else None


def _figure_of(series: NightSeries, night: str) -> NightFigure | None:
    return next((each for each in reversed(series.nights) if each.night == night), None)


def _segment(series: NightSeries, night: str, changes: Sequence[KnownChange]) -> _Segment:
    """The latest nights up to ``night`` with one key and, as far as is known, one level."""
    counted = [each for each in series.nights if each.counts and each.night <= night]
    levels = {c.first_night: c.state for c in changes if c.series == series.name}
    taken: list[NightFigure] = []
    for each in reversed(counted):
        if taken and each.key != taken[-1].key:
            differing = ", ".join(
                f"{s.what} {s.good} -> {s.bad}" for s in _key_suspects(each, taken[-1])
            )
            return _Segment(
                tuple(reversed(taken)), f"another key since {taken[-1].night}: {differing}"
            )
        taken.append(each)
        if each.night in levels:
            why = f"another level since {each.night}: {levels[each.night].value}"
            return _Segment(tuple(reversed(taken)), why)
    return _Segment(tuple(reversed(taken)), "")


def _key_suspects(good: NightFigure, bad: NightFigure) -> tuple[Suspect, ...]:
    names = sorted({*good.key, *bad.key})
    pairs = ((n, good.key.get(n, KEY_GONE), bad.key.get(n, KEY_GONE)) for n in names)
    return tuple(Suspect(what=n, good=a, bad=b) for n, a, b in pairs if a != b)


def _finding(
    series: NightSeries, night: str, segment: _Segment, split: Split | None, proven: bool
) -> FigureFinding:
    blank = FigureFinding(
        series=series.name,
        state=FigureState.NO_CHANGE,
        unit=series.unit,
        segment=segment.nights[0].night if segment.nights else "",
        segment_why=segment.why,
    )
    tonight = _figure_of(series, night)
    if tonight is None or (tonight.value is None and not tonight.invalid):
        return replace(blank, state=FigureState.MISSING, reason="not reported tonight")
    if not tonight.counts:
        why = tonight.invalid or "not a finite number"
        return replace(blank, state=FigureState.INVALID, value=tonight.value, reason=why)
    measured = replace(blank, value=tonight.value, spike=_is_spike(segment.values))
    if split is None:
        reason = f"{len(segment.nights)} comparable nights of the {MIN_NIGHTS} that a test needs"
        return replace(measured, state=FigureState.INSUFFICIENT_DATA, reason=reason)
    return _judged(measured, series.direction, segment, split, proven)


def _judged(
    measured: FigureFinding, direction: Direction, segment: _Segment, split: Split, proven: bool
) -> FigureFinding:
    change = split.shift / abs(split.before) if split.before else None
    matters = change is None or abs(change) >= MIN_CHANGE
    tested = replace(measured, before=split.before, since=split.since, p_value=split.p_value)
    if proven and matters:
        good, bad = segment.nights[-split.new_nights - 1], segment.nights[-split.new_nights]
        state = _direction_state(split.shift, direction)
        return replace(
            tested,
            state=state,
            new=state is not FigureState.SUSPICIOUS,
            change=change,
            last_good=good.night,
            first_bad=bad.night,
            suspects=_suspects(good, bad),
            reason="" if direction is not Direction.INFO else "no better direction is declared",
        )
    if matters and split.p_value <= SUSPICIOUS_P:
        reason = f"p = {split.p_value:.2g} alone, not enough among all figures of the night"
        return replace(tested, state=FigureState.SUSPICIOUS, change=change, reason=reason)
    if measured.spike:
        reason = "tonight lies far off: a spike, unless it lasts"
        return replace(tested, state=FigureState.SUSPICIOUS, reason=reason)
    return tested


def _direction_state(shift: float, direction: Direction) -> FigureState:
    if direction is Direction.INFO:
        return FigureState.SUSPICIOUS
    better = (shift > 0) == (direction is Direction.HIGHER)
    return FigureState.IMPROVEMENT if better else FigureState.REGRESSION


def _suspects(good: NightFigure, bad: NightFigure) -> tuple[Suspect, ...]:
    """What may have caused the change: within one segment the key is the same, the code may not."""
    if good.code == bad.code:
        return ()
    return (Suspect(what="code", good=good.code or KEY_GONE, bad=bad.code or KEY_GONE),)


def _is_spike(values: Sequence[float]) -> bool:
    """Whether the last value lies far off the others, in robust standard deviations."""
    *before, last = values
    if len(before) < MIN_NIGHTS // 2:
        return False
    off = abs(last - median_of(before))
    return off > max(SPIKE_SIGMAS * robust_sigma(before), MIN_CHANGE * abs(median_of(before)))


def _with_history(
    finding: FigureFinding,
    latest: KnownChange | None,
    segment: _Segment,
    acknowledged: Acknowledgement | None,
) -> FigureFinding:
    """``finding`` beside the ``latest`` change of its segment, and what people accepted."""
    lasting = {FigureState.NO_CHANGE, FigureState.INSUFFICIENT_DATA}
    if (
        latest is not None
        and latest.state is FigureState.REGRESSION
        and latest.first_night == finding.segment
        and finding.state in lasting
    ):
        finding = _lasting(finding, latest, segment)
    return replace(finding, acknowledged=acknowledged)


def _lasting(finding: FigureFinding, latest: KnownChange, segment: _Segment) -> FigureFinding:
    """A regression lasts until a test, or its latest nights, say that the old level is back."""
    recent = segment.nights[-RECOVERED_NIGHTS:]
    if len(segment.nights) <= RECOVERED_NIGHTS or not all(_is_back(n, latest) for n in recent):
        return replace(
            finding,
            state=FigureState.REGRESSION,
            first_bad=latest.first_night,
            reason=f"lasts since {latest.first_night}",
        )
    return replace(
        finding,
        state=FigureState.IMPROVEMENT,
        new=True,
        before=latest.since,
        since=latest.before,
        first_bad=recent[0].night,
        reason=f"as before {latest.first_night} again",
    )


def _is_back(night: NightFigure, change: KnownChange) -> bool:
    """Whether the night's value is nearer to the level before ``change`` than to that since."""
    if night.value is None or change.before is None or change.since is None:
        return False
    return abs(night.value - change.before) < abs(night.value - change.since)
