"""GPUs, links and how GPUs are linked, as hardware files say.

What is only computed with is a named tuple here: a plan imports this, and making a frozen dataclass
takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from orchestrator.core.base.wire_names import wire


@wire("Device")
class GpuHardware(NamedTuple):
    """A kind of GPU by its data sheet. ``flops``: dense FLOP/s by precision (``bf16``);
    ``names``: beginnings of the driver's name for it.
    """

    name: str
    names: tuple[str, ...]
    flops: Mapping[str, float]
    memory_bytes: float
    memory_bytes_s: float
    power_w: float
    idle_w: float


class LinkHardware(NamedTuple):
    """What joins GPUs: bytes/s in one direction for each GPU, and the seconds that a collective
    takes to start and for each step of a ring.
    """

    name: str
    bytes_s: float
    start_s: float
    hop_s: float


class FabricHardware(NamedTuple):
    """``per_node`` GPUs joined by ``inside``; nodes by ``between``, whose rate is that of one GPU's
    share of the node's adapters. ``switch_bytes_s``: what an all-reduce in the switch itself moves,
    which NCCL chooses from ``switch_from`` GPUs on; 0 = it cannot.
    """

    per_node: int
    inside: LinkHardware
    between: LinkHardware | None = None
    switch_bytes_s: float = 0.0
    switch_from: int = 0

    def nodes(self, gpus: int) -> int:
        """How many nodes so many GPUs take."""
        return -(-gpus // self.per_node)


@wire("CostLatency")
class Latency(NamedTuple):
    """Of a kind of link: seconds to start a collective and for each of its steps; ``efficiency``:
    the part of the nominal rate that is reached.
    """

    start_s: float
    hop_s: float
    efficiency: float = 1.0


@wire("GpuKind")
class GpuKind(NamedTuple):
    """A kind of GPU, and how those of a node are joined: see :class:`FabricHardware`."""

    device: GpuHardware
    link: str
    link_bytes_s: float
    switch_bytes_s: float = 0.0
    switch_from: int = 0


def make_fabric(
    gpu: GpuKind,
    links: Mapping[str, Latency],
    per_node: int,
    network: str = "",
    network_bytes_s: float = 0.0,
) -> FabricHardware:
    """``network`` joins nodes, one of ``links``, with the bytes/s of one GPU's share of the node's
    adapters; empty = there is one node.
    """
    inside = links[gpu.link]
    far = links[network] if network else None
    return FabricHardware(
        per_node=per_node,
        inside=_link(gpu.link, inside, gpu.link_bytes_s),
        between=_link(network, far, network_bytes_s) if far else None,
        switch_bytes_s=gpu.switch_bytes_s,
        switch_from=gpu.switch_from,
    )


def _link(name: str, latency: Latency, bytes_s: float) -> LinkHardware:
    return LinkHardware(
        name=name,
        bytes_s=latency.efficiency * bytes_s,
        start_s=latency.start_s,
        hop_s=latency.hop_s,
    )
