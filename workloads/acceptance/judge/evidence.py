"""All that was measured, and how to find one value of every rank in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import scaling
from .limits import Limits, Place

Part = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that was measured: one part of each rank, in rank order."""

    parts: Sequence[Part]
    limits: Limits
    environment: Mapping[str, str]

    @property
    def nodes(self) -> list[str]:
        return list(dict.fromkeys(self.node_of))

    @property
    def node_of(self) -> list[str]:
        return [part["node"] for part in self.parts]

    @property
    def gpu(self) -> str:
        """The GPUs' name; where they differ, that of the first, whose limits hold for all."""
        return next((part["gpu"] for part in self.parts if part["gpu"]), "")

    @property
    def nic_gb_s(self) -> float:
        """The weakest node's network ports together; 0 where any node has none that we know."""
        ports = [part["ports"] for part in self.parts if part["leads_node"]]
        return min((sum(port["gb_s"] for port in one) for one in ports), default=0.0)

    def label(self, rank: int) -> str:
        """A rank as people find it: its node and its place there."""
        part = self.parts[rank]
        what = "GPU" if part["gpu"] else "rank"
        return f"{part['node']} {what} {part['local_rank']}"

    def place(self, **where: Any) -> Place:
        return Place(gpu=self.gpu, **where)


def per_rank(evidence: Evidence, key: str, *path: str) -> tuple[dict[str, float], str, bool]:
    """A value of every rank by its label; why some or all lack it; whether they should not."""
    values: dict[str, float] = {}
    reason, missing = "", False
    for rank, part in enumerate(evidence.parts):
        found = part.get(key) or {"not_run": "not measured", "expected": True}
        if "not_run" in found:
            reason, missing = str(found["not_run"]), missing or bool(found["expected"])
            if found["expected"]:
                reason = f"{evidence.label(rank)}: {reason}"
            continue
        value: Any = found
        for name in path:
            value = value[name]
        values[evidence.label(rank)] = float(value)
    return values, reason, missing


def pair_rates(evidence: Evidence, way: str) -> dict[str, float]:
    """GB/s of every pair of GPUs of a node that could be measured."""
    found = {}
    for part in evidence.parts:
        pairs = part.get("pairs") or {}
        for source, row in enumerate(pairs.get(way, ())):
            for target, rate in enumerate(row):
                if rate is not None:
                    found[f"{part['node']} GPU {source} to {target}"] = float(rate)
    return found


def training_rungs(evidence: Evidence) -> list[scaling.Rung]:
    parts = [part.get("training") or [] for part in evidence.parts]
    return scaling.rungs(parts, evidence.node_of)
