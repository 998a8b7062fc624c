"""What a forward pass of transformers will take on a machine."""

from __future__ import annotations

from orchestrator.core.costs.eager import eager_step
from orchestrator.core.costs.eager.eager_step import EagerJob
from orchestrator.core.costs.estimate import Interval, depending, estimate, joined
from orchestrator.core.costs.hardware import FabricHardware
from orchestrator.core.costs.inference_prediction import inference_features
from orchestrator.core.costs.predict import CostModel, Prediction, require_coverage

GIB = 2**30


def predict_eager(job: EagerJob, fabric: FabricHardware, model: CostModel) -> Prediction:
    """All rows at once: seconds of the prompts and of a decode step, tokens/s of all GPUs in both
    and together, peak bytes and watts of a GPU. Raises :class:`OutOfCoverage`.
    """
    require_coverage(model, "eager", inference_features(job))
    device, families = model.device, model.families
    step = estimate(families["eager.decode"], tuple(eager_step.decode_terms(job, device, fabric)))
    first = estimate(
        families["eager.prefill"], tuple(eager_step.prefill_terms(job, device, fabric))
    )
    peak = estimate(families["eager.memory"], tuple(eager_step.memory_terms(job)))

    def drawn(step_s: float) -> Interval:
        terms = tuple(eager_step.power_terms(job, device, step_s, first.value))
        return estimate(families["eager.power"], terms, device.power_w)

    whole = joined((first, step.scaled(max(1, job.answer - 1))))
    rows = job.replicas * job.rows
    figures = {
        "decode_step_s": step,
        "prompts_done_s": first,
        "prefill_tokens_per_s": first.inverted(rows * job.prompt),
        "decode_tokens_per_s": step.inverted(rows),
        "tokens_per_s": whole.inverted(rows * job.answer),
        "peak_memory_bytes": peak,
        "watts": depending(step, drawn),
    }
    return Prediction(figures=figures, units=UNITS, basis=model.basis)


UNITS = {
    "decode_step_s": "s",
    "prompts_done_s": "s",
    "prefill_tokens_per_s": "tok/s",
    "decode_tokens_per_s": "tok/s",
    "tokens_per_s": "tok/s",
    "peak_memory_bytes": "bytes",
    "watts": "W",
}
