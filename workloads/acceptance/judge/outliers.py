"""Which GPUs are out of line with the others, by robust statistics. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..base.robust_stats import outliers
from .evidence import Evidence, pair_rates, per_rank

# Equal GPUs of one node differ by a few percent; less is not worth a name.
FLOOR = 0.03
_VALUES = (
    ("matrix product, bf16", "TFLOPS", "matmul_bf16", ("best", "median")),
    ("matrix product, fp8", "TFLOPS", "matmul_fp8", ("best", "median")),
    ("matrix product, sustained", "TFLOPS", "sustained", ("last",)),
    ("host to device", "GB/s", "copies", ("host-to-device",)),
    ("device to host", "GB/s", "copies", ("device-to-host",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One quantity of every GPU (or pair), by its label."""

    title: str
    unit: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """One that deviates: by which part of the median."""

    who: str
    title: str
    value: float
    unit: str
    deviation: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def comparisons(evidence: Evidence) -> Iterator[Comparison]:
    """Everything that equal GPUs should do equally well."""
    for title, unit, key, path in _VALUES:
        values, _, _ = per_rank(evidence, key, *path)
        if values:
            yield Comparison(title=title, unit=unit, values=values)
    triad = {}
    alone = {}
    for rank, part in enumerate(evidence.parts):
        ways = (part.get("memory") or {}).get("kernels", {}).get("triad")
        if ways:
            triad[evidence.label(rank)] = max(way["best"] for way in ways.values()) / 1e3
        for record in part.get("training") or []:
            if record["scope"] == "gpu":
                alone[evidence.label(rank)] = record["tokens_per_s"]
    if triad:
        yield Comparison(title="memory, STREAM triad", unit="TB/s", values=triad)
    if alone:
        yield Comparison(title="training alone", unit="tok/s", values=alone)
    if pairs := pair_rates(evidence, "copy engine"):
        yield Comparison(title="GPU to GPU", unit="GB/s", values=pairs)


def find_outliers(evidence: Evidence) -> list[Outlier]:
    """Everyone who is out of line in anything."""
    return [
        Outlier(who=who, title=one.title, value=one.values[who], unit=one.unit, deviation=deviation)
        for one in comparisons(evidence)
        for who, deviation in outliers(one.values, floor=FLOOR).items()
    ]
