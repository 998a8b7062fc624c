"""From what every rank measured to figures with verdicts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import scaling
from bandwidth import ALL_REDUCE, COLLECTIVES
from figures import Figure, checked, measured, not_run
from health import faults
from limits import GATED_FROM_BYTES, Bounds, Limits, Place, Reference
from merging import merged_sweeps

COMPUTE, MEMORY, COPIES = "compute", "memory", "copies"
COLLECTIVE, ACROSS, TRAINING, HEALTH = "collectives", "across nodes", "training", "health"
MATMUL = "50 + 100 iterations, cache flushed and output random before each; median"
SUSTAINED = "windows of a second; median over GPUs of the last one"
STREAM = "20 + 100 iterations; best; bytes read and written"
COPY = "3 samples of 4 copies, pinned memory; median"
NCCL = "5 + 20 iterations; time averaged over ranks; nccl-tests' bus bandwidth"
NO_GPU = "no GPU"

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


def figures(evidence: Evidence) -> list[Figure]:
    """Every figure that the test has, measured or not."""
    return [
        *_products(evidence),
        *_memory(evidence),
        *_copies(evidence),
        *_pairs(evidence),
        *_collectives(evidence),
        *_training(evidence),
        *_correctness(evidence),
        *_health(evidence),
    ]


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
        for name in path:
            found = found[name]
        values[evidence.label(rank)] = float(found)
    return values, reason, missing


def _figure(
    evidence: Evidence, key: str, path: Sequence[str], bounds: Bounds, **about: Any
) -> Figure:
    """Of one value a rank. If a rank that should have it has none, the figure is missing."""
    values, reason, missing = per_rank(evidence, key, *path)
    if missing or not values:
        names = {name: about[name] for name in ("id", "section", "title", "unit")}
        return not_run(reason or "not measured", **names, missing=missing)
    return measured(values, bounds, **about)


def _products(evidence: Evidence) -> Iterator[Figure]:
    bounds = {
        kind: evidence.limits.bounds(f"matmul-{kind}", evidence.place()) for kind in ("bf16", "fp8")
    }
    for kind, known in bounds.items():
        best = (evidence.parts[0].get(f"matmul_{kind}") or {}).get("best", {})
        shape = " x ".join(map(str, best.get("shape", ())))
        yield _figure(
            evidence,
            f"matmul_{kind}",
            ("best", "median"),
            known,
            id=f"matmul-{kind}",
            section=COMPUTE,
            title=f"matrix product, {kind}, best shape",
            unit="TFLOPS",
            protocol=MATMUL,
            note=f"shape {shape}" if shape else "",
        )
    yield _figure(
        evidence,
        "sustained",
        ("last",),
        Bounds(
            limit=bounds["bf16"].limit,
            best=bounds["bf16"].best,
            why_no_gate=bounds["bf16"].why_no_gate or "not gated: depends on the power limit",
        ),
        id="matmul-sustained",
        section=COMPUTE,
        title="matrix product, bf16, sustained",
        unit="TFLOPS",
        protocol=SUSTAINED,
    )


def _memory(evidence: Evidence) -> Iterator[Figure]:
    for kernel in ("copy", "scale", "add", "triad"):
        known = evidence.limits.bounds("hbm-triad", evidence.place())
        if kernel != "triad":
            known = Bounds(limit=known.limit, why_no_gate="not gated: triad is")
        yield _figure(
            _fastest_kernels(evidence),
            "memory",
            ("rates", kernel),
            known if evidence.gpu else Bounds(why_no_gate="not gated: no GPU"),
            id=f"hbm-{kernel}",
            section=MEMORY,
            title=f"memory, STREAM {kernel}",
            unit="TB/s",
            protocol=STREAM,
        )


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


def _copies(evidence: Evidence) -> Iterator[Figure]:
    for way in ("host-to-device", "device-to-host"):
        yield _figure(
            evidence,
            "copies",
            (way,),
            evidence.limits.bounds("host-copy", evidence.place(), way),
            id=way,
            section=COPIES,
            title=way.replace("-", " "),
            unit="GB/s",
            protocol=COPY,
        )


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


def _pairs(evidence: Evidence) -> Iterator[Figure]:
    known = evidence.limits.bounds("p2p", evidence.place())
    for way, gated in (("copy engine", True), ("kernel", False)):
        about = {
            "id": f"p2p-{way.replace(' ', '-')}",
            "section": COPIES,
            "title": f"GPU to GPU, by {way}",
            "unit": "GB/s",
        }
        values = pair_rates(evidence, way)
        leaders = [part for part in evidence.parts if part["leads_node"]]
        lacking = [part for part in leaders if "not_run" in (part.get("pairs") or {})]
        expected = any(part["pairs"]["expected"] for part in lacking)
        if values and not expected:
            bounds = known if gated else Bounds(limit=known.limit, why_no_gate=_ENGINE_IS_GATED)
            yield measured(values, bounds, protocol=COPY, **about)
            continue
        reason = lacking[0]["pairs"]["not_run"] if lacking else "no pair could be measured this way"
        yield not_run(reason, **about, missing=expected)


_ENGINE_IS_GATED = "not gated: the copy engine's figure is"


def _collectives(evidence: Evidence) -> Iterator[Figure]:
    merged = merged_sweeps([part.get("collectives") or [] for part in evidence.parts])
    several = len(evidence.nodes) > 1
    for scope, section in (("node", COLLECTIVE), ("all", ACROSS), ("rails", ACROSS)):
        for collective in COLLECTIVES if scope != "rails" else (ALL_REDUCE,):
            about = {
                "id": f"{collective}-{scope}",
                "section": section,
                "title": f"{collective}, {_SCOPES[scope]}",
                "unit": "GB/s",
            }
            records = [
                record
                for record in merged
                if record["scope"] == scope
                and record["collective"] == collective
                and record["ranks"] > 1
            ]
            if records:
                yield _busbw(evidence, records, about)
            elif scope == "node" and len(evidence.parts) < 2:
                yield not_run("only one rank", **about)
            elif scope == "node" and several:
                yield not_run("one rank on each node", **about)
            elif several and scope == "all":
                yield not_run("not measured", **about, missing=True)


_SCOPES = {"node": "inside a node", "all": "all nodes", "rails": "between nodes only"}


def _busbw(
    evidence: Evidence, records: Sequence[Mapping[str, Any]], about: Mapping[str, str]
) -> Figure:
    """At the largest size, of the faster placement; one value for each group."""
    size = max(record["size"] for record in records)
    at_size = [record for record in records if record["size"] == size]
    values: dict[str, float] = {}
    for record in at_size:
        nodes = dict.fromkeys(evidence.node_of[rank] for rank in record["members"])
        name = ", ".join(nodes) if record["scope"] == "node" else f"ranks {record['members'][0]}.."
        values[name] = max(values.get(name, 0.0), record["busbw"])
    first = at_size[0]
    ranks, nodes_count = first["ranks"], first["nodes"]
    known = evidence.limits.bounds(
        first["collective"],
        evidence.place(
            ranks=ranks,
            nodes=nodes_count,
            size=size,
            nic_gb_s=evidence.nic_gb_s if nodes_count > 1 else 0.0,
            switch_reduces=evidence.limits.nvls(
                evidence.gpu, ranks // nodes_count, evidence.environment
            ),
        ),
    )
    if not known.gate and evidence.gpu and size < GATED_FROM_BYTES:
        known = Bounds(
            limit=known.limit, best=known.best, why_no_gate="not gated: sizes below 1 GiB"
        )
    notes = [f"{ranks} ranks at {_bytes(size)}", *_shortened(records)]
    if nodes_count > 1 and evidence.gpu and not evidence.nic_gb_s:
        notes.append("no active InfiniBand or RoCE port was seen: over sockets")
    return measured(values, known, **about, protocol=NCCL, note="; ".join(notes))


def _shortened(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where the protocol was not kept because it would have taken too long."""
    fewest = min(record["iterations"] for record in records)
    if fewest < 20:
        yield f"only {fewest} iterations at slow sizes"


def _bytes(size: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} B"


def training_rungs(evidence: Evidence) -> list[scaling.Rung]:
    parts = [part.get("training") or [] for part in evidence.parts]
    return scaling.rungs(parts, evidence.node_of)


def _training(evidence: Evidence) -> Iterator[Figure]:
    rungs = training_rungs(evidence)
    peak = evidence.limits.gpu(evidence.gpu).get("bf16_tflops") if evidence.gpu else None
    by_scope: dict[str, list[scaling.Rung]] = {}
    for rung in rungs:
        by_scope.setdefault(rung.scope, []).append(rung)
    for scope in ("gpu", "node", "all"):
        found = by_scope.get(scope, [])
        about = {"section": TRAINING, "title": f"training, {_TRAINED[scope]}"}
        if not found:
            if scope == "gpu":
                yield not_run("not measured", id="training-gpu", unit="tok/s", **about, missing=True)
            continue
        first = found[0]
        limit = _training_limit(evidence, peak, first.ranks)
        if scope == "gpu":
            values = {
                evidence.label(rank): record["tokens_per_s"]
                for rank, part in enumerate(evidence.parts)
                for record in part["training"]
                if record["scope"] == "gpu"
            }
        else:
            values = {rung.name: rung.total for rung in found}
        bounds = Bounds(limit=limit, why_no_gate="not gated: a model of our own")
        yield measured(values, bounds, id=f"training-{scope}", unit="tok/s", **about)
        if scope != "gpu":
            yield _efficiency(evidence, found, scope)
    yield from _speed_up(evidence, rungs)


_TRAINED = {"gpu": "each GPU alone", "node": "each node", "all": "all nodes"}


def _training_limit(evidence: Evidence, peak: float | None, ranks: int) -> Reference | None:
    record = next((part["training"][0] for part in evidence.parts if part.get("training")), None)
    if not peak or not record:
        return None
    rate = peak * 1e12 / record["flops_per_token"] * ranks
    return Reference(rate, "bf16 peak by 6 N + 6 L d s operations per token")


def _efficiency(evidence: Evidence, found: Sequence[scaling.Rung], scope: str) -> Figure:
    gate = Reference(scaling.GOOD_EFFICIENCY, "derived: public runs keep 97-98 %")
    known = Bounds(gate=gate) if evidence.gpu else Bounds(why_no_gate="not gated: no GPU")
    return measured(
        {rung.name: rung.efficiency for rung in found},
        known,
        id=f"scaling-{scope}",
        section=TRAINING,
        title=f"scaling efficiency, {_TRAINED[scope]}",
        unit="of the GPUs alone",
    )


def _speed_up(evidence: Evidence, rungs: Sequence[scaling.Rung]) -> Iterator[Figure]:
    gain = scaling.speed_up(rungs)
    if gain is None:
        return
    gate = Reference(1.0, "more nodes must not be slower in total")
    known = Bounds(gate=gate) if evidence.gpu else Bounds(why_no_gate="not gated: no GPU")
    yield measured(
        {"all nodes": gain},
        known,
        id="nodes-speed-up",
        section=TRAINING,
        title="all nodes by the best single one",
        unit="x",
        note=scaling.loud(rungs),
    )


def _correctness(evidence: Evidence) -> Iterator[Figure]:
    for id, title, key, wrong_key, of_key in _CHECKS:
        found = [part[key] for part in evidence.parts if _ran(part.get(key))]
        wrong = sum(one[wrong_key] for one in found)
        of = sum(one[of_key] for one in found)
        about = {"id": id, "section": HEALTH, "title": title, "unit": "wrong"}
        if found:
            yield checked(wrong, of, **about)
    records = [record for part in evidence.parts for record in part.get("collectives") or []]
    if records:
        yield checked(
            sum(record["wrong"] for record in records),
            sum(record["checked"] for record in records),
            id="wrong-collectives",
            section=HEALTH,
            title="elements of collectives",
            unit="wrong",
        )
    trained = [record for part in evidence.parts for record in part.get("training") or []]
    if trained:
        yield checked(
            sum(not (record["repeats"] and _learns(record["losses"])) for record in trained),
            len(trained),
            id="wrong-training",
            section=HEALTH,
            title="trainings that repeat bit for bit and whose loss falls",
            unit="wrong",
        )


_CHECKS = (
    ("wrong-matmul-bf16", "cells of bf16 products", "matmul_bf16", "wrong", "checked"),
    ("wrong-matmul-fp8", "cells of fp8 products", "matmul_fp8", "wrong", "checked"),
    ("wrong-bits", "cells that differ on repeat", "sustained", "different_cells", "compared_cells"),
    ("wrong-memory", "elements of STREAM arrays", "memory", "wrong", "checked"),
    ("wrong-copies", "elements of host copies", "copies", "wrong", "checked"),
    ("wrong-pairs", "elements of GPU to GPU copies", "pairs", "wrong", "checked"),
)


def _ran(found: Any) -> bool:
    return bool(found) and "not_run" not in found


def _learns(losses: Sequence[float]) -> bool:
    """False for NaN, too."""
    return losses[-1] < losses[0]


def _health(evidence: Evidence) -> Iterator[Figure]:
    about = {"section": HEALTH, "unit": "wrong"}
    if not evidence.gpu:
        yield not_run(NO_GPU, id="gpu-health", title="GPU health", **about)
        return
    told = [(rank, part["health"]) for rank, part in enumerate(evidence.parts)]
    unseen = [evidence.label(rank) for rank, one in told if not (one["before"] and one["after"])]
    if unseen:
        why = next((one["unseen"] for _, one in told if one["unseen"]), "no answer for this GPU")
        yield not_run(
            f"{', '.join(unseen)}: {why}",
            id="gpu-health",
            title="GPU health",
            **about,
            missing=True,
        )
        return
    for id, title, count in (
        ("gpu-ecc", "new uncorrected memory errors", _new_ecc),
        ("gpu-remaps", "rows to be remapped, or that could not be", _remaps),
        ("gpu-throttling", "GPUs slowed down by heat or power faults", _slowed),
    ):
        counts = {evidence.label(rank): count(one) for rank, one in told}
        known = {name: number for name, number in counts.items() if number is not None}
        if not known:
            yield not_run("the driver does not tell", id=id, title=title, **about)
            continue
        bad = ", ".join(name for name, number in known.items() if number)
        wrong = int(sum(known.values()))
        yield checked(wrong, len(known), id=id, title=title, **about, reason=bad)


def _new_ecc(health: Mapping[str, Any]) -> float | None:
    before, after = health["before"]["ecc_uncorrected"], health["after"]["ecc_uncorrected"]
    return None if before is None or after is None else max(0, after - before)


def _remaps(health: Mapping[str, Any]) -> float | None:
    found = [health["after"].get(key) for key in ("remap_pending", "remap_failed")]
    return None if None in found else sum(found)


def _slowed(health: Mapping[str, Any]) -> float | None:
    bits = [sample["throttle"] for sample in health["samples"]]
    bits += [health["before"].get("throttle"), health["after"].get("throttle")]
    seen = [int(bit) for bit in bits if bit is not None]
    return float(any(faults(bit) for bit in seen)) if seen else None
