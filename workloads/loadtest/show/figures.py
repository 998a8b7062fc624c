"""The metrics of a run: names as workload.yaml declares them, units, values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..judge.evaluation import StageResult, cut_short, headline, trials
from ..judge.rate_search import best_rate
from ..judge.summary import Spread

# What looks for the highest rate that meets the objectives.
RATES = {"search", "sweep"}
FULL = {"ttft", "request_latency"}
OF_A_NODE = {
    "delivered_rate",
    "client_ceiling",
    "schedule_lag_p99",
    "failed_requests",
    "requests_per_s",
    "output_tokens_per_s",
    "ttft_p50",
    "ttft_p99",
}
Figure = tuple[str, float, str]


def figures(results: Sequence[StageResult], arrival: str) -> Iterator[Figure]:
    """(name, value, unit). Of an invalid load only what says why: its latencies are none. One that
    was stopped has those of the part that was sent, and no highest rate.
    """
    chosen, stopped = headline(results), cut_short(results)
    yield "load_valid", float(chosen.valid and not stopped), ""
    yield from _load_figures(chosen)
    if chosen.measured:
        yield from _server_figures(chosen)
    if arrival in RATES and not stopped and (rate := best_rate(trials(results))) is not None:
        yield "highest_rate", rate, "requests/s"


def _load_figures(result: StageResult) -> Iterator[Figure]:
    summary = result.summary
    yield "delivered_rate", result.delivered_rate, "requests/s"
    yield "client_ceiling", result.ceiling, "requests/s"
    yield "failed_requests", float(summary.failed), "requests"
    yield "completed_requests", float(summary.completed), "requests"
    for percent in (50, 99):
        if (lag := summary.lag(percent)) is not None:
            yield f"schedule_lag_p{percent}", lag, "s"


def _server_figures(result: StageResult) -> Iterator[Figure]:
    rates = result.summary.rates()
    yield "goodput", rates.goodput, "requests/s"
    yield "good_fraction", result.summary.good_fraction, "fraction"
    yield "requests_per_s", rates.requests, "requests/s"
    yield "output_tokens_per_s", rates.output_tokens, "tok/s"
    yield "total_tokens_per_s", rates.total_tokens, "tok/s"
    for spread in result.summary.spreads():
        yield from _spread_figures(spread)


def _spread_figures(spread: Spread) -> Iterator[Figure]:
    """Every percentile of what users feel, median and tail of the rest: loadtest.json has all."""
    full = spread.name in FULL
    for each in spread.percentiles:
        if not full and each.percent not in {50, 99}:
            continue
        name = f"{spread.name}_p{each.percent:g}".replace(".", "_")
        yield name, each.value, "s"
        if full and each.certified is not None:
            yield f"{name}_certified", each.certified, "s"


def node_figures(results: Sequence[StageResult], node: str) -> Iterator[Figure]:
    """What one of several nodes did, under its name."""
    for name, value, unit in figures(results, ""):
        if name in OF_A_NODE:
            yield f"{name}.{node}", value, unit
