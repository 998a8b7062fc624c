"""What engines say of experts in their Prometheus metrics.

SGLang counts tokens by layer and GPU in a histogram whose buckets are ranks (``sglang:eplb_gpu_\
physical_count``). vLLM has no merged metric of experts; forks and proposals count by layer and
expert, and are read by these two labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.core.monitoring.expert_load import ExpertTable
from orchestrator.core.monitoring.metric import clean_label
from orchestrator.parsing.experts.expert_shape import (
    MAX_EXPERTS,
    MAX_LAYERS,
    BadExpertFile,
    checked_counts,
)

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

MAX_BYTES = 64 << 20
MAX_LINE = 16 << 10
GPU_COUNT = "sglang:eplb_gpu_physical_count_bucket"
EXPERT_LABELS = ("expert", "expert_id")


def parse_engine_metrics(content: bytes) -> ExpertTable:
    """Tokens by layer and expert, else by layer and GPU. Raises :class:`BadExpertFile`, also where
    the engine says nothing of either, and ``ImportError`` without prometheus-client.
    """
    samples = list(_samples(content))
    by_expert = _counted(samples)
    if by_expert:
        return _table(by_expert, "experts")
    by_gpu = _bucketed(samples)
    if by_gpu:
        return _table(by_gpu, "GPUs")
    raise BadExpertFile(
        "no metric of experts in it; SGLang: --enable-expert-distribution-metrics and"
        " SGLANG_EPLB_HEATMAP_COLLECTION_INTERVAL=1"
    )


def _samples(content: bytes) -> Iterable[Sample]:
    if len(content) > MAX_BYTES or max(map(len, content.split(b"\n"))) > MAX_LINE:
        raise BadExpertFile(f"more than {MAX_BYTES >> 20} MiB, or a line of more than 16 KiB")
    from prometheus_client.parser import text_string_to_metric_families

    try:
        text = content.decode("utf-8", "replace")
        return [s for family in text_string_to_metric_families(text) for s in family.samples]
    except (ValueError, IndexError, KeyError) as error:
        raise BadExpertFile(f"no metrics of Prometheus: {str(error)[:200]}") from error


def _counted(samples: Iterable[Sample]) -> dict[str, dict[int, float]]:
    """By layer and expert, of counters with these two labels; other labels are added up."""
    found: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for sample in samples:
        labels = sample.labels
        expert = next((labels[name] for name in EXPERT_LABELS if name in labels), "")
        if sample.name.endswith("_total") and "layer" in labels and _is_index(expert):
            found[clean_label(labels["layer"])][int(expert)] += sample.value
    return found


def _bucketed(samples: Iterable[Sample]) -> dict[str, dict[int, float]]:
    """By layer and GPU: the bucket of rank r holds the tokens of all ranks up to r."""
    below: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for sample in samples:
        bound = sample.labels.get("le", "")
        if sample.name == GPU_COUNT and "layer" in sample.labels and bound != "+Inf":
            rank = float(bound) if bound.replace(".", "", 1).isdigit() else -1.0
            if not rank.is_integer() or not 0 <= rank < MAX_EXPERTS:
                raise BadExpertFile(f"{GPU_COUNT}: {bound[:40]!r} is no rank")
            below[clean_label(sample.labels["layer"])][int(rank)] += sample.value
    return {layer: _differences(ranks) for layer, ranks in below.items()}


def _differences(below: dict[int, float]) -> dict[int, float]:
    found, last = {}, 0.0
    for rank in sorted(below):
        found[rank], last = below[rank] - last, below[rank]
    return found


def _table(by_layer: dict[str, dict[int, float]], of: str) -> ExpertTable:
    if len(by_layer) > MAX_LAYERS:
        raise BadExpertFile(f"more than {MAX_LAYERS} layers")
    size = 1 + max(expert for counts in by_layer.values() for expert in counts)
    layers = sorted(
        by_layer,
        key=lambda layer: (not layer.isdigit(), int(layer) if layer.isdigit() else 0, layer),
    )
    rows = [
        checked_counts([by_layer[layer].get(n, 0.0) for n in range(size)], f"layer {layer}")
        for layer in layers
    ]
    return ExpertTable(source="metrics", layers=tuple(layers), counts=tuple(rows), of=of)


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and int(text) < MAX_EXPERTS
