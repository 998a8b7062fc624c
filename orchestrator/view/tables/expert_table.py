"""The load of experts as a table: one line a layer."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.base.figures import format_duration, format_number
from orchestrator.core.monitoring.expert_load import (
    ExpertTable,
    LayerLoad,
    busiest_and_idlest,
    layer_latency,
    table_loads,
)

NAMED = 4


def expert_headings(table: ExpertTable) -> tuple[str, ...]:
    """``table.of``: experts, or the GPUs that they are on."""
    load = ("layer", table.of, "tokens", "gini", "max/mean", "variation", "dead", "effective")
    return (*load, "busiest", *(("latency p50, max",) if table.latencies else ()))


def expert_rows(table: ExpertTable) -> list[tuple[str, ...]]:
    """Layers that got no token are left out."""
    counts = dict(zip(table.layers, table.counts, strict=True))
    return [
        (*_cells(load, counts[load.layer]), *_latency_cells(table, load.layer))
        for load in table_loads(table)
    ]


def _latency_cells(table: ExpertTable, layer: str) -> tuple[str, ...]:
    """None at all where no layer was measured."""
    if not table.latencies:
        return ()
    found = layer_latency(table, layer)
    if found is None:
        return ("",)
    return (f"{format_duration(found.p50)}, {format_duration(found.max)}",)


def _cells(load: LayerLoad, counts: Sequence[float]) -> tuple[str, ...]:
    busiest, _ = busiest_and_idlest(counts, NAMED)
    return (
        load.layer,
        str(load.experts),
        format_number(load.tokens),
        f"{load.gini:.3f}",
        f"{load.max_to_mean:.2f}",
        f"{load.variation:.3f}",
        f"{100 * load.dead:.0f} %",
        f"{100 * load.effective:.0f} %",
        ", ".join(map(str, busiest)),
    )
