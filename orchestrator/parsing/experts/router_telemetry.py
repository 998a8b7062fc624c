"""``router_telemetry.json`` of the workload ``moe`` (docs/moe.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from orchestrator.core.monitoring.expert_load import ExpertTable
from orchestrator.core.monitoring.metric import clean_label
from orchestrator.parsing.experts.expert_shape import MAX_LAYERS, BadExpertFile, checked_counts

MAX_BYTES = 64 << 20
SCHEMA_VERSION = 1


def parse_router_telemetry(content: bytes) -> ExpertTable:
    """Raises :class:`BadExpertFile`."""
    if len(content) > MAX_BYTES:
        raise BadExpertFile(f"more than {MAX_BYTES >> 20} MiB")
    try:
        data: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadExpertFile(f"no JSON: {str(error)[:200]}") from error
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        raise BadExpertFile(f"no router telemetry of version {SCHEMA_VERSION}")
    layers = data.get("layers")
    if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
        raise BadExpertFile(f"layers: expected a list of 1 to {MAX_LAYERS}")
    found = [_parse_layer(layer, number) for number, layer in enumerate(layers)]
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise BadExpertFile("layers: two of them have one name")
    counts = tuple(counts for _, counts in found)
    return ExpertTable(
        source="moe", layers=tuple(names), counts=counts, latencies=_parse_latencies(layers, counts)
    )


def _parse_latencies(
    layers: Sequence[dict[str, Any]], counts: Sequence[Sequence[float]]
) -> tuple[tuple[float | None, ...], ...]:
    """Empty if no layer has any: older files, and models whose experts cannot be asked alone."""
    if not any("latency_s" in layer for layer in layers):
        return ()
    found = []
    for number, (layer, experts) in enumerate(zip(layers, counts, strict=True)):
        given, what = layer.get("latency_s"), f"layers[{number}].latency_s"
        if not isinstance(given, list) or len(given) != len(experts):
            raise BadExpertFile(f"{what}: expected a list with an entry for each expert")
        measured = [value for value in given if value is not None]
        checked = iter(checked_counts(measured, what) if measured else ())
        found.append(tuple(None if value is None else next(checked) for value in given))
    return tuple(found)


def _parse_layer(layer: object, number: int) -> tuple[str, tuple[float, ...]]:
    if not isinstance(layer, dict) or not isinstance(layer.get("name"), str):
        raise BadExpertFile(f"layers[{number}]: expected an object with a name")
    return clean_label(layer["name"]), checked_counts(
        layer.get("counts"), f"layers[{number}].counts"
    )
