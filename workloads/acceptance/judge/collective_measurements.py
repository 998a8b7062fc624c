"""Figures of collectives: inside nodes, over all of them, and between them only. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..base.bandwidth import ALL_REDUCE, COLLECTIVES
from .evidence import Evidence
from .limits import Bounds
from .measurements import Measurement, Name, measured, not_run
from .sweeps import merged_sweeps

COLLECTIVE, ACROSS = "collectives", "across nodes"
NCCL = "5 + 20 iterations; time averaged over ranks; nccl-tests' bus bandwidth"
FULL_ITERATIONS = 20
SCOPES = {
    "node": (COLLECTIVE, "inside a node"),
    "all": (ACROSS, "all nodes"),
    "rails": (ACROSS, "between nodes only"),
}


def collective_measurements(evidence: Evidence) -> Iterator[Measurement]:
    """One for each collective in each scope that this world has."""
    merged = merged_sweeps([part.get("collectives") or [] for part in evidence.parts])
    for scope, (section, where) in SCOPES.items():
        for collective in COLLECTIVES if scope != "rails" else (ALL_REDUCE,):
            name = Name(
                id=f"{collective}-{scope}",
                section=section,
                title=f"{collective}, {where}",
                unit="GB/s",
            )
            records = [
                record
                for record in merged
                if (record["scope"], record["collective"]) == (scope, collective)
                and record["ranks"] > 1
            ]
            if records:
                yield _busbw(evidence, name, records)
            else:
                yield from _absent(evidence, name, scope)


def _absent(evidence: Evidence, name: Name, scope: str) -> Iterator[Measurement]:
    """A figure that this world cannot have, or should have had."""
    ranks, nodes = len(evidence.parts), len(evidence.nodes)
    if scope == "node":
        alone = ranks == nodes
        reason = "one rank on each node" if alone else "not measured"
        yield not_run(name, reason, missing=not alone)
    elif scope == "all" and nodes > 1:
        yield not_run(name, "not measured", missing=True)


def _busbw(evidence: Evidence, name: Name, records: Sequence[Mapping[str, Any]]) -> Measurement:
    """At the largest size, of the faster placement; one value for each group."""
    size = max(record["size"] for record in records)
    at_size = [record for record in records if record["size"] == size]
    values: dict[str, float] = {}
    for record in at_size:
        first = record["members"][0]
        who = evidence.node_of[first] if record["scope"] == "node" else evidence.label(first)
        values[who] = max(values.get(who, 0.0), record["busbw"])
    first = at_size[0]
    notes = [f"{first['ranks']} ranks at {size_text(size)}", *_shortened(records)]
    if first["nodes"] > 1 and evidence.gpu and not evidence.nic_gb_s:
        notes.append("no active InfiniBand or RoCE port was seen")
    known = _bounds(evidence, first, size)
    return measured(name, values, known, protocol=NCCL, note="; ".join(notes))


def _bounds(evidence: Evidence, record: Mapping[str, Any], size: int) -> Bounds:
    ranks, nodes = record["ranks"], record["nodes"]
    nvls = evidence.limits.nvls(evidence.gpu, ranks // nodes, evidence.environment)
    place = evidence.place(
        ranks=ranks,
        nodes=nodes,
        size=size,
        nic_gb_s=evidence.nic_gb_s if nodes > 1 else 0.0,
        switch_reduces=nvls,
    )
    known = evidence.limits.bounds(record["collective"], place)
    if record["scope"] == "rails":
        # No public figure isolates the traffic between nodes.
        why = "not gated: no public figure" if evidence.gpu else known.why_no_gate
        return replace(known, best=None, gate=None, why_no_gate=why)
    return known


def _shortened(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where the protocol was not kept because it would have taken too long."""
    fewest = min(record["iterations"] for record in records)
    if fewest < FULL_ITERATIONS:
        yield f"only {fewest} iterations at slow sizes"


def size_text(size: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} B"
