"""Figures that count what is wrong: results, memory errors, GPUs slowed down by faults. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..measure.gpu_health import faults
from .evidence import Evidence
from .measurements import WARN, Measurement, Name, checked, not_run

HEALTH = "health"
RESULTS = (
    ("wrong-matmul-bf16", "cells of bf16 products", "matmul_bf16", "wrong", "checked"),
    ("wrong-matmul-fp8", "cells of fp8 products", "matmul_fp8", "wrong", "checked"),
    ("wrong-bits", "cells that differ on repeat", "sustained", "different_cells", "compared_cells"),
    ("wrong-memory", "elements of STREAM arrays", "memory", "wrong", "checked"),
    ("wrong-patterns", "items of patterns in all free memory", "patterns", "wrong", "checked"),
    ("wrong-copies", "elements of host copies", "copies", "wrong", "checked"),
    ("wrong-pairs", "elements of GPU to GPU copies", "pairs", "wrong", "checked"),
)


def health_measurements(evidence: Evidence) -> Iterator[Measurement]:
    """Wrong results first, then what the driver reports."""
    for id, title, key, wrong, of in RESULTS:
        found = [part[key] for part in evidence.parts if _ran(part.get(key))]
        if found:
            name = _name(id, title)
            yield checked(name, sum(one[wrong] for one in found), sum(one[of] for one in found))
    yield from _same_bits(evidence)
    yield from _collectives(evidence)
    yield from _trainings(evidence)
    yield from _driver(evidence)


def _name(id: str, title: str) -> Name:
    return Name(id=id, section=HEALTH, title=title, unit="wrong")


def _ran(found: Any) -> bool:
    return bool(found) and "not_run" not in found


def _same_bits(evidence: Evidence) -> Iterator[Measurement]:
    """Equal GPUs that are given equal numbers should agree; one that does not is suspicious, but
    its library may have chosen another kernel.
    """
    digests = {
        evidence.label(rank): (part["gpu"], part["sustained"]["digest"])
        for rank, part in enumerate(evidence.parts)
        if _ran(part.get("sustained"))
    }
    if len(digests) > 1 and len({gpu for gpu, _ in digests.values()}) == 1:
        (most, _), *_ = Counter(digests.values()).most_common(1)
        unlike = [who for who, digest in digests.items() if digest != most]
        name = _name("gpus-agree", "GPUs whose product has other bits than most")
        found = checked(name, len(unlike), len(digests), reason=", ".join(unlike))
        yield replace(found, verdict=WARN) if unlike else found


def _collectives(evidence: Evidence) -> Iterator[Measurement]:
    records = [record for part in evidence.parts for record in part.get("collectives") or []]
    if records:
        name = _name("wrong-collectives", "elements of collectives")
        wrong = sum(record["wrong"] for record in records)
        yield checked(name, wrong, sum(record["checked"] for record in records))


def _trainings(evidence: Evidence) -> Iterator[Measurement]:
    records = [record for part in evidence.parts for record in part.get("training") or []]
    if records:
        name = _name("wrong-training", "trainings that do not repeat, or whose loss does not fall")
        bad = [one for one in records if not (one["repeats"] and _learns(one["losses"]))]
        yield checked(name, len(bad), len(records))


def _learns(losses: Sequence[float]) -> bool:
    """False for NaN, too."""
    return losses[-1] < losses[0]


def _driver(evidence: Evidence) -> Iterator[Measurement]:
    """What the driver reports of the GPUs, before and after."""
    overall = _name("gpu-health", "GPU health")
    if not evidence.gpu:
        yield not_run(overall, "no GPU")
        return
    reported = [part["health"] for part in evidence.parts]
    unseen = [
        evidence.label(rank)
        for rank, one in enumerate(reported)
        if not (one["before"] and one["after"])
    ]
    if unseen:
        why = next((one["unseen"] for one in reported if one["unseen"]), "no answer for this GPU")
        yield not_run(overall, f"{', '.join(unseen)}: {why}", missing=True)
        return
    for id, title, count in (
        ("gpu-ecc", "new uncorrected memory errors", _new_ecc),
        ("gpu-remaps", "rows to be remapped, or that could not be", _remaps),
        ("gpu-throttling", "GPUs slowed down by heat or power faults", _slowed),
    ):
        counts = {evidence.label(rank): count(one) for rank, one in enumerate(reported)}
        known = {who: number for who, number in counts.items() if number is not None}
        if not known:
            yield not_run(_name(id, title), "the driver does not report it")
            continue
        bad = ", ".join(who for who, number in known.items() if number)
        yield checked(_name(id, title), int(sum(known.values())), len(known), reason=bad)


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
