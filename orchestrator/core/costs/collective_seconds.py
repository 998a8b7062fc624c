"""Seconds of collectives: a latency for each step and bytes over a rate (alpha-beta model).

Formulas: Thakur, Rabenseifner and Gropp (2005, doi 10.1177/1094342005051521) for ring and
reduce-scatter; the tuner of NCCL 2.30 (src/graph/tuning.cc) for their latencies.
"""

from __future__ import annotations

import math

from orchestrator.core.costs.hardware import FabricHardware, LinkHardware


def all_reduce_s(size: float, gpus: int, fabric: FabricHardware) -> float:
    """Of ``size`` bytes on each of ``gpus``: the faster of a ring over all and of the hierarchy."""
    if gpus <= 1:
        return 0.0
    nodes = fabric.nodes(gpus)
    if nodes == 1 or fabric.between is None:
        ring = ring_all_reduce_s(size, gpus, fabric.inside)
        return min(ring, switch_all_reduce_s(size, gpus, fabric))
    return min(
        ring_all_reduce_s(size, gpus, ring_link(fabric)),
        hierarchical_all_reduce_s(size, nodes, fabric),
    )


def ring_all_reduce_s(size: float, gpus: int, link: LinkHardware) -> float:
    """2 (n - 1) steps, in which each rank sends 2 (n - 1) / n of its bytes."""
    if gpus <= 1:
        return 0.0
    steps = 2 * (gpus - 1)
    return link.start_s + steps * link.hop_s + steps / gpus * size / link.bytes_s


def switch_all_reduce_s(size: float, gpus: int, fabric: FabricHardware) -> float:
    """Summed by the switch, to which each rank sends its bytes once; infinite where it cannot."""
    if not fabric.switch_bytes_s or gpus < fabric.switch_from:
        return math.inf
    return fabric.inside.start_s + 2 * fabric.inside.hop_s + size / fabric.switch_bytes_s


def hierarchical_all_reduce_s(size: float, nodes: int, fabric: FabricHardware) -> float:
    """Reduce-scatter inside each node, all-reduce of each part between nodes, all-gather inside."""
    if fabric.between is None:
        raise ValueError("nodes without a link between them")
    inside = 2 * gather_s(size, fabric.per_node, fabric.inside)
    return inside + ring_all_reduce_s(size / fabric.per_node, nodes, fabric.between)


def gather_s(size: float, gpus: int, link: LinkHardware) -> float:
    """All-gather to ``size`` bytes on each rank, or reduce-scatter of as many."""
    if gpus <= 1:
        return 0.0
    return link.start_s + (gpus - 1) * link.hop_s + (gpus - 1) / gpus * size / link.bytes_s


def all_to_all_s(size: float, gpus: int, fabric: FabricHardware) -> float:
    """Each rank has ``size`` bytes, equal parts of which are for each rank; what leaves the node
    goes over the link between nodes.
    """
    if gpus <= 1:
        return 0.0
    nodes = fabric.nodes(gpus)
    local = min(gpus, fabric.per_node)
    inside = fabric.inside
    took = inside.start_s + (local - 1) * inside.hop_s + (local - 1) / gpus * size / inside.bytes_s
    if nodes == 1 or fabric.between is None:
        return took
    remote, link = gpus - local, fabric.between
    return max(took, link.start_s + remote * link.hop_s + remote / gpus * size / link.bytes_s)


def ring_link(fabric: FabricHardware) -> LinkHardware:
    """Of a ring over several nodes: NCCL makes a ring for each adapter, so that each GPU's share of
    the node's rate counts ``per_node`` times, as far as the links inside allow.
    """
    between = fabric.between
    if between is None:
        return fabric.inside
    return LinkHardware(
        name=between.name,
        bytes_s=min(between.bytes_s * fabric.per_node, fabric.inside.bytes_s),
        start_s=between.start_s,
        hop_s=max(
            fabric.inside.hop_s,
            (between.hop_s + (fabric.per_node - 1) * fabric.inside.hop_s) / fabric.per_node,
        ),
    )
