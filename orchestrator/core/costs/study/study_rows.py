"""From a study to its figures.

A GPU alone makes the runtime's tokens/s, scaled by its memory's rate: decoding reads weights. In a
group of GPUs that share experts, the most loaded one sets the time of the experts' part, and in
each layer every token goes to its experts and back. Groups do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from orchestrator.core.costs.collective_seconds import all_to_all_s
from orchestrator.core.costs.expert_imbalance import Routing, imbalance, shared_out
from orchestrator.core.costs.study.study_model import (
    Mixture,
    Runtime,
    Sensitivity,
    Strategy,
    Study,
    StudyRow,
    System,
)

HOUR_S, MILLION, MONTHS = 3600.0, 1e6, 12
USABLE = 0.9  # of a GPU's memory, for weights
CHANGE = 0.2  # of an input, for sensitivity


def study_rows(study: Study) -> Iterator[StudyRow]:
    """Every combination, the first runtime of each first."""
    for system in study.systems:
        for strategy in study.strategies:
            first: StudyRow | None = None
            for runtime in study.runtimes:
                row = study_row(study, system, strategy, runtime, first)
                first = first or row
                yield row


def held_bytes(mixture: Mixture, group: int) -> float:
    """Weights on the fullest GPU of a group."""
    experts = max(shared_out(mixture.experts, group))
    return experts * mixture.expert_bytes + mixture.dense_bytes


def usable_bytes(system: System) -> float:
    """Of a GPU, for weights."""
    return USABLE * system.device.memory_bytes


def rate_alone(study: Study, system: System, runtime: Runtime) -> float:
    """Tokens/s of one GPU of the system."""
    relative = system.device.memory_bytes_s / study.reference.memory_bytes_s
    return runtime.tokens_per_s * relative


def study_row(
    study: Study,
    system: System,
    strategy: Strategy,
    runtime: Runtime,
    first: StudyRow | None = None,
) -> StudyRow:
    """One combination; ``first`` is the same with the first runtime."""
    group, copies = system.layout(strategy)
    gpus = group * copies
    rate = rate_alone(study, system, runtime)
    step = _step(study.mixture, system, group, runtime, rate)
    tokens = study.mixture.sequences * gpus / step.seconds
    usd = per_million(system.price_per_gpu_hour * gpus, tokens)
    yearly = usd * study.tokens_per_month * MONTHS / MILLION
    return StudyRow(
        system=system.name,
        strategy=strategy,
        runtime=runtime.name,
        gpus=gpus,
        group=group,
        copies=copies,
        tokens_per_s=tokens,
        compute_s=step.compute_s,
        communication_s=step.sent_s,
        communication_share=step.sent_s / step.seconds,
        imbalance=step.load,
        efficiency=tokens / (gpus * rate),
        speedup=tokens / rate,
        amdahl=amdahl(serial_part(step.sent_s / step.alone_s, gpus), gpus),
        usd_per_million=usd,
        yearly_usd=yearly,
        yearly_savings=0.0 if first is None else first.yearly_usd - yearly,
        fits=held_bytes(study.mixture, group) <= usable_bytes(system),
    )


class _Step(NamedTuple):
    """Seconds of a step: of one GPU alone, and in its group; ``load`` of the most loaded one."""

    alone_s: float
    compute_s: float
    sent_s: float
    load: float

    @property
    def seconds(self) -> float:
        """In the group, of both parts."""
        return self.compute_s + self.sent_s


def _step(mixture: Mixture, system: System, group: int, runtime: Runtime, rate: float) -> _Step:
    alone_s, share = mixture.sequences / rate, mixture.expert_share
    load = _load(mixture, group, runtime)
    return _Step(
        alone_s=alone_s,
        compute_s=alone_s * (1 - share + share * load),
        sent_s=_communication_s(mixture, system, group) * runtime.communication,
        load=load,
    )


def per_million(per_hour: float, tokens_per_s: float) -> float:
    """Price of a million tokens, by that of an hour."""
    return per_hour * MILLION / (tokens_per_s * HOUR_S)


def serial_part(lost: float, gpus: int) -> float:
    """The part of one GPU's time that cannot be divided, if each of ``gpus`` loses ``lost`` times
    its own share of it (Karp and Flatt 1990, doi 10.1145/78607.78614).
    """
    return min(1.0, lost / (gpus - 1)) if gpus > 1 else 0.0


def amdahl(serial: float, gpus: int) -> float:
    """The speed-up of ``gpus`` if a part ``serial`` of the time alone cannot be divided."""
    return 1 / (serial + (1 - serial) / gpus)


def _load(mixture: Mixture, group: int, runtime: Runtime) -> float:
    """Of the most loaded GPU by the mean, when the runtime has moved away what it foresaw."""
    routing = Routing(
        experts=mixture.experts,
        active=mixture.active,
        skew=mixture.skew,
        seed=mixture.seed,
        draws=mixture.draws,
    )
    drawn = imbalance(routing, mixture.sequences * group, group).load
    return 1 + (drawn - 1) * (1 - runtime.foreseen)


def _communication_s(mixture: Mixture, system: System, group: int) -> float:
    """To the experts and back in each layer."""
    size = mixture.sequences * mixture.active * mixture.hidden * mixture.activation_bytes
    return 2 * mixture.layers * all_to_all_s(size, group, system.fabric)


def sensitivities(study: Study, strategy: Strategy) -> Iterator[Sensitivity]:
    """Of the last runtime's tokens/s on each system, the input that moves it most first."""
    for system in study.systems:
        found = [_moved(study, system, strategy, name) for name in INPUTS]
        yield from sorted(found, key=lambda each: -each.reach)


def _moved(study: Study, system: System, strategy: Strategy, name: str) -> Sensitivity:
    base = _last_rate(study, system, strategy)
    lower, higher = (
        _last_rate(*INPUTS[name](study, system, factor), strategy) / base - 1
        for factor in (1 - CHANGE, 1 + CHANGE)
    )
    return Sensitivity(system=system.name, input=name, change=CHANGE, lower=lower, higher=higher)


def _last_rate(study: Study, system: System, strategy: Strategy) -> float:
    return study_row(study, system, strategy, study.runtimes[-1]).tokens_per_s


def _with_rate(study: Study, system: System, factor: float) -> tuple[Study, System]:
    return _with_runtime(study, tokens_per_s=study.runtimes[-1].tokens_per_s * factor), system


def _with_sent(study: Study, system: System, factor: float) -> tuple[Study, System]:
    return _with_runtime(study, communication=study.runtimes[-1].communication * factor), system


def _with_foreseen(study: Study, system: System, factor: float) -> tuple[Study, System]:
    foreseen = min(1.0, study.runtimes[-1].foreseen * factor)
    return _with_runtime(study, foreseen=foreseen), system


def _with_runtime(study: Study, **changes: float) -> Study:
    last = replace(study.runtimes[-1], **changes)  # type: ignore[arg-type]
    return replace(study, runtimes=(*study.runtimes[:-1], last))


def _with_skew(study: Study, system: System, factor: float) -> tuple[Study, System]:
    mixture = replace(study.mixture, skew=study.mixture.skew * factor)
    return replace(study, mixture=mixture), system


def _with_layers(study: Study, system: System, factor: float) -> tuple[Study, System]:
    mixture = replace(study.mixture, layers=round(study.mixture.layers * factor))
    return replace(study, mixture=mixture), system


def _with_latency(study: Study, system: System, factor: float) -> tuple[Study, System]:
    inside = system.fabric.inside
    slower = inside._replace(start_s=inside.start_s * factor, hop_s=inside.hop_s * factor)
    return study, replace(system, fabric=system.fabric._replace(inside=slower))


def _with_bandwidth(study: Study, system: System, factor: float) -> tuple[Study, System]:
    inside = system.fabric.inside
    wider = inside._replace(bytes_s=inside.bytes_s * factor)
    return study, replace(system, fabric=system.fabric._replace(inside=wider))


INPUTS = {
    "tokens/s of one GPU": _with_rate,
    "communication of the runtime": _with_sent,
    "foreseen share of uneven load": _with_foreseen,
    "skew of the experts' popularity": _with_skew,
    "layers": _with_layers,
    "latency of a link": _with_latency,
    "bandwidth of a link": _with_bandwidth,
}
