"""What physics allows of figures of ``acceptance``, from the limits that come with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.adapters.catalog.bundled import bundled_root
from orchestrator.core.migration.checklist import PhysicalBound

# A figure of acceptance -> the limit's key of a GPU, the quantity of references, the unit.
FIGURES = {
    "hbm_triad": ("hbm_tb_s", "hbm-triad", "TB/s"),
    "matmul_bf16": ("bf16_tflops", "matmul-bf16", "TFLOPS"),
    "matmul_fp8": ("fp8_tflops", "matmul-fp8", "TFLOPS"),
    "p2p": ("nvlink_gb_s", "p2p", "GB/s"),
    "all_reduce": ("", "all-reduce", "GB/s"),
}


def physical_bounds(
    metrics: Iterable[str], gpus: tuple[str, ...] | None
) -> dict[str, PhysicalBound]:
    """For each ``step.figure`` of which something is known on these GPUs, which are all alike."""
    if not gpus or len(set(gpus)) > 1:
        return {}
    data = json.loads(_limits())
    gpu = next((entry for entry in data["gpus"] if re.search(entry["match"], gpus[0])), None)
    if gpu is None:
        return {}
    found = {}
    for metric in metrics:
        known = FIGURES.get(metric.partition(".")[2])
        if known is not None:
            key, quantity, unit = known
            best = _best(quantity, gpu["name"], data["references"], len(gpus))
            found[metric] = _bound(unit, gpu, key, best)
    return found


def _limits() -> str:
    path = bundled_root() / "workloads" / "acceptance" / "judge" / "limits.json"
    return path.read_text(encoding="utf-8")


def _best(
    quantity: str, gpu: str, references: Iterable[Mapping[str, Any]], ranks: int
) -> Mapping[str, Any]:
    """What was published for as many GPUs of one node; NCCL with all that it may use."""

    def fits(entry: Mapping[str, Any]) -> bool:
        low, high = entry.get("ranks", [1, 10**6])
        alone = "nodes" not in entry and "best" in entry
        return (
            alone
            and entry["quantity"] == quantity
            and gpu in entry["gpus"]
            and low <= ranks <= high
        )

    return max(filter(fits, references), key=lambda entry: float(entry["best"]), default={})


def _bound(unit: str, gpu: Mapping[str, Any], key: str, best: Mapping[str, Any]) -> PhysicalBound:
    sources = [gpu["source"]] if key in gpu else []
    sources += [best["best_source"]] if best else []
    return PhysicalBound(
        unit=unit, limit=gpu.get(key), best=best.get("best"), source="; ".join(sources)
    )
