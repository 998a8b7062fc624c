"""The test's part of the run's report: its words and tables, with :mod:`charts` between. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..judge import scaling
from ..judge.evidence import Evidence, training_rungs
from ..judge.figures import FAIL, INVALID, NOT_GATED, NOT_RUN, PASS, WARN, Figure
from ..judge.health_figures import HEALTH
from ..judge.merging import merged_sweeps
from ..judge.odd import odd_ones
from ..measure.health import reasons
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


def report(evidence: Evidence, figures: Sequence[Figure], verdict: tuple[str, str]) -> Section:
    """The whole document."""
    sections = [
        *_words(evidence, figures, verdict),
        *_tiles(figures),
        _figure_table(figures),
        *_check_table(figures),
        *_outlier_table(evidence),
        *scaling_charts(evidence),
        *bandwidth_charts(evidence, figures),
        *pair_charts(evidence, figures),
        *spread_charts(evidence),
        *telemetry_charts(evidence),
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
    who = (
        f" ({figure.worst}: {number_text(figure.low)})" if figure.worst and figure.count > 1 else ""
    )
    gate = "" if figure.gate is None else f", gate {number_text(figure.gate)}"
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
                    "value": number_text(figure.value),
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
    told = [
        f"{figure.title}: {number_text(figure.value)} {figure.reason}".strip() for figure in bad
    ]
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
                _cell(number_text(figure.value)),
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
        yield f"{number_text(figure.value)} {figure.unit}", ""
        several = figure.count > 1 and figure.low is not None and figure.high is not None
        same = figure.low == figure.high
        yield (
            (
                f"{number_text(figure.low)}..{number_text(figure.high)}"
                if several and not same
                else ""
            ),
            "",
        )
    yield _percent(figure.of_limit), ""
    yield _percent(figure.of_best), ""
    yield ("" if figure.gate is None else number_text(figure.gate)), "soft"
    word = WORDS.get(figure.verdict, figure.verdict)
    yield word, "bad" if figure.missing else TONES[figure.verdict]
    yield figure.reason.removeprefix("not gated: ").removeprefix("not gated; "), "soft"


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
                    _cell(f"{number_text(odd.value)} {odd.unit}"),
                    _cell(f"{odd.deviation:+.1%}", "bad" if odd.deviation < 0 else "odd"),
                ]
                for odd in found[:MAX_ROWS]
            ],
            "note": "beyond 3.5 robust standard deviations (median absolute deviation) and 3 %",
            "terminal": True,
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
