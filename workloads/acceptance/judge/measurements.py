"""A figure with what it is held against, and its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..base.robust_stats import median
from .limits import Bounds

PASS, WARN, FAIL, INVALID = "pass", "warn", "fail", "invalid"
NOT_RUN, NOT_GATED = "not-run", "not-gated"
VERDICTS = (PASS, WARN, FAIL, INVALID, NOT_RUN, NOT_GATED)
# Figures less than this above their gate are worth a look.
WARN_BAND = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """What a figure is called, and in which unit it is."""

    id: str
    section: str
    title: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Name):
    """One quantity over all that measured it (GPUs, nodes, pairs): ``value`` is their median.

    The gate holds for the worst of them, the limit for the best. ``missing``: this machine should
    have given the figure and did not, which never passes.
    """

    verdict: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    count: int = 0
    worst: str = ""
    limit: float | None = None
    limit_source: str = ""
    best: float | None = None
    best_source: str = ""
    gate: float | None = None
    gate_source: str = ""
    reason: str = ""
    protocol: str = ""
    missing: bool = False

    @property
    def of_limit(self) -> float | None:
        return _share(self.value, self.limit)

    @property
    def of_best(self) -> float | None:
        return _share(self.value, self.best)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "of_limit": self.of_limit, "of_best": self.of_best}


def measured(
    name: Name, values: Mapping[str, float], bounds: Bounds, *, protocol: str = "", note: str = ""
) -> Measurement:
    """A figure from ``values``, by the name of who measured each."""
    verdict, reason = judge(list(values.values()), bounds)
    finite = {who: value for who, value in values.items() if math.isfinite(value)}
    return Measurement(
        **asdict(name),
        verdict=verdict,
        value=median(list(finite.values())) if finite else None,
        low=min(finite.values(), default=None),
        high=max(finite.values(), default=None),
        count=len(finite),
        worst=min(finite, key=lambda who: finite[who], default=""),
        limit=bounds.limit.value if bounds.limit else None,
        limit_source=bounds.limit.source if bounds.limit else "",
        best=bounds.best.value if bounds.best else None,
        best_source=bounds.best.source if bounds.best else "",
        gate=bounds.gate.value if bounds.gate else None,
        gate_source=bounds.gate.source if bounds.gate else "",
        reason="; ".join(text for text in (reason, note) if text),
        protocol=protocol,
    )


def not_run(name: Name, reason: str, *, missing: bool = False) -> Measurement:
    """A figure that was not measured: ``missing`` if it should have been."""
    return Measurement(**asdict(name), verdict=NOT_RUN, reason=reason, missing=missing)


def checked(name: Name, wrong: int, of: int, *, reason: str = "") -> Measurement:
    """A count of wrong results, of which there must be none; no checks at all are no pass."""
    if not of:
        return not_run(name, reason or "nothing was checked", missing=True)
    return Measurement(
        **asdict(name),
        verdict=FAIL if wrong else PASS,
        value=float(wrong),
        low=float(wrong),
        high=float(wrong),
        count=of,
        gate=0.0,
        gate_source="a wrong result fails whatever the speed",
        reason=reason,
    )


def judge(values: Sequence[float], bounds: Bounds) -> tuple[str, str]:
    """The verdict on values of which more is better, and why."""
    if not values:
        return NOT_RUN, "not measured"
    if not all(math.isfinite(value) and value > 0 for value in values):
        return INVALID, "a value is not a positive number"
    if bounds.limit and max(values) > bounds.limit.value:
        return INVALID, "above the limit: the benchmark is wrong"
    if bounds.gate is None:
        return NOT_GATED, bounds.why_no_gate
    lowest = min(values)
    if lowest < bounds.gate.value:
        return FAIL, "below the gate"
    if lowest < bounds.gate.value * (1 + WARN_BAND):
        return WARN, f"less than {WARN_BAND:.0%} above the gate"
    return PASS, ""


def overall_verdict(measurements: Sequence[Measurement], *, gpu: bool) -> tuple[str, str]:
    """The verdict on the machines, and one line that says it."""
    counts = {verdict: sum(f.verdict == verdict for f in measurements) for verdict in VERDICTS}
    missing = sum(measurement.missing for measurement in measurements)
    bad = {"fail": counts[FAIL], "invalid": counts[INVALID], "missing": missing}
    problems = ", ".join(f"{count} {what}" for what, count in bad.items() if count)
    if problems:
        return FAIL, f"FAILED: {problems} of {len(measurements)} figures"
    if not gpu:
        return NOT_GATED, "not gated: no GPU; results are right"
    if not counts[PASS] + counts[WARN]:
        return NOT_GATED, "not gated: no figure has a gate here"
    if counts[WARN]:
        return WARN, f"passed, {counts[WARN]} figures close to their gates"
    return PASS, f"passed: {counts[PASS]} figures, {counts[NOT_GATED]} without a gate"


def _share(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None
