"""The load of experts as a table: one line a layer."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.base.figures import format_number
from orchestrator.core.monitoring.expert_load import (
    ExpertTable,
    LayerLoad,
    busiest_and_idlest,
    table_loads,
)

NAMED = 4


def expert_headings(table: ExpertTable) -> tuple[str, ...]:
    """``table.of``: experts, or the GPUs that they are on."""
    return (
        "layer",
        table.of,
        "tokens",
        "gini",
        "max/mean",
        "variation",
        "dead",
        "effective",
        "busiest",
    )


def expert_rows(table: ExpertTable) -> list[tuple[str, ...]]:
    """Layers that got no token are left out."""
    counts = dict(zip(table.layers, table.counts, strict=True))
    return [_cells(load, counts[load.layer]) for load in table_loads(table)]


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
