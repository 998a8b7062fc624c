"""The figures of a schedule's nights, one series each, and what is said of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.model.workload import Direction


class FigureState(StrEnum):
    """What tonight says of one figure. Only ``no-change`` and ``improvement`` are good news."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    SUSPICIOUS = "suspicious"  # unlikely to be chance, but not beyond the night's error budget
    NO_CHANGE = "no-change"
    INSUFFICIENT_DATA = "insufficient-data"
    MISSING = "missing"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class NightFigure:
    """One figure of one night. ``night``: the local date, ``2026-11-30``.

    ``value``: None = the run did not report it. ``invalid``: why the value does not count; empty =
    it does. ``key``: what must be alike for two nights to be compared. ``code``: what was run: a
    commit, or a digest of the code.
    """

    night: str
    value: float | None
    invalid: str = ""
    key: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    run_id: str = ""

    @property
    def counts(self) -> bool:
        return not self.invalid and self.value is not None and math.isfinite(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class NightSeries:
    """A figure over nights, oldest first. ``name`` is unique among the series of a night."""

    name: str
    unit: str = ""
    direction: Direction = Direction.INFO
    nights: tuple[NightFigure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownChange:
    """A change that an earlier night found: a new level began with ``first_night``. ``before`` and
    ``since``: medians of the two levels.
    """

    series: str
    first_night: str
    state: FigureState
    before: float | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """``series`` (``*`` at its end: all that begin so) is accepted until ``expires``, a date."""

    series: str
    expires: str
    reason: str

    def covers(self, series: str, night: str) -> bool:
        """Whether it holds for ``series`` on ``night``; on the day of its expiry it does not."""
        named = self.series
        fits = series.startswith(named[:-1]) if named.endswith("*") else series == named
        return fits and night < self.expires


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """What differs between the last good night and the first bad one: ``what`` is ``code`` or a
    part of the comparison key.
    """

    what: str
    good: str
    bad: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureFinding:
    """What tonight says of one series.

    ``new``: found tonight, not on an earlier night. ``before``, ``since``: medians on both sides of
    the best split; ``change``: relative to the one before, None where that is 0 or nothing changed.
    ``first_bad``: the first night of the new level, good or bad. ``spike``: tonight's value lies
    far off its series, which is an event and not a change. ``segment``: the first night that
    tonight is compared with, and ``segment_why``: what changed then.
    """

    series: str
    state: FigureState
    new: bool = False
    value: float | None = None
    unit: str = ""
    before: float | None = None
    since: float | None = None
    change: float | None = None
    p_value: float | None = None
    last_good: str = ""
    first_bad: str = ""
    suspects: tuple[Suspect, ...] = ()
    spike: bool = False
    segment: str = ""
    segment_why: str = ""
    acknowledged: Acknowledgement | None = None
    reason: str = ""

    @property
    def alarms(self) -> bool:
        """Whether people are to be woken: missing and invalid figures alarm, too."""
        bad = {FigureState.REGRESSION, FigureState.MISSING, FigureState.INVALID}
        return self.state in bad and self.acknowledged is None
