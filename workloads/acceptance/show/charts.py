"""What the report draws: scaling, bandwidth, pairs, spread, telemetry. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..base.bandwidth import ALL_REDUCE, COLLECTIVES
from ..base.robust_stats import median
from ..judge import scaling
from ..judge.evidence import Evidence, training_rungs
from ..judge.measurements import Measurement
from ..judge.outliers import FLOOR, comparisons, find_outliers
from ..judge.sweeps import merged_sweeps

Section = dict[str, Any]
MAX_LINES = 16
MAX_POINTS = 600


def number_text(value: float | None) -> str:
    """``1,234``, ``12.34``; nothing for what was not measured."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def scaling_charts(evidence: Evidence) -> Iterator[Section]:
    """Training on one GPU, one node, all nodes, beside what they would do by themselves."""
    rungs = training_rungs(evidence)
    if len(rungs) > 1:
        yield {
            "kind": "bars",
            "title": "Scaling: training throughput",
            "unit": "tok/s",
            "bars": [
                {
                    "label": f"{rung.name} ({rung.ranks})" if rung.ranks > 1 else rung.name,
                    "value": rung.total,
                    "target": rung.ideal,
                    "text": f"{number_text(rung.total)} tok/s, "
                    f"{number_text(rung.per_gpu)} per rank, {rung.efficiency:.1%}",
                    "tone": _scaling_tone(rung, rungs),
                }
                for rung in rungs[:MAX_LINES]
            ],
            "note": "the mark: the same GPUs by themselves, added up",
        }


def _scaling_tone(rung: scaling.Rung, rungs: Sequence[scaling.Rung]) -> str:
    if rung.scope == scaling.ALL and scaling.loud(rungs):
        return "bad"
    return "odd" if rung.efficiency < scaling.GOOD_EFFICIENCY else "good"


_SCOPES = {"node": "inside a node", "all": "across all nodes", "rails": "between nodes only"}


def bandwidth_charts(evidence: Evidence, measurements: Sequence[Measurement]) -> Iterator[Section]:
    """Collectives over the size of the message, with the gates."""
    merged = merged_sweeps([part.get("collectives") or [] for part in evidence.parts])
    by_id = {one.id: one for one in measurements}
    for scope in ("node", "all"):
        records = [r for r in merged if r["scope"] == scope and r["ranks"] > 1]
        if not records:
            continue
        curves = [
            (kind, _curve(r for r in records if r["collective"] == kind)) for kind in COLLECTIVES
        ]
        series = [_line(kind, points) for kind, points in curves if points]
        marks = _marks(by_id.get(f"{ALL_REDUCE}-{scope}"))
        yield _bandwidth_chart(f"Bus bandwidth, {_SCOPES[scope]}", series, marks)
        nodes = list(dict.fromkeys(tuple(record["members"]) for record in records))
        if len(nodes) > 1:
            each = [
                _line(
                    evidence.node_of[members[0]],
                    _curve(
                        r
                        for r in records
                        if tuple(r["members"]) == members and r["collective"] == ALL_REDUCE
                    ),
                )
                for members in nodes[:MAX_LINES]
            ]
            yield _bandwidth_chart("All-reduce inside each node", each, marks)
    between = [r for r in merged if r["scope"] == "rails"]
    if between:
        yield _bandwidth_chart(
            "All-reduce between nodes only, per rail", [_line(ALL_REDUCE, _curve(between))], []
        )


def _bandwidth_chart(title: str, series: Sequence[Section], marks: Sequence[Section]) -> Section:
    return {
        "kind": "lines",
        "title": title,
        "x": {"label": "message", "unit": "bytes", "log": True},
        "y": {"label": "bus bandwidth", "unit": "GB/s", "from_zero": True},
        "series": list(series),
        "marks": list(marks),
    }


def _curve(records: Any) -> list[list[float]]:
    """(size, median of the faster placement's bus bandwidth over groups)."""
    best: dict[tuple[int, tuple[int, ...]], float] = {}
    for record in records:
        key = (record["size"], tuple(record["members"]))
        best[key] = max(best.get(key, 0.0), record["busbw"])
    by_size: dict[int, list[float]] = {}
    for (size, _), rate in best.items():
        by_size.setdefault(size, []).append(rate)
    return [[float(size), median(rates)] for size, rates in sorted(by_size.items())]


def _line(label: str, points: Sequence[Sequence[float]]) -> Section:
    return {"label": label, "points": [list(point) for point in points]}


def _marks(measurement: Measurement | None) -> list[Section]:
    """Limit, best and gate of a figure as horizontal lines."""
    if measurement is None:
        return []
    known = (("limit", measurement.limit, "soft"), ("best public", measurement.best, "good"))
    found = [*known, ("gate", measurement.gate, "bad")]
    return [
        {"label": f"{label} {number_text(value)}", "value": value, "tone": tone}
        for label, value, tone in found
        if value is not None
    ]


def pair_charts(evidence: Evidence, measurements: Sequence[Measurement]) -> Iterator[Section]:
    """Every GPU of a node to every other one."""
    by_id = {one.id: one for one in measurements}
    gate = by_id["p2p-copy-engine"].gate
    for part in evidence.parts:
        pairs = part.get("pairs") or {}
        rates = pairs.get("copy engine")
        if rates:
            names = [f"GPU {index}" for index in range(len(rates))]
            yield {
                "kind": "heat",
                "title": f"GPU to GPU on {part['node']}",
                "unit": "GB/s",
                "rows": names,
                "columns": names,
                "values": rates,
                "note": "from row to column, by copy engine, one direction at a time"
                + (f"; gate {gate:g}" if gate else ""),
            }


def spread_charts(evidence: Evidence) -> Iterator[Section]:
    """Every GPU's figures as parts of the median, side by side."""
    outliers = {(one.title, one.who) for one in find_outliers(evidence)}
    groups = []
    for one in comparisons(evidence):
        middle = median(list(one.values.values()))
        if len(one.values) > 1 and middle > 0:
            points = [
                {
                    "label": f"{who}: {number_text(value)} {one.unit}",
                    "value": 100 * value / middle,
                    "tone": "bad" if (one.title, who) in outliers else "",
                }
                for who, value in list(one.values.items())[:MAX_POINTS]
            ]
            groups.append({"label": one.title, "points": points})
    if groups:
        yield {
            "kind": "spread",
            "title": "Every GPU against the median"
            if evidence.gpu
            else "Every rank against the median",
            "unit": "% of the median",
            "groups": groups,
            "marks": [
                {"value": 100 * (1 + side * FLOOR), "tone": "soft" if side else "good"}
                for side in (-1, 0, 1)
            ],
            "note": f"each dot is one of them; red dots are out of line; lines at {FLOOR:.0%}",
        }


def telemetry_charts(evidence: Evidence) -> Iterator[Section]:
    """The GPUs' telemetry meanwhile."""
    for key, title, unit in (
        ("power_w", "Power", "W"),
        ("sm_clock_mhz", "SM clock", "MHz"),
        ("temperature_c", "Temperature", "°C"),
    ):
        series = []
        for rank, part in enumerate(evidence.parts[:MAX_LINES]):
            samples = (part.get("health") or {}).get("samples", [])
            points = [[s["t"], s[key]] for s in samples if s.get(key) is not None]
            stride = len(points) // MAX_POINTS + 1
            if len(points) > 1:
                series.append(_line(evidence.label(rank), points[::stride]))
        if series:
            yield {
                "kind": "lines",
                "title": f"{title} during the test",
                "x": {"label": "time", "unit": "s"},
                "y": {"label": title.lower(), "unit": unit},
                "series": series,
                "marks": [],
            }
