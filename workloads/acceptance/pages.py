"""The test's part of the run's report, as docs/report-sections.md has it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import scaling
from bandwidth import ALL_REDUCE, COLLECTIVES
from evidence import Evidence, training_rungs
from figures import FAIL, INVALID, NOT_GATED, NOT_RUN, PASS, WARN, Figure
from health import reasons
from health_figures import HEALTH
from merging import merged_sweeps
from odd import FLOOR, compared, odd_ones
from robust import median

Section = dict[str, Any]
TONES = {PASS: "good", WARN: "odd", FAIL: "bad", INVALID: "bad", NOT_RUN: "soft", NOT_GATED: "soft"}
WORDS = {NOT_RUN: "not run", NOT_GATED: "no gate"}
COLUMNS = ("figure", "value", "range", "of limit", "of best", "gate", "verdict", "note")
NUMBERS = {"value", "of limit", "of best", "gate"}
MAX_LINES = 16
MAX_POINTS = 600
MAX_MATRICES = 8
MAX_ROWS = 400


def report(evidence: Evidence, figures: Sequence[Figure], verdict: tuple[str, str]) -> Section:
    """The whole document."""
    sections = [
        *_words(evidence, figures, verdict),
        *_tiles(figures),
        _figure_table(figures),
        *_check_table(figures),
        *_outlier_table(evidence),
        *_scaling(evidence),
        *_bandwidth(evidence, figures),
        *_matrices(evidence, figures),
        *_spread(evidence),
        *_telemetry(evidence),
        *_details(evidence, figures),
    ]
    return {"schema_version": 1, "sections": sections}


def table_lines(figures: Sequence[Figure]) -> list[str]:
    """The figures as plain aligned text."""
    rows = [list(COLUMNS), *([cell for cell, _ in _cells(figure)] for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _words(
    evidence: Evidence, figures: Sequence[Figure], verdict: tuple[str, str]
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
    bad = [figure for figure in figures if figure.verdict in {FAIL, INVALID} or figure.missing]
    if bad:
        told = "; ".join(_complaint(figure) for figure in bad[:20])
        yield {"kind": "text", "title": "What failed", "tone": "bad", "text": told[:4000]}


def _complaint(figure: Figure) -> str:
    """The figure, the worst of what was measured, and the gate it missed."""
    who = f" ({figure.worst}: {_number(figure.low)})" if figure.worst and figure.count > 1 else ""
    gate = "" if figure.gate is None else f", gate {_number(figure.gate)}"
    return f"{figure.title}{who}: {figure.verdict}{gate}" + (
        f", {figure.reason}" if figure.missing or figure.verdict == INVALID else ""
    )


def _tiles(figures: Sequence[Figure]) -> Iterator[Section]:
    """The figures that people ask for first, as far as they were measured."""
    by_id = {figure.id: figure for figure in figures}
    tiles = []
    for id, label in TILES.items():
        figure = by_id.get(id)
        if figure is not None and figure.value is not None:
            shares = ((figure.of_limit, "of the limit"), (figure.of_best, "of the best public"))
            told = [f"{_percent(share)} {what}" for share, what in shares if share is not None]
            tiles.append(
                {
                    "label": label,
                    "value": _number(figure.value),
                    "unit": figure.unit,
                    "text": ", ".join([WORDS.get(figure.verdict, figure.verdict), *told]),
                    "tone": TONES[figure.verdict].replace("soft", ""),
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


def _figure_table(figures: Sequence[Figure]) -> Section:
    return {
        "kind": "table",
        "title": "Figures",
        "columns": [{"name": name, "right": name in NUMBERS} for name in COLUMNS],
        "rows": _rows(figure for figure in figures if figure.section != HEALTH),
        "note": "value: the median over GPUs, pairs or nodes; the worst must meet the gate, "
        "the best must stay below the limit",
        "terminal": True,
    }


def _check_table(figures: Sequence[Figure]) -> Iterator[Section]:
    """Counts of what is wrong: on a terminal only whether anything is."""
    checks = [figure for figure in figures if figure.section == HEALTH]
    bad = [figure for figure in checks if figure.verdict in {FAIL, WARN} or figure.missing]
    told = [f"{figure.title}: {_number(figure.value)} {figure.reason}".strip() for figure in bad]
    right = sum(figure.verdict == PASS for figure in checks)
    absent = [f"{figure.title} not run: {figure.reason}" for figure in checks if _absent(figure)]
    yield {
        "kind": "text",
        "title": "Results and health",
        "tone": "bad" if bad else "good",
        "text": "; ".join([f"{right} of {len(checks)} checks are right", *told, *absent])[:4000],
        "terminal": True,
    }
    names = ("check", "wrong", "of", "verdict", "note")
    yield {
        "kind": "table",
        "title": "Results and health, every check",
        "columns": [{"name": name, "right": name in {"wrong", "of"}} for name in names],
        "rows": [
            [
                _cell(figure.title),
                _cell(_number(figure.value)),
                _cell(f"{figure.count:,}" if figure.count else ""),
                _cell(figure.verdict, "bad" if figure.missing else TONES[figure.verdict]),
                _cell(figure.reason, "soft"),
            ]
            for figure in checks[:MAX_ROWS]
        ],
        "folded": True,
    }


def _absent(figure: Figure) -> bool:
    return figure.verdict == NOT_RUN and not figure.missing


def _rows(figures: Iterable[Figure]) -> list[list[dict[str, str]]]:
    rows = [[_cell(text, tone) for text, tone in _cells(figure)] for figure in figures]
    return rows[:MAX_ROWS]


def _cells(figure: Figure) -> Iterator[tuple[str, str]]:
    """Texts and tones of a figure's row."""
    yield figure.title, ""
    if figure.value is None:
        yield "-", "soft"
        yield "", ""
    else:
        yield f"{_number(figure.value)} {figure.unit}", ""
        several = figure.count > 1 and figure.low is not None and figure.high is not None
        same = figure.low == figure.high
        yield (f"{_number(figure.low)}..{_number(figure.high)}" if several and not same else ""), ""
    yield _percent(figure.of_limit), ""
    yield _percent(figure.of_best), ""
    yield ("" if figure.gate is None else _number(figure.gate)), "soft"
    word = WORDS.get(figure.verdict, figure.verdict)
    yield word, "bad" if figure.missing else TONES[figure.verdict]
    yield figure.reason.removeprefix("not gated: ").removeprefix("not gated; "), "soft"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _cell(text: str, tone: str = "") -> dict[str, str]:
    return {"text": text[:500], "tone": tone} if tone else {"text": text[:500]}


def _outlier_table(evidence: Evidence) -> Iterator[Section]:
    found = odd_ones(evidence)
    if found:
        yield {
            "kind": "table",
            "title": "Out of line",
            "columns": [{"name": name} for name in ("who", "what", "value", "from the median")],
            "rows": [
                [
                    _cell(odd.who),
                    _cell(odd.title),
                    _cell(f"{_number(odd.value)} {odd.unit}"),
                    _cell(f"{odd.deviation:+.1%}", "bad" if odd.deviation < 0 else "odd"),
                ]
                for odd in found[:MAX_ROWS]
            ],
            "note": "beyond 3.5 robust standard deviations (median absolute deviation) and 3 %",
            "terminal": True,
        }


def _scaling(evidence: Evidence) -> Iterator[Section]:
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
                    "text": f"{_number(rung.total)} tok/s, {_number(rung.per_gpu)} per rank, "
                    f"{rung.efficiency:.1%}",
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


def _bandwidth(evidence: Evidence, figures: Sequence[Figure]) -> Iterator[Section]:
    merged = merged_sweeps([part.get("collectives") or [] for part in evidence.parts])
    by_id = {figure.id: figure for figure in figures}
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


def _marks(figure: Figure | None) -> list[Section]:
    """Limit, best and gate of a figure as horizontal lines."""
    if figure is None:
        return []
    known = (("limit", figure.limit, "soft"), ("best public", figure.best, "good"))
    found = [*known, ("gate", figure.gate, "bad")]
    return [
        {"label": f"{label} {_number(value)}", "value": value, "tone": tone}
        for label, value, tone in found
        if value is not None
    ]


def _matrices(evidence: Evidence, figures: Sequence[Figure]) -> Iterator[Section]:
    by_id = {figure.id: figure for figure in figures}
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


def _spread(evidence: Evidence) -> Iterator[Section]:
    """Every GPU's figures as parts of the median, side by side."""
    odd = {(one.title, one.who) for one in odd_ones(evidence)}
    groups = []
    for one in compared(evidence):
        middle = median(list(one.values.values()))
        if len(one.values) > 1 and middle > 0:
            points = [
                {
                    "label": f"{who}: {_number(value)} {one.unit}",
                    "value": 100 * value / middle,
                    "tone": "bad" if (one.title, who) in odd else "",
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


def _telemetry(evidence: Evidence) -> Iterator[Section]:
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


def _details(evidence: Evidence, figures: Sequence[Figure]) -> Iterator[Section]:
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
                _cell(figure.title),
                _cell(figure.protocol),
                _cell(_sourced(figure.limit, figure.limit_source)),
                _cell(_sourced(figure.best, figure.best_source)),
                _cell(_sourced(figure.gate, figure.gate_source)),
            ]
            for figure in figures[:MAX_ROWS]
        ],
        "folded": True,
    }


def _sourced(value: float | None, source: str) -> str:
    return "" if value is None else f"{_number(value)}: {source}"


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
