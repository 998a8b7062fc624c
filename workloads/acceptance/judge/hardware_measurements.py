"""Figures of each GPU by itself and of the links to it: products, memory, copies. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .evidence import Evidence, pair_rates, per_rank
from .limits import Bounds
from .measurements import Measurement, Name, measured, not_run

COMPUTE, MEMORY, COPIES = "compute", "memory", "copies"
MATMUL = "50 + 100 iterations, cache flushed and output random before each; median"
SUSTAINED = "windows of a second; the last one"
STREAM = "20 + 100 iterations; best; bytes read and written"
PATTERNS = "alternating bits and addresses, each inverted, too; all written before one is read"
COPY = "3 samples of 4 copies, pinned memory; median"


def hardware_measurements(evidence: Evidence) -> Iterator[Measurement]:
    """Compute, memory and copies."""
    yield from _products(evidence)
    yield from _memory(evidence)
    yield from _copies(evidence)
    yield from _pairs(evidence)


def _measurement(
    evidence: Evidence,
    name: Name,
    key: str,
    path: Sequence[str],
    bounds: Bounds,
    *,
    protocol: str,
    note: str = "",
) -> Measurement:
    """Of one value a rank. If a rank that should have it has none, the figure is missing."""
    values, reason, missing = per_rank(evidence, key, *path)
    if missing or not values:
        return not_run(name, reason or "not measured", missing=missing)
    return measured(name, values, bounds, protocol=protocol, note=note)


def _products(evidence: Evidence) -> Iterator[Measurement]:
    bounds = {
        kind: evidence.limits.bounds(f"matmul-{kind}", evidence.place()) for kind in ("bf16", "fp8")
    }
    for kind, known in bounds.items():
        best = (evidence.parts[0].get(f"matmul_{kind}") or {}).get("best", {})
        shape = " x ".join(map(str, best.get("shape", ())))
        name = Name(
            id=f"matmul-{kind}",
            section=COMPUTE,
            title=f"matrix product, {kind}",
            unit="TFLOPS",
        )
        key, note = f"matmul_{kind}", f"shape {shape}" if shape else ""
        path = ("best", "median")
        yield _measurement(evidence, name, key, path, known, protocol=MATMUL, note=note)
    name = Name(
        id="matmul-sustained",
        section=COMPUTE,
        title="matrix product, bf16, sustained",
        unit="TFLOPS",
    )
    known = Bounds(
        limit=bounds["bf16"].limit,
        best=bounds["bf16"].best,
        why_no_gate=bounds["bf16"].why_no_gate or "not gated: depends on the power limit",
    )
    yield _measurement(evidence, name, "sustained", ("last",), known, protocol=SUSTAINED)


def _memory(evidence: Evidence) -> Iterator[Measurement]:
    fastest = _fastest_kernels(evidence)
    triad = evidence.limits.bounds("hbm-triad", evidence.place())
    other = Bounds(limit=triad.limit, why_no_gate="not gated: triad is" if evidence.gpu else NO_GPU)
    for kernel in ("copy", "scale", "add", "triad"):
        name = Name(
            id=f"hbm-{kernel}", section=MEMORY, title=f"memory, STREAM {kernel}", unit="TB/s"
        )
        known = triad if kernel == "triad" else other
        yield _measurement(fastest, name, "memory", ("rates", kernel), known, protocol=STREAM)
    name = Name(
        id="memory-patterns", section=MEMORY, title="memory, checked by patterns", unit="GB"
    )
    known = Bounds(why_no_gate="not gated: all that was free" if evidence.gpu else NO_GPU)
    yield _measurement(evidence, name, "patterns", ("gb",), known, protocol=PATTERNS)


NO_GPU = "not gated: no GPU"


def _fastest_kernels(evidence: Evidence) -> Evidence:
    """The best implementation of each kernel on each rank, in TB/s."""
    parts = []
    for part in evidence.parts:
        memory = part.get("memory") or {}
        rates = {
            kernel: max(one["best"] for one in ways.values()) / 1e3
            for kernel, ways in memory.get("kernels", {}).items()
        }
        parts.append({**part, "memory": {**memory, "rates": rates}} if memory else part)
    return Evidence(parts=parts, limits=evidence.limits, environment=evidence.environment)


def _copies(evidence: Evidence) -> Iterator[Measurement]:
    for way in ("host-to-device", "device-to-host"):
        name = Name(id=way, section=COPIES, title=way.replace("-", " "), unit="GB/s")
        known = evidence.limits.bounds("host-copy", evidence.place(), way)
        yield _measurement(evidence, name, "copies", (way,), known, protocol=COPY)


def _pairs(evidence: Evidence) -> Iterator[Measurement]:
    """Missing if any node that has pairs could not measure them."""
    known = evidence.limits.bounds("p2p", evidence.place())
    kernel = Bounds(limit=known.limit, why_no_gate="not gated: the copy engine's figure is")
    leaders = [part.get("pairs") or {} for part in evidence.parts if part["leads_node"]]
    lacking = [pairs for pairs in leaders if "not_run" in pairs]
    missing = any(pairs["expected"] for pairs in lacking)
    for way, bounds in (("copy engine", known), ("kernel", kernel)):
        name = Name(
            id=f"p2p-{way.replace(' ', '-')}",
            section=COPIES,
            title=f"GPU to GPU, by {way}",
            unit="GB/s",
        )
        values = pair_rates(evidence, way)
        if values and not missing:
            yield measured(name, values, bounds, protocol=COPY)
            continue
        notes = [note for pairs in leaders for note in pairs.get("notes", ())]
        reason = [pairs["not_run"] for pairs in lacking] + notes
        yield not_run(name, reason[0] if reason else "no access to a peer", missing=missing)
