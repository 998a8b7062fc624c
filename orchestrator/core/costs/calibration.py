"""From measured points to a cost model of one kind of GPU, with what it covers and how well.

A point that is held out is predicted like a configuration that nobody measured; the bare roofline
of the same points stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.costs import inference_step, training_step
from orchestrator.core.costs.eager import eager_step
from orchestrator.core.costs.eager.eager_step import EagerJob
from orchestrator.core.costs.estimate import Family, Term
from orchestrator.core.costs.fitting import MeasuredPoint, fit, leave_one_out, mean_errors
from orchestrator.core.costs.hardware import FabricHardware, GpuHardware
from orchestrator.core.costs.inference_prediction import inference_features
from orchestrator.core.costs.inference_step import InferenceJob
from orchestrator.core.costs.predict import GPUS, Coverage, Features, training_features
from orchestrator.core.costs.tables import Calibration, FamilyPriors, FitQuality
from orchestrator.core.costs.training_step import TrainingJob

LEAST_POINTS = 4  # of a kind of job, for its family to be fitted
TRAINING, INFERENCE, EAGER = "training", "inference", "eager"
FAMILY_OF = {
    (TRAINING, "step_s"): "training.step",
    (TRAINING, "peak_bytes"): "training.memory",
    (TRAINING, "watts"): "training.power",
    (INFERENCE, "step_s"): "decode.step",
    (INFERENCE, "first_token_s"): "prefill",
    (INFERENCE, "peak_bytes"): "inference.memory",
    (INFERENCE, "watts"): "inference.power",
    (EAGER, "step_s"): "eager.decode",
    (EAGER, "first_token_s"): "eager.prefill",
    (EAGER, "peak_bytes"): "eager.memory",
    (EAGER, "watts"): "eager.power",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A job that was measured on GPUs of the file ``gpu``: figures by the names of ``FAMILY_OF``,
    and ``tokens_per_s``. ``label`` names it for people; ``held_out`` ones are never fitted to.
    """

    label: str
    gpu: str
    job: TrainingJob | InferenceJob
    fabric: FabricHardware
    figures: Mapping[str, float]
    held_out: bool = False

    @property
    def kind(self) -> str:
        """``training``, ``inference`` or ``eager``."""
        if isinstance(self.job, TrainingJob):
            return TRAINING
        return EAGER if isinstance(self.job, EagerJob) else INFERENCE


def calibrate(
    observations: Sequence[Observation],
    assumed: Mapping[str, FamilyPriors],
    device: GpuHardware,
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
        coverage={kind: covered(used, kind) for kind in (TRAINING, INFERENCE, EAGER)},
        quality=quality,
        missing=tuple(missing),
    )


def _points(
    observations: Iterable[Observation],
    kind: str,
    figure: str,
    device: GpuHardware,
) -> Iterator[MeasuredPoint]:
    for each in observations:
        if each.kind == kind and figure in each.figures:
            terms = tuple(terms_of(each, figure, device))
            cap = device.power_w if figure == "watts" else None
            yield MeasuredPoint(terms, each.figures[figure], cap)


def terms_of(observation: Observation, figure: str, device: GpuHardware) -> Iterable[Term]:
    """What physics says of a measured figure; power by the measured step."""
    job, fabric = observation.job, observation.fabric
    step, first = (observation.figures.get(name, 1.0) for name in ("step_s", "first_token_s"))
    if isinstance(job, TrainingJob):
        return {
            "step_s": lambda: training_step.step_terms(job, device, fabric),
            "peak_bytes": lambda: training_step.memory_terms(job),
            "watts": lambda: training_step.power_terms(job, device, step),
        }[figure]()
    if isinstance(job, EagerJob):
        return {
            "step_s": lambda: eager_step.decode_terms(job, device, fabric),
            "first_token_s": lambda: eager_step.prefill_terms(job, device, fabric),
            "peak_bytes": lambda: eager_step.memory_terms(job),
            "watts": lambda: eager_step.power_terms(job, device, step, first),
        }[figure]()
    return {
        "step_s": lambda: inference_step.decode_terms(job, device, fabric),
        "first_token_s": lambda: inference_step.prefill_terms(job, device, fabric),
        "peak_bytes": lambda: inference_step.memory_terms(job),
        "watts": lambda: inference_step.power_terms(job, device, step, first),
    }[figure]()


def _quality(family: FamilyPriors, points: Sequence[MeasuredPoint]) -> FitQuality:
    left_out = leave_one_out(family.priors, points, family.spread)
    found = [(each.error, each.inside) for each in left_out]
    return FitQuality(points=len(found), **mean_errors(found)._asdict())


def features_of(job: TrainingJob | InferenceJob) -> Features:
    """What coverage is measured by."""
    return training_features(job) if isinstance(job, TrainingJob) else inference_features(job)


def covered(observations: Sequence[Observation], kind: str) -> Coverage:
    """The least and most of each feature that was measured. Of GPUs only where there were several:
    what joins them is as assumed otherwise, and its uncertainty is part of the interval.
    """
    found = [features_of(each.job) for each in observations if each.kind == kind]
    names = found[0] if found else ()
    return {
        name: (min(each[name] for each in found), max(each[name] for each in found))
        for name in names
        if name != GPUS or any(each[name] > 1 for each in found)
    }
