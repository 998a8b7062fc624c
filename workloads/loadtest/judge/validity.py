"""Was the load what was asked for, and was it the server that was measured? Reasons if not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..base.stages import Saturation
from .backlog import Backlog
from .summary import Summary

# The client must have as much in reserve as it uses, or it measures itself.
LARGEST_PART_OF_CEILING = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the load may be off by."""

    rate_tolerance: float
    lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadEvidence:
    """What was asked for, and what the client can do.

    ``rate``: configured, all senders together; None for a closed loop.
    ``ceiling``: streamed requests per second that the senders together reach against a server that
    does nothing. ``backlog``: of a whole schedule with one rate. ``whole``: it was sent to its end.
    ``cut_short``: it was not, because the load was stopped. ``failure``: what ended it.
    """

    rate: float | None
    ceiling: float
    saturation: Saturation | None = None
    backlog: Backlog | None = None
    whole: bool = True
    cut_short: str = ""
    failure: str = ""


def invalid_reasons(summary: Summary, evidence: LoadEvidence, bounds: Bounds) -> list[str]:
    """Why the figures are not those of the load that was configured; empty = they are."""
    return list(_reasons(summary, evidence, bounds))


def _reasons(summary: Summary, evidence: LoadEvidence, bounds: Bounds) -> Iterator[str]:
    found = evidence.saturation
    if found is not None:
        yield (
            f"over-saturated after {found.at_s:.0f} s: {found.rate:.4g} requests/s arrive, "
            f"{summary.rates().requests:.4g} are completed, so latencies only grow; ask for less, "
            "or search for the highest rate with --set arrival=search"
        )
    if evidence.cut_short:
        yield evidence.cut_short
    if evidence.failure:
        yield f"the load did not come to its end: {evidence.failure}"
    if not summary.lags_s:
        yield "no request was sent"
        return
    if not summary.completed:
        yield f"no request succeeded: {summary.failures.cause if summary.failed else 'none ended'}"
    if evidence.whole:
        yield from _rate_reasons(summary, evidence, bounds)
        yield from _backlog_reasons(evidence)
    yield from _client_reasons(summary, evidence, bounds)


def _rate_reasons(summary: Summary, evidence: LoadEvidence, bounds: Bounds) -> Iterator[str]:
    if evidence.rate is None:
        return
    delivered = summary.delivered_rate
    if abs(delivered / evidence.rate - 1) > bounds.rate_tolerance:
        yield (
            f"delivered {delivered:.4g} requests/s, configured {evidence.rate:.4g}: off by more "
            f"than {bounds.rate_tolerance:.3g} of it"
        )


def _backlog_reasons(evidence: LoadEvidence) -> Iterator[str]:
    backlog = evidence.backlog
    if backlog is not None and evidence.saturation is None and not backlog.keeps_up:
        yield (
            f"too short to tell whether the server keeps up: {backlog.text}; give it a longer "
            "--set duration"
        )


def _client_reasons(summary: Summary, evidence: LoadEvidence, bounds: Bounds) -> Iterator[str]:
    rate = summary.delivered_rate
    if rate > evidence.ceiling * LARGEST_PART_OF_CEILING:
        yield (
            f"{rate:.4g} requests/s are more than half of what this client reaches against a "
            f"server that does nothing, {evidence.ceiling:.4g}: give it more --set processes"
        )
    lag = summary.lag(99)
    if evidence.rate is not None and lag is not None and lag > bounds.lag_s:
        yield (
            f"requests were sent late: p99 {lag * 1e3:.3g} ms behind their schedule, the bound is "
            f"{bounds.lag_s * 1e3:.3g} ms; the machine of the client is too busy"
        )
