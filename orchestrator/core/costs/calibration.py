"""From measured points to a cost model of one kind of GPU, with what it covers and how well.

A point that is held out is predicted like a configuration that nobody measured; the bare roofline
of the same points stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from orchestrator.core.base.wire_names import wire
from orchestrator.core.costs import inference_step, training_step
from orchestrator.core.costs.estimate import Family, Term
from orchestrator.core.costs.fitting import (
    MeasuredPoint,
    Prior,
    fit,
    leave_one_out,
    uninformed,
)
from orchestrator.core.costs.hardware import Device, Fabric, GpuKind, Latency
from orchestrator.core.costs.inference_step import InferenceJob
from orchestrator.core.costs.predict import (
    CostModel,
    Coverage,
    Features,
    inference_features,
    training_features,
)
from orchestrator.core.costs.training_step import TrainingJob

LEAST_POINTS = 4  # of a kind of job, for its family to be fitted
TRAINING, INFERENCE = "training", "inference"
FAMILY_OF = {
    (TRAINING, "step_s"): "training.step",
    (TRAINING, "peak_bytes"): "training.memory",
    (TRAINING, "watts"): "training.power",
    (INFERENCE, "step_s"): "decode.step",
    (INFERENCE, "first_token_s"): "prefill",
    (INFERENCE, "peak_bytes"): "inference.memory",
    (INFERENCE, "watts"): "inference.power",
}


@wire("FamilyPriors")
@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyPriors:
    """What is assumed of a family: ``spread`` of repeated measurements."""

    priors: tuple[Prior, ...]
    spread: float


@wire("CostTables")
@dataclass(frozen=True, slots=True, kw_only=True)
class CostTables:
    """What hardware files say: GPUs by the names of their files, links by kind, what is assumed of
    each family.
    """

    gpus: Mapping[str, GpuKind]
    links: Mapping[str, Latency]
    assumed: Mapping[str, FamilyPriors]

    def gpu_called(self, name: str) -> str | None:
        """The file of the GPU that a driver or an inventory calls so; None where none fits."""
        short = name.lower()
        if short in self.gpus:
            return short
        begins = {
            len(known): key
            for key, gpu in self.gpus.items()
            for known in gpu.device.names
            if name.startswith(known)
        }
        return begins[max(begins)] if begins else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A job that was measured on GPUs of the file ``gpu``: figures by the names of ``FAMILY_OF``,
    and ``tokens_per_s``. ``label`` names it for people; ``held_out`` ones are never fitted to.
    """

    label: str
    gpu: str
    job: TrainingJob | InferenceJob
    fabric: Fabric
    figures: Mapping[str, float]
    held_out: bool = False

    @property
    def kind(self) -> str:
        """``training`` or ``inference``."""
        return TRAINING if isinstance(self.job, TrainingJob) else INFERENCE


@wire("FitQuality")
@dataclass(frozen=True, slots=True, kw_only=True)
class FitQuality:
    """Errors of a family when each of its points is predicted by the others: mean absolute
    percentage error and bias as fractions, and the share that lies in the 90 % interval.
    """

    points: int
    mape: float
    bias: float
    inside: float


@wire("Calibration")
@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Fitted families of one kind of GPU. ``device`` is its name; ``made`` a date; ``missing``:
    what was not fitted, and why.
    """

    device: str
    made: str
    source: str
    families: Mapping[str, Family]
    coverage: Mapping[str, Mapping[str, tuple[float, ...]]]
    quality: Mapping[str, FitQuality] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    schema_version: int = 1


def calibrate(
    observations: Sequence[Observation],
    assumed: Mapping[str, FamilyPriors],
    device: Device,
    *,
    made: str,
    source: str,
) -> Calibration:
    """Fit every family that has enough points. Held-out ones are never looked at."""
    used = [each for each in observations if not each.held_out]
    families: dict[str, Family] = {}
    quality: dict[str, FitQuality] = {}
    missing = []
    for (kind, figure), name in FAMILY_OF.items():
        points = list(_points(used, kind, figure, device))
        family = assumed[name]
        if len(points) < LEAST_POINTS:
            missing.append(f"{name}: {len(points)} points of {figure}, {LEAST_POINTS} are needed")
            continue
        families[name] = fit(family.priors, points, family.spread)
        quality[name] = _quality(family, points)
    return Calibration(
        device=device.name,
        made=made,
        source=source,
        families=families,
        coverage={kind: covered(used, kind) for kind in (TRAINING, INFERENCE)},
        quality=quality,
        missing=tuple(missing),
    )


def _points(
    observations: Iterable[Observation],
    kind: str,
    figure: str,
    device: Device,
) -> Iterator[MeasuredPoint]:
    for each in observations:
        if each.kind == kind and figure in each.figures:
            terms = tuple(terms_of(each, figure, device))
            cap = device.power_w if figure == "watts" else None
            yield MeasuredPoint(terms, each.figures[figure], cap)


def terms_of(observation: Observation, figure: str, device: Device) -> Iterable[Term]:
    """What physics says of a measured figure; power by the measured step."""
    job, fabric = observation.job, observation.fabric
    step = observation.figures.get("step_s", 1.0)
    if isinstance(job, TrainingJob):
        return {
            "step_s": lambda: training_step.step_terms(job, device, fabric),
            "peak_bytes": lambda: training_step.memory_terms(job),
            "watts": lambda: training_step.power_terms(job, device, step),
        }[figure]()
    return {
        "step_s": lambda: inference_step.decode_terms(job, device, fabric),
        "first_token_s": lambda: inference_step.prefill_terms(job, device, fabric),
        "peak_bytes": lambda: inference_step.memory_terms(job),
        "watts": lambda: inference_step.power_terms(job, device, step),
    }[figure]()


def _quality(family: FamilyPriors, points: Sequence[MeasuredPoint]) -> FitQuality:
    found = list(leave_one_out(family.priors, points, family.spread))
    return FitQuality(
        points=len(found),
        mape=fmean(abs(each.error) for each in found),
        bias=fmean(each.error for each in found),
        inside=fmean(each.inside for each in found),
    )


def features_of(job: TrainingJob | InferenceJob) -> Features:
    """What coverage is measured by."""
    return training_features(job) if isinstance(job, TrainingJob) else inference_features(job)


def covered(observations: Sequence[Observation], kind: str) -> Coverage:
    """The least and most of each feature that was measured."""
    found = [features_of(each.job) for each in observations if each.kind == kind]
    names = found[0] if found else ()
    return {
        name: (min(each[name] for each in found), max(each[name] for each in found))
        for name in names
    }


def model_of(
    device: Device, assumed: Mapping[str, FamilyPriors], calibration: Calibration | None
) -> CostModel:
    """The cost model of a device: fitted families, and assumed ones for what was not fitted."""
    families = {name: uninformed(each.priors, each.spread) for name, each in assumed.items()}
    if calibration is None:
        basis = f"data sheet of {device.name}; nothing was measured on it"
        return CostModel(device=device, families=families, basis=basis)
    points = max((family.points for family in calibration.families.values()), default=0)
    coverage = {
        kind: {name: (bounds[0], bounds[-1]) for name, bounds in each.items()}
        for kind, each in calibration.coverage.items()
    }
    return CostModel(
        device=device,
        families=families | dict(calibration.families),
        basis=f"{points} points measured on {device.name}, {calibration.made}",
        coverage=coverage,
    )
