"""What inference will take on a machine; apart, since plans predict training alone."""

from __future__ import annotations

from orchestrator.core.costs import inference_step
from orchestrator.core.costs.estimate import estimate, joined
from orchestrator.core.costs.hardware import FabricHardware
from orchestrator.core.costs.inference_step import InferenceJob
from orchestrator.core.costs.predict import (
    GPUS,
    UNITS,
    CostModel,
    Features,
    Prediction,
    per_joule,
    require_coverage,
)


def inference_features(job: InferenceJob) -> Features:
    """What the coverage of inference is measured by."""
    return {
        "hidden width": job.shape.hidden,
        "requests at once": job.rows,
        "prompt tokens": job.prompt,
        GPUS: job.gpus,
    }


def predict_inference(job: InferenceJob, fabric: FabricHardware, model: CostModel) -> Prediction:
    """All ``rows`` requests of each replica at once: time to the last first token, of a decode
    step, output tokens/s of all GPUs, peak bytes, watts of a GPU. Raises :class:`OutOfCoverage`.
    """
    require_coverage(model, "inference", inference_features(job))
    device, families = model.device, model.families
    step = estimate(
        families["decode.step"], tuple(inference_step.decode_terms(job, device, fabric))
    )
    first = estimate(families["prefill"], tuple(inference_step.prefill_terms(job, device, fabric)))
    peak = estimate(families["inference.memory"], tuple(inference_step.memory_terms(job)))
    draw = tuple(inference_step.power_terms(job, device, step.value, first.value))
    watts = estimate(families["inference.power"], draw, device.power_w)
    whole = joined((first, step.scaled(max(1, job.answer - 1))))
    rate = whole.inverted(job.replicas * job.rows * job.answer)
    figures = {
        "decode_step_s": step,
        "prompts_done_s": first,
        "tokens_per_s": rate,
        "peak_memory_bytes": peak,
        "watts": watts,
        "tokens_per_joule": per_joule(rate, watts, job.gpus),
    }
    return Prediction(figures=figures, units=UNITS, basis=model.basis)
