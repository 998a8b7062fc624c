"""Figures of the host that feeds a GPU, and of ranks at work together. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

from ..base.robust_stats import median
from .evidence import Evidence, per_rank
from .limits import Bounds
from .measurements import FAIL, NOT_GATED, PASS, WARN, Measurement, Name, measured, not_run

TOGETHER = "together"
LAUNCHES = "20 rounds of 1000 launches by one thread; median"
OVERLAP = "an all-reduce beside products of its length; 10 repeats, slowest rank, median"
LATENESS = "50 steps of equal products; behind the first rank of each step; median"
# Bounds of Google's straggler detection (cluster-health-scanner): 4, 8 and 16 ms.
LATE_MS, TOO_LATE_MS = 4.0, 16.0
STRAGGLERS = "Google cluster-health-scanner: stragglers from 4 ms, grave ones from 16 ms"


def concurrency_measurements(evidence: Evidence) -> Iterator[Measurement]:
    """Launches, overlap, lateness: without public gates but for the last."""
    yield _ungated(
        evidence,
        Name(id="launches", section=TOGETHER, title="kernel launches", unit="k/s"),
        ("launches", "k_per_s"),
        LAUNCHES,
    )
    yield _ungated(
        evidence,
        Name(id="overlap", section=TOGETHER, title="communication hidden", unit="of it"),
        ("together", "hidden"),
        OVERLAP,
    )
    yield _lateness(evidence)


def _ungated(evidence: Evidence, name: Name, where: tuple[str, str], protocol: str) -> Measurement:
    values, reason, missing = per_rank(evidence, *where)
    if missing or not values:
        return not_run(name, reason or "not measured", missing=missing)
    why = "not gated: no public figure" if evidence.gpu else "not gated: no GPU"
    if where[1] == "hidden":  # none at all is a figure, and no fault of the measurement
        return _plain(name, values, NOT_GATED, why, protocol)
    return measured(name, values, Bounds(why_no_gate=why), protocol=protocol)


def _lateness(evidence: Evidence) -> Measurement:
    name = Name(id="lateness", section=TOGETHER, title="lateness of a rank", unit="ms")
    values, reason, missing = per_rank(evidence, "together", "late_ms")
    if missing or not values:
        return not_run(name, reason or "not measured", missing=missing)
    if not evidence.gpu:
        return _plain(name, values, NOT_GATED, "not gated: no GPU", LATENESS, highest=True)
    latest = max(values.values())
    verdict = FAIL if latest >= TOO_LATE_MS else WARN if latest >= LATE_MS else PASS
    found = _plain(name, values, verdict, "", LATENESS, highest=True)
    return replace(found, gate=TOO_LATE_MS, gate_source=STRAGGLERS)


def _plain(
    name: Name,
    values: dict[str, float],
    verdict: str,
    reason: str,
    protocol: str,
    *,
    highest: bool = False,
) -> Measurement:
    """``highest``: less is better, so that the highest is the worst."""
    worst = max if highest else min
    return Measurement(
        **asdict(name),
        verdict=verdict,
        value=median(list(values.values())),
        low=min(values.values()),
        high=max(values.values()),
        count=len(values),
        worst=worst(values, key=lambda who: values[who]),
        reason=reason,
        protocol=protocol,
    )
