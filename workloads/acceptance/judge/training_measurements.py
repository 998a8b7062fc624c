"""Figures of the small training: each GPU alone, each node, all nodes, and what more brings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import scaling
from .evidence import Evidence, training_rungs
from .limits import Bounds, Reference
from .measurements import Measurement, Name, measured, not_run

TRAINING = "training"
PROTOCOL = "15 + 50 steps; median; the slowest rank's rate by the number of ranks"
TRAINED = {"gpu": "each GPU alone", "node": "each node", "all": "all nodes"}
NO_GPU = "not gated: no GPU"


def training_measurements(evidence: Evidence) -> Iterator[Measurement]:
    """Throughput, scaling efficiency, and all nodes by the best single one."""
    rungs = training_rungs(evidence)
    for scope, where in TRAINED.items():
        found = [rung for rung in rungs if rung.scope == scope]
        name = Name(
            id=f"training-{scope}", section=TRAINING, title=f"training, {where}", unit="tok/s"
        )
        if not found:
            if scope == "gpu":
                yield not_run(name, "not measured", missing=True)
            continue
        values = {rung.name: rung.total for rung in found}
        known = Bounds(
            limit=_limit(evidence, found[0].ranks),
            why_no_gate="not gated: a model of our own" if evidence.gpu else NO_GPU,
        )
        yield measured(
            name, _alone(evidence) if scope == "gpu" else values, known, protocol=PROTOCOL
        )
        if scope != "gpu":
            yield _efficiency(evidence, found, where)
    yield from _speed_up(evidence, rungs)


def _alone(evidence: Evidence) -> dict[str, float]:
    return {
        evidence.label(rank): float(record["tokens_per_s"])
        for rank, part in enumerate(evidence.parts)
        for record in part["training"]
        if record["scope"] == "gpu"
    }


def _limit(evidence: Evidence, ranks: int) -> Reference | None:
    peak = evidence.limits.gpu(evidence.gpu).get("bf16_tflops") if evidence.gpu else None
    record = next((part["training"][0] for part in evidence.parts if part.get("training")), None)
    if not peak or not record:
        return None
    rate = peak * 1e12 / record["flops_per_token"] * ranks
    return Reference(rate, "bf16 peak by 6 N + 6 L d s operations per token")


def _efficiency(evidence: Evidence, found: Sequence[scaling.Rung], where: str) -> Measurement:
    gate = Reference(scaling.GOOD_EFFICIENCY, "derived: public runs keep 97-98 %")
    name = Name(
        id=f"scaling-{found[0].scope}",
        section=TRAINING,
        title=f"scaling efficiency, {where}",
        unit="of solo",
    )
    known = Bounds(gate=gate) if evidence.gpu else Bounds(why_no_gate=NO_GPU)
    return measured(name, {rung.name: rung.efficiency for rung in found}, known)


def _speed_up(evidence: Evidence, rungs: Sequence[scaling.Rung]) -> Iterator[Measurement]:
    gain = scaling.speed_up(rungs)
    if gain is None:
        return
    gate = Reference(1.0, "more nodes must not be slower in total")
    known = Bounds(gate=gate) if evidence.gpu else Bounds(why_no_gate=NO_GPU)
    name = Name(
        id="nodes-speed-up",
        section=TRAINING,
        title="all nodes by the best single one",
        unit="x",
    )
    note = "slower in total" if scaling.loud(rungs) else ""
    yield measured(name, {"all nodes": gain}, known, note=note)
