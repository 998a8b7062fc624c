"""What more GPUs and more nodes bring, and a loud word when they bring less than nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..base.robust_stats import median

GPU, NODE, ALL = "gpu", "node", "all"
# Public runs keep 97-98 % up to 128 GPUs; below 80 % something between them is slow.
GOOD_EFFICIENCY = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One configuration: ``total`` is tokens/s of all its ranks, ``ideal`` what the same GPUs gave
    by themselves, added up.
    """

    scope: str
    name: str
    ranks: int
    nodes: int
    total: float
    ideal: float

    @property
    def efficiency(self) -> float:
        return self.total / self.ideal

    @property
    def per_gpu(self) -> float:
        return self.total / self.ranks


def rungs(parts: Sequence[Sequence[Mapping[str, Any]]], node_of: Sequence[str]) -> list[Rung]:
    """From the records of every rank, in rank order: one GPU (the median), each node, all nodes."""
    rates = {
        (record["scope"], rank): float(record["tokens_per_s"])
        for rank, records in enumerate(parts)
        for record in records
    }
    groups = {
        (record["scope"], tuple(record["members"])): None for records in parts for record in records
    }
    alone = {rank: rate for (scope, rank), rate in rates.items() if scope == GPU}
    if not alone:
        return []
    typical = median(list(alone.values()))
    found = [Rung(scope=GPU, name="1 GPU", ranks=1, nodes=1, total=typical, ideal=typical)]
    # By scope, then by node, whatever order the ranks reported in.
    for scope, members in sorted(groups, key=lambda group: (group[0] == ALL, group[1])):
        if scope != GPU and len(members) > 1 and all((scope, rank) in rates for rank in members):
            nodes = {node_of[rank] for rank in members}
            slowest = min(rates[scope, rank] for rank in members)
            found.append(
                Rung(
                    scope=scope,
                    name=node_of[members[0]] if scope == NODE else f"{len(nodes)} nodes",
                    ranks=len(members),
                    nodes=len(nodes),
                    total=slowest * len(members),
                    ideal=sum(alone[rank] for rank in members),
                )
            )
    return found


def speed_up(found: Iterable[Rung]) -> float | None:
    """All nodes together by the best single node (or GPU, on nodes of one); None on one node."""
    found = list(found)
    together = next((rung for rung in found if rung.scope == ALL), None)
    if together is None:
        return None
    single = [rung.total for rung in found if rung.scope in {NODE, GPU}]
    return together.total / max(single)


def loud(found: Iterable[Rung]) -> str:
    """The sentence that must not be missed; empty when more nodes are faster in total."""
    found = list(found)
    together = next((rung for rung in found if rung.scope == ALL), None)
    gain = speed_up(found)
    if together is None or gain is None or gain >= 1:
        return ""
    best = max((r for r in found if r.scope in {NODE, GPU}), key=lambda rung: rung.total)
    single = "ONE" if best.scope == NODE else "1 GPU"
    return (
        f"{together.nodes} NODES ARE SLOWER IN TOTAL THAN {single}: "
        f"{together.total:,.0f} tok/s on {together.ranks} ranks, {best.total:,.0f} tok/s on "
        f"{best.ranks} ({gain - 1:+.0%}). Adding nodes makes this training slower: run it on one "
        "node, or find out what is wrong between the nodes"
    )
