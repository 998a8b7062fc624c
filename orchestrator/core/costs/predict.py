"""What a job will take on a machine: figures with intervals, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from orchestrator.core.costs import training_step
from orchestrator.core.costs.estimate import Family, Interval, estimate, product
from orchestrator.core.costs.hardware import FabricHardware, GpuHardware
from orchestrator.core.costs.training_step import TrainingJob

GPUS = "GPUs"  # the feature that says how many there are
REACH = 2.0  # how far beyond what was measured a family is believed

Coverage = Mapping[str, tuple[float, float]]
Features = Mapping[str, float]


class OutOfCoverage(ValueError):
    """A job that is too far from everything that was measured; the message says in what."""


class CostModel(NamedTuple):
    """The coefficients of one kind of GPU. ``coverage``: of each kind of job, what was measured of
    each feature, from and to; none = nothing was measured on it. ``basis``: where they come from.
    """

    device: GpuHardware
    families: Mapping[str, Family]
    basis: str
    coverage: Mapping[str, Coverage] = MappingProxyType({})


class Prediction(NamedTuple):
    """Figures by the names that workloads report them under, and their units; ``basis`` says what
    the coefficients were fitted to.
    """

    figures: Mapping[str, Interval]
    units: Mapping[str, str]
    basis: str


def training_features(job: TrainingJob) -> Features:
    """What the coverage of training is measured by."""
    return {
        "hidden width": job.shape.hidden,
        "tokens of a micro-batch": job.tokens,
        "sequence length": job.sequence,
        GPUS: job.gpus,
    }


def predict_training(job: TrainingJob, fabric: FabricHardware, model: CostModel) -> Prediction:
    """Step time, tokens/s of all GPUs, peak bytes of a rank, watts of a GPU. Raises
    :class:`OutOfCoverage`.
    """
    require_coverage(model, "training", training_features(job))
    device, families = model.device, model.families
    step = estimate(families["training.step"], tuple(training_step.step_terms(job, device, fabric)))
    peak = estimate(families["training.memory"], tuple(training_step.memory_terms(job)))
    draw = tuple(training_step.power_terms(job, device, step.value))
    watts = estimate(families["training.power"], draw, device.power_w)
    rate = step.inverted(job.tokens_per_step)
    figures = {
        "step_time_p50": step,
        "tokens_per_s": rate,
        "peak_memory_bytes": peak,
        "watts": watts,
        "tokens_per_joule": per_joule(rate, watts, job.gpus),
    }
    return Prediction(figures=figures, units=UNITS, basis=model.basis)


UNITS = {
    "step_time_p50": "s",
    "decode_step_s": "s",
    "prompts_done_s": "s",
    "tokens_per_s": "tok/s",
    "peak_memory_bytes": "bytes",
    "watts": "W",
    "tokens_per_joule": "tok/J",
}


def per_joule(rate: Interval, watts: Interval, gpus: int) -> Interval:
    """Tokens for a joule of all GPUs."""
    return product(rate, watts.scaled(gpus).inverted(1.0))


def require_coverage(model: CostModel, kind: str, features: Features) -> None:
    """Within a factor of what was measured, where anything was."""
    for name, (least, most) in model.coverage.get(kind, {}).items():
        if not least / REACH <= features[name] <= most * REACH:
            what = f"{name} {features[name]:g}: measured were {least:g} to {most:g}"
            raise OutOfCoverage(f"{what} on {model.device.name}")
