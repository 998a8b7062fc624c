"""What a figure is held against: the physical limit, the best public figure, the gate.

The data is limits.json. A gate depends on the GPU, the number of ranks and nodes, the size of the
message, the network between nodes, and on whether NCCL may reduce in the switch (NVLS).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("limits.json")
# Below this a collective is bound by latency: no gate is held against the rate of the wire.
GATED_FROM_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Reference:
    """A number with where it comes from."""

    value: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is known of one quantity; ``why_no_gate`` says why ``gate`` is None."""

    limit: Reference | None = None
    best: Reference | None = None
    gate: Reference | None = None
    why_no_gate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a quantity was measured, as far as its gate depends on that.

    ``nic_gb_s`` is what the network ports of one node carry together, 0 = unknown.
    """

    gpu: str
    ranks: int = 1
    nodes: int = 1
    size: int = 0
    nic_gb_s: float = 0.0
    switch_reduces: bool = False


class Limits:
    """The tables, for GPUs by the names that their driver gives them."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._gpus = data["gpus"]
        self._references = data["references"]

    @classmethod
    def load(cls) -> Limits:
        return cls(json.loads(DATA.read_text(encoding="utf-8")))

    def gpu(self, name: str) -> Mapping[str, Any]:
        """The data of a GPU; empty for one that is not in the table."""
        found = (entry for entry in self._gpus if re.search(entry["match"], name))
        return next(found, {})

    def nvls(self, name: str, ranks: int, environment: Mapping[str, str]) -> bool:
        """Whether NCCL may let the switch reduce."""
        fewest = self.gpu(name).get("nvls_from_ranks", 0)
        return 0 < fewest <= ranks and environment.get("NCCL_NVLS_ENABLE", "2") != "0"

    def bounds(self, quantity: str, place: Place, only: str = "") -> Bounds:
        """Everything that is known of ``quantity`` there."""
        if not place.gpu:
            return Bounds(why_no_gate="not gated: no GPU")
        gpu = self.gpu(place.gpu)
        if not gpu:
            return Bounds(why_no_gate=f"not gated: no data on {place.gpu}")
        limit = _limit(quantity, gpu, place)
        entry = self._entry(quantity, gpu["name"], place, only)
        if entry is None:
            why = f"not gated: no public figure for {_count(place)}{gpu['name']}"
            return Bounds(limit=limit, why_no_gate=why)
        best, gate = _reference(entry, "best"), _reference(entry, "gate")
        why = "" if gate else f"not gated: no gate for {gpu['name']} is known"
        if gate and entry["quantity"] in _SIZED and place.size < GATED_FROM_BYTES:
            gate, why = None, "not gated: sizes below 1 GiB"
        return Bounds(limit=limit, best=best, gate=gate, why_no_gate=why)

    def _entry(self, quantity: str, gpu: str, place: Place, only: str) -> Mapping[str, Any] | None:
        for entry in self._references:
            if entry["quantity"] == quantity and gpu in entry["gpus"]:
                nvls = entry.get("nvls", place.switch_reduces)
                within = _within(entry, "ranks", place.ranks) and _within(
                    entry, "nodes", place.nodes
                )
                right = entry.get("only", only) == only and nvls == place.switch_reduces
                if within and right and place.nic_gb_s >= entry.get("nic_gb_s", 0):
                    return dict(entry)
        return None


def _count(place: Place) -> str:
    """``2x8 `` for 2 nodes with 8 ranks each, ``4 ``, or nothing."""
    if place.nodes > 1:
        return f"{place.nodes}x{place.ranks // place.nodes} "
    return f"{place.ranks} " if place.ranks > 1 else ""


_SIZED = frozenset({"all-reduce", "all-gather", "reduce-scatter", "all-to-all"})


def _within(entry: Mapping[str, Any], what: str, count: int) -> bool:
    default = [1, 1] if what == "nodes" else [1, 10**6]
    low, high = entry.get(what, default)
    return bool(low <= count <= high)


def _reference(entry: Mapping[str, Any], kind: str) -> Reference | None:
    return Reference(entry[kind], entry[f"{kind}_source"]) if kind in entry else None


def _limit(quantity: str, gpu: Mapping[str, Any], place: Place) -> Reference | None:
    """From the datasheet, or worked out from it."""
    if quantity in _SIZED:
        return _collective_limit(quantity, gpu, place)
    key = {
        "matmul-bf16": "bf16_tflops",
        "matmul-fp8": "fp8_tflops",
        "hbm-triad": "hbm_tb_s",
        "host-copy": "pcie_gb_s",
        "p2p": "nvlink_gb_s",
    }.get(quantity, "")
    return Reference(gpu[key], gpu["source"]) if key in gpu else None


def _collective_limit(quantity: str, gpu: Mapping[str, Any], place: Place) -> Reference | None:
    """Bus bandwidth: one direction of a GPU's NVLink, or what its share of the network allows.

    Where the switch reduces, each GPU sends and receives its buffer once: a bus bandwidth up to
    2 (n-1)/n of the link. Over k nodes a hierarchical ring moves (k-1)/(n-1) of it by network.
    """
    links: list[Reference] = []
    per_node = place.ranks // place.nodes
    if per_node > 1 and (link := gpu.get("nvlink_gb_s")):
        factor = 2 * (place.ranks - 1) / place.ranks if _reduces(quantity, place) else 1.0
        by = f"{gpu['source']}: NVLink, one direction"
        links.append(Reference(link * factor, by + (", NVLS" if factor > 1 else "")))
    elif per_node > 1:
        return None
    if place.nodes > 1:
        if not place.nic_gb_s:
            return None
        share = place.nic_gb_s / per_node * (place.ranks - 1) / (place.nodes - 1)
        links.append(Reference(share, f"{place.nic_gb_s:g} GB/s of network ports per node"))
    return min(links, key=lambda link: link.value, default=None)


def _reduces(quantity: str, place: Place) -> bool:
    return quantity == "all-reduce" and place.switch_reduces
