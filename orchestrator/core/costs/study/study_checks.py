"""What speaks against a study: bands that it misses, and inputs that hardware cannot have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.core.costs.expert_imbalance import expected_experts, shared_out
from orchestrator.core.costs.study.study_model import (
    Band,
    BandCheck,
    Outcome,
    Runtime,
    Standing,
    Strategy,
    Study,
    StudyRow,
    System,
    Violation,
)
from orchestrator.core.costs.study.study_rows import (
    held_bytes,
    per_million,
    rate_alone,
    sensitivities,
    study_rows,
    usable_bytes,
)

SWITCHED = ("nvlink",)
RATIO = "ratio"


def run_study(study: Study) -> Outcome:
    """All figures and checks. Sensitivity is that of the last strategy."""
    rows = tuple(study_rows(study))
    outcome = Outcome(study=study, rows=rows)
    return Outcome(
        study=study,
        rows=rows,
        checks=tuple(check_band(outcome, band) for band in study.bands),
        violations=tuple(violations(study)),
        sensitivities=tuple(sensitivities(study, study.strategies[-1])),
    )


def check_band(outcome: Outcome, band: Band) -> BandCheck:
    """Where the study's figure lies, and why the band cannot hold, if that is so."""
    value = _band_value(outcome, band)
    standing = Standing.INSIDE
    if value < band.low:
        standing = Standing.BELOW
    elif value > band.high:
        standing = Standing.ABOVE
    reason = "" if standing is Standing.INSIDE else _impossible(outcome.study, band)
    return BandCheck(band=band, value=value, standing=standing, reason=reason)


def _band_value(outcome: Outcome, band: Band) -> float:
    if band.figure == RATIO:
        first, last = (
            outcome.row(band.system, band.strategy, runtime.name).tokens_per_s
            for runtime in (outcome.study.runtimes[0], outcome.study.runtimes[-1])
        )
        return last / first
    row: StudyRow = outcome.row(band.system, band.strategy, band.runtime)
    return float(getattr(row, band.figure))


def _impossible(study: Study, band: Band) -> str:
    """Why no communication and no balance could reach the band."""
    if band.figure not in {"tokens_per_s", "usd_per_million"}:
        return ""
    system = next(each for each in study.systems if each.name == band.system)
    runtime = next(each for each in study.runtimes if each.name == band.runtime)
    alone = rate_alone(study, system, runtime)
    most = system.gpus * alone
    best = f"{system.gpus} GPUs at {alone:.0f} tok/s alone make at most {most:.0f} tok/s"
    if band.figure == "tokens_per_s":
        return f"{best}, if nothing were lost" if band.low >= most else ""
    least = per_million(system.price_per_gpu_hour * system.gpus, most)
    price = f"{system.price_per_gpu_hour:g} USD an hour each"
    return f"{best}, at {price} {least:.2f} USD per million" if band.high < least else ""


def violations(study: Study) -> Iterator[Violation]:
    """By system."""
    for system in study.systems:
        yield from _too_large(study, system)
        for runtime in study.runtimes:
            yield from _too_fast(study, system, runtime)
        yield from _not_switched(study, system)
        yield from _uneven(study, system)


def _too_large(study: Study, system: System) -> Iterator[Violation]:
    """Copies of the weights that do not fit."""
    mixture = study.mixture
    for strategy in study.strategies:
        group, _ = system.layout(strategy)
        experts = max(shared_out(mixture.experts, group))
        needed, room = held_bytes(mixture, group), usable_bytes(system)
        if needed > room:
            yield Violation(
                system=system.name,
                id="capacity",
                text=f"{strategy}: {experts} experts and the rest take {needed / 1e9:.0f} GB on a "
                f"GPU, which has {room / 1e9:.0f} GB for weights: some would be read from the host",
            )


def _too_fast(study: Study, system: System, runtime: Runtime) -> Iterator[Violation]:
    """A rate of one GPU above what its memory can read."""
    mixture = study.mixture
    distinct = expected_experts(mixture.experts, mixture.active, mixture.sequences)
    read = distinct * mixture.expert_bytes + mixture.dense_bytes
    bound = mixture.sequences * system.device.memory_bytes_s / read
    rate = rate_alone(study, system, runtime)
    if rate > bound:
        asked, has = rate / bound * system.device.memory_bytes_s, system.device.memory_bytes_s
        yield Violation(
            system=system.name,
            id="memory-rate",
            text=f"{runtime.name}: {rate:.0f} tok/s of one GPU, {mixture.sequences} sequence(s) at "
            f"once, would read {asked / 1e12:.2f} TB/s; its memory has {has / 1e12:.2f} TB/s, "
            f"which is {bound:.0f} tok/s",
        )


def _not_switched(study: Study, system: System) -> Iterator[Violation]:
    """Links that are far from those of the reference."""
    inside = system.fabric.inside
    if inside.name in SWITCHED or system.gpus <= 2:
        return
    fastest = max(each.fabric.inside.bytes_s for each in study.systems)
    yield Violation(
        system=system.name,
        id="no-switch",
        text=f"{system.gpus} GPUs without a switch exchange over {inside.name}, through the host, "
        f"at {inside.bytes_s / 1e9:.0f} GB/s each; the fastest links of this study have "
        f"{fastest / inside.bytes_s:.0f} times that, and figures that assume such links here are "
        "wrong",
    )


def _uneven(study: Study, system: System) -> Iterator[Violation]:
    """Experts that cannot be dealt out evenly."""
    for strategy in study.strategies:
        group, _ = system.layout(strategy)
        shares = shared_out(study.mixture.experts, group)
        if strategy is not Strategy.DATA and max(shares) != min(shares):
            yield Violation(
                system=system.name,
                id="uneven-experts",
                text=f"{strategy}: {study.mixture.experts} experts over {group} GPUs: "
                f"{_counts(shares)}; the model deals them out so",
            )


def _counts(shares: Sequence[int]) -> str:
    return ", ".join(
        f"{shares.count(size)} GPUs hold {size}" for size in sorted(set(shares), reverse=True)
    )
