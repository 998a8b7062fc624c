"""The test's part of the run's report: its words and tables, with :mod:`.charts` between. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..judge import scaling
from ..judge.evidence import Evidence, training_rungs
from ..judge.health_measurements import HEALTH
from ..judge.measurements import FAIL, INVALID, NOT_GATED, NOT_RUN, PASS, WARN, Measurement
from ..judge.outliers import find_outliers
from ..judge.sweeps import merged_sweeps
from ..measure.gpu_health import reasons
from .charts import (
    Section,
    bandwidth_charts,
    number_text,
    pair_charts,
    scaling_charts,
    spread_charts,
    telemetry_charts,
)

TONES = {PASS: "good", WARN: "odd", FAIL: "bad", INVALID: "bad", NOT_RUN: "soft", NOT_GATED: "soft"}
WORDS = {NOT_RUN: "not run", NOT_GATED: "no gate"}
COLUMNS = ("figure", "value", "range", "of limit", "of best", "gate", "verdict", "note")
NUMBERS = {"value", "of limit", "of best", "gate"}
MAX_ROWS = 400


def report(
    evidence: Evidence, measurements: Sequence[Measurement], verdict: tuple[str, str]
) -> Section:
    """The whole document."""
    sections = [
        *_words(evidence, measurements, verdict),
        *_tiles(measurements),
        _measurement_table(measurements),
        *_check_table(measurements),
        *_outlier_table(evidence),
        *scaling_charts(evidence),
        *bandwidth_charts(evidence, measurements),
        *pair_charts(evidence, measurements),
        *spread_charts(evidence),
        *telemetry_charts(evidence),
        *_details(evidence, measurements),
    ]
    return {"schema_version": 1, "sections": sections}


def table_lines(measurements: Sequence[Measurement]) -> list[str]:
    """The figures as plain aligned text."""
    rows = [
        list(COLUMNS),
        *([cell for cell, _ in _cells(one)] for one in measurements),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _words(
    evidence: Evidence, measurements: Sequence[Measurement], verdict: tuple[str, str]
) -> Iterator[Section]:
    ranks = len(evidence.parts)
    gpus = f"{ranks} x {evidence.gpu}" if evidence.gpu else f"{ranks} ranks"
    where = f"{len(evidence.nodes)} nodes" if len(evidence.nodes) > 1 else "one node"
    yield {
        "kind": "text",
        "title": "Acceptance",
        "tone": {PASS: "good", WARN: "odd", FAIL: "bad"}.get(verdict[0], ""),
        "text": f"{verdict[1]}. {gpus} on {where}.",
        "terminal": True,
    }
    if loud := scaling.loud(training_rungs(evidence)):
        yield {
            "kind": "text",
            "title": "More nodes, less speed",
            "tone": "bad",
            "text": loud if evidence.gpu else f"{loud} (not gated: no GPU)",
            "terminal": True,
        }
    bad = [
        measurement
        for measurement in measurements
        if measurement.verdict in {FAIL, INVALID} or measurement.missing
    ]
    if bad:
        complaints = "; ".join(_complaint(one) for one in bad[:20])
        yield {"kind": "text", "title": "What failed", "tone": "bad", "text": complaints[:4000]}


def _complaint(measurement: Measurement) -> str:
    """The figure, the worst of what was measured, and the gate it missed."""
    who = (
        f" ({measurement.worst}: {number_text(measurement.low)})"
        if measurement.worst and measurement.count > 1
        else ""
    )
    gate = "" if measurement.gate is None else f", gate {number_text(measurement.gate)}"
    return f"{measurement.title}{who}: {measurement.verdict}{gate}" + (
        f", {measurement.reason}" if measurement.missing or measurement.verdict == INVALID else ""
    )


def _tiles(measurements: Sequence[Measurement]) -> Iterator[Section]:
    """The figures that people ask for first, as far as they were measured."""
    by_id = {one.id: one for one in measurements}
    tiles = []
    for id, label in TILES.items():
        measurement = by_id.get(id)
        if measurement is not None and measurement.value is not None:
            shares = (
                (measurement.of_limit, "of the limit"),
                (measurement.of_best, "of the best public"),
            )
            parts = [f"{_percent(share)} {what}" for share, what in shares if share is not None]
            tiles.append(
                {
                    "label": label,
                    "value": number_text(measurement.value),
                    "unit": measurement.unit,
                    "text": ", ".join(
                        [WORDS.get(measurement.verdict, measurement.verdict), *parts]
                    ),
                    "tone": TONES[measurement.verdict].replace("soft", ""),
                }
            )
    if tiles:
        yield {"kind": "tiles", "tiles": tiles}


TILES = {
    "matmul-bf16": "bf16 matrix product",
    "matmul-fp8": "fp8 matrix product",
    "hbm-triad": "memory, STREAM triad",
    "p2p-copy-engine": "GPU to GPU",
    "all-reduce-node": "all-reduce inside a node",
    "all-reduce-all": "all-reduce of all nodes",
    "training-all": "training on all nodes",
    "training-node": "training on one node",
}


def _measurement_table(measurements: Sequence[Measurement]) -> Section:
    return {
        "kind": "table",
        "title": "Figures",
        "columns": [{"name": name, "right": name in NUMBERS} for name in COLUMNS],
        "rows": _rows(one for one in measurements if one.section != HEALTH),
        "note": "value: the median over GPUs, pairs or nodes; the worst must meet the gate, "
        "the best must stay below the limit",
        "terminal": True,
    }


def _check_table(measurements: Sequence[Measurement]) -> Iterator[Section]:
    """Counts of what is wrong: on a terminal only whether anything is."""
    checks = [one for one in measurements if one.section == HEALTH]
    bad = [
        measurement
        for measurement in checks
        if measurement.verdict in {FAIL, WARN} or measurement.missing
    ]
    complaints = [
        f"{measurement.title}: {number_text(measurement.value)} {measurement.reason}".strip()
        for measurement in bad
    ]
    right = sum(one.verdict == PASS for one in checks)
    absent = [
        f"{measurement.title} not run: {measurement.reason}"
        for measurement in checks
        if _absent(measurement)
    ]
    yield {
        "kind": "text",
        "title": "Results and health",
        "tone": "bad" if bad else "good",
        "text": "; ".join([f"{right} of {len(checks)} checks are right", *complaints, *absent])[
            :4000
        ],
        "terminal": True,
    }
    names = ("check", "wrong", "of", "verdict", "note")
    yield {
        "kind": "table",
        "title": "Results and health, every check",
        "columns": [{"name": name, "right": name in {"wrong", "of"}} for name in names],
        "rows": [
            [
                _cell(measurement.title),
                _cell(number_text(measurement.value)),
                _cell(f"{measurement.count:,}" if measurement.count else ""),
                _cell(
                    measurement.verdict,
                    "bad" if measurement.missing else TONES[measurement.verdict],
                ),
                _cell(measurement.reason, "soft"),
            ]
            for measurement in checks[:MAX_ROWS]
        ],
        "folded": True,
    }


def _absent(measurement: Measurement) -> bool:
    return measurement.verdict == NOT_RUN and not measurement.missing


def _rows(measurements: Iterable[Measurement]) -> list[list[dict[str, str]]]:
    rows = [[_cell(text, tone) for text, tone in _cells(one)] for one in measurements]
    return rows[:MAX_ROWS]


def _cells(measurement: Measurement) -> Iterator[tuple[str, str]]:
    """Texts and tones of a figure's row."""
    yield measurement.title, ""
    if measurement.value is None:
        yield "-", "soft"
        yield "", ""
    else:
        yield f"{number_text(measurement.value)} {measurement.unit}", ""
        several = (
            measurement.count > 1 and measurement.low is not None and measurement.high is not None
        )
        same = measurement.low == measurement.high
        yield (
            (
                f"{number_text(measurement.low)}..{number_text(measurement.high)}"
                if several and not same
                else ""
            ),
            "",
        )
    yield _percent(measurement.of_limit), ""
    yield _percent(measurement.of_best), ""
    yield ("" if measurement.gate is None else number_text(measurement.gate)), "soft"
    word = WORDS.get(measurement.verdict, measurement.verdict)
    yield word, "bad" if measurement.missing else TONES[measurement.verdict]
    yield measurement.reason.removeprefix("not gated: ").removeprefix("not gated; "), "soft"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _cell(text: str, tone: str = "") -> dict[str, str]:
    return {"text": text[:500], "tone": tone} if tone else {"text": text[:500]}


def _outlier_table(evidence: Evidence) -> Iterator[Section]:
    found = find_outliers(evidence)
    if found:
        yield {
            "kind": "table",
            "title": "Out of line",
            "columns": [{"name": name} for name in ("who", "what", "value", "from the median")],
            "rows": [
                [
                    _cell(outlier.who),
                    _cell(outlier.title),
                    _cell(f"{number_text(outlier.value)} {outlier.unit}"),
                    _cell(f"{outlier.deviation:+.1%}", "bad" if outlier.deviation < 0 else "odd"),
                ]
                for outlier in found[:MAX_ROWS]
            ],
            "note": "beyond 3.5 robust standard deviations (median absolute deviation) and 3 %",
            "terminal": True,
        }


def _details(evidence: Evidence, measurements: Sequence[Measurement]) -> Iterator[Section]:
    merged = merged_sweeps([part.get("collectives") or [] for part in evidence.parts])
    names = "collective placement ranks nodes size iterations us p50 p99 algbw busbw wrong".split()
    if merged:
        yield {
            "kind": "table",
            "title": "Collectives, every size",
            "columns": [{"name": name, "right": index > 1} for index, name in enumerate(names)],
            "rows": [[_cell(text) for text in _sweep_row(r)] for r in merged[:MAX_ROWS]],
            "note": "us, p50, p99: microseconds; p99 of the slowest rank; algbw and busbw in GB/s",
            "folded": True,
        }
    throttled = _throttling(evidence)
    if throttled:
        yield {
            "kind": "table",
            "title": "Throttling that was seen",
            "columns": [{"name": "GPU"}, {"name": "reason"}, {"name": "samples", "right": True}],
            "rows": [[_cell(text) for text in row] for row in throttled[:MAX_ROWS]],
            "folded": True,
        }
    yield {
        "kind": "table",
        "title": "Protocols and sources",
        "columns": [
            {"name": name} for name in ("figure", "protocol", "limit", "best public", "gate")
        ],
        "rows": [
            [
                _cell(measurement.title),
                _cell(measurement.protocol),
                _cell(_sourced(measurement.limit, measurement.limit_source)),
                _cell(_sourced(measurement.best, measurement.best_source)),
                _cell(_sourced(measurement.gate, measurement.gate_source)),
            ]
            for measurement in measurements[:MAX_ROWS]
        ],
        "folded": True,
    }


def _sourced(value: float | None, source: str) -> str:
    return "" if value is None else f"{number_text(value)}: {source}"


def _sweep_row(record: Mapping[str, Any]) -> list[str]:
    return [
        record["collective"],
        record["placement"],
        str(record["ranks"]),
        str(record["nodes"]),
        str(record["size"]),
        str(record["iterations"]),
        f"{record['microseconds']:.1f}",
        f"{record['p50_microseconds']:.1f}",
        f"{record['p99_microseconds']:.1f}",
        f"{record['algbw']:.4g}",
        f"{record['busbw']:.4g}",
        str(record["wrong"]),
    ]


def _throttling(evidence: Evidence) -> list[tuple[str, str, str]]:
    """How often each GPU had each reason, idling excepted."""
    counts: dict[tuple[str, str], int] = {}
    for rank, part in enumerate(evidence.parts):
        for sample in (part.get("health") or {}).get("samples", []):
            for reason in reasons(int(sample.get("throttle") or 0)):
                if reason != "idle":
                    key = (evidence.label(rank), reason)
                    counts[key] = counts.get(key, 0) + 1
    return [(who, reason, str(count)) for (who, reason), count in sorted(counts.items())]
