"""The sections of the run's report: verdict, percentiles, time lines, rates. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..judge.evaluation import Moment, StageResult, cut_short, headline
from ..judge.percentiles import percentile
from ..judge.summary import PERCENTS, Spread
from ..load.settings import Settings

NAMES = {
    "ttft": "TTFT",
    "itl": "ITL",
    "tpot": "TPOT",
    "ntpot": "NTPOT",
    "request_latency": "request latency",
}


def report_sections(results: Sequence[StageResult], settings: Settings) -> dict[str, Any]:
    """The document that orchestrate draws."""
    chosen = headline(results)
    sections = [_verdict(chosen, cut_short(results)), _load_tiles(chosen)]
    if chosen.measured and chosen.summary.completed:
        sections += [_percentiles(chosen, settings), _distribution(chosen)]
    sections += _timelines(chosen)
    if len(results) > 1:
        sections += [_rates_table(results), *_rate_lines(results)]
    return {"schema_version": 1, "sections": sections}


def _verdict(result: StageResult, stopped: str) -> dict[str, Any]:
    if not result.measured:
        return _bad_verdict("INVALID, so no latencies: " + "; ".join(result.reasons))
    if stopped:
        return _bad_verdict(f"INVALID: {stopped}; all figures are of what was sent until then")
    rate = f"{result.rate:.4g} requests/s" if result.rate else f"{result.concurrency} streams"
    text = f"valid: {rate} as configured, p99 {_ms(result.summary.lag(99))} behind the schedule"
    failed = {"tone": "bad"} if result.failure else {"tone": "good"}
    text += f"; {result.failure}" if result.failure else ""
    return {"kind": "text", "title": "Load", "text": text, "terminal": True, **failed}


def _bad_verdict(text: str) -> dict[str, Any]:
    return {"kind": "text", "title": "Load", "text": text, "tone": "bad", "terminal": True}


def _load_tiles(result: StageResult) -> dict[str, Any]:
    summary, rates = result.summary, result.summary.rates()
    tiles = [
        _tile("delivered", result.delivered_rate, "requests/s"),
        _tile("client's ceiling", result.ceiling, "requests/s"),
        _tile("failed", summary.failed, "requests") | ({"tone": "bad"} if summary.failed else {}),
    ]
    if result.measured:
        tiles.append(_tile("goodput", rates.goodput, "requests/s"))
        tiles.append(_tile("output", rates.output_tokens, "tok/s"))
    return {"kind": "tiles", "tiles": tiles}


def _tile(label: str, value: float, unit: str) -> dict[str, str]:
    return {"label": label, "value": f"{value:.4g}", "unit": unit}


def _percentiles(result: StageResult, settings: Settings) -> dict[str, Any]:
    heads = [f"p{percent:g}" for percent in PERCENTS]
    return {
        "kind": "table",
        "title": "Latencies",
        "columns": [
            {"name": ""},
            *({"name": head, "right": True} for head in ("mean", *heads)),
            {"name": "certified p99", "right": True},
        ],
        "rows": [list(map(_cell, _latency_row(spread))) for spread in result.summary.spreads()],
        "note": f"definitions: {settings.definitions}. Certified: with a confidence of 99 % the "
        "true percentile is not above it (MLPerf's early stopping); it needs 662 requests.",
        "terminal": True,
    }


def _latency_row(spread: Spread) -> Iterator[str]:
    yield NAMES[spread.name]
    yield _ms(spread.mean)
    for each in spread.percentiles:
        yield _ms(each.value)
    p99 = next(each for each in spread.percentiles if each.percent == 99)
    if p99.needs is None:
        yield "-"
    else:
        yield _ms(p99.certified) if p99.certified is not None else f"{spread.count} of {p99.needs}"


def _cell(text: str) -> dict[str, str]:
    return {"text": text}


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.4g} ms"


def _distribution(result: StageResult) -> dict[str, Any]:
    """Each latency over its percentiles: where its tail begins."""
    series = [
        {
            "label": NAMES[name],
            "points": [
                [float(percent), percentile(values, percent)]
                for percent in (*range(0, 100, 2), 99, 99.9, 100)
            ],
        }
        for name, values in result.summary.ordered().items()
        if name in {"ttft", "request_latency"}
    ]
    return {
        "kind": "lines",
        "title": "Latency over percentile",
        "x": {"label": "percentile", "unit": "%"},
        "y": {"label": "latency", "unit": "s", "log": True},
        "series": series,
    }


def _timelines(result: StageResult) -> Iterator[dict[str, Any]]:
    width_s = result.timeline.width_s
    moments = sorted(result.timeline.moments.items())
    requests = {
        "sent": [[at * width_s, m.sent / width_s] for at, m in moments],
        "succeeded": [[at * width_s, m.completed / width_s] for at, m in moments],
        "failed": [[at * width_s, m.failed / width_s] for at, m in moments if m.failed],
    }
    yield _over_time("Requests over time of their schedule", "requests", "requests/s", requests)
    tokens = [[at * width_s, moment.output_tokens / width_s] for at, moment in moments]
    yield _over_time("Output over time", "tokens", "tok/s", {"output": tokens})
    if result.valid:
        answered = [(at * width_s, moment) for at, moment in moments if moment.completed]
        means = {
            "TTFT": [[at_s, _mean(m.ttft_s, m)] for at_s, m in answered],
            "request latency": [[at_s, _mean(m.latency_s, m)] for at_s, m in answered],
        }
        yield _over_time("Mean latency over time of the schedule", "latency", "s", means)


def _mean(total: float, moment: Moment) -> float:
    return total / moment.completed


def _over_time(
    title: str, label: str, unit: str, series: dict[str, list[list[float]]]
) -> dict[str, Any]:
    return {
        "kind": "lines",
        "title": title,
        "x": {"label": "time", "unit": "s", "from_zero": True},
        "y": {"label": label, "unit": unit, "from_zero": True},
        "series": [{"label": name, "points": points} for name, points in series.items() if points],
    }


def _rates_table(results: Sequence[StageResult]) -> dict[str, Any]:
    columns = ["requests/s", "delivered", "valid", "good", "TTFT p50", "TTFT p99", "output tok/s"]
    return {
        "kind": "table",
        "title": "Rates",
        "columns": [{"name": name, "right": True} for name in columns],
        "rows": [[_cell(text) for text in _rate_row(result)] for result in results],
        "note": "good: part of all requests that met every objective",
        "terminal": True,
    }


def _rate_row(result: StageResult) -> Iterator[str]:
    summary = result.summary
    ttft = next((s for s in summary.spreads() if s.name == "ttft"), None) if result.valid else None
    yield f"{result.rate:.4g}" if result.rate else "-"
    yield f"{result.delivered_rate:.4g}"
    yield "yes" if result.valid else "no"
    yield f"{summary.good_fraction:.1%}"
    yield _ms(ttft.at(50)) if ttft else "-"
    yield _ms(ttft.at(99)) if ttft else "-"
    yield f"{summary.rates().output_tokens:.4g}" if result.valid else "-"


def _rate_lines(results: Sequence[StageResult]) -> Iterator[dict[str, Any]]:
    """Latency and throughput over the rate, of what was valid."""
    valid = sorted((r for r in results if r.valid and r.rate), key=lambda r: r.rate or 0.0)
    if len(valid) < 2:
        return
    spreads = [(r.rate, {s.name: s for s in r.summary.spreads()}) for r in valid]
    latencies = {
        f"TTFT p{percent}": [[rate, found["ttft"].at(percent)] for rate, found in spreads]
        for percent in (50, 99)
    }
    yield _over_rate("Latency over rate", "latency", "s", latencies)
    tokens = [[r.rate, r.summary.rates().output_tokens] for r in valid]
    yield _over_rate("Output over rate", "output", "tok/s", {"output": tokens})


def _over_rate(title: str, label: str, unit: str, series: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "lines",
        "title": title,
        "x": {"label": "rate", "unit": "requests/s"},
        "y": {"label": label, "unit": unit},
        "series": [{"label": name, "points": points} for name, points in series.items()],
    }
