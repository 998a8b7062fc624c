"""How good a cost model is: measured figures beside its predictions and the bare roofline's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from orchestrator.core.costs import inference_step, training_step
from orchestrator.core.costs.calibration import EAGER, Observation
from orchestrator.core.costs.eager.eager_prediction import predict_eager
from orchestrator.core.costs.eager.eager_step import EagerJob
from orchestrator.core.costs.estimate import Interval
from orchestrator.core.costs.fitting import Compared, mean_errors
from orchestrator.core.costs.inference_prediction import predict_inference
from orchestrator.core.costs.predict import CostModel, OutOfCoverage, predict_training
from orchestrator.core.costs.training_step import TrainingJob

STEP, RATE, FIRST = "step_s", "tokens_per_s", "first_token_s"
# What a measured figure is predicted as: of training, of inference.
PREDICTED_AS = {
    STEP: ("step_time_p50", "decode_step_s"),
    RATE: ("tokens_per_s", "tokens_per_s"),
    FIRST: ("", "prompts_done_s"),
    "peak_bytes": ("peak_memory_bytes", "peak_memory_bytes"),
    "watts": ("watts", "watts"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFigure(Compared):
    """A measured figure beside what the model and the bare roofline say of it."""

    label: str
    figure: str
    roofline: float | None

    @property
    def roofline_error(self) -> float | None:
        """Roofline by measured - 1."""
        return None if self.roofline is None else self.roofline / self.measured - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of one figure over all points: mean absolute percentage error, bias and worst error as
    fractions, the share inside of the intervals; the roofline's error where it says anything.
    """

    figure: str
    points: int
    mape: float
    bias: float
    worst: float
    inside: float
    roofline_mape: float | None


def check_points(observations: Iterable[Observation], model: CostModel) -> Iterator[CheckedFigure]:
    """Every figure of each observation that the model predicts; none beyond its coverage."""
    for each in observations:
        try:
            predicted, bare = _predicted(each, model)
        except OutOfCoverage:
            continue
        place = 0 if isinstance(each.job, TrainingJob) else 1
        for name, measured in each.figures.items():
            key = PREDICTED_AS.get(name, ("", ""))[place]
            if key:
                yield CheckedFigure(
                    label=each.label,
                    figure=f"{EAGER} {name}" if each.kind == EAGER else name,
                    measured=measured,
                    predicted=predicted[key],
                    roofline=bare.get(name),
                )


def _predicted(
    observation: Observation, model: CostModel
) -> tuple[Mapping[str, Interval], Mapping[str, float]]:
    """By the model, and by the bare roofline."""
    job, device = observation.job, model.device
    if isinstance(job, TrainingJob):
        step = training_step.roofline_s(job, device, observation.fabric)
        figures = predict_training(job, observation.fabric, model).figures
        return figures, {STEP: step, RATE: job.tokens_per_step / step}
    step = inference_step.roofline_s(job, device)
    first = inference_step.prefill_roofline_s(job, device)
    rate = job.replicas * job.rows * job.answer / (first + step * max(1, job.answer - 1))
    if isinstance(job, EagerJob):
        figures = predict_eager(job, observation.fabric, model).figures
    else:
        figures = predict_inference(job, observation.fabric, model).figures
    return figures, {STEP: step, FIRST: first, RATE: rate}


def scores(checks: Sequence[CheckedFigure]) -> Iterator[Score]:
    """A score a figure, in the order in which figures come first."""
    for figure in dict.fromkeys(check.figure for check in checks):
        own = [check for check in checks if check.figure == figure]
        bare = [abs(e) for e in (check.roofline_error for check in own) if e is not None]
        yield Score(
            figure=figure,
            points=len(own),
            worst=max((check.error for check in own), key=abs),
            roofline_mape=fmean(bare) if bare else None,
            **mean_errors([(check.error, check.inside) for check in own])._asdict(),
        )
