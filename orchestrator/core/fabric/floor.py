"""How fast an all-reduce between nodes should be, as far as somebody published it. Pure.

Hardware that is not in the table has no floor: its figure is reported, not held against anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.model.facts import Facts

GIB = 1 << 30
SCANNER = "two-node all-reduce threshold of Google's cluster-health-scanner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """``busbw_gbps`` is what ``ranks`` GPUs of a kind on ``nodes`` nodes should at least reach.

    ``gpu`` is a part of the driver's name for it. ``node_gbit`` is the sum of the adapters' rates
    per node that the figure was set for: nodes with less are another kind of hardware.
    """

    gpu: str
    nodes: int
    ranks: int
    rung: CommMode
    node_gbit: float
    busbw_gbps: float
    source: str


FLOORS = (
    Floor(
        gpu="H100",
        nodes=2,
        ranks=16,
        rung=CommMode.NCCL_IB,
        node_gbit=1600.0,
        busbw_gbps=150.0,
        source=f"{SCANNER}, A3 Mega",
    ),
    Floor(
        gpu="H200",
        nodes=2,
        ranks=16,
        rung=CommMode.NCCL_IB,
        node_gbit=3200.0,
        busbw_gbps=250.0,
        source=f"{SCANNER}, A3 Ultra",
    ),
    Floor(
        gpu="B200",
        nodes=2,
        ranks=16,
        rung=CommMode.NCCL_IB,
        node_gbit=3200.0,
        busbw_gbps=250.0,
        source=f"{SCANNER}, A4",
    ),
    Floor(
        gpu="GB200",
        nodes=2,
        ranks=8,
        rung=CommMode.NCCL_IB,
        node_gbit=1600.0,
        busbw_gbps=160.0,
        source=f"{SCANNER}, A4X",
    ),
)
# Small messages are bound by latency: a wire's rate says nothing about them.
SMALLEST_BYTES = GIB


def bus_bandwidth(size: int, ranks: int, seconds: float) -> float:
    """GB/s of an all-reduce of ``size`` bytes as nccl-tests count: 2(n-1)/n times bytes by time."""
    return 2 * (ranks - 1) / ranks * size / seconds / 1e9


def floor_of(facts: Sequence[Facts], ranks: int, rung: CommMode, size: int) -> Floor | None:
    """What is known of such nodes, and of messages of ``size`` bytes."""
    names = {word for f in facts for gpu in f.gpus for word in [_gpu_kind(gpu.name)]}
    if size < SMALLEST_BYTES or len(names) != 1:
        return None
    (kind,) = names
    rate = min(sum(hca.rate_gbit for hca in f.hcas) for f in facts)
    same = (f for f in FLOORS if f.gpu == kind and (f.nodes, f.ranks) == (len(facts), ranks))
    return next((f for f in same if f.rung is rung and f.node_gbit <= rate), None)


def _gpu_kind(name: str) -> str:
    """``NVIDIA H100 80GB HBM3`` -> ``H100``."""
    known = {floor.gpu for floor in FLOORS}
    return next((word for word in name.split() if word in known), name)
